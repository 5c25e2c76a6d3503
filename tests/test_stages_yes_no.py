"""What counts as yes and no, and with which probability."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.yes_no import read


def told(**probabilities: float) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": math.log(p)} for token, p in probabilities.items()]


def test_all_spellings_are_summed_and_the_rest_is_left_over() -> None:
    spelt = {"Yes": 0.3, " yes": 0.2, "YES": 0.05, "ĠYes": 0.05, '"Yes': 0.1, "▁no": 0.1, "**No": 0.05, "Maybe": 0.05}
    reading = read("Yes.", [{"token": token, "logprob": math.log(p)} for token, p in spelt.items()])
    assert (reading.outcome, reading.evidence) == ("yes", "logprobs")
    assert reading.p_yes == pytest.approx(0.7)
    assert reading.p_no == pytest.approx(0.15)
    assert reading.leftover == pytest.approx(0.15)
    assert reading.score == pytest.approx(0.7 / 0.85)


@pytest.mark.parametrize("token", ["yesterday", "Not", "None", "nothing", "know", "y", "n", "", "…", "yes no"])
def test_other_words_are_neither(token: str) -> None:
    reading = read("?", [{"token": token, "logprob": -0.1}, {"token": "no", "logprob": -5.0}])
    assert reading.p_yes == 0
    assert reading.p_no == pytest.approx(math.exp(-5))
    assert reading.outcome == "no"


def test_the_probabilities_decide_not_the_text() -> None:
    reading = read("Yes", told(Yes=0.3, no=0.2, No=0.2))
    assert reading.outcome == "no"
    assert reading.score == pytest.approx(0.3 / 0.7)


def test_neither_among_the_likeliest_is_unclear() -> None:
    reading = read("The", told(The=0.9, This=0.05))
    assert (reading.outcome, reading.score, reading.leftover) == ("unclear", None, 1)


def test_a_tie_is_unclear() -> None:
    assert read("Yes", told(Yes=0.25, No=0.25)).outcome == "unclear"


@pytest.mark.parametrize("logprob", [None, math.nan])
def test_without_a_number_the_text_counts(logprob: float | None) -> None:
    reading = read(" **No**, it is a dog.", [{"token": "No", "logprob": logprob}])
    assert reading.score == 0
    assert reading == ("no", "text", None, None, None)


def test_tokens_without_a_number_are_passed_over() -> None:
    reading = read("Yes", [{"token": "Yes", "logprob": math.nan}, *told(No=0.2)])
    assert (reading.evidence, reading.p_yes) == ("logprobs", 0)
    assert reading.p_no == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("YES, it is.", "yes"),
        ("The answer is no.", "no"),
        ("No", "no"),
        ("Yes and no.", "unclear"),
        ("I cannot tell.", "unclear"),
        ("", "unclear"),
        (None, "unclear"),
        ("Noah's yesterday", "unclear"),
        ("maybe " * 100 + "yes", "unclear"),
    ],
)
def test_the_text_alone(text: str | None, outcome: str) -> None:
    reading = read(text, None)
    assert (reading.outcome, reading.evidence) == (outcome, "text")
    assert reading.score == {"yes": 1, "no": 0, "unclear": None}[outcome]


@given(
    st.lists(st.tuples(st.sampled_from(["yes", "Yes", "no", " No", "x", ""]), st.none() | st.floats()), max_size=20),
    st.text(max_size=20),
)
def test_whatever_is_told_is_a_probability(tokens: list[tuple[str, float | None]], text: str) -> None:
    reading = read(text, [{"token": token, "logprob": value} for token, value in tokens])
    if reading.evidence == "logprobs":
        parts = (reading.p_yes, reading.p_no, reading.leftover)
        assert all(part is not None and 0 <= part <= 1 for part in parts)
        assert sum(part or 0 for part in parts) == pytest.approx(1)
    assert reading.score is None or 0 <= reading.score <= 1
