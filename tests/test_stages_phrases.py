"""What the detector is asked to find: lists that models write, and where each phrase is from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labels import normalise
from stages.phrases import listed, merged


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", []),
        ("unknown", []),
        ("dog, cat, traffic light", ["dog", "cat", "traffic light"]),
        ("Dog, a cat; the Traffic light.", ["dog", "cat", "traffic light"]),
        ("- dog\n- cat\n- dog\n", ["dog", "cat"]),
        ("1. dog\n2) tea kettle\n", ["dog", "tea kettle"]),
        ('["dog", "cat"]', ["dog", "cat"]),
        ("<think>dog, cow</think>cat", ["cat"]),
        ("st. bernard, 7-up bottle", ["st. bernard", "7-up bottle"]),
        ("猫、犬", ["猫", "犬"]),
        ("dog, I can see that it is a very nice picture of a garden, cat", ["dog", "cat"]),  # a sentence is no name
        ("<script>alert(1)</script>, cat", ["cat"]),
    ],
)
def test_lists_as_models_write_them(raw: str, expected: list[str]) -> None:
    assert listed(raw) == expected


def test_five_hundred_names() -> None:
    names = [f"thing number {n} a" for n in range(500)]
    assert len(listed(", ".join(names))) == 500


@given(st.text(max_size=300))
def test_any_text_gives_distinct_normal_names(raw: str) -> None:
    names = listed(raw)
    assert len(set(names)) == len(names)
    assert all(name and normalise(name) == name for name in names)


def test_every_phrase_has_its_source() -> None:
    assert merged(["dog", "cat"], ["cat", "tree"]) == {"dog": "image", "cat": "both", "tree": "names"}
    assert merged([], []) == {}
