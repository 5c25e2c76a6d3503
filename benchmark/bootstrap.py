"""95 % intervals by resampling images, because regions of one image resemble each other (percentile bootstrap).

Whole images are drawn with replacement, as many as there are (cluster bootstrap: Davison and Hinkley, Bootstrap Methods
and their Application, 1997, §3.8); a value's interval are the 2.5 % and 97.5 % quantiles over the draws. The draws
depend on the set of image ids and the seed alone, so that two models on one benchmark get the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import numpy.typing as npt

from benchmark.metrics import Floats, Ints

DRAWS = 1000

Singles = npt.NDArray[np.float32]

_QUANTILES = (0.025, 0.975)
_ROWS = 100
"""Draws computed at a time: of 80,000 images, 32 MB."""


class Interval(msgspec.Struct, frozen=True):
    """A mean with its 95 % interval; NaN, null in JSON, where nothing counts."""

    value: float
    lower: float
    upper: float


class Difference(msgspec.Struct, frozen=True):
    """What the first of two models is better by, on the same instances."""

    value: float
    lower: float
    upper: float
    p: float
    """Two-sided: twice the smaller share of draws on either side of 0, at least 2 / (draws + 1)."""


class Resamples:
    """How often each draw took each image. Sums are in single precision: an interval needs no more than four digits."""

    def __init__(self, image_ids: Ints, draws: int = DRAWS, seed: int = 0) -> None:
        """Draw from the distinct `image_ids`, shape (N,), one per instance, one at least."""
        images, self._places = np.unique(image_ids, return_inverse=True)
        self._images = len(images)
        generator = np.random.default_rng(seed)
        self._counts = np.empty((draws, self._images), np.uint8)  # more than 255 times the same: never
        for row in self._counts:
            row[:] = np.bincount(generator.integers(self._images, size=self._images), minlength=self._images)

    def group_means(self, values: Floats, parts: Sequence[tuple[Ints, int]]) -> list[Singles]:
        """Return for each part the means of its groups in each draw, (draws, groups, M); NaN where nothing counts.

        `values` has shape (N, M), NaN for what does not count. A part numbers each instance's group from 0, and says
        how many groups there are: few.
        """
        columns, mask_of = _columns(values)
        tables = [self._table(columns, groups, number) for groups, number in parts]
        table = np.concatenate(tables, axis=1)
        sums = np.concatenate([self._draws(start) @ table for start in self._starts])  # BLAS sees to all cores
        ends = np.cumsum([table.shape[1] for table in tables])[:-1]
        split = zip(np.split(sums, ends, axis=1), parts, strict=True)
        return [_means(found.reshape(len(sums), number, -1), mask_of) for found, (_, number) in split]

    def _table(self, columns: Floats, groups: Ints, number: int) -> Singles:
        """Return the sums of each image by group and column, (images, groups × columns)."""
        cells, size = self._places * number + groups, self._images * number
        table = np.stack([np.bincount(cells, column, size).astype(np.float32) for column in columns.T], axis=1)
        return table.reshape(self._images, -1)

    def macro_means(self, values: Floats, categories: Ints) -> Singles:
        """Return in each draw the mean over categories of their means, (draws, M), for many categories.

        `values` as in `group_means`, `categories` numbers each instance's. A category in which nothing of a draw counts
        is left out of it.
        """
        from scipy.sparse import csr_array

        columns, mask_of = _columns(values)
        shape = (int(categories.max()) + 1, self._images)
        tables = [csr_array((c.astype(np.float32), (categories, self._places)), shape) for c in columns.T]

        def means(start: int) -> Singles:
            taken = np.ascontiguousarray(self._draws(start).T)
            return _mean_over(_means(np.stack([table @ taken for table in tables], axis=-1), mask_of))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return np.concatenate(list(pool.map(means, self._starts)))

    @property
    def _starts(self) -> range:
        return range(0, len(self._counts), _ROWS)

    def _draws(self, start: int) -> Singles:
        """Return some draws, (some, images)."""
        return self._counts[start : start + _ROWS].astype(np.float32)


def _columns(values: Floats) -> tuple[Floats, Ints]:
    """Return the values with 0 for NaN, then the distinct columns of what counts, and which of these is whose."""
    masks = {mask.tobytes(): mask for mask in (~np.isnan(values)).T}
    keys = list(masks)
    mask_of = np.array([keys.index(mask.tobytes()) for mask in (~np.isnan(values)).T])
    return np.column_stack([np.nan_to_num(values, nan=0.0), *masks.values()]), mask_of


def _means(sums: Singles, mask_of: Ints) -> Singles:
    """Divide sums by counts along the last axis, which is as `_columns` has it."""
    totals, counts = sums[..., : len(mask_of)], sums[..., len(mask_of) :][..., mask_of]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(totals / counts)


def _mean_over(means: Singles) -> Singles:
    """Return the mean over the first axis without NaN; NaN where there is nothing else."""
    there = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, means, 0).sum(axis=0) / there.sum(axis=0), np.float32)


def interval(value: float, drawn: Floats | Singles) -> Interval:
    """Return a value with the interval of its draws, shape (draws,); draws in which nothing counts are left out."""
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(value, float("nan"), float("nan"))
    lower, upper = np.quantile(drawn, _QUANTILES)
    return Interval(value, float(lower), float(upper))


def compare(first: Floats, second: Floats, image_ids: Ints, draws: int = DRAWS, seed: int = 0) -> Difference:
    """Compare two models by a score of the same instances, shapes (N,): paired, so what both find hard drops out.

    Instances that do not count (NaN) for either are left out; raises `ValueError` when none is left, or for shapes
    that differ.
    """
    if not first.shape == second.shape == image_ids.shape:
        raise ValueError(f"shapes {first.shape}, {second.shape} and {image_ids.shape} are not (instances,) thrice")
    gain = first - second
    counted = ~np.isnan(gain)
    if not counted.any():
        raise ValueError("no instance counts for both")
    gain, image_ids = gain[counted], image_ids[counted]
    resamples = Resamples(image_ids, draws, seed)
    drawn = resamples.group_means(gain[:, None], [(np.zeros(len(gain), np.int64), 1)])[0][:, 0, 0]
    found = interval(float(gain.mean()), drawn)
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(found.value, found.lower, found.upper, float(min(1.0, 2 * (tail + 1) / (draws + 1))))
