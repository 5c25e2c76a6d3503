"""Thresholds for the yes/no check, chosen from human judgements for a requested precision, with confidence bounds."""

from __future__ import annotations

from bisect import bisect_left

import msgspec
import numpy as np

from pipeline.errors import UsageError, UserError
from pipeline.proportions import Flags, Floats, beta_quantile, weighted
from pipeline.run import Run
from stages.judgements import Judgements
from stages.reliability import ReliabilityBin, reliability
from stages.shrinkage import shrink

STEP = "calibration"

FREQUENCIES = (1, 11, 101, 1001)
"""Least number of pairs in each frequency band: LVIS's rare, common and frequent (Gupta et al. 2019, §4.1), the last
split once more."""

ALL = "all"
"""Key of what concerns all frequency bands together."""

QUANTILES = np.arange(1, 9) / 9
"""Weighted quantiles of the judged scores that are tried as thresholds, beside 0 and the default. More would find a
slightly better threshold, and cost precision: every one tried widens the limits of all."""

LEAST = 30
"""Judged pairs that a band must have above a threshold for one of its own. With all of 30 right, the one-sided 95 %
lower limit is 0.05^(1/30) = 0.90; with fewer, the band's limit would be what it borrows from the others."""

_MOST = 1 << 31  # judgements; nobody makes so many


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """Scores above which a pair is kept, 0 to 1."""

    overall: float = 0.5
    """Half: the model's yes is likelier than its no, which is the paper's rule."""
    bands: dict[str, float] = {}
    """By frequency band, where judgements allowed it."""

    def of(self, pairs: int) -> float:
        """Return the threshold for a category with so many pairs."""
        return self.bands.get(frequency_band(pairs), self.overall)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What keeping some of the pairs comes to, by the judgements. Shares are weighted, 0 to 1."""

    judged: int
    """Judged pairs kept."""
    precision: float
    lower: float
    """Lower confidence limit of the precision, corrected for all the rules among which this one was chosen."""
    recall: float
    """Share of the right pairs with a score that are kept; of a band, of its own. 0 where none is right."""


class Cut(Kept, frozen=True, kw_only=True):
    """What keeping all scores above a threshold comes to.

    Of a band, `precision` and `lower` are shrunk towards those of the other bands (stages/shrinkage.py).
    """

    threshold: float
    unshrunk: float
    """Precision by the band's own judgements."""
    borrowed: float
    """Judgements of other bands that count in `precision` and `lower`, at their effective size."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen, and from what."""

    thresholds: Thresholds
    precision: float
    """What was requested."""
    confidence: float
    judged: int
    """Judged pairs with a score."""
    unscored: int
    """Judged masks without one, not used."""
    source: str
    """The table of judgements, and its hash."""
    cuts: dict[str, list[Cut]]
    """All candidates by frequency band, and under `all` together; thresholds ascending."""
    chosen: dict[str, Cut]
    """Those that were taken, by the same keys."""
    fallback: dict[str, str]
    """Bands that were judged and yet take the overall threshold, and why."""
    applied: Kept
    """All bands together, each at the threshold that holds for it."""
    reliability: list[ReliabilityBin]


def frequency_band(pairs: int) -> str:
    """Return the label of the frequency band of a category with so many pairs, as in `101–1,000`."""
    place = sum(pairs >= least for least in FREQUENCIES)
    if place == len(FREQUENCIES):
        return f"{FREQUENCIES[-1]:,}+"
    return f"{FREQUENCIES[max(place, 1) - 1]:,}–{FREQUENCIES[max(place, 1)] - 1:,}"


def load(run: Run) -> Calibration | None:
    """Return a run's calibration, or None before the first. Raises `UserError` for a damaged record."""
    return run.plan(STEP, Calibration)


def save(run: Run, calibration: Calibration) -> None:
    """Make a calibration the run's own, in place of an earlier one."""
    run.save_plan(STEP, calibration)


def thresholds(run: Run) -> Thresholds:
    """Return the thresholds that hold for a run: the default ones until it is calibrated."""
    found = load(run)
    return found.thresholds if found else Thresholds()


def choose(judgements: Judgements, precision: float, confidence: float = 0.95) -> Calibration:
    """Choose the thresholds that keep most and yet are sure to keep `precision` right.

    Both are shares; precision in (0, 1), confidence in [0.5, 1). The overall threshold is the lowest candidate whose
    lower limit reaches the precision. Its limit holds with the stated confidence although it is chosen out of m: each
    candidate's error probability is (1 − confidence) / m (Bonferroni, as in Angelopoulos et al., Learn then Test,
    2021), or the candidate that happens to look best would be believed. So does that of `applied`, with m^K for the m
    thresholds in each of K bands. The confidence is that of the whole procedure: of all samples of judgements that
    might have been drawn, so many at least lead to a limit that is true, or to the error below.

    A band's own threshold is the lowest candidate whose shrunk limit reaches the precision, with LEAST of its
    judgements above it; its limit has no such guarantee (stages/shrinkage.py says what it is). Other bands take the
    overall one.

    Raises `UsageError` for numbers out of range, `UserError` when no candidate reaches the precision.
    """
    if not (0 < precision < 1 and 0.5 <= confidence < 1):
        raise UsageError(f"precision {precision} must lie in (0, 1), confidence {confidence} in [0.5, 1)")
    tried = candidates(judgements.score, judgements.weight)
    if not tried:
        raise UserError(f"{judgements.source}: every judged pair has score 0; no threshold keeps any.")
    error = (1 - confidence) / len(tried)
    overall = [_overall(judgements, threshold, error) for threshold in tried]
    best = _lowest(overall, precision)
    if best is None:
        raise UserError(_out_of_reach(judgements, overall, precision, confidence))
    bands = _bands(judgements)
    cuts = _band_cuts(judgements, bands, tried, error)
    chosen = {band: cut for band, found in cuts.items() if (cut := _lowest(found, precision, LEAST))}
    taken = {band: chosen.get(band, best).threshold for band in bands}
    return Calibration(
        thresholds=Thresholds(overall=best.threshold, bands={band: cut.threshold for band, cut in chosen.items()}),
        precision=precision,
        confidence=confidence,
        judged=len(judgements.score),
        unscored=judgements.unscored,
        source=judgements.source,
        cuts={ALL: overall, **cuts},
        chosen={ALL: best, **chosen},
        fallback={band: _why(found) for band, found in cuts.items() if band not in chosen},
        applied=_applied(judgements, bands, taken, (1 - confidence) / len(tried) ** len(bands)),
        reliability=reliability(judgements),
    )


def candidates(score: Floats, weight: Floats) -> list[float]:
    """Return the thresholds to try, ascending: ten at most, each keeping something, no two the same judged pairs.

    They depend on scores and not on what was judged right. Of two that keep the same, the default one stays.
    """
    quantiles = np.quantile(score, QUANTILES, weights=weight, method="inverted_cdf").tolist()
    default = Thresholds().overall
    tried = {int((score > threshold).sum()): threshold for threshold in (0.0, *quantiles, default)}
    return sorted(threshold for kept, threshold in tried.items() if kept)


def _lowest(cuts: list[Cut], precision: float, judged: int = 1) -> Cut | None:
    return next((cut for cut in cuts if cut.lower >= precision and cut.judged >= judged), None)


def _overall(judgements: Judgements, threshold: float, error: float) -> Cut:
    kept = _kept(judgements, judgements.score > threshold, error)
    return Cut(**msgspec.structs.asdict(kept), threshold=threshold, unshrunk=kept.precision, borrowed=0.0)


def _kept(judgements: Judgements, kept: Flags, error: float) -> Kept:
    found = weighted(*judgements.some(kept), 1 - error, "lower")
    recall = _recall(judgements, kept, judgements.right)
    return Kept(judged=found.observations, precision=found.value, lower=found.lower, recall=recall)


def _recall(judgements: Judgements, kept: Flags, right: Flags) -> float:
    there = float(judgements.weight[right].sum())
    return float(judgements.weight[right & kept].sum()) / there if there else 0.0


def _bands(judgements: Judgements) -> dict[str, Flags]:
    """Return which judged pairs are of which band, the rarest first; bands without any are left out."""
    place = np.searchsorted(FREQUENCIES, judgements.pairs, side="right")
    return {frequency_band(FREQUENCIES[k - 1]): place == k for k in np.unique(place).tolist()}


def _band_cuts(
    judgements: Judgements, bands: dict[str, Flags], tried: list[float], error: float
) -> dict[str, list[Cut]]:
    """Return the cuts of every band, shrunk at each threshold; those that keep none of its judged pairs left out."""
    cuts: dict[str, list[Cut]] = {band: [] for band in bands}
    for threshold in tried:
        kept = judgements.score > threshold
        there = {band: of_band[kept] for band, of_band in bands.items() if of_band[kept].any()}
        right, weight = judgements.some(kept)
        for (band, own), shrunk in zip(there.items(), shrink(right, weight, list(there.values()), error), strict=True):
            cut = Cut(
                threshold=threshold,
                judged=int(own.sum()),
                **shrunk._asdict(),
                recall=_recall(judgements, kept, bands[band] & judgements.right),
            )
            cuts[band].append(cut)
    return cuts


def _why(cuts: list[Cut]) -> str:
    """Say why a band has no threshold of its own."""
    if not cuts or cuts[0].judged < LEAST:
        return f"{cuts[0].judged if cuts else 0} judged pairs above the lowest threshold, {LEAST} needed"
    best = max((cut for cut in cuts if cut.judged >= LEAST), key=lambda cut: cut.lower)
    return f"the lower limit reaches {best.lower:.3f}, at threshold {best.threshold:.4g}"


def _applied(judgements: Judgements, bands: dict[str, Flags], taken: dict[str, float], error: float) -> Kept:
    kept = np.zeros(len(judgements.score), np.bool_)
    for band, of_band in bands.items():
        kept |= of_band & (judgements.score > taken[band])
    return _kept(judgements, kept, error)


# --- when it cannot be done -------------------------------------------------------------------------------


def _out_of_reach(judgements: Judgements, cuts: list[Cut], precision: float, confidence: float) -> str:
    best = max(cuts, key=lambda cut: cut.lower)
    error = (1 - confidence) / len(cuts)
    return (
        f"{judgements.source}: no threshold keeps a share of {precision:g} right with confidence {confidence:g}. The "
        f"best lower limit is {best.lower:.3f}, at threshold {best.threshold:.4g} (precision {best.precision:.3f} of "
        f"{best.judged:,} judged pairs). {_remedy(judgements, cuts, precision, error)}"
    )


def _remedy(judgements: Judgements, cuts: list[Cut], precision: float, error: float) -> str:
    """Say how many judgements more would do, if the precision of some cut stays as observed."""
    needed = [_needed(judgements, cut, precision, error) for cut in cuts if cut.precision > precision]
    if not needed:
        highest = max(cut.precision for cut in cuts)
        return (
            f"The scores cannot separate that well: the highest precision of any threshold is {highest:.3f}, and more "
            "judgements would not raise it. Ask for less."
        )
    more = float(f"{max(min(needed) - len(judgements.score), 1):.2g}")
    return f"About {more:,.0f} more judgements, drawn the same way, would do if the precision stays as observed."


def _needed(judgements: Judgements, cut: Cut, precision: float, error: float) -> float:
    """Return how many judgements in all bring the limit of a cut to `precision`, its own being higher."""

    def enough(size: int) -> bool:
        return beta_quantile(size * cut.precision, size * (1 - cut.precision) + 1, error) >= precision

    effective = weighted(*judgements.some(judgements.score > cut.threshold)).effective
    return bisect_left(range(_MOST), True, lo=1, key=enough) / effective * len(judgements.score)
