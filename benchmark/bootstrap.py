"""95 % intervals by resampling images, because regions of one image resemble each other (percentile bootstrap).

Whole images are drawn with replacement, as many as there are (cluster bootstrap: Davison and Hinkley, Bootstrap Methods
and their Application, 1997, §3.8); a value's interval are the 2.5 % and 97.5 % quantiles over the draws. The draws
depend on the set of image ids and the seed alone, so that two models on one benchmark get the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from benchmark.metrics import Floats, Ints

DRAWS = 1000

Singles = npt.NDArray[np.float32]

_QUANTILES = (0.025, 0.975)
_ROWS = 200
"""Draws computed at a time: of 80,000 images, 64 MB."""


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

    def group_means(self, values: Floats, groups: Ints, number: int) -> Singles:
        """Return the means of each group in each draw, (draws, groups, M), for few groups; NaN where nothing counts.

        `values` has shape (N, M), NaN for what does not count; `groups` numbers each instance's group from 0.
        """
        columns, mask_of = _columns(values)
        cells, size = self._places * number + groups, self._images * number
        table = np.stack([np.bincount(cells, column, size) for column in columns.T], axis=1)
        table = table.reshape(self._images, -1).astype(np.float32)
        sums = [(draws @ table).reshape(len(draws), number, -1) for draws in self._chunks()]
        return _means(np.concatenate(sums), mask_of)

    def macro_means(self, values: Floats, categories: Ints) -> Singles:
        """Return in each draw the mean over categories of their means, (draws, M), for many categories.

        Arguments as in `group_means`. A category in which nothing of a draw counts is left out of it.
        """
        from scipy.sparse import csr_array

        columns, mask_of = _columns(values)
        number = int(categories.max()) + 1
        shape = (number, self._images)
        tables = [csr_array((c.astype(np.float32), (categories, self._places)), shape) for c in columns.T]
        means = []
        for draws in self._chunks():
            taken = np.ascontiguousarray(draws.T)
            sums = np.stack([table @ taken for table in tables], axis=-1)  # (categories, draws, columns)
            means.append(_mean_over(_means(sums, mask_of)))
        return np.concatenate(means)

    def _chunks(self) -> Iterator[Singles]:
        """Yield draws in one array that is written over."""
        space = np.empty((_ROWS, self._images), np.float32)
        for start in range(0, len(self._counts), _ROWS):
            chunk = self._counts[start : start + _ROWS]
            space[: len(chunk)] = chunk
            yield space[: len(chunk)]


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
    drawn = resamples.group_means(gain[:, None], np.zeros(len(gain), np.int64), 1)[:, 0, 0]
    found = interval(float(gain.mean()), drawn)
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(found.value, found.lower, found.upper, float(min(1.0, 2 * (tail + 1) / (draws + 1))))
