"""Splits: `test` has been screened, `train` has not; no image, and no near-duplicate of one, is in both."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Set

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from benchmark.selection import NOBODY

TEST, TRAIN = "test", "train"
PARTS = (f"{TEST}-mini", TEST, TRAIN)
"""What has files of its own: the small subset of `test`, so that it can be read by itself, and the rest of either."""

MINI = 1000
"""Images of the small subset."""

NEAR = 3
"""Bits of 64 by which the difference hashes of near-duplicates differ at most."""

Ints = npt.NDArray[np.int64]


def of_images(pairs: pa.Table, before: Mapping[int, str]) -> dict[int, str]:
    """Return each image's split: `test` where at least one of its pairs (image_id, screened_by) was screened.

    An image that was `test` in an earlier release, whose splits are `before`, stays so.
    """
    screened = pairs.filter(pc.not_equal(pairs["screened_by"], NOBODY))["image_id"].unique().to_pylist()
    found = pairs["image_id"].unique().to_pylist()
    stay = [image for image in found if before.get(image) == TEST]
    return dict.fromkeys(found, TRAIN) | dict.fromkeys([*screened, *stay], TEST)


def mini(splits: Mapping[int, str], before: Set[int]) -> set[int]:
    """Choose the small subset: of the test images those that were in it `before`, then the lowest hashes of ids.

    So no order matters, and a version with further images that knows no earlier one has the same subset but for what
    lower hashes displace.
    """
    hashes = {image: hashlib.sha256(f"mini {image}".encode()).digest() for image in splits if splits[image] == TEST}
    return set(sorted(hashes, key=lambda image: (image not in before, hashes[image]))[:MINI])


def part(split: str, *, mini: bool) -> str:
    """Return which of `PARTS` a row goes to."""
    return f"{split}-mini" if mini else split


def file_name(table: str, of_part: str, number: int, of: int) -> str:
    """Return the name of one of `of` files of a part."""
    return f"{table}-{of_part}-{number:05d}-of-{of:05d}.parquet"


# --- near-duplicates --------------------------------------------------------------------------------------


def dhash(data: bytes) -> int:
    """Return a JPEG's 64-bit difference hash as a signed integer.

    A bit says that a cell of the grey picture, averaged to 9 × 8 cells, is brighter than the next in its row.
    Re-encoding and scaling change few bits of it. Raises `OSError` for bytes that cannot be decoded.
    """
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft("L", (72, 64))  # decodes an eighth of each side where that is enough
        cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(cells[:, :-1] > cells[:, 1:])
    return int(bits.view(">i8")[0])


def near_duplicates(of: Ints, among: Ints) -> npt.NDArray[np.bool_]:
    """Return which hashes `of` are within `NEAR` bits of any hash `among`, shape (len(of),).

    Hashes that differ in 3 bits agree in one of four 16-bit quarters at least; only those are compared.
    """
    found = np.zeros(len(of), np.bool_)
    for quarter in range(NEAR + 1):
        shift = np.uint64(16 * quarter)
        keys, others = ((h.view(np.uint64) >> shift) & np.uint64(0xFFFF) for h in (of, among))
        order = np.argsort(others, kind="stable")
        starts, stops = (np.searchsorted(others[order], keys, side) for side in ("left", "right"))
        for row in np.flatnonzero((starts < stops) & ~found):
            near = among[order[starts[row] : stops[row]]]
            found[row] = bool((np.bitwise_count((near ^ of[row]).view(np.uint64)) <= NEAR).any())
    return found


def leaking(splits: Mapping[int, str], hashes: Iterable[tuple[int, int]]) -> set[int]:
    """Return the train images that are near-duplicates of a test image, from (image id, hash)."""
    by_split: dict[str, list[tuple[int, int]]] = {TEST: [], TRAIN: []}
    for image, value in hashes:
        by_split[splits[image]].append((image, value))
    train = np.array(by_split[TRAIN], np.int64).reshape(-1, 2)
    test = np.array(by_split[TEST], np.int64).reshape(-1, 2)
    near = near_duplicates(np.ascontiguousarray(train[:, 1]), np.ascontiguousarray(test[:, 1]))
    return set(train[near, 0].tolist())
