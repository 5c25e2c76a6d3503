"""The metrics' definitions, on numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.metrics import Hierarchy, Steps, cosine, macro_mean, micro_mean, semantic_iou
from pipeline.wordnet import open_wordnet

NAN = float("nan")
WORDS = st.lists(st.sampled_from(["dog", "Dog", "cat", "red", "-", ","]), max_size=4).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ("", "", 0.0),
        ("", "cat", 0.0),
        ("cat", "", 0.0),
        ("Teddy Bear", "teddy bear", 1.0),  # case
        ("dog dog", "dog", 1.0),  # a repeated word counts once
        ("fire truck", "truck", 1 / 2),
        ("person.", "person", 0.0),  # punctuation stays
        ("cat , dog", "cat", 1 / 3),  # alone it is a word
        (" cat\t\n dog ", "dog cat", 1.0),  # any white space, any order
    ],
)
def test_semantic_iou(prediction: str, truth: str, expected: float) -> None:
    assert semantic_iou(prediction, truth) == expected


def test_two_texts_without_words() -> None:
    assert semantic_iou(" ", "", both_empty=0.5) == 0.5
    with pytest.raises(ZeroDivisionError):
        semantic_iou(" ", "", both_empty=None)
    assert semantic_iou("", "cat", both_empty=None) == 0.0


@given(WORDS, WORDS)
def test_semantic_iou_is_symmetric_and_bounded(one: str, other: str) -> None:
    found = semantic_iou(one, other)
    assert 0 <= found <= 1
    assert found == semantic_iou(other, one)
    assert (found == 1) == (set(one.lower().split()) == set(other.lower().split()) != set())


def test_cosine_keeps_its_sign() -> None:
    one = np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32)
    other = np.array([[1, 0], [-1, 0], [1, 0]], np.float32)
    assert cosine(one, other) == pytest.approx([1, -1, 0.6])
    assert cosine(one[:0], other[:0]).shape == (0,)


def test_averages() -> None:
    # image A scores (1, 1, 0), image B (0): 2/4, where a mean per image would be 1/3 (wowseg_facts.md A.5)
    assert micro_mean(np.array([1.0, 1, 0, 0])) == 0.5
    assert micro_mean(np.array([1.0, NAN, 0])) == 0.5
    assert math.isnan(micro_mean(np.array([])))
    assert math.isnan(micro_mean(np.array([NAN])))
    # three of a frequent category right, the one of a rare category wrong
    assert macro_mean(np.array([1.0, 1, 1, 0]), np.array([0, 0, 0, 1])) == 0.5
    assert macro_mean(np.array([1.0, 0, NAN, NAN]), np.array([0, 0, 2, 4])) == 0.5  # 1 and 3 have no instance
    assert math.isnan(macro_mean(np.array([NAN]), np.array([0])))


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    found = open_wordnet()
    if found is None:
        pytest.skip("WordNet is not installed: make wordnet")
    return Hierarchy(found)


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        ("gull", "gull", (0, 0)),
        ("gull", "seagull", (0, 0)),
        ("gull", "larid", (1, 0)),
        ("gull", "sea bird", (3, 0)),  # larid, coastal diving bird, seabird
        ("sea bird", "gull", (0, 3)),
        ("gull", "tern", (1, 1)),  # siblings
        ("small red car", "toy car", (0, 0)),  # by their last words
        ("dog", "xyzzy", None),
        ("xyzzy", "dog", None),
        ("dog", "", None),
    ],
)
def test_steps_in_wordnet(hierarchy: Hierarchy, truth: str, prediction: str, expected: tuple[int, int] | None) -> None:
    assert hierarchy.steps(truth, prediction) == expected


def test_steps_say_what_the_prediction_is() -> None:
    steps = (Steps(0, 0), Steps(2, 0), Steps(0, 1), Steps(1, 1))
    assert [way.relation for way in steps] == ["same", "too general", "too specific", "other"]
