"""Semantic Similarity of many pairs of texts: each distinct text is embedded once, and never again on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmark.metrics import Floats, cosine
from pipeline.embeddings import Vectors

_PAIRS = 1 << 13
"""Pairs compared at a time: 25 MB of vectors."""


class Similarity:
    """By the embeddings of one model, kept in a folder."""

    def __init__(self, model: str = "", folder: Path | None = None) -> None:
        """Find the model (`pipeline.embeddings.model_files`, whose errors it raises); load nothing."""
        self._vectors = Vectors(model, folder)
        self.files = self._vectors.files

    def of_pairs(self, first: Sequence[str], second: Sequence[str]) -> Floats:
        """Return the cosine of each pair of texts, -1 to 1, shape (pairs,).

        Raises `UserError` when a file of vectors is damaged.
        """
        if not first:
            return np.empty(0)
        texts = pa.array([*first, *second], pa.large_string()).dictionary_encode()
        vectors, places = self._vectors.of(texts.dictionary), texts.indices.to_numpy()
        one, other = places[: len(first)], places[len(first) :]
        starts = range(0, len(first), _PAIRS)
        return np.concatenate([cosine(vectors[one[s : s + _PAIRS]], vectors[other[s : s + _PAIRS]]) for s in starts])
