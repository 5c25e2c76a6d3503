"""Splits, the fixed small subset, and near-duplicates."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from released_runs import photograph

from benchmark import splits

HASHES = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


def test_one_screened_pair_makes_an_image_test() -> None:
    pairs = pa.table({"image_id": [1, 1, 2], "screened_by": ["nobody", "expert", "nobody"]})
    assert splits.of_images(pairs, {}) == {1: "test", 2: "train"}
    assert splits.of_images(pairs.slice(0, 0), {3: "test"}) == {}


def test_a_test_image_stays_test_and_a_train_image_may_become_one() -> None:
    pairs = pa.table({"image_id": [1, 2, 3, 4], "screened_by": ["nobody", "nobody", "people", "nobody"]})
    before = {1: "test", 2: "train", 3: "train"}
    assert splits.of_images(pairs, before) == {1: "test", 2: "train", 3: "test", 4: "train"}


def test_the_small_subset_is_of_test_and_hardly_moves() -> None:
    before = splits.mini(dict.fromkeys(range(2000), "test"), set())
    assert len(before) == splits.MINI
    assert splits.mini(dict.fromkeys(range(2000), "test") | dict.fromkeys(range(2000, 9000), "train"), set()) == before
    after = splits.mini(dict.fromkeys(range(2100), "test"), set())
    assert before - set(range(2000)) == set()
    assert len(before - after) == len(after - before) == len(after & set(range(2000, 2100)))
    assert splits.mini({5: "test"}, set()) == {5}


def test_the_small_subset_of_an_earlier_release_stays() -> None:
    before = splits.mini(dict.fromkeys(range(2000), "test"), set())
    assert splits.mini(dict.fromkeys(range(9000), "test"), before) == before
    left = set(sorted(before)[:3])
    now = {image: "test" for image in range(9000) if image not in left}
    assert splits.mini(now, before) > before - left
    assert len(splits.mini(now, before)) == splits.MINI


def test_a_difference_hash_of_a_ramp() -> None:
    ramp = np.tile(np.linspace(250, 0, 90).astype(np.uint8), (80, 1))
    for pixels, expected in ((ramp, -1), (ramp[:, ::-1], 0)):
        sink = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "JPEG", quality=95)
        assert splits.dhash(sink.getvalue()) == expected


def bits(a: int, b: int) -> int:
    return ((a ^ b) & (2**64 - 1)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_a_copy_of_other_quality_is_near_and_another_picture_far(seed: int) -> None:
    one, copy, other = photograph(seed), photograph(seed, quality=50), photograph(seed + 100)
    assert bits(splits.dhash(one), splits.dhash(copy)) <= splits.NEAR
    assert bits(splits.dhash(one), splits.dhash(other)) > 10


def test_what_cannot_be_decoded() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        splits.dhash(b"no picture")


@given(HASHES, HASHES, st.lists(st.integers(0, 63), max_size=5))
def test_near_duplicates_are_those_of_a_plain_comparison(of: list[int], among: list[int], flipped: list[int]) -> None:
    if among:  # one that is near, or just not
        mask = sum(1 << bit for bit in set(flipped))
        of = [*of, int(np.uint64((among[0] ^ mask) & (2**64 - 1)).astype(np.int64))]
    found = splits.near_duplicates(np.array(of, np.int64), np.array(among, np.int64))
    assert found.tolist() == [any(bits(a, b) <= splits.NEAR for b in among) for a in of]


def test_train_images_near_a_test_image_leak() -> None:
    of_images = {1: "test", 2: "train", 3: "train"}
    assert splits.leaking(of_images, [(1, 0), (2, 0b111), (3, 0b1111)]) == {2}
    assert splits.leaking({2: "train"}, [(2, 0)]) == set()
