"""How many regions each category has: the long tail, in numbers and as a curve."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.plots import board, png
from pipeline.run import Run
from stages.pairing import STEP


class FrequencyReport(msgspec.Struct, frozen=True):
    """Pairs per category, the most frequent first."""

    counts: dict[str, int]
    agreements: dict[str, int]
    """Pairs by agreement."""
    flagged: int

    @property
    def pairs(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def once(self) -> int:
        """Count the categories with a single pair."""
        return sum(count == 1 for count in self.counts.values())

    def half(self) -> int:
        """Count the categories that hold half of all pairs."""
        return int(np.searchsorted(np.cumsum(list(self.counts.values())), self.pairs / 2)) + 1


def gather(run: Run) -> FrequencyReport:
    """Count the pairs of a run. Raises `UsageError` when there are none."""
    counts: Counter[str] = Counter()
    agreements: Counter[str] = Counter()
    flagged = 0
    for batch in run.dataset("pairs", STEP).to_batches(columns=["category", "agreement", "flagged"]):
        for name, counter in (("category", counts), ("agreement", agreements)):
            for found in batch[name].cast(pa.string()).value_counts().to_pylist():
                counter[found["values"]] += found["counts"]
        flagged += pc.sum(batch["flagged"]).as_py() or 0
    if not counts:
        raise UsageError(f"{run.folder.uri}: no pairs yet. Make them first: rr7k stage-1 pairs")
    ranked = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return FrequencyReport(ranked, dict(agreements.most_common()), flagged)


def draw(report: FrequencyReport, cut: int | None = None) -> bytes:
    """Return pairs per category over its rank as a PNG, both logarithmic; with `cut`, head and tail apart."""
    figure = board(8, 4.2)
    axes = figure.add_subplot()
    counts = np.array(list(report.counts.values()))
    ranks = np.arange(1, len(counts) + 1)
    axes.plot(ranks, counts, color="#2a7fb8", marker="." if len(counts) < 200 else None)
    axes.fill_between(ranks, counts, 0.8, color="#2a7fb8", alpha=0.15)
    named = np.unique(np.geomspace(1, len(counts), 8).round().astype(int)) - 1
    names = list(report.counts)
    for place in named.tolist():
        axes.annotate(
            names[place], (ranks[place], counts[place]), xytext=(4, 5), textcoords="offset points", fontsize=8
        )
    if cut is not None:
        head = int((counts >= cut).sum())
        axes.axhline(cut, color="#c44e00", linewidth=1, linestyle="--")
        axes.fill_between(ranks[:head], counts[:head], 0.8, color="#c44e00", alpha=0.25)
        told = f"head: {head:,} categories with {cut:,} pairs or more, {int(counts[:head].sum()):,} pairs"
        axes.annotate(told, (len(counts), cut), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=8)
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(0.8, max(counts[0], cut or 0) * 2),
        xlabel="rank of the category",
        ylabel="pairs",
        title=f"{report.pairs:,} pairs in {len(counts):,} categories; {report.once():,} have one",
    )
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)
