"""Several opinions, one category: every rule by hand, then the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import build as build_masks
from sa1b_shards import rows, write_shard

from pipeline import categories, tables
from pipeline.categories import Accepted
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import frequency_report, pair_accuracy, pair_gallery, pairing
from stages.funnel import levels
from stages.pairing import Compared, Comparer, Opinion, PairsConfig, decide

HEADER = ",".join(categories.COLUMNS)


def opinion(namer: str, name: str, score: float | None = None, iou: float | None = None) -> Opinion:
    return Opinion(namer, name, name, None, score, iou, "openai", 1)


def compare(one: str, other: str) -> Compared:
    """Same when equal; "a big" related to "big"; "x1" and "x2" synonyms; else different."""
    if one == other:
        return Compared("same", 1.0)
    if one.endswith(f" {other}") or other.endswith(f" {one}"):
        return Compared("related", 0.7)
    return Compared("synonym", 0.8) if one[0] == other[0] == "x" else Compared("different", 0.1)


VLM, STRONG, WEAK = ("vlm", None, None), ("grounded-sam", 0.6, 0.9), ("grounded-sam", 0.3, 0.9)
OTHER = ("wow-seg", None, None)


@pytest.mark.parametrize(
    ("said", "agreement", "rule", "verdict"),
    [
        ([(VLM, "dog")], "only-one", "only_one", "keep"),
        ([(STRONG, "dog")], "only-one", "only_detector_strong", "flag"),
        ([(WEAK, "dog")], "only-one", "only_detector_weak", "drop"),
        ([(("grounded-sam", 0.6, 0.7), "dog")], "only-one", "only_detector_weak", "drop"),  # the mask fits badly
        ([(VLM, "dog"), (WEAK, "dog")], "same", "same", "keep"),
        ([(VLM, "x1"), (WEAK, "x2")], "synonym", "synonym", "keep"),
        ([(VLM, "wine glass"), (STRONG, "glass")], "related", "related", "keep"),
        ([(VLM, "dog"), (STRONG, "cat")], "different", "different_strong", "flag"),
        ([(VLM, "dog"), (WEAK, "cat")], "different", "different_weak", "keep"),
        ([(VLM, "dog"), (OTHER, "cat")], "different", "different_weak", "keep"),
        ([(VLM, "dog"), (STRONG, "cat"), (OTHER, "dog")], "same", "same", "keep"),  # the closest counts
        ([(VLM, "x1"), (OTHER, "cat"), (STRONG, "x2")], "synonym", "synonym", "keep"),
    ],
)
def test_every_rule(said: list[tuple[Any, str]], agreement: str, rule: str, verdict: str) -> None:
    opinions = [opinion(namer, name, score, iou) for (namer, score, iou), name in said]
    decision = decide(opinions, PairsConfig(), compare)
    assert (decision.agreement, decision.rule, decision.verdict) == (agreement, rule, verdict)


def test_the_configuration_decides() -> None:
    strict = PairsConfig(different_weak="drop", only_one="flag", strong_score=0.2)
    assert decide([opinion(*VLM[:1], "dog")], strict, compare).verdict == "flag"
    differ = [opinion("vlm", "dog"), opinion("grounded-sam", "cat", 0.3, 0.9)]
    assert decide(differ, strict, compare).rule == "different_strong"


NAMES = st.sampled_from(["dog", "cat", "big dog", "x1", "x2"])


@given(NAMES, st.lists(st.tuples(st.sampled_from(["grounded-sam", "a", "b"]), NAMES), max_size=4), st.randoms())
def test_the_order_of_the_others_does_not_matter(first: str, others: list[tuple[str, str]], random: Any) -> None:
    opinions = [opinion(namer, name, 0.5, 0.85) for namer, name in others]
    shuffled = random.sample(opinions, len(opinions))
    decided = [decide([opinion("vlm", first), *rest], PairsConfig(), compare) for rest in (opinions, shuffled)]
    assert decided[0] == decided[1]


# --- comparing ---


def test_names_are_compared_by_table_then_by_their_last_words() -> None:
    known = {"couch": [Accepted("sofa", "alias")], "gull": [Accepted("bird", "hypernym")]}
    compared = Comparer(known, None)
    assert compared("dog", "dog") == Compared("same", 1.0)
    assert {compared(*pair).agreement for pair in (("couch", "sofa"), ("sofa", "couch"))} == {"synonym"}
    assert compared("bird", "gull").agreement == "related"
    assert compared("wine glass", "glass").agreement == "related"
    assert compared("eyeglass", "glass").agreement == "different"  # no word of its own
    far = compared("couch", "airplane")
    assert far.agreement == "different"
    assert far.similarity is not None
    assert far.similarity < compared("couch", "sofa").similarity  # type: ignore[operator]


# --- the table ---


def name_rows(run: Run, step: str, said: Mapping[int, tuple[str | None, float | None, float | None]]) -> None:
    """Commit names of some masks as a step would; (name, score, IoU)."""
    every = {"engine": "openai", "model": "m", "revision": "", "layout": "crop", "prompt": "p", "fingerprint": 7}
    found = [
        {
            **every,
            "mask_id": mask_id,
            "image_id": mask_id // 100,
            "namer": step.removeprefix("names-"),
            "outcome": "named" if name else "abstained",
            "category": name,
            "raw": name or "",
            "logprob": None if score is not None else -0.5,
            "score": score,
            "iou": iou,
        }
        for mask_id, (name, score, iou) in said.items()
    ]
    with run.part(step, "names", "0") as part:
        part.write(tables.from_rows("names", found))
    run.commit(step, "0", {"names": part}, fingerprint="f", counts={}, facts={})


@pytest.fixture
def named(run: Run, tmp_path: Path) -> Run:
    """Six masks of two images, three of them looked at by a model and by a detector."""
    build_masks(run, write_shard(tmp_path, 0, 2))  # masks 100 to 102 and 200 to 202
    vlm = {100: ("dogs", None, None), 101: ("a seedpod", None, None), 200: (None, None, None)}
    name_rows(run, "names-vlm", vlm)
    detector = {100: ("dog", 0.5, 0.9), 101: ("leaf", 0.5, 0.9), 200: ("gull", 0.3, 0.5)}
    name_rows(run, "names-grounded-sam", detector)
    return run


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    path = tmp_path / "categories.csv"
    path.write_text(f"{HEADER}\nseedpod,seed pod,spelling,me,2026-11-24\n")
    return path


def test_pairs_hold_both_opinions_and_the_rule(named: Run, reviewed: Path) -> None:
    ids = sorted(row["mask_id"] for row in rows(named, "masks"))
    assert ids == [100, 101, 102, 200, 201, 202]
    made = pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    assert (made.pairs, dict(made.dropped), made.rewritten) == (2, {"only_detector_weak": 1}, True)
    same, differ = rows(named, "pairs")
    assert (same["category"], same["agreement"], same["flagged"]) == ("dog", "same", False)
    assert (same["namers"], same["raw_names"]) == (["vlm", "grounded-sam"], ["dogs", "dog"])
    assert same["confidence"] == pytest.approx(0.6065, abs=1e-4)  # e^-0.5
    assert (same["score"], same["iou"]) == (0.5, 0.9)
    assert (differ["category"], differ["names"]) == ("seed pod", ["seed pod", "leaf"])
    assert (differ["rule"], differ["flagged"]) == ("different_strong", True)


def test_the_funnel_adds_up_and_knows_when_pairs_are_old(named: Run, reviewed: Path, tmp_path: Path) -> None:
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    level = levels(named)[-1]
    assert (level.name, level.total, level.kept, level.pending, level.difference) == ("pairs", 6, 2, 3, 0)
    assert level.dropped == {"only_detector_weak": 1}
    name_rows(named, "names-other", {202: ("tree", None, None)})
    old = levels(named)[-1]
    assert (old.kept, old.pending, old.difference) == (0, 6, 0)
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    assert levels(named)[-1].kept == 3
    assert {row["category"] for row in rows(named, "pairs")} == {"dog", "seed pod", "tree"}


def test_nothing_is_rewritten_until_something_changes(named: Run, reviewed: Path) -> None:
    def again(**rules: Any) -> bool:
        return pairing.build(named, PairsConfig(table=str(reviewed), **rules), lambda _: None).rewritten

    assert [again(), again()] == [True, False]
    assert [again(different_strong="drop"), again()] == [True, False]  # what is not named stays as the run has it
    assert [row["category"] for row in rows(named, "pairs")] == ["dog"]
    again(different_strong="flag")
    reviewed.write_text(f"{HEADER}\nseedpod,pod,taste,me,2026-11-24\n")
    assert [again(), again()] == [True, False]
    assert [row["category"] for row in rows(named, "pairs")] == ["dog", "pod"]


def test_several_passes_give_the_same_rows(named: Run, reviewed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    whole = rows(named, "pairs")
    named.forget(pairing.STEP, pairing.STEP)
    monkeypatch.setattr(pairing, "_ROWS", 2)
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    assert rows(named, "pairs") == whole


def test_a_broken_category_table_changes_nothing(named: Run, reviewed: Path) -> None:
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    reviewed.write_text(f"{HEADER}\na pod,pod,x,me,2026-11-24\npod,a pod,x,me,2026-11-24\n")
    with pytest.raises(UsageError, match="line 2"):
        pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    assert levels(named)[-1].kept == 2


# --- looking at them ---


def test_the_long_tail_in_numbers(named: Run, reviewed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pairs yet"):
        frequency_report.gather(named)
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    report = frequency_report.gather(named)
    assert report.counts == {"dog": 1, "seed pod": 1}
    assert (report.pairs, report.once(), report.half(), report.flagged) == (2, 2, 1, 1)
    assert len(frequency_report.draw(report)) > 10_000


def test_the_page_shows_both_opinions(named: Run, reviewed: Path) -> None:
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    page = pair_gallery.write(named, 500, 0)
    assert (page.shown, page.total) == (2, 2)
    text = Path(page.path).read_text()
    for said in ("a seedpod → seed pod", "leaf", "people see it first", "different_strong"):
        assert said in text


def test_accuracy_by_agreement(named: Run, reviewed: Path) -> None:
    pairing.build(named, PairsConfig(table=str(reviewed)), lambda _: None)
    assert pair_accuracy.measure(named, {}) == []
    found = {b.agreement: b for b in pair_accuracy.measure(named, {100: "Dogs", 101: "leaf", 7: "x"})}
    right = {name: (b.pairs, b.right) for name, b in found.items()}
    assert right == {"same": (1, 1.0), "different": (1, 0.0), "all": (2, 0.5)}
    assert found["same"].similarity == pytest.approx(1.0, abs=1e-5)
