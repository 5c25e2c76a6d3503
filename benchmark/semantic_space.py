"""The names of a data set in the space of sentence embeddings, beside those of ImageNet-21K (WOW-Seg, Fig. 11)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.labels import normalise

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""From distinct texts to unit vectors, (N, D)."""

LEVELS = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Cosines at which coverage is told. Of two spellings or synonyms it is mostly above 0.8."""

SHOWN = 1500
"""Names of either side in the plot: t-SNE of 3,000 takes most of a minute, of all 28,000 a quarter of an hour."""

_BLOCK = 1024
_SAME = 1 - 1e-5
"""Cosine of a text with itself, in single precision."""


class Nearest(NamedTuple):
    """How near the names of one side come to those of the other."""

    cosines: npt.NDArray[np.float32]
    """Of every name with its nearest, ascending."""

    def share(self, level: float) -> float:
        """Return the share of names that have one at this cosine or nearer."""
        return float((self.cosines >= min(level, _SAME)).mean())

    @property
    def median_distance(self) -> float:
        """1 − cosine to the nearest; half of the names have one nearer."""
        return float(1 - np.median(self.cosines))


class SemanticSpace(NamedTuple):
    """Where the categories lie."""

    categories: int
    imagenet: int
    covered: Nearest
    """From ImageNet-21K's names to the categories: what of it is covered."""
    known: Nearest
    """From the categories to ImageNet-21K's names: what is not new."""
    apart: Nearest
    """From the categories to the nearest other category."""
    ours: npt.NDArray[np.float32]
    """t-SNE of a fixed subsample of the categories, (N, 2)."""
    theirs: npt.NDArray[np.float32]
    """And of ImageNet-21K's names."""


def imagenet_names() -> list[str]:
    """Return the first names of ImageNet-21K's 21,841 synsets in normal form, each once, from the lists that timm has.

    Raises `UserError` where timm is not installed.
    """
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("ImageNet-21K's names come with the package timm: pip install 'rr7k[models]'")
    folder = Path(spec.submodule_search_locations[0]) / "data" / "_info"  # read without importing timm, and torch
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    synsets = (folder / "imagenet22k_synsets.txt").read_text(encoding="utf-8").split()
    return sorted({normalise(lemmas[synset].partition(",")[0]) for synset in synsets})


def measure(categories: Sequence[str], theirs: Sequence[str], embed: Embed) -> SemanticSpace:
    """Place the categories among the names `theirs`; two names at least on either side."""
    ours_at, theirs_at = embed(categories), embed(theirs)
    shown, shown_theirs = ours_at[_subsample(categories)], theirs_at[_subsample(theirs)]
    flat = _tsne(np.concatenate([shown, shown_theirs]))
    return SemanticSpace(
        len(categories),
        len(theirs),
        _nearest(theirs_at, ours_at),
        _nearest(ours_at, theirs_at),
        _nearest(ours_at, ours_at, same=True),
        flat[: len(shown)],
        flat[len(shown) :],
    )


def _nearest(of: Vectors, among: Vectors, *, same: bool = False) -> Nearest:
    """Find each vector's nearest; where both sides are the `same`, not itself."""
    best = []
    for start in range(0, len(of), _BLOCK):
        cosines = of[start : start + _BLOCK] @ among.T
        if same:
            np.fill_diagonal(cosines[:, start:], -1)
        best.append(cosines.max(axis=1))
    return Nearest(np.sort(np.concatenate(best)))


def _subsample(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Choose names by the hashes of their texts, so that others more or fewer change little."""
    hashes = [hashlib.sha256(name.encode()).digest() for name in names]
    return np.array(sorted(range(len(names)), key=lambda place: hashes[place])[:SHOWN])


def _tsne(vectors: Vectors) -> npt.NDArray[np.float32]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    model = TSNE(init="pca", random_state=0, perplexity=min(30, (len(vectors) - 1) / 3))
    with threadpool_limits(1):  # several threads add up in any order, and wait for each other where others compute
        return np.asarray(model.fit_transform(vectors), np.float32)
