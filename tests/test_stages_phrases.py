"""What the detector is asked to find: lists that models write, and where each phrase is from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import build as build_masks
from sa1b_shards import write_shard
from test_stages_pairing import name_rows

from pipeline import tables
from pipeline.labels import normalise
from pipeline.run import Run
from stages.phrases import STEP, listed, merged, wanted


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


def test_an_image_that_could_not_be_asked_about_has_its_masks_names(run: Run, tmp_path: Path) -> None:
    build_masks(run, write_shard(tmp_path, 0, 2))  # masks 100 to 102 of image 1, 200 to 202 of image 2
    name_rows(run, "names-vlm", {100: ("dog", None, None), 101: ("cat", None, None), 102: (None, None, None)})
    refused = {"step": STEP, "input": "mask:100", "shard": "sa_000000", "image_id": 1, "place": "", "error": "e"}
    assert wanted(run, "names-vlm").phrases == {}  # nobody has asked yet
    with run.part(STEP, "quarantine", "0") as part:
        part.write(tables.from_rows("quarantine", [{**refused, "reason": "failed"}]))
    run.commit(STEP, "0", {"quarantine": part}, fingerprint="f", counts={}, facts={})
    assert wanted(run, "names-vlm").phrases == {1: {"cat": "names", "dog": "names"}}  # image 2 waits for its names
