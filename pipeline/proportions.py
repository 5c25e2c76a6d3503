"""Confidence limits for a share of things that are right, counted or from a weighted sample.

Counts get Clopper and Pearson's exact limits (Biometrika 26, 1934). A weighted sample gets the same beta quantiles at
its effective size (Korn and Graubard, Survey Methodology 24, 1998), with one change: as published, that size is too
large when the few wrong observations seen happen to have small weights, and undefined when there are none. A limit with
a stated error of 2.5 % is then wrong in more than 15 % (tests/test_pipeline_proportions.py). So the effective size is
taken after one more observation, against the limit, of the largest weight: what Fay and Feuer (Statistics in Medicine
16, 1997) do for weighted sums of Poisson counts. With equal weights Clopper and Pearson's limits come out exactly.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

Side = Literal["both", "lower", "upper"]
"""Which limits share the error probability; the other of a one-sided limit is 0 or 1."""

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A share of things that are right, with confidence limits. All but the last two in 0 to 1."""

    value: float
    """NaN where nothing was observed, which JSON cannot hold."""
    lower: float
    upper: float
    observations: int
    effective: float
    """Observations of equal weight that would tell as much."""


def counted(successes: int, trials: int, confidence: float = 0.95, side: Side = "both") -> Estimate:
    """Return the share of `successes` in independent `trials` with Clopper and Pearson's exact limits.

    The limits hold with `confidence` (0.5 or more, below 1) or better for every true share. No trials: 0 and 1.
    Raises `ValueError` for counts that cannot be, or such a confidence.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials cannot be")
    error = _error(confidence, side)
    lower = beta_quantile(successes, trials - successes + 1, error) if side != "upper" else 0.0
    upper = 1 - beta_quantile(trials - successes, successes + 1, error) if side != "lower" else 1.0
    return Estimate(successes / trials if trials else math.nan, lower, upper, trials, float(trials))


def weighted(right: Flags, weights: Floats, confidence: float = 0.95, side: Side = "both") -> Estimate:
    """Return the weighted share of `right` (Hájek's estimate) with the limits described above.

    Both arrays have shape (observations,). A weight is 1 / the observation's inclusion probability, up to a common
    factor: finite and above 0. The limits are those of independent draws: strata and large sampling fractions make
    them wider than need be, observations that resemble each other (regions of one image) too narrow. Strata are not
    used because one with no wrong observation would count as free of error. No observations: 0 and 1. Raises
    `ValueError` for other shapes, such a weight, or a confidence outside [0.5, 1).
    """
    _check(right, weights)
    error = _error(confidence, side)
    if not len(right):
        return Estimate(math.nan, 0.0, 1.0, 0, 0.0)
    lower = beta_quantile(*lower_shapes(right, weights), error) if side != "upper" else 0.0
    upper = 1 - beta_quantile(*lower_shapes(~right, weights), error) if side != "lower" else 1.0
    return Estimate(hajek(right, weights), lower, upper, len(right), effective_size(right, weights))


def hajek(right: Flags, weights: Floats) -> float:
    """Return the weighted share of `right`, 0 to 1, of one observation at least."""
    return float(weights[right].sum() / weights.sum())


def lower_shapes(right: Flags, weights: Floats) -> tuple[float, float]:
    """Return the shapes of the beta distribution whose quantile is the lower limit of the share of `right`.

    They are what the sample amounts to in right and wrong observations of equal weight, a wrong one of the largest
    weight added: k and n − k + 1 for k of n with equal weights. One observation at least.
    """
    right, weights = np.append(right, False), np.append(weights, weights.max())
    size, share = _size(right, weights), hajek(right, weights)
    return size * share, size * (1 - share)


def effective_size(right: Flags, weights: Floats) -> float:
    """Return how many observations of equal weight would tell as much: n / the design effect, 1 or more.

    Not more than (Σw)² / Σw² (Kish, Survey Sampling, 1965, §11.7), its value when weight and being right have nothing
    to do with each other: the wrong observations seen may be those of small weight by chance. One observation at least.
    """
    return min(_size(right, weights), _kish(weights))


def _size(right: Flags, weights: Floats) -> float:
    """Return p (1 − p) / the linearised variance of Hájek's estimate p, n / (n − 1) left out of both."""
    if right.all() or not right.any():
        return _kish(weights)
    shares = weights / weights.sum()
    p = float(shares[right].sum())
    residuals = shares * (right - p)
    return p * (1 - p) / float(residuals @ residuals)


def _kish(weights: Floats) -> float:
    shares = weights / weights.sum()
    return 1 / float(shares @ shares)


def beta_quantile(right: float, wrong: float, level: float) -> float:
    """Return the `level` quantile of the beta distribution with these shapes: 0 or more, and above 0."""
    return float(betaincinv(right, wrong, level)) if right > 0 else 0.0


def _error(confidence: float, side: Side) -> float:
    """Return the probability of error at each limit; above a half a limit could lie beyond the estimate."""
    if not 0.5 <= confidence < 1:
        raise ValueError(f"confidence {confidence} is not in [0.5, 1)")
    return (1 - confidence) / 2 if side == "both" else 1 - confidence


def _check(right: Flags, weights: Floats) -> None:
    if right.ndim != 1 or right.shape != weights.shape:
        raise ValueError(f"shapes {right.shape} and {weights.shape} are not (observations,) twice")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if len(bad):
        raise ValueError(f"weight {weights[bad[0]]} at {bad[0]} is not a finite number above 0")
