"""Which images a run works on: a choice that depends on ids and a seed alone.

Each image has a hash; a sample of N is the N lowest hashes. So a larger sample contains the smaller, and
neither the order nor the number of shards matters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EVERYTHING = 2**64 - 1
"""A limit that every hash is within."""


def stable_hash(ids: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Hash ids to uint64, the same on every machine and in every version.

    Two rounds of the splitmix64 finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number
    generators, OOPSLA 2014), the seed mixed in between.
    """
    with np.errstate(over="ignore"):
        return _mix(_mix(ids.astype(np.uint64)) ^ _mix(np.array([seed], np.int64).astype(np.uint64) + np.uint64(1)))


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sample_limit(image_ids: npt.NDArray[np.int64], images: int, seed: int) -> int:
    """Return the highest hash within a sample of `images` of the distinct ids; as many or more means all."""
    hashes = stable_hash(np.unique(image_ids), seed)
    if images >= len(hashes):
        return EVERYTHING
    return int(np.partition(hashes, images - 1)[images - 1])


def within(hashes: npt.NDArray[np.uint64], above: int, upto: int) -> npt.NDArray[np.bool_]:
    """Return which hashes lie in (above, upto]; `above` is -1 for "from the first"."""
    lower = np.ones(len(hashes), np.bool_) if above < 0 else hashes > np.uint64(above)
    return np.asarray(lower & (hashes <= np.uint64(upto)), np.bool_)
