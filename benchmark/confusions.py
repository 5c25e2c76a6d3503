"""What is taken for what: the per-instance rows of a score, counted by category and by what was said instead."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.metrics import Floats
from benchmark.presets import RR7K_1
from benchmark.score import ANSWERED


class Confusion(NamedTuple):
    """A category and something else that it was called."""

    category: str
    said: str
    """In normal form."""
    times: int
    of: int
    """Instances of the category."""
    similarity: float


class CategoryScore(NamedTuple):
    """How a category fares; means are NaN where nothing counts."""

    category: str
    instances: int
    answered: int
    similarity: float
    iou: float
    right: float
    """Share that is the name or an alias."""
    said: str
    """What it was most often called instead; empty where nothing else was said."""
    times: int


class Found(NamedTuple):
    """Both, from one walk over the rows."""

    confusions: list[Confusion]
    """The most frequent first."""
    categories: list[CategoryScore]
    """The least similar first."""


def count(per_instance: pa.Table) -> Found:
    """Count the rows that `benchmark.score` makes of each instance."""
    names = per_instance["category"].to_pylist()
    answered = [outcome == ANSWERED for outcome in per_instance["outcome"].to_pylist()]
    wrong = np.array(answered) & (column(per_instance, "synonym") < 1)
    texts = per_instance["text"].to_pylist()
    clean = {text: RR7K_1.prediction(text) for text in set(texts) if text is not None}
    totals, similarity = Counter(names), column(per_instance, "similarity")
    instead: defaultdict[str, Counter[str]] = defaultdict(Counter)
    sums: Counter[tuple[str, str]] = Counter()
    for place in np.flatnonzero(wrong):
        said = clean[texts[place]]
        instead[names[place]][said] += 1
        sums[names[place], said] += float(similarity[place])  # type: ignore[assignment]
    confusions = [
        Confusion(name, said, times, totals[name], sums[name, said] / times)
        for name, others in instead.items()
        for said, times in others.items()
    ]
    confusions.sort(key=lambda found: (-found.times, found.similarity, found.category, found.said))
    return Found(confusions, _categories(per_instance, answered, instead))


def column(table: pa.Table, name: str) -> Floats:
    """Return a column of numbers, shape (N,); NaN for null."""
    return np.asarray(table[name].to_numpy(), np.float64)


def _categories(table: pa.Table, answered: Sequence[bool], instead: dict[str, Counter[str]]) -> list[CategoryScore]:
    measured = ("similarity", "iou", "synonym")
    rows = table.select(["category", *measured]).append_column("answered", pa.array(map(int, answered), pa.int64()))
    means = rows.group_by("category").aggregate(
        [("category", "count"), ("answered", "sum"), *((name, "mean") for name in measured)]
    )
    found = []
    for row in means.to_pylist():
        said = instead.get(row["category"], Counter()).most_common(1)
        name, counts = row["category"], (row["category_count"], row["answered_sum"])
        similarity, iou, right = (_or_nan(row[f"{measure}_mean"]) for measure in measured)
        found.append(CategoryScore(name, *counts, similarity, iou, right, *(said[0] if said else ("", 0))))
    return sorted(found, key=lambda one: (np.nan_to_num(one.similarity, nan=-2), one.category))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def worst(per_instance: pa.Table, most: int) -> pa.Table:
    """Return the `most` answered rows that are least similar to their name, at first one of each category."""
    wrong = pc.and_(pc.equal(per_instance["outcome"], ANSWERED), pc.less(per_instance["synonym"], 1))
    rows = per_instance.filter(wrong).sort_by([("similarity", "ascending"), ("instance_id", "ascending")])
    seen: Counter[str] = Counter()
    turns = []
    for name in rows["category"].to_pylist():
        turns.append(seen[name])
        seen[name] += 1
    order = np.argsort(turns, kind="stable")[:most]
    return rows.take(pa.array(np.sort(order)))
