"""COCO run-length masks, without decoding where that can be avoided.

A mask is the string `counts` of a COCO RLE plus its size; runs go down the columns, starting with
background (pycocotools, `common/maskApi.c`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LONGEST_RUN_BITS = 40  # 5 bits a character: a run longer than 2**35 px is no image


class RunSums(NamedTuple):
    """What the run lengths of N masks say, without decoding a pixel; arrays of length N."""

    area: Ints  # px of foreground
    total: Ints  # px of foreground and background: height × width in a sound mask
    malformed: Bools  # a character outside the alphabet, an unfinished run, a negative or an endless one


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _sum_runs(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], area: Ints, total: Ints, malformed: Bools
) -> None:
    for i in range(len(offsets) - 1):
        chars = data[offsets[i] : offsets[i + 1]]
        alphabet = np.uint8(0)
        for char in chars:  # a loop of its own, which the compiler vectorises
            alphabet |= np.uint8(char - np.uint8(48))
        position, end = np.uint64(0), np.uint64(len(chars))
        area[i] = total[i] = 0
        malformed[i] = alphabet > 63 or end == 0 or (chars[-1] - 48) & 32 != 0  # the last says that more follows
        if malformed[i]:
            continue
        sum_before = sum_here = before = previous = lowest = np.int64(0)
        run, longest = 0, 0
        while position < end:
            # Most runs have one to three characters; spelt out, they cost the fewest mispredicted jumps.
            char = np.int64(chars[position]) - 48
            position += np.uint64(1)
            value = char << 59 >> 59  # five bits of two's complement, the lowest of a run first
            if char & 32:
                low = char & 31
                char = np.int64(chars[position]) - 48
                position += np.uint64(1)
                value = low | (char << 59 >> 54)
                if char & 32:
                    low |= (char & 31) << 5
                    char = np.int64(chars[position]) - 48
                    position += np.uint64(1)
                    value = low | (char << 59 >> 49)
                    shift = 10
                    while char & 32:
                        low |= (char & 31) << shift
                        shift += 5
                        char = np.int64(chars[position]) - 48
                        position += np.uint64(1)
                        value = low | (char << 59 >> 59) << shift
                    longest = max(longest, shift)
            # From the fourth run on, a run is stored as the difference to the run two before.
            if run == 2:
                before = np.int64(0)
            value += before
            before, previous = previous, value
            sum_before, sum_here = sum_here, sum_before + value
            lowest |= value | sum_here  # negative once any was, or the sum has left its 64 bits
            run += 1
        area[i] = sum_before if run & 1 else sum_here
        total[i] = sum_before + sum_here
        malformed[i] = lowest < 0 or longest >= _LONGEST_RUN_BITS


def run_sums(counts: pa.StringArray) -> RunSums:
    """Sum the run lengths of each mask in `counts` (COCO compressed RLE strings, no nulls)."""
    count = len(counts)
    sums = RunSums(np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.bool_))
    _, offsets, data = counts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[counts.offset : counts.offset + count + 1]
    _sum_runs(np.frombuffer(data or b"", np.uint8), bounds, *sums)
    return sums


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _paint(data: npt.NDArray[np.uint8], height: int, left: int, top: int, window: npt.NDArray[np.bool_]) -> None:
    rows, columns = window.shape
    bottom, last = top + rows, (left + columns) * height
    position = start = np.int64(0)
    previous = before = np.int64(0)  # the run just read, and the one before it
    run = 0
    while position < len(data) and start < last:
        value, shift, char = np.int64(0), np.int64(0), np.int64(32)
        while char & 32 and position < len(data):
            char = np.int64(data[position]) - 48
            position += 1
            value |= (char & 31) << shift
            shift += 5
        value |= -((char >> 4) & 1) << shift
        if run > 2:
            value += before
        before, previous = previous, value
        if run & 1:
            place: Any = max(start, left * height)
            end: Any = min(start + value, last)
            while place < end:
                column, row = place // height, place % height
                stop = min(row + end - place, height)
                for y in range(max(row, top), min(stop, bottom)):
                    window[y - top, column - left] = True
                place += stop - row
        start += value
        run += 1


def decode_window(counts: str, height: int, window: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    """Decode the part of a sound mask inside `window`; the rest is never made.

    `height` is the image's, in px; `window` is (left, top, right, bottom) in px, right and bottom excluded, within
    the image. Returns a boolean (bottom - top, right - left) array.
    """
    left, top, right, bottom = window
    pixels = np.zeros((bottom - top, right - left), np.bool_)
    _paint(np.frombuffer(counts.encode(), np.uint8), height, left, top, pixels)
    return pixels


def iou_matrix(counts: list[str], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the (N, N) intersection-over-union of N masks of one image, without decoding them."""
    rles = [{"size": [height, width], "counts": text.encode()} for text in counts]
    return np.asarray(coco.iou(rles, rles, [False] * len(rles)), np.float64).reshape(len(rles), len(rles))


def iou_between(first: list[str], second: list[str], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the (N, M) intersection-over-union of N masks and M others of one image, without decoding them."""
    if not first or not second:  # pycocotools returns an empty list then
        return np.zeros((len(first), len(second)))
    ours, theirs = ([{"size": [height, width], "counts": t.encode()} for t in texts] for texts in (first, second))
    return np.asarray(coco.iou(ours, theirs, [False] * len(theirs)), np.float64)


def encode(pixels: npt.NDArray[np.bool_]) -> str:
    """Encode a boolean (height, width) mask as COCO compressed RLE."""
    return str(coco.encode(np.asfortranarray(pixels, np.uint8))["counts"].decode())


def decode(counts: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode COCO compressed RLE to a boolean (height, width) mask."""
    return np.asarray(coco.decode({"size": [height, width], "counts": counts.encode()}), np.bool_)
