"""Semantic Similarity of many pairs of texts: each distinct text is embedded once, and never again on this machine.

    FOLDER/MODEL/RANDOM.arrow   columns text, vector; mapped into memory, not read

MODEL is a hash of all that decides about a vector. Files are written whole, every few thousand texts, so a run that
is killed or goes on beside another loses little and breaks nothing; a text in two of them has the same vector in both.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.metrics import Floats, cosine
from pipeline import embeddings
from pipeline.errors import UserError
from pipeline.files import Folder

_TEXTS = 8192
"""Texts that are embedded between two writes: some seconds of work."""

_PAIRS = 1 << 13
"""Pairs compared at a time: 25 MB of vectors."""


def default_folder() -> Path:
    """Return where vectors are kept unless said otherwise: rr7k/embeddings in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rr7k" / "embeddings"


class Similarity:
    """Embeddings of one model, kept in a folder."""

    def __init__(self, model: str = "", folder: Path | None = None) -> None:
        """Find the model (`pipeline.embeddings.model_files`, whose errors it raises); load nothing."""
        self._model = model
        self.files = embeddings.model_files(model)
        self._folder = Folder(str((folder or default_folder()) / self.files.fingerprint[:16]))

    def of_pairs(self, first: Sequence[str], second: Sequence[str]) -> Floats:
        """Return the cosine of each pair of texts, -1 to 1, shape (pairs,).

        Raises `UserError` when a file of vectors is damaged.
        """
        if not first:
            return np.empty(0)
        texts = pa.array([*first, *second], pa.large_string()).dictionary_encode()
        vectors, places = self.vectors(texts.dictionary), texts.indices.to_numpy()
        one, other = places[: len(first)], places[len(first) :]
        starts = range(0, len(first), _PAIRS)
        return np.concatenate([cosine(vectors[one[s : s + _PAIRS]], vectors[other[s : s + _PAIRS]]) for s in starts])

    def vectors(self, texts: pa.Array) -> npt.NDArray[np.float32]:
        """Return unit vectors of distinct texts (large_string), shape (N, D). Raises `UserError` as `of_pairs` does."""
        parts = [self._part(name) for name in self._folder.names(".arrow")]
        known = pa.chunked_array([c for part in parts for c in part["text"].chunks], pa.large_string())
        missing = pc.filter(texts, pc.invert(pc.is_in(texts, value_set=known))).to_pylist()
        parts += [self._embed(missing[start : start + _TEXTS]) for start in range(0, len(missing), _TEXTS)]
        whole = pa.concat_tables(parts)
        found = whole["vector"].take(pc.index_in(texts, value_set=whole["text"])).combine_chunks()
        return np.asarray(found.flatten().to_numpy().reshape(len(texts), -1))

    def _embed(self, texts: list[str]) -> pa.Table:
        vectors = embeddings.embed(texts, self._model)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        made = pa.table({"text": pa.array(texts, pa.large_string()), "vector": column})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made)
        self._folder.replace(f"{secrets.token_hex(8)}.arrow", sink.getvalue())
        return made

    def _part(self, name: str) -> pa.Table:
        path = f"{self._folder.path}/{name}"
        try:
            return pa.ipc.open_file(pa.memory_map(path)).read_all()
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: damaged ({error}). Delete it: its texts are then embedded again.") from error
