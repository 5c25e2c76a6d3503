"""Audit of categories that may mean the same: every pair above a similarity, with what people have decided of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from benchmark.semantic_space import Vectors
from pipeline import categories

LEAST = 0.8
"""Cosine from which a pair is listed. Of those that the paper's reviewers and readers found in its class list, audience
and audience member have 0.85, seed pod and seedpod 0.85, onion and onions 0.89; gull and seagull 0.37 are beyond it."""

Decision = Literal["merge", "alias", "hypernym", "kept apart", "open"]

_REVIEWED = Path(__file__).parent.parent / "data_manifests" / "categories.csv"
_BLOCK = 1024


class Pair(NamedTuple):
    """Two categories, the more frequent first."""

    first: str
    second: str
    similarity: float
    """Cosine of the sentence embeddings."""
    first_instances: int
    second_instances: int
    decision: Decision
    """alias, hypernym: the release accepts one for the other. merge: categories.csv makes one of them, which the
    release does not have yet. kept apart: it says that a name stays as it is. open: nobody has decided."""


class _Kind(NamedTuple):
    """What is read of a category."""

    category: str
    instances: int
    aliases: Sequence[str]
    hypernyms: Sequence[str]


def find(kinds: pa.Table, vectors: Vectors, least: float = LEAST) -> list[Pair]:
    """Return the pairs of the table `categories` with a cosine of `least` or more, the most similar first.

    `vectors` are the unit vectors of its names, (N, D). Raises `UsageError` for mistakes in the reviewed table.
    """
    merges = categories.load(_REVIEWED).merges
    names = [_Kind(**row) for row in kinds.select(_Kind._fields).to_pylist()]
    pairs = []
    for start in range(0, len(names), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors[start:].T
        for a, b in zip(*np.nonzero(np.triu(cosines, 1) >= least), strict=True):
            one, other = sorted((names[start + a], names[start + b]), key=lambda kind: (-kind.instances, kind.category))
            decision = _decision(one, other, merges)
            told = (one.category, other.category, float(cosines[a, b]), one.instances, other.instances, decision)
            pairs.append(Pair(*told))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def write_csv(pairs: Iterable[Pair]) -> bytes:
    """Return all pairs as CSV."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(Pair._fields)
    writer.writerows(pair._replace(similarity=round(pair.similarity, 4)) for pair in pairs)
    return sink.getvalue().encode()


def counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """Count the pairs by decision, in the order of `Decision`."""
    found = dict.fromkeys(get_args(Decision), 0)
    for pair in pairs:
        found[pair.decision] += 1
    return found


def _decision(one: _Kind, other: _Kind, merges: Mapping[str, str]) -> Decision:
    a, b = one.category, other.category
    if merges.get(a, a) == merges.get(b, b):
        return "merge"
    if b in one.aliases or a in other.aliases:
        return "alias"
    if b in one.hypernyms or a in other.hypernyms:
        return "hypernym"
    return "kept apart" if merges.get(a) == a or merges.get(b) == b else "open"
