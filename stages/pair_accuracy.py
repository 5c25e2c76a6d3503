"""How often pairs are right, by agreement of their namers, where true names are known."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa

from pipeline import categories
from pipeline.run import Run
from stages.pairing import CATEGORIES, STEP


class Bin(msgspec.Struct, frozen=True):
    """Pairs of one agreement that have a true name."""

    agreement: str
    pairs: int
    right: float
    """Share whose category is the canonical true name, 0 to 1."""
    similarity: float
    """Mean cosine of category and true name, -1 to 1."""


def measure(run: Run, truth: Mapping[int, str]) -> list[Bin]:
    """Compare a run's pairs with true names by mask id; the largest bin first, then all of them as `all`."""
    from pipeline.embeddings import embed

    known = categories.load(CATEGORIES)
    pairs: pa.Table = run.dataset("pairs", STEP).to_table(columns=["mask_id", "category", "agreement"])
    rows = [row for row in pairs.to_pylist() if row["mask_id"] in truth]
    if not rows:
        return []
    true = [known.canonical(truth[row["mask_id"]]) for row in rows]
    said = [row["category"] for row in rows]
    right = np.array([a == b for a, b in zip(said, true, strict=True)], np.bool_)
    cosines = (embed(said) * embed(true)).sum(1)
    agreements = np.array([row["agreement"] for row in rows], np.str_)
    bins = [_bin(name, agreements == name, right, cosines) for name in np.unique(agreements).tolist()]
    everything = _bin("all", np.ones(len(rows), np.bool_), right, cosines)
    return [*sorted(bins, key=lambda b: -b.pairs), everything]


def _bin(name: str, chosen: np.ndarray, right: np.ndarray, cosines: np.ndarray) -> Bin:
    return Bin(name, int(chosen.sum()), float(right[chosen].mean()), float(cosines[chosen].mean()))
