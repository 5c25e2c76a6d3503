"""Groups of a benchmark's instances that scores are told of apart: by frequency, size, coarse group, and labeller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.families import families
from benchmark.metrics import Ints
from pipeline.regions import COMMON, FREQUENT, RARE

SIZES = (0.001, 0.01, 0.1)
"""Shares of the image that part tiny, small, medium and large masks: even steps on the axis of the paper's Fig. 6b."""

_SIZE_NAMES = ("tiny: below 0.1 %", "small: 0.1 to 1 %", "medium: 1 to 10 %", "large: 10 % or more")
_UNKNOWN = "not told"
KIN = "labelled by a relative"


class Grouping(NamedTuple):
    """A way to part the instances."""

    name: str
    names: list[str]
    """Of the groups, in the order in which they are shown."""
    codes: Ints
    """Each instance's group, shape (N,)."""


def groupings(
    truth: pa.Table, categories: pa.Table | None, related: npt.NDArray[np.bool_] | None
) -> Iterator[Grouping]:
    """Yield the groupings for which the truth table, as `benchmark.score` describes it, has the columns.

    `related` says which labels relatives made (`relatives`), None where the scored model has no known family.
    """
    if categories is not None:
        place = pc.index_in(truth["category"], value_set=categories["category"])
        yield _by_text("frequency", categories["frequency"].take(place), (RARE, COMMON, FREQUENT))
    if "area_ratio" in truth.column_names:
        codes = np.searchsorted(SIZES, truth["area_ratio"].to_numpy(), side="right")
        yield _by_text("size", pa.array(_SIZE_NAMES).take(pa.array(codes)), _SIZE_NAMES)
    if "coarse_primary" in truth.column_names:
        yield _by_text("coarse group", truth["coarse_primary"])
    for name, labellers in _labellers(truth):
        yield _by_text(name, labellers)
    if "screened_by" in truth.column_names:
        yield _by_text("screened by", truth["screened_by"])
    if related is not None:
        told = pc.if_else(pa.array(related), KIN, "by others")
        yield _by_text("kinship", told, (KIN, "by others"))


def relatives(truth: pa.Table, model: str) -> npt.NDArray[np.bool_] | None:
    """Return which labels a model of the same family named or confirmed, shape (N,); None: `model` has no known one."""
    if not families(model):
        return None
    related = np.zeros(len(truth), np.bool_)
    for _, labellers in _labellers(truth):
        related |= _each(labellers, lambda name: bool(families(name) & families(model)), pa.bool_()).to_numpy(False)
    return related


def _labellers(truth: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """Yield the names of what labelled the instances, by how it did."""
    if "namer_models" in truth.column_names:
        models = truth["namer_models"].combine_chunks().cast(pa.list_(pa.string()))
        yield "named by", _each(pc.binary_join(models, "\n"), _namers, pa.string())
    if "verifier_model" in truth.column_names:
        models = truth["verifier_model"].combine_chunks().cast(pa.string())
        yield "confirmed by", _each(models, lambda name: name or "no model", pa.string())


def _namers(models: str) -> str:
    return " + ".join(dict.fromkeys(models.split("\n"))) or _UNKNOWN


def _each(texts: pa.Array, rule: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    """Apply a rule to each text, to equal ones once; to an empty one in place of null."""
    coded = texts.fill_null("").dictionary_encode()
    return pa.array([rule(text) for text in coded.dictionary.to_pylist()], kind).take(coded.indices)


def _by_text(name: str, texts: pa.Array | pa.ChunkedArray, order: Sequence[str] = ()) -> Grouping:
    """Group by text: in `order`, then the largest group first."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    told = whole.cast(pa.string()).fill_null(_UNKNOWN).dictionary_encode()
    names, counts = told.dictionary.to_pylist(), np.bincount(told.indices, minlength=len(told.dictionary))
    rank = {text: place for place, text in enumerate(order)}
    sorted_places = sorted(range(len(names)), key=lambda i: (rank.get(names[i], len(rank)), -counts[i], names[i]))
    new = np.empty(len(names), np.int64)
    new[sorted_places] = np.arange(len(names))
    return Grouping(name, [names[i] for i in sorted_places], new[told.indices.to_numpy()])
