"""From rows in the order in which people are to see them to pages, with tiles among them whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline import files
from stages.head_tail import TAIL
from stages.requests import Ids, request_ids
from stages.sampling import stable_hash

GOLD, KEEP, DELETE = "gold", "keep", "delete"

_ROWS = {"mask_id": "int64", "image_id": "int64", "category": "string", "why": "string", "error": "float64"}
_ROWS |= {"inclusion_probability": "float64", "stratum": "string", "gold": "string"}


class Sheet(NamedTuple):
    """What the pages of a round have in common."""

    round: str
    view: str
    tiles: int
    """On a page at most."""
    gold_share: float
    """Share of the tiles whose answer is known, 0 to 0.5."""
    seed: int


class Golds:
    """Chooses tiles whose answer is known; a place is a row of the table it was made of."""

    def __init__(self, table: pa.Table, tail: set[str], seed: int) -> None:
        self._masks: Ids = table["mask_id"].to_numpy()
        self._keep, self._seed = np.array(table["gold"].to_pylist(), np.str_) == KEEP, seed
        of: dict[str, list[int]] = {}
        for place, name in enumerate(table["category"].to_pylist()):
            of.setdefault(name, []).append(place)
        self._of = {name: np.array(places, np.int64) for name, places in of.items()}
        nothing = np.empty(0, np.int64)
        self._mixed = np.concatenate([nothing, *(places for name, places in self._of.items() if name in tail)])

    def choose(self, category: str | None, shown: Ids, count: int) -> list[int]:
        """Return up to `count` places, right and wrong by turns, none of a mask among `shown`, which has one at least.

        None as the category means a page of many; it gets what is known of any category of the tail.
        """
        pool = self._mixed if category is None else self._of.get(category, self._mixed[:0])
        if not count or not len(pool):
            return []
        ordered = pool[np.argsort(stable_hash(self._masks[pool] ^ shown[0], self._seed), kind="stable")]
        seen = set(shown.tolist())
        kinds = [self._first(ordered[self._keep[ordered] == keep], seen, count) for keep in (False, True)]
        order = kinds[:: 1 if stable_hash(shown[:1], self._seed)[0] % np.uint64(2) else -1]
        turns = sorted((turn, kind, place) for kind, of in enumerate(order) for turn, place in enumerate(of))
        return [place for _, _, place in turns[:count]]

    def _first(self, places: Ids, seen: set[int], count: int) -> list[int]:
        """Return the first `count` places of masks that are not `seen`, and count those as seen."""
        found: list[int] = []
        for place in places:
            if len(found) == count:
                break
            if (mask_id := int(self._masks[place])) not in seen:
                seen.add(mask_id)
                found.append(int(place))
        return found


def paged(rows: pa.Table, golds: pa.Table, tail: set[str], sheet: Sheet) -> pa.Table:
    """Put rows on pages: of one category in the head, of several in the tail, in their order, gold between them.

    `rows` has mask_id, image_id, category, band, why, error, inclusion_probability and stratum, `golds` mask_id,
    image_id, category and gold; `tail` are the rare categories, whose gold mixed pages take. Returns those columns
    without the band, and page_id, place, view and round. Where there is too little gold, pages have more rows instead.
    """
    choose = Golds(golds, tail, sheet.seed)
    both = pa.concat_tables([_plain(rows, {}), _plain(golds, {"why": GOLD, "inclusion_probability": 1.0})])
    masks, categories = rows["mask_id"].to_numpy(), both["category"].to_pylist()
    every = both["mask_id"].to_pylist()
    ids: list[str] = []
    places: list[int] = []
    index: list[int] = []
    for start, stop in _segments(rows):
        category = None if rows["band"][start].as_py() == TAIL else categories[start]
        for fresh, known in _pages(masks[start:stop], category, choose, sheet):
            here = range(start + fresh.start, start + fresh.stop)
            tiles = _mixed(here, [len(masks) + place for place in known], masks, sheet.seed)
            page = page_id(sheet.round, [(every[tile], categories[tile]) for tile in tiles])
            ids += [page] * len(tiles)
            places += range(len(tiles))
            index += tiles
    said = {"page_id": ids, "place": pa.array(places, pa.int32())}
    said |= {name: [text] * len(ids) for name, text in (("view", sheet.view), ("round", sheet.round))}
    taken = both.take(pa.array(index, pa.int64()))
    return pa.table({**said, **{name: taken[name] for name in taken.column_names}})


def page_id(round_name: str, rows: Sequence[tuple[int, str]]) -> str:
    """Return a hash of 64 bits of a round and the (mask_id, category) of a page's tiles in their places."""
    return files.sha256(msgspec.json.encode([round_name, rows]))[:16]


def keys(table: pa.Table) -> Ids:
    """Return a hash of mask and category for each row of a table that has both, shape (rows,)."""
    return request_ids(table["mask_id"].to_numpy(), table["category"], "pair")


def _plain(table: pa.Table, given: dict[str, object]) -> pa.Table:
    """Return the columns of `_ROWS`; what the table lacks is `given`, or null, a stratum empty."""
    known = {"stratum": "", **given}
    return pa.table(
        {
            name: table[name].cast(kind)
            if name in table.column_names
            else pa.array([known.get(name)] * table.num_rows, kind)
            for name, kind in _ROWS.items()
        }
    )


def _segments(rows: pa.Table) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of rows that may share a page: all of the tail, and each category of the head."""
    columns = zip(rows["band"].to_pylist(), rows["category"].to_pylist(), strict=True)
    keys = ["" if band == TAIL else f"{band}\0{category}" for band, category in columns]
    yield from pairwise([*(i for i, key in enumerate(keys) if not i or key != keys[i - 1]), len(keys)])


def _pages(masks: Ids, category: str | None, choose: Golds, sheet: Sheet) -> Iterator[tuple[range, list[int]]]:
    """Yield rows and places of gold of each page.

    How many are gold is rounded up or down by the hash of the page's first mask: right on average, whatever the size.
    """
    start = 0
    while start < len(masks):
        shown = masks[start : start + sheet.tiles]
        chance = float(stable_hash(shown[:1], sheet.seed + 1)[0]) / 2**64
        room = int(sheet.tiles * sheet.gold_share + chance)
        part = int(len(shown) * sheet.gold_share / (1 - sheet.gold_share) + chance)
        known = choose.choose(category, shown, room if len(shown) > sheet.tiles - room else part)
        fresh = range(start, start + min(len(shown), sheet.tiles - len(known)))
        yield fresh, known
        start = fresh.stop


def _mixed(fresh: range, known: Sequence[int], masks: Ids, seed: int) -> list[int]:
    """Return the rows of a page in their order, and among them, at places chosen by the first mask's hash, the gold."""
    total = len(fresh) + len(known)
    salt = masks[fresh.start]
    order = np.argsort(stable_hash(np.arange(total, dtype=np.int64) ^ salt, seed + 2), kind="stable")
    rows, gold, here = iter(fresh), iter(known), set(order[: len(known)].tolist())
    return [next(gold if place in here else rows) for place in range(total)]
