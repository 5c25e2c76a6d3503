"""How often the check says yes to a wrong name, by negative controls: pairs asked with a wrong but plausible one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.proportions import Flags, counted
from pipeline.run import Run
from stages import head_tail, requests, verdicts, verification_settings

MEANING = (
    "Negative controls bound how often the model says yes to such wrong names, and nothing else: not the precision of "
    "what is kept, which depends on how many names are wrong and in what way, and not how many right ones are lost. "
    "Only people's judgements tell those."
)
"""To be shown with every figure of this file."""

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)

LEAST = 20
"""Controls that a category must have. With none of 20 kept the upper limit is still 1 − 0.05^(1/20) = 0.14."""

CONFIDENCE = 0.95


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Wrong names that would be kept."""

    controls: int
    kept: int
    share: float
    upper: float
    """One-sided upper limit of the share, Clopper and Pearson's, with CONFIDENCE for this rate alone."""


class FalseYes(msgspec.Struct, frozen=True, kw_only=True):
    """What keeping all scores above a threshold would keep."""

    threshold: float
    controls: Rate
    categories: dict[str, Rate]
    """By the category that was asked; those with LEAST controls or more, the highest upper limit first."""
    pairs: int
    """Head pairs that have an answer."""
    kept: float | None
    """Share of them that would be kept, 0 to 1; None where there are none."""


def measure(run: Run, thresholds: Sequence[float] = THRESHOLDS) -> list[FalseYes]:
    """Return what becomes of controls and pairs at every threshold, both with unclear answers, which are not kept.

    Raises `UsageError` when no control has an answer.
    """
    columns = ["category", "outcome", "p_yes", "p_no"]
    controls = pc.field("role") == requests.CONTROL
    checks = run.dataset("checks", verification_settings.STEP).to_table(columns=columns, filter=controls)
    if not checks.num_rows:
        raise UsageError(f"{run.folder.uri}: no negative control has an answer yet. Ask some: rr7k stage-2")
    head = pc.field("band") == head_tail.HEAD
    pairs = run.dataset("verdicts", verdicts.STEP).to_table(columns=["score"], filter=head)["score"].to_numpy()
    categories, asked = np.array(checks["category"].to_pylist(), np.str_), verdicts.scores(checks)
    return [_at(threshold, asked > threshold, categories, pairs > threshold) for threshold in thresholds]


def _at(threshold: float, kept: Flags, categories: np.ndarray, pairs: Flags) -> FalseYes:
    names, place, sizes = np.unique(categories, return_inverse=True, return_counts=True)
    of_category = np.bincount(place[kept], minlength=len(names))
    found = zip(names.tolist(), of_category.tolist(), sizes.tolist(), strict=True)
    rates = {name: _rate(yes, size) for name, yes, size in found if size >= LEAST}
    return FalseYes(
        threshold=threshold,
        controls=_rate(int(kept.sum()), len(kept)),
        categories=dict(sorted(rates.items(), key=lambda item: (-item[1].upper, item[0]))),
        pairs=len(pairs),
        kept=float(pairs.mean()) if len(pairs) else None,
    )


def _rate(kept: int, controls: int) -> Rate:
    found = counted(kept, controls, CONFIDENCE, "upper")
    return Rate(controls=controls, kept=kept, share=found.value, upper=found.upper)
