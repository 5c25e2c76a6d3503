"""What the yes/no check came to, category by category, counted over tables of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.proportions import counted
from pipeline.run import Run
from stages import requests, verdicts, verification_settings
from stages.calibration import Thresholds
from stages.sampling import stable_hash

MADE_BY = ("engine", "model", "revision", "layout", "prompt")
"""Columns of `checks` that say how the answers were had."""
VERDICT = ("category", "reason", "threshold")
"""Columns of `verdicts` that are counted."""
CHECK = ("role", "category", "outcome", *MADE_BY)
"""Columns of `checks` that are counted."""


class Share(msgspec.Struct, frozen=True):
    """So many of so many, with 95 % confidence limits of the share (Clopper and Pearson 1934)."""

    count: int
    total: int
    lower: float
    upper: float
    """0 to 1; 0 and 1 where the total is 0."""

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 where the total is 0."""
        return self.count / self.total if self.total else 0.0

    def told(self) -> str:
        """Say it in words, the limits in brackets, in per cent."""
        limits = f", {100 * self.value:.1f} % ({100 * self.lower:.1f}–{100 * self.upper:.1f})" if self.total else ""
        return f"{self.count:,} of {self.total:,}{limits}"


class CategoryCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The answers about one category."""

    category: str
    kept: int
    no: int
    unclear: int
    """Pairs: kept, dropped for a no, dropped for an unclear answer."""
    dropped: Share
    """Of the pairs asked."""
    false_yes: Share
    """Of the regions of other categories that were asked about this one."""
    threshold: float | None
    """Of its pairs; None where none was asked."""


class Counts:
    """Sums over batches; holds some numbers per category."""

    def __init__(self) -> None:
        self.tail = 0
        """Pairs kept whatever was said, if they were asked about at all."""
        self.thresholds: dict[str, float] = {}
        """By category."""
        self.made_by: dict[str, Counter[str]] = {name: Counter() for name in MADE_BY}
        """Answers, by what they were had from."""
        self._pairs: dict[str, Counter[str]] = {}  # category to reasons
        self._controls: dict[str, Counter[str]] = {}  # category to outcomes

    def add_verdicts(self, batch: pa.RecordBatch) -> None:
        """Count rows of `verdicts`."""
        for category, reason, threshold, count in _grouped(batch, VERDICT):
            if reason == "tail":
                self.tail += count
                continue
            self._pairs.setdefault(category, Counter())[reason] += count
            self.thresholds[category] = threshold

    def require(self, run: Run) -> None:
        """Raise `UsageError` when no verdict of the run was counted."""
        if not self._pairs and not self.tail:
            raise UsageError(f"{run.folder.uri}: no verdicts yet. Make them first: rr7k stage-2")

    def add_checks(self, batch: pa.RecordBatch) -> None:
        """Count rows of `checks`; their outcomes where they are controls, whose pairs have verdicts."""
        for name, counter in self.made_by.items():
            counter.update(dict(_grouped(batch, [name])))
        for category, outcome, count in _grouped(controls(batch), ("category", "outcome")):
            self._controls.setdefault(category, Counter())[outcome] += count

    def threshold_of(self, categories: pa.Array) -> npt.NDArray[np.float64]:
        """Return the threshold of every category; the paper's for those without pairs of their own."""
        coded = categories.dictionary_encode()
        known = [self.thresholds.get(name, Thresholds().overall) for name in coded.dictionary.to_pylist()]
        return np.asarray(np.array(known, np.float64)[coded.indices.to_numpy()])

    def outcomes(self) -> Counter[str]:
        """Return the outcomes of all controls."""
        return sum(self._controls.values(), Counter())

    def by_category(self) -> list[CategoryCounts]:
        """Return every category asked about, the highest drop rate first, then the highest false-yes rate.

        Ordered by the rates' lower limits: one drop of one pair says little.
        """
        found = map(self._category, self._pairs.keys() | self._controls.keys())
        return sorted(found, key=lambda c: (-c.dropped.lower, -c.dropped.count, -c.false_yes.lower, c.category))

    def _category(self, name: str) -> CategoryCounts:
        pairs, controls = self._pairs.get(name, Counter()), self._controls.get(name, Counter())
        return CategoryCounts(
            category=name,
            kept=pairs["yes"],
            no=pairs["no"],
            unclear=pairs["unclear"],
            dropped=share(pairs["no"] + pairs["unclear"], pairs.total()),
            false_yes=share(controls["yes"], controls.total()),
            threshold=self.thresholds.get(name),
        )


def count(run: Run) -> Counts:
    """Count the verdicts and checks of a run. Raises `UsageError` when there are no verdicts."""
    counts = Counts()
    for batch in run.dataset("verdicts", verdicts.STEP).to_batches(columns=list(VERDICT)):
        counts.add_verdicts(batch)
    counts.require(run)
    for batch in run.dataset("checks", verification_settings.STEP).to_batches(columns=list(CHECK)):
        counts.add_checks(batch)
    return counts


def share(count: int, total: int) -> Share:
    """Return `count` of `total` with its confidence limits."""
    found = counted(count, total)
    return Share(count, total, found.lower, found.upper)


def controls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows of `checks` whose category is a wrong one."""
    return batch.filter(pc.equal(batch["role"], requests.CONTROL))


def _grouped(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield every combination of values that occurs in these columns, and in how many rows."""
    table = pa.table({name: _plain(batch[name]) for name in names}).group_by(list(names)).aggregate([([], "count_all")])
    yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


class Lowest:
    """The rows with the lowest values of every category, over batches; equal values in the order of a hash."""

    def __init__(self, each: int, seed: int) -> None:
        self._each, self._seed = each, seed
        self._rows: dict[str, list[tuple[float, int, int]]] = {}  # category to value, hash and mask, ascending

    def add(self, batch: pa.RecordBatch, values: npt.NDArray[np.float64] | None = None) -> None:
        """Take in rows with category and mask_id, and a finite value each; without values the hash alone decides."""
        coded = batch["category"].dictionary_encode()
        codes, ids = coded.indices.to_numpy(), batch["mask_id"].to_numpy()
        ranks = np.zeros(len(ids)) if values is None else values
        hashes = stable_hash(ids, self._seed)
        order = np.lexsort((hashes, ranks, codes))
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        names = coded.dictionary.to_pylist()
        for row in order[place < self._each].tolist():
            held = self._rows.setdefault(names[codes[row]], [])
            held.append((float(ranks[row]), int(hashes[row]), int(ids[row])))
        for name in names:
            self._rows[name] = sorted(self._rows[name])[: self._each]

    def best(self) -> list[tuple[str, int]]:
        """Return category and mask, the lowest of all first."""
        found = [(*row, name) for name, rows in self._rows.items() for row in rows]
        return [(name, mask_id) for _, _, mask_id, name in sorted(found)]
