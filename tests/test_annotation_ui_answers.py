"""What an answer means, and which are none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_ui.answers import Refused, latest, verdicts

PAGE = {"data": {"wrong": [{"value": uid} for uid in "abcd"]}}
SINGLE = {"data": {"uid": "a", "picture": "<img>"}}


def chosen(name: str, *choices: Any, **other: Any) -> dict[str, Any]:
    return {"from_name": name, "to_name": "page", "type": "choices", "value": {"choices": list(choices)}} | other


def answer(*result: Any, **other: Any) -> dict[str, Any]:
    return {"id": 1, "was_cancelled": False, "result": list(result)} | other


def test_a_submitted_page_without_marks_keeps_all() -> None:
    assert verdicts(PAGE, answer()) == {"a": "keep", "b": "keep", "c": "keep", "d": "keep"}


def test_marks() -> None:
    given = answer(chosen("wrong", "a", "d"), chosen("private", "b"), chosen("unsure", "c"))
    assert verdicts(PAGE, given) == {"a": "delete", "b": "private", "c": "unsure", "d": "delete"}


def test_the_strongest_of_several_marks_counts() -> None:
    given = answer(chosen("unsure", "a", "b", "c"), chosen("wrong", "b", "c"), chosen("private", "c"))
    assert verdicts(PAGE, given) == {"a": "unsure", "b": "delete", "c": "private", "d": "keep"}


def test_a_skipped_page_says_nothing() -> None:
    assert verdicts(PAGE, answer(chosen("wrong", "a"), was_cancelled=True)) == {}


@pytest.mark.parametrize("verdict", ["keep", "delete", "private", "unsure"])
def test_a_single_verdict(verdict: str) -> None:
    assert verdicts(SINGLE, answer(chosen("verdict", verdict))) == {"a": verdict}
    assert verdicts(SINGLE, answer(chosen("clean", "without the mark"), chosen("verdict", verdict))) == {"a": verdict}


@pytest.mark.parametrize(
    ("task", "given", "reason"),
    [
        (PAGE, answer(chosen("wrong", "e")), "list 'wrong': 'e' is not on this page"),
        (PAGE, answer(chosen("wrong", "a"), chosen("other", "a")), "list 'other': not of this screen"),
        (PAGE, answer(chosen("verdict", "keep")), "list 'verdict': not of this screen"),
        (PAGE, answer(chosen("wrong", "a"), chosen("wrong", "b")), "list 'wrong': there twice, or not of our screens"),
        (PAGE, answer(chosen("wrong", "a", to_name="x")), "list 'wrong': there twice, or not of our screens"),
        (PAGE, answer(chosen("wrong", "a", type="labels")), "list 'wrong': there twice, or not of our screens"),
        (PAGE, answer(chosen("wrong", "a", "a")), "list 'wrong': its choices are no texts, or one is there twice"),
        (PAGE, answer(chosen("wrong", ["a"])), "list 'wrong': its choices are no texts, or one is there twice"),
        (PAGE, answer(chosen("wrong", value={"choices": "a"})), "choices: list expected, 'a' found"),
        (PAGE, answer(chosen("wrong", value=None)), "value: dict expected, None found"),
        (PAGE, answer("wrong"), "from_name: str expected, None found"),
        (PAGE, answer(result=None), "result: list expected, None found"),
        (PAGE, {"result": []}, "was_cancelled: bool expected, None found"),
        ({"data": {"wrong": []}}, answer(), "the page's own list of uids is empty, or has one twice"),
        ({"data": {"wrong": [{"value": "a"}] * 2}}, answer(), "the page's own list of uids is empty, or has one twice"),
        ({"data": {"wrong": ["a"]}}, answer(), "value: str expected, None found"),
        ({"data": {}}, answer(), "wrong: list expected, None found"),
        ({}, answer(), "data: dict expected, None found"),
        (SINGLE, answer(), "one verdict expected, 0 found"),
        (SINGLE, answer(chosen("verdict", "keep", "delete")), "one verdict expected, 2 found"),
        (SINGLE, answer(chosen("verdict", "maybe")), "list 'verdict': 'maybe' is not on this page"),
        (SINGLE, answer(chosen("wrong", "a")), "list 'wrong': not of this screen"),
        ({"data": {"picture": ""}}, answer(chosen("verdict", "keep")), "uid: str expected, None found"),
    ],
)
def test_an_answer_that_is_none(task: dict[str, Any], given: dict[str, Any], reason: str) -> None:
    assert verdicts(task, given) == Refused(reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "choices", "uid"]), inner),
    max_leaves=5,
)
PARTS = JSON | st.fixed_dictionaries(
    {
        "from_name": st.sampled_from(["wrong", "private", "verdict", "clean"]) | JSON,
        "to_name": st.just("page") | JSON,
        "type": st.just("choices") | JSON,
        "value": st.fixed_dictionaries({"choices": st.lists(st.sampled_from(["a", "b", "keep"]) | JSON)}) | JSON,
    }
)


@given(
    st.sampled_from([PAGE, SINGLE]) | st.fixed_dictionaries({"data": JSON}) | JSON,
    st.fixed_dictionaries({"was_cancelled": st.just(False) | JSON, "result": st.lists(PARTS, max_size=3) | JSON})
    | JSON,
)
def test_whatever_was_answered_is_a_verdict_on_every_uid_or_none(task: Any, answered: Any) -> None:
    found = verdicts(task, answered)
    if isinstance(found, Refused):
        assert 0 < len(found.reason) < 300
    elif found and task == PAGE:
        assert found.keys() == set("abcd")


def test_each_annotators_last_answer_counts() -> None:
    def by(person: int, number: int, changed: str, cancelled: bool = False) -> dict[str, Any]:
        return {"id": number, "completed_by": person, "updated_at": changed, "was_cancelled": cancelled}

    first = by(1, 1, "2026-11-24T10:00:00Z")
    changed = by(2, 2, "2026-11-24T10:00:00.500000Z")  # later than the next, though it sorts before as a text
    before = by(2, 3, "2026-11-24T10:00:00Z")
    same_time = by(1, 4, "2026-11-24T10:00:00Z")
    skipped = by(3, 5, "2026-11-24T12:00:00Z", cancelled=True)
    assert latest({"annotations": [changed, first, skipped, same_time, before]}) == [same_time, changed]
    assert latest({"annotations": []}) == []
