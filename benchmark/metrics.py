"""The numbers of a score, from single texts to averages. Pure functions, each with where its definition is from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.wordnet import WordNet

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Steps(NamedTuple):
    """How far two names are from each other in WordNet's tree, in links between a noun and the next more general."""

    up: int
    """From the true name up to the nearest noun above both."""
    down: int
    """From there down to the predicted one."""

    @property
    def relation(self) -> str:
        """Say what the prediction is to the true name."""
        if not self.up:
            return "too specific" if self.down else "same"
        return "other" if self.down else "too general"


def semantic_iou(prediction: str, truth: str, both_empty: float | None = 0.0) -> float:
    """Return Semantic IoU, 0 to 1: |A ∩ B| / |A ∪ B| of the two texts' sets of lower-cased words.

    Words are what white space separates, with whatever punctuation they have; a repeated word counts once
    (wowseg_facts.md A.1; the same formula in all published scorers). Two texts without words get `both_empty`; where
    that is None, raises `ZeroDivisionError` as those scorers do that have no guard (A.3).
    """
    words, wanted = _words(prediction), _words(truth)
    either = len(words | wanted)
    if not either and both_empty is not None:
        return both_empty
    return len(words & wanted) / either


@lru_cache(1 << 16)
def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


def cosine(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> Floats:
    """Return Semantic Similarity, -1 to 1, of unit vectors row by row, shapes (N, D) → (N,); not clamped (A.1)."""
    return np.asarray(np.einsum("nd,nd->n", first, second), np.float64)


def micro_mean(values: Floats) -> float:
    """Return the mean over instances that count (not NaN): what is published (A.1); NaN where there is none."""
    counted = ~np.isnan(values)
    return float(values[counted].sum() / counted.sum()) if counted.any() else float("nan")


def macro_mean(values: Floats, categories: Ints) -> float:
    """Return the mean over categories of their micro means, each category weighing the same.

    `categories` numbers the category of each value, from 0. A category in which nothing counts is left out.
    """
    counted = ~np.isnan(values)
    number = np.bincount(categories[counted])
    total = np.bincount(categories[counted], values[counted])
    return float((total[number > 0] / number[number > 0]).mean()) if counted.any() else float("nan")


class Hierarchy:
    """WordNet as a measure of how far off a prediction is; nouns are looked up once, and so are two of them."""

    def __init__(self, wordnet: WordNet) -> None:
        self._wordnet = wordnet
        self._above = lru_cache(1 << 17)(self._look_up)
        self._noun = lru_cache(1 << 17)(self._known_ending)
        self._between = lru_cache(1 << 17)(self._shortest)

    def steps(self, truth: str, prediction: str) -> Steps | None:
        """Return the shortest way from a true name to a predicted one, both normalised; None: no noun that it has.

        The true name is meant in its senses in a picture (`WordNet.pictured`), the predicted one in any. A name that
        WordNet lacks stands for its longest ending that it has: a red car is a car. The measure is the path length of
        Rada et al. (IEEE Trans. Systems, Man, and Cybernetics 19, 1989), in its two parts.
        """
        return self._between(self._noun(truth), self._noun(prediction))

    def _shortest(self, truth: str, prediction: str) -> Steps | None:
        wanted, found = self._above(truth, True), self._above(prediction, False)
        ways = [(up + found[noun], up) for noun, up in wanted.items() if noun in found]
        if not ways:
            return None
        links, up = min(ways)
        return Steps(up, links - up)

    def _known_ending(self, name: str) -> str:
        return next((end for end in _endings(name) if self._wordnet.senses(end)), "")

    def _look_up(self, noun: str, pictured: bool) -> dict[int, int]:
        return self._wordnet.steps_up(self._wordnet.pictured(noun) if pictured else self._wordnet.senses(noun))


def _endings(name: str) -> Iterator[str]:
    words = name.split()
    return (" ".join(words[first:]) for first in range(len(words)))
