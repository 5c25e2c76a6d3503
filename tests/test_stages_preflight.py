"""An engine that does not look at its pictures is found before anything is asked; one that does is let through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from stages.engines.base import ANSWERS, PROMPTS, Answer, EngineConfig, answered, askable
from stages.preflight import Preflight, of_names
from stages.region_prompts import LayoutName, RegionPrompt

LAYOUTS: list[LayoutName] = ["shared+crop", "overlay", "crop", "marks", "cutout"]
QWEN = EngineConfig(kind="transformers", model="qwen")
SEEING = [Answer("unknown", -3.5), Answer("cat", -0.25), Answer("cup", -0.5)]


def preflight(layout: LayoutName = "shared+crop", engine: EngineConfig = QWEN) -> Preflight:
    return of_names("What are these {count} regions?", RegionPrompt(layout=layout), engine)


def judged(answers: Sequence[Answer], mode: Literal["refuse", "warn"] = "refuse") -> tuple[Preflight, list[str]]:
    """Answer the three prompts like this and conclude; returns what was said as well."""
    test, said = preflight(), list[str]()
    test.take_own(answered(test.prompts, answers))
    test.judge(mode, said.append)
    return test, said


def of_masks(*mask_ids: int) -> pa.Table:
    """Answers about masks."""
    rows = [{"prompt_id": number, "image_id": 5, "shard": "a", "subjects": [number]} for number in mask_ids]
    prompts = pa.Table.from_pylist([{**row, "parts": []} for row in rows], PROMPTS)
    return answered(prompts, [Answer(f"name {number}", -1.0) for number in mask_ids])


# --- what is asked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_prompts_that_differ_in_their_pictures_only(layout: LayoutName) -> None:
    prompts = preflight(layout).prompts
    assert prompts.schema == PROMPTS
    assert max(prompts["prompt_id"].to_pylist()) < 0  # no mask has such an id
    parts = askable(prompts)
    texts = {tuple(part for part in prompt if isinstance(part, str)) for prompt in parts}
    pictures = {tuple(part for part in prompt if isinstance(part, bytes)) for prompt in parts}
    assert (len(texts), len(pictures)) == (1, 3)
    assert len({tuple(type(part) for part in prompt) for prompt in parts}) == 1
    assert texts == {(f"What are these {'1' if layout == 'marks' else '{count}'} regions?",)}


def test_its_tokens_are_counted_like_those_of_masks() -> None:
    prompts = preflight("overlay").prompts
    assert prompts["image_tokens"].to_pylist() == [16 * 11, 16 * 11, 21 * 14]  # 451×300 twice, and 600×400
    assert prompts["shared_tokens"].to_pylist() == [0, 0, 0]
    assert preflight("cutout", EngineConfig()).prompts["image_tokens"].to_pylist() == [0, 0, 0]


# --- the verdict ------------------------------------------------------------------------------------------


def test_an_engine_that_sees_passes_and_its_answers_are_told() -> None:
    test, said = judged(SEEING)
    assert test.passed
    assert said == ["preflight: a blank picture: 'unknown'; a cat: 'cat'; a cup of coffee: 'cup'"]


@pytest.mark.parametrize("answer", [Answer("a cat", -1.5), Answer("a cat"), Answer("")], ids=str)
def test_one_answer_to_everything_is_refused(answer: Answer) -> None:
    with pytest.raises(UserError, match=r"(?s)same answer whatever it is shown.*names\.preflight = warn"):
        judged([answer] * 3)


def test_or_warned_about() -> None:
    test, said = judged([Answer("a cat", -1.5)] * 3, mode="warn")
    assert test.passed
    assert [line.partition(":")[0] for line in said] == ["preflight", "warning"]
    assert "it does not see the pictures" in said[1]


@pytest.mark.parametrize(
    "answers",
    [
        [Answer("unknown", -1.5), Answer("unknown", -1.5), Answer("unknown", -1.25)],  # the blank one is like the cat
        [Answer("unknown", -1.5), Answer("unknown", -1.25), Answer("unknown", -1.0)],
        [Answer("unknown"), Answer("unknown"), Answer("cup")],  # no log probabilities
    ],
    ids=["one logprob", "every logprob", "one text"],
)
def test_any_difference_is_sight(answers: list[Answer]) -> None:
    test, said = judged(answers)
    assert test.passed
    assert not any("warning" in line for line in said)


@pytest.mark.parametrize("mode", ["refuse", "warn"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_is_raised_with_its_text(place: int, mode: Literal["refuse", "warn"]) -> None:
    answers = [Answer(error="503 the model is on holiday") if k == place else SEEING[k] for k in range(3)]
    with pytest.raises(UserError, match=r"(?s)does not work: 503 the model is on holiday.*Nothing was asked"):
        judged(answers, mode)


def test_missing_log_probabilities_are_said() -> None:
    missing = "the engine tells no log probabilities: the column logprob stays empty"
    assert judged([Answer("unknown"), Answer("cat"), Answer("cup")])[1][-1] == missing
    assert missing not in judged([Answer("unknown"), Answer("cat", -1.0), Answer("cup")])[1]


def test_it_concludes_once() -> None:
    test, _ = judged(SEEING)
    said: list[str] = []
    test.judge("refuse", said.append)
    assert said == []


# --- its answers among others -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_answers_of_masks_pass_untouched_whatever_the_order(order: tuple[int, ...]) -> None:
    test, masks = preflight(), of_masks(7, 0, 9)
    own = answered(test.prompts, SEEING)
    mixed = [pa.concat_tables([masks.slice(k, 1), own.slice(place, 1)]) for k, place in enumerate(order)]
    passed = []
    for table in mixed:
        assert not test.complete
        passed.append(test.take_own(table))
    assert test.complete
    assert pa.concat_tables(passed) == masks
    assert passed[0].schema == ANSWERS
    said: list[str] = []
    test.judge("refuse", said.append)
    assert said == ["preflight: a blank picture: 'unknown'; a cat: 'cat'; a cup of coffee: 'cup'"]


def test_an_answer_that_comes_twice_counts_once() -> None:
    test = preflight()
    own = answered(test.prompts, SEEING)
    test.take_own(pa.concat_tables([own.slice(0, 1)] * 3))
    assert not test.complete
    assert test.take_own(of_masks()).num_rows == 0
    test.take_own(own)
    assert test.complete


# --- answers about masks, which come among its own ---------------------------------------------------------


def test_answers_about_masks_wait_for_the_preflight() -> None:
    test = preflight()
    tables = iter([of_masks(1, 2), answered(test.prompts, SEEING), of_masks(3)])
    passed = [row["prompt_id"] for table in test.passed_on(tables, "refuse", print) for row in table.to_pylist()]
    assert (passed, test.passed) == ([1, 2, 3], True)


def hung(*tables: pa.Table) -> Iterator[pa.Table]:
    yield from tables
    raise UserError("hung. What was answered is kept.")


def test_what_came_before_the_engine_was_proven_is_said_to_be_lost() -> None:
    with pytest.raises(
        UserError, match=r"kept\.\nNot kept: 3 answers from before the engine had shown that it works\."
    ):
        list(preflight().passed_on(hung(of_masks(1, 2), of_masks(3)), "refuse", print))


def test_nothing_is_lost_once_it_was() -> None:
    test = preflight()
    with pytest.raises(UserError, match=r"hung. What was answered is kept\.$"):
        list(test.passed_on(hung(of_masks(1), answered(test.prompts, SEEING)), "refuse", print))
