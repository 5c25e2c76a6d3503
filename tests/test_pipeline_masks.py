"""Run lengths are summed without decoding; the reference is pycocotools and plain counting."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from pipeline import masks

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(st.lists(hnp.arrays(np.bool_, shapes), min_size=1, max_size=8))
def test_sums_equal_the_decoded_pixels(pixels: list[np.ndarray]) -> None:
    sums = masks.run_sums(pa.array([masks.encode(p) for p in pixels]))
    assert sums.area.tolist() == [int(p.sum()) for p in pixels]
    assert sums.total.tolist() == [p.size for p in pixels]
    assert not sums.malformed.any()


@given(hnp.arrays(np.bool_, shapes))
def test_decoding_gives_back_what_was_encoded(pixels: np.ndarray) -> None:
    assert (masks.decode(masks.encode(pixels), *pixels.shape) == pixels).all()


def test_long_runs_at_the_size_of_sa_1b() -> None:
    pixels = np.zeros((1500, 2250), np.bool_)
    pixels[700:900, 1000:1900] = True
    sums = masks.run_sums(pa.array([masks.encode(pixels)]))
    assert (sums.area[0], sums.total[0]) == (180_000, 3_375_000)


@pytest.mark.parametrize(
    ("counts", "malformed"),
    [
        ("", True),  # no run at all
        ("o", True),  # a run that never ends
        ("5o", True),  # a sound run, then one that never ends
        ("5\x19", True),  # a character below the alphabet
        ("5~", True),  # a character above it
        ("5é", True),  # not even ASCII
        ("O", True),  # a first run of -1
        ("5555N", False),  # 5, 5, 5, 5 + 5, 5 - 2: the difference is negative, the run is not
        ("5552O", False),  # 5, 5, 5, 5 + 2, 5 - 1
        ("5555J", True),  # 5, 5, 5, 10, then 5 - 6
        ("oooooooooooo1", True),  # a run longer than any image
    ],
)
def test_damaged_run_lengths(counts: str, malformed: bool) -> None:
    assert masks.run_sums(pa.array([counts])).malformed.tolist() == [malformed]


def encoded(runs: list[int]) -> str:
    """Run lengths as COCO compresses them, of any size (`common/maskApi.c`, rleToString)."""
    text = ""
    for place, run in enumerate(runs):
        rest, more = run - runs[place - 2] if place > 2 else run, True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def test_a_sum_beyond_64_bits_is_no_small_one() -> None:
    runs = [2**34 * (1 + place // 2) for place in range(66_000)]  # each longer than the last by less than 2**35
    assert 2**63 < sum(runs[1::2]) < 2**64
    assert masks.run_sums(pa.array([encoded(runs)])).malformed.tolist() == [True]


@given(st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=12) | st.text(max_size=6))
def test_what_is_found_sound_pycocotools_decodes(counts: str) -> None:
    sums = masks.run_sums(pa.array([counts]))
    if not sums.malformed[0] and sums.total[0] == 6:
        assert masks.decode(counts, 2, 3).sum() == sums.area[0]
        assert (masks.decode_window(counts, 2, (0, 0, 3, 2)) == masks.decode(counts, 2, 3)).all()


def test_a_slice_of_a_column_is_read_at_its_own_place() -> None:
    column = pa.array([masks.encode(np.ones((3, k), np.bool_)) for k in (1, 2, 3)])
    assert masks.run_sums(column[1:]).area.tolist() == [6, 9]
    assert masks.run_sums(column[:0]).area.tolist() == []


def test_more_masks_than_a_byte_counts() -> None:
    # pycocotools' own area() overflows here: it counts masks in a uint8.
    column = pa.array([masks.encode(np.ones((2, 2), np.bool_))] * 300)
    assert masks.run_sums(column).area.sum() == 1200


@given(st.lists(hnp.arrays(np.bool_, (6, 7)), min_size=1, max_size=5))
def test_iou_matrix(pixels: list[np.ndarray]) -> None:
    got = masks.iou_matrix([masks.encode(p) for p in pixels], 6, 7)
    for i, a in enumerate(pixels):
        for j, b in enumerate(pixels):
            union = int((a | b).sum())
            assert got[i, j] == pytest.approx((a & b).sum() / union if union else 0.0)


def test_the_encoding_is_cocos() -> None:
    pixels = np.eye(5, dtype=np.bool_)
    assert masks.encode(pixels) == coco.encode(np.asfortranarray(pixels, np.uint8))["counts"].decode()


@given(hnp.arrays(np.bool_, shapes), st.data())
def test_a_window_equals_that_part_of_the_whole_mask(pixels: np.ndarray, data: st.DataObject) -> None:
    height, width = pixels.shape
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    window = masks.decode_window(masks.encode(pixels), height, (left, top, right, bottom))
    assert (window == pixels[top:bottom, left:right]).all()
