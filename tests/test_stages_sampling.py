"""A sample depends on ids and seed alone, and a larger one contains the smaller."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.sampling import EVERYTHING, sample_limit, stable_hash, within

ids = st.lists(st.integers(0, 2**62), min_size=1, max_size=60, unique=True)


def chosen(image_ids: list[int], images: int, seed: int) -> set[int]:
    array = np.array(image_ids, np.int64)
    keep = within(stable_hash(array, seed), -1, sample_limit(array, images, seed))
    return set(array[keep].tolist())


@given(ids, st.integers(1, 70), st.integers(0, 70), st.integers(0, 2**63 - 1))
def test_a_larger_sample_contains_the_smaller(image_ids: list[int], images: int, more: int, seed: int) -> None:
    small, large = chosen(image_ids, images, seed), chosen(image_ids, images + more, seed)
    assert small <= large
    assert len(small) == min(images, len(image_ids))


@given(ids, st.integers(1, 70), st.randoms())
def test_neither_order_nor_repeats_matter(image_ids: list[int], images: int, random: object) -> None:
    shuffled = [*image_ids, *image_ids[:3]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert chosen(shuffled, images, 0) == chosen(image_ids, images, 0)


def test_the_hash_is_fixed_for_ever() -> None:
    # Changing these would change every published sample.
    assert stable_hash(np.array([0, 1, 11_186_000], np.int64), 0).tolist() == [
        15204172177749531820,
        16294208416658607535,
        15208250842101550313,
    ]
    assert stable_hash(np.array([1], np.int64), 7).tolist() != stable_hash(np.array([1], np.int64), 0).tolist()


def test_a_seed_gives_another_sample_of_the_same_size() -> None:
    everyone = list(range(1000))
    assert len(chosen(everyone, 100, 1)) == len(chosen(everyone, 100, 2)) == 100
    assert chosen(everyone, 100, 1) != chosen(everyone, 100, 2)


def test_hashes_are_spread_evenly() -> None:
    hashes = stable_hash(np.arange(100_000), 3) >> np.uint64(60)
    counts = np.bincount(hashes.astype(int), minlength=16)
    assert abs(counts - 6250).max() < 5 * 6250**0.5


def test_bounds() -> None:
    hashes = np.array([0, 5, EVERYTHING], np.uint64)
    assert within(hashes, -1, 0).tolist() == [True, False, False]
    assert within(hashes, 0, EVERYTHING).tolist() == [False, True, True]
    assert sample_limit(np.array([3, 4]), 2, 0) == sample_limit(np.array([3, 4]), 9, 0) == EVERYTHING
