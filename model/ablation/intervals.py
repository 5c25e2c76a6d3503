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


class Spreads(NamedTuple):
    """Of all that is compared, each pooled over settings that learn in the same way and are taken to vary alike.

    The ways do not: in the pilot of the quick form seeds moved settings with single masks much farther than others.
    """

    branches: Spread
    """Of settings that learn from all masks of a scene as branches"""
    packed: Spread
    """Of those that learn from all in one sequence, with the paper's rules or without"""
    single: Spread
    """Of those that learn from one mask"""
    masks: Spread
    """Of one kind of masks against another, shown to the same weights"""


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

    @property
    def seeds(self) -> int:
        """How many trainings."""
        return len(self.overlap)

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
    return _interval(row.overlap.mean(0), row.masks, [_Part(spread.points**2 / row.seeds, spread.freedom)])


def difference(first: Sums, second: Sums, of_first: Spread, of_second: Spread) -> Interval:
    """Return the first row less the second, trained apart, with a 95 % interval."""
    pairs = ((first, of_first), (second, of_second))
    parts = [_Part(spread.points**2 / row.seeds, spread.freedom) for row, spread in pairs]
    if of_first == of_second:
        parts = [_Part(parts[0].variance + parts[1].variance, of_first.freedom)]
    return _interval(first.overlap.mean(0) - second.overlap.mean(0), first.masks, parts)


def difference_of_masks(first: Sums, second: Sums, spread: Spread) -> Interval:
    """Return the same of two rows of the same weights, seed by seed."""
    parts = [_Part(2 * spread.points**2 / first.seeds, spread.freedom)]
    return _interval(first.overlap.mean(0) - second.overlap.mean(0), first.masks, parts)


class _Part(NamedTuple):
    """Part of a variance, and the degrees of freedom it is known with."""

    variance: float
    freedom: float


def _interval(overlap: Floats, masks: Floats, of_seeds: Sequence[_Part]) -> Interval:
    """Return a mean over masks × 100 with the interval of Student's t; `overlap` and `masks` are by scene.

    Its variance is that of seeds and that of means over scenes drawn anew, added; its degrees of freedom are Welch's
    and Satterthwaite's.
    """
    by_scene = 100 * overlap
    value, scenes = float(by_scene.sum() / masks.sum()), len(masks)
    drawn = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), _DRAWS)
    parts = [*of_seeds, _Part(float(np.var(drawn @ by_scene / (drawn @ masks))), scenes - 1)]
    variance = sum(part.variance for part in parts)
    if not variance:
        return Interval(value, value, value)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
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
