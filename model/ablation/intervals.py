"""Differences between settings with intervals: chance of seeds and chance of scenes, added as variances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats = npt.NDArray[np.float64]

_ERROR = 0.05
_DRAWS = 2000

Verdict = Literal["reproduced", "tie", "reversed", "higher", "lower"]
"""Of an ordering of the paper: the first three. Where it orders nothing: tie, or where the first row is."""


class Spread(NamedTuple):
    """How far seeds move a value."""

    points: float
    """Standard deviation of one seed's value"""
    freedom: int
    """Degrees of it"""


class Interval(NamedTuple):
    """Points, and where 95 % of such intervals hold the true one."""

    value: float
    lower: float
    upper: float


class Sums(NamedTuple):
    """What a row achieved, scene by scene."""

    overlap: Floats
    """Sum over the masks of each scene, 0 or more, (seeds, scenes)"""
    masks: Floats
    """(scenes,)"""

    def points(self) -> Floats:
        """Return the mean over masks × 100, by seed."""
        found: Floats = 100 * self.overlap.sum(1) / self.masks.sum()
        return found


def spread_of_training(values: Sequence[Sequence[float]]) -> Spread:
    """Pool over rows the variance between seeds, (rows, seeds): rows trained apart. One seed: no freedom."""
    table = np.array(values, np.float64)
    rows, seeds = table.shape
    return _spread(table - table.mean(1, keepdims=True), rows * (seeds - 1))


def spread_of_masks(values: Sequence[Sequence[float]]) -> Spread:
    """Pool what is left of (rows, seeds) without the means of rows and of seeds: rows of the same weights."""
    table = np.array(values, np.float64)
    rows, seeds = table.shape
    left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    return _spread(left, (rows - 1) * (seeds - 1))


def _spread(left: Floats, freedom: int) -> Spread:
    return Spread(math.sqrt(float((left**2).sum()) / freedom) if freedom else math.nan, freedom)


def level(row: Sums, spread: Spread) -> Interval:
    """Return what a row achieves, over seeds and masks, with a 95 % interval."""
    return _interval(row.overlap, row.masks, spread.points**2, spread.freedom)


def difference(first: Sums, second: Sums, spread: Spread) -> Interval:
    """Return the first row less the second, with a 95 % interval."""
    return _interval(first.overlap - second.overlap, first.masks, 2 * spread.points**2, spread.freedom)


def _interval(overlap: Floats, masks: Floats, of_seeds: float, freedom: int) -> Interval:
    """Return a mean × 100 with the interval of Student's t that adds two variances.

    Those are of the mean over seeds, `of_seeds` being one seed's, and of the mean over scenes drawn anew.
    """
    by_scene = 100 * overlap.mean(0)
    value, scenes = float(by_scene.sum() / masks.sum()), len(masks)
    drawn = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), _DRAWS)
    variance = of_seeds / len(overlap) + float(np.var(drawn @ by_scene / (drawn @ masks)))
    reach = float(stdtrit(freedom, 1 - _ERROR / 2)) * math.sqrt(variance)
    return Interval(value, value - reach, value + reach)


def verdict(found: Interval, paper: Sequence[float]) -> Verdict:
    """Judge an ordering by the paper's differences of the same two rows, one for each of its data sets.

    Those of different signs, or none, order nothing.
    """
    if found.lower <= 0 <= found.upper:
        return "tie"
    higher = found.value > 0
    if not paper or not (all(one > 0 for one in paper) or all(one < 0 for one in paper)):
        return "higher" if higher else "lower"
    return "reproduced" if higher == (paper[0] > 0) else "reversed"
