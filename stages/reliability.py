"""Whether scores mean what they say: the share of judged pairs that is right, by score."""

from __future__ import annotations

import msgspec
import numpy as np

from pipeline.proportions import weighted
from stages.judgements import Judgements

CONFIDENCE = 0.95
"""Of a bin's limits, both together."""

_EDGES = np.arange(11) / 10  # not linspace, whose 0.3 lies above 3 / 10


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Judged pairs whose score lies in [low, high); the last bin holds 1 as well. All but `judged` in 0 to 1."""

    low: float
    high: float
    judged: int
    score: float
    """Weighted mean."""
    right: float
    """Weighted share that is right."""
    lower: float
    upper: float
    """Confidence limits of `right`, for this bin alone."""


def reliability(judgements: Judgements) -> list[ReliabilityBin]:
    """Return ten bins of equal width in score, ascending; those without a judged pair are left out."""
    place = np.digitize(judgements.score, _EDGES[1:-1])
    return [_bin(judgements, k, place == k) for k in np.unique(place).tolist()]


def _bin(judgements: Judgements, k: int, chosen: np.ndarray) -> ReliabilityBin:
    right, weight = judgements.some(chosen)
    found = weighted(right, weight, CONFIDENCE)
    return ReliabilityBin(
        low=float(_EDGES[k]),
        high=float(_EDGES[k + 1]),
        judged=found.observations,
        score=float(np.average(judgements.score[chosen], weights=weight)),
        right=found.value,
        lower=found.lower,
        upper=found.upper,
    )
