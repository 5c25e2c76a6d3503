"""What stands above a page of the queue: its category, where that belongs, what it means, and what is near it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import embeddings
from pipeline.run import Run
from pipeline.wordnet import WordNet, open_wordnet
from stages import category_review, coarse, head_tail
from stages.queue import Page

MIXED = "Rare categories: each picture has its own name"
"""Title of a page of several categories."""

_NEIGHBOURS = 4  # one line's worth

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class Heading(NamedTuple):
    """What stands above a page."""

    title: str
    group: str
    """Primary and secondary coarse group; of a mixed page all primary ones."""
    gloss: str
    """Empty where it is not known."""
    neighbours: tuple[str, ...]
    """The nearest first; empty on a mixed page."""


def headings(run: Run, pages: Sequence[Page], embed: Embed = embeddings.embed) -> list[Heading]:
    """Return what stands above each page, in their order; the texts come from models and are to be escaped.

    A page of one category gets the name, its coarse group, WordNet's definition where that is installed and knows it,
    and the run's four nearest categories by `embed`, which returns (N, D) unit vectors.
    """
    shown = [sorted({tile.category for tile in page.tiles}) for page in pages]
    every = sorted({*head_tail.of_categories(run), *(name for names in shown for name in names)})
    tree = coarse.load(category_review.TREE)
    groups = {found.name: found for found in coarse.assign(every, tree, embed)}
    alone = sorted({names[0] for names in shown if len(names) == 1})
    near = dict(zip(alone, _neighbours(alone, every, embed), strict=True))
    wordnet = open_wordnet()
    return [
        _of_one(names[0], groups[names[0]], near[names[0]], wordnet) if len(names) == 1 else _of_many(names, groups)
        for names in shown
    ]


def _of_one(name: str, group: coarse.Assignment, near: tuple[str, ...], wordnet: WordNet | None) -> Heading:
    return Heading(name, f"{group.primary} · {group.secondary}", wordnet.gloss(name) if wordnet else "", near)


def _of_many(names: Sequence[str], groups: Mapping[str, coarse.Assignment]) -> Heading:
    return Heading(MIXED, " · ".join(dict.fromkeys(groups[name].primary for name in names)), "", ())


def _neighbours(names: Sequence[str], every: Sequence[str], embed: Embed) -> Iterator[tuple[str, ...]]:
    """Yield the categories nearest to each name, the nearest first."""
    if not names:
        return
    vectors = embed(every)
    place = {name: i for i, name in enumerate(every)}
    for name in names:
        order = np.argsort(-(vectors @ vectors[place[name]]), kind="stable")[: _NEIGHBOURS + 1]
        yield tuple(every[i] for i in order.tolist() if every[i] != name)[:_NEIGHBOURS]
