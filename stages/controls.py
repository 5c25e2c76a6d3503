"""Negative controls: wrong but plausible names for a share of the pairs, to measure how often a model says yes to them.

A control has to be wrong, or it would measure nothing. So no name is taken that is a synonym, a more or less general
name or a part, nor one of a mask that overlaps this one; what embeddings call nearly the same is left out too, since
no table knows every synonym.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import masks
from pipeline.run import Run
from stages.pairing import Comparer
from stages.sampling import stable_hash

CO_OCCURRING, SIBLING = "co-occurring", "sibling"

_SEED = 5  # of the hash that chooses pairs, and of the one that chooses among names
_NEAREST = 40  # categories among which a sibling is sought
_SAME_THING = 0.8
"""Cosine of MiniLM's embeddings from which two names may be one thing under two words: "sofa" and "couch" have 0.85,
"cat" and "dog" 0.66."""

_COLUMNS = ("mask_id", "image_id", "width", "height", "rle_counts")


class Named(Protocol):
    """The categories of the run's pairs."""

    @property
    def distinct(self) -> list[str]:
        """Every category once, in the order of the alphabet."""
        ...

    def of(self, mask_ids: Sequence[int]) -> list[str | None]:
        """Return the category of each mask, None for one that is in no pair."""
        ...


class Control(NamedTuple):
    """A wrong name to ask a mask about."""

    mask_id: int
    category: str
    kind: str
    """CO_OCCURRING: another region of the same image has this name. SIBLING: the nearest name in meaning."""


def chosen(mask_ids: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """Return which masks get a control: a share of them, by a hash of the id, so a larger share contains a smaller."""
    return np.asarray(stable_hash(mask_ids, _SEED) < np.uint64(min(share, 1.0) * (2**64 - 2**11)), np.bool_)


def choose(run: Run, wanted: npt.NDArray[np.int64], named: Named, compare: Comparer) -> Iterator[Control]:
    """Yield a control for every mask of `wanted` for which there is a wrong name.

    Reads the run lengths of the images of those masks, one row group at a time.
    """
    if not len(wanted):
        return
    find = Siblings(named.distinct, compare)
    for image in _images(run, wanted):
        names = named.of([row["mask_id"] for row in image])
        rows = [(row, name) for row, name in zip(image, names, strict=True) if name is not None]
        overlaps = _overlaps([row for row, _ in rows])
        chosen = np.isin([row["mask_id"] for row, _ in rows], wanted)
        for place in np.flatnonzero(chosen).tolist():
            row, category = rows[place]
            touching = {rows[other][1] for other in np.flatnonzero(overlaps[place]).tolist()}
            beside = {name for _, name in rows} - touching
            if found := _control(row["mask_id"], category, touching, sorted(beside), find):
                yield found


def _control(mask_id: int, category: str, touching: set[str], beside: list[str], find: Siblings) -> Control | None:
    """Choose by the mask's hash which kind comes first; the other is taken where that has none."""
    turn = int(stable_hash(np.array([mask_id], np.int64), _SEED + 1)[0])
    true = {category, *touching}
    possible = [name for name in beside if find.wrong(name, true)]
    found = {
        CO_OCCURRING: possible[turn // 2 % len(possible)] if possible else None,
        SIBLING: find.sibling(category, true),
    }
    kinds = [CO_OCCURRING, SIBLING][:: 1 if turn % 2 else -1]
    return next((Control(mask_id, name, kind) for kind in kinds if (name := found[kind])), None)


class Siblings:
    """The run's categories by meaning."""

    def __init__(self, categories: list[str], compare: Comparer) -> None:
        from pipeline.embeddings import embed

        self._categories, self._compare = categories, compare
        self._place = {category: place for place, category in enumerate(categories)}
        self._vectors = embed(categories)
        self._near = cache(self._nearest)

    def sibling(self, category: str, true: Iterable[str]) -> str | None:
        """Return the nearest category that is wrong where every name of `true` is right, if one is near enough."""
        return next((name for name in self._near(category) if self.wrong(name, true)), None)

    def wrong(self, name: str, true: Iterable[str]) -> bool:
        """Say whether a name is wrong where these are right, as far as tables, WordNet and embeddings can tell."""
        return all(self._compare.agreement(*sorted((name, other))) == "different" for other in true) and all(
            self._cosine(name, other) < _SAME_THING for other in true
        )

    def _cosine(self, one: str, other: str) -> float:
        return float(self._vectors[self._place[one]] @ self._vectors[self._place[other]])

    def _nearest(self, category: str) -> list[str]:
        cosines = self._vectors @ self._vectors[self._place[category]]
        order = np.argsort(-cosines, kind="stable")[: _NEAREST + 1]
        return [self._categories[place] for place in order.tolist() if self._categories[place] != category]


def _images(run: Run, wanted: npt.NDArray[np.int64]) -> Iterator[list[dict[str, Any]]]:
    """Yield the masks of each image that has a mask of `wanted`."""
    ids = pa.array(wanted)
    for part in run.parts("masks"):
        with run.opened("masks", part) as file:
            for group in range(file.num_row_groups):
                here = file.read_row_group(group, columns=["mask_id", "image_id"])
                images = here.filter(pc.is_in(here["mask_id"], ids))["image_id"]
                if len(images):
                    table = file.read_row_group(group, columns=list(_COLUMNS))
                    rows = table.filter(pc.is_in(table["image_id"], images.combine_chunks())).to_pylist()
                    yield from (list(rows) for _, rows in groupby(rows, key=lambda row: row["image_id"]))


def _overlaps(image: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.bool_]:
    """Return the (N, N) matrix of which masks share a pixel, each with itself as well."""
    if not image:
        return np.zeros((0, 0), np.bool_)
    height, width = image[0]["height"], image[0]["width"]
    return np.asarray(masks.iou_matrix([row["rle_counts"] for row in image], height, width) > 0, np.bool_)
