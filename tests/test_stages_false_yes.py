"""How often the check says yes to wrong names, counted by hand."""

from __future__ import annotations

import pytest
from sa1b_shards import commit
from verified_runs import TEXT, Row, answer, check, pair, tail

from pipeline.errors import UsageError
from pipeline.proportions import counted
from pipeline.run import Run
from stages import false_yes
from stages.false_yes import LEAST, MEANING, measure


def controls(category: str, scores: list[float]) -> list[Row]:
    return [
        check(number, "control", category, answer(score * 0.8, (1 - score) * 0.8), "yes" if score > 0.5 else "no")
        for number, score in enumerate(scores)
    ]


def test_controls_and_pairs_at_every_threshold(run: Run) -> None:
    pairs = [pair(number, "dog", answer(score, 1 - score), "yes") for number, score in enumerate([0.4, 0.55, 0.9])]
    unclear = [check(90, "control", "cat", TEXT, "unclear"), check(91, "control", "cat", answer(0, 0), "unclear")]
    wrong = [*controls("dog", [0.1] * 18 + [0.6, 0.95]), *controls("cat", [0.2] * (LEAST - 3)), *unclear]
    commit(run, checks=[*wrong, *(row for row, _ in pairs)])
    commit(run, verdicts=[*(row for _, row in pairs), {**tail(8, "axe"), "score": 0.99}])
    half, most = measure(run, [0.5, 0.9])
    assert (half.threshold, half.controls.kept, half.controls.controls) == (0.5, 2, 39)
    assert half.controls.share == pytest.approx(2 / 39)
    assert half.controls.upper == counted(2, 39, 0.95, "upper").upper
    assert list(half.categories) == ["dog"]  # of cat there is one too few
    assert half.categories["dog"].upper == pytest.approx(0.2826, abs=5e-5)  # 2 of 20
    assert half.pairs == 3
    assert half.kept == pytest.approx(2 / 3)
    assert (most.controls.kept, most.categories["dog"].kept, most.kept) == (1, 1, 0)


def test_words_alone_are_counted(run: Run) -> None:
    said = ["yes"] * 3 + ["no"] * 16 + ["unclear"]
    commit(run, checks=[check(number, "control", "dog", TEXT, outcome) for number, outcome in enumerate(said)])
    found = measure(run)
    assert [f.threshold for f in found] == list(false_yes.THRESHOLDS)
    assert {f.controls.kept for f in found} == {3}
    assert {f.categories["dog"].share for f in found} == {0.15}
    assert {(f.pairs, f.kept) for f in found} == {(0, None)}


def test_the_worst_category_comes_first(run: Run) -> None:
    commit(run, checks=[*controls("dog", [0.1] * 20), *controls("cat", [0.9] * 20), *controls("cow", [0.1] * 40)])
    assert list(measure(run, [0.5])[0].categories) == ["cat", "dog", "cow"]


def test_without_controls_there_is_nothing_to_say(run: Run) -> None:
    commit(run, checks=[pair(1, "dog", answer(0.9, 0.1), "yes")[0]])
    with pytest.raises(UsageError, match=r"no negative control has an answer yet\. Ask some: rr7k stage-2"):
        measure(run)
    assert "nothing else: not the precision" in MEANING
