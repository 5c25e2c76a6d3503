"""Thresholds for the yes/no check, chosen from human judgements for a requested precision, with confidence bounds."""

from __future__ import annotations

import msgspec

STEP = "calibration"

FREQUENCIES = (1, 11, 101, 1001)
"""Least number of pairs in each frequency band: LVIS's rare, common and frequent (Gupta et al. 2019, §4.1), the last
split once more."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Scores above which a pair is kept, 0 to 1."""

    overall: float = 0.5
    """Half: the model's yes is likelier than its no, which is the paper's rule."""
    bands: dict[str, float] = {}
    """By frequency band, where judgements allowed it."""

    def of(self, pairs: int) -> float:
        """Return the threshold for a category with so many pairs."""
        return self.bands.get(frequency_band(pairs), self.overall)


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Judged pairs whose score lies in [low, high); the last bin holds 1 as well."""

    low: float
    high: float
    judged: int
    score: float
    """Weighted mean."""
    right: float
    """Weighted share that is right, 0 to 1."""
    lower: float
    upper: float
    """Confidence limits of `right`."""


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What keeping all scores above a threshold comes to, by the judgements."""

    threshold: float
    judged: int
    """Judged pairs kept."""
    precision: float
    lower: float
    """Lower confidence limit of the precision."""
    recall: float
    """Weighted share of the right pairs that are kept."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and from what."""

    thresholds: Thresholds
    precision: float
    """What was requested."""
    confidence: float
    judged: int
    source: str
    """The table of judgements, and its hash."""
    cuts: dict[str, list[Cut]]
    """All candidates by frequency band, and under `all` together; thresholds ascending."""
    chosen: dict[str, Cut]
    """Those that were taken, by the same keys."""
    reliability: list[ReliabilityBin]


def frequency_band(pairs: int) -> str:
    """Return the label of the frequency band of a category with so many pairs, as in `101–1,000`."""
    place = sum(pairs >= least for least in FREQUENCIES)
    if place == len(FREQUENCIES):
        return f"{FREQUENCIES[-1]:,}+"
    return f"{FREQUENCIES[max(place, 1) - 1]:,}–{FREQUENCIES[max(place, 1)] - 1:,}"
