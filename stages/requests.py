"""Which yes/no questions are to be asked: planned before the first is asked, and never planned twice.

A request is about a mask and a category. One that is planned stays: a control chosen again from a larger run would be
another, and would be asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files, tables
from pipeline.run import Run
from stages import controls, head_tail, pairing
from stages.remembering import inherited
from stages.sampling import stable_hash

STEP = "requests"
PAIR, CONTROL = "pair", "control"
OWN = "own"

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_COLUMNS = [field.name for field in tables.SCHEMAS["requests"]]


class Pairs:
    """The run's pairs, as columns; `head` says whether a pair's category is frequent."""

    def __init__(self, table: pa.Table, heads: Iterable[str]) -> None:
        table = table.sort_by("mask_id").combine_chunks()
        self.mask_ids: Ids = table["mask_id"].to_numpy()
        self.image_ids: Ids = table["image_id"].to_numpy()
        self.categories: pa.DictionaryArray = table["category"].combine_chunks().dictionary_encode()
        self.head: Bools = _is_in(self.categories, set(heads))

    @property
    def distinct(self) -> list[str]:
        """Every category once, in the order of the alphabet."""
        return sorted(self.categories.dictionary.to_pylist())

    def of(self, mask_ids: Sequence[int]) -> list[str | None]:
        """Return the category of each mask, None for one that is in no pair."""
        at = np.minimum(np.searchsorted(self.mask_ids, mask_ids), len(self.mask_ids) - 1)
        known = self.mask_ids[at] == np.asarray(mask_ids)
        names = self.categories.take(pa.array(at)).to_pylist()
        return [name if here else None for name, here in zip(names, known.tolist(), strict=True)]


def pairs(run: Run) -> Pairs:
    """Read the run's pairs, and whether their categories are head."""
    table = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "image_id", "category"])
    return Pairs(table, (name for name, (_, band) in head_tail.of_categories(run).items() if band == head_tail.HEAD))


def request_ids(mask_ids: Ids, categories: Any, role: str) -> Ids:
    """Hash masks, their categories (a string or dictionary array) and a role to ids of 63 bits."""
    names = categories.combine_chunks() if isinstance(categories, pa.ChunkedArray) else categories
    names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    known = [int(files.sha256(f"{role}\0{name}".encode())[:15], 16) for name in names.dictionary.to_pylist()]
    salt = np.array(known, np.uint64)[names.indices.to_numpy()]
    mixed = stable_hash((stable_hash(mask_ids, 0) ^ salt).view(np.int64), 0) >> np.uint64(1)
    return np.asarray(mixed.view(np.int64))


class Wanted(NamedTuple):
    """Requests that the pairs call for now: planned ones whose pair is in scope and still has the same category."""

    request_ids: Ids
    mask_ids: Ids
    control: Bools
    categories: pa.Array
    """What is asked."""


def wanted(run: Run, found: Pairs, scope: Bools) -> Wanted:
    """Return the planned requests about the pairs in `scope`."""
    table = run.dataset("requests", STEP).to_table(
        columns=["request_id", "mask_id", "role", "category", "pair_category"]
    )
    own = request_ids(table["mask_id"].to_numpy(), table["pair_category"], PAIR)
    asked = request_ids(found.mask_ids[scope], found.categories.filter(pa.array(scope)), PAIR)
    table = table.filter(pa.array(np.isin(own, asked))).combine_chunks()
    ids, masks = (table[name].to_numpy() for name in ("request_id", "mask_id"))
    return Wanted(ids, masks, _is_control(table), table["category"].combine_chunks())


def extend(run: Run, found: Pairs, scope: Bools, share: float, say: Callable[[str], None]) -> int:
    """Plan the requests about the pairs in `scope` that are not planned yet, and their controls; return how many.

    `share` of the pairs in scope, 0 to 1, get a control.
    """
    masks, names = found.mask_ids[scope], found.categories.filter(pa.array(scope))
    own = request_ids(masks, names, PAIR)
    before = run.dataset("requests", STEP).to_table(columns=["request_id", "mask_id", "role", "pair_category"])
    new = ~np.isin(own, before["request_id"].to_numpy())
    lacking = controls.chosen(masks, share) & ~np.isin(own, _controlled(before))
    rows = [
        _own_rows(own[new], masks[new], found.image_ids[scope][new], names.filter(pa.array(new))),
        _control_rows(run, found, masks[lacking], say),
    ]
    table = pa.concat_tables(rows)
    if table.num_rows:
        _write(run, table)
    return int(table.num_rows)


def _controlled(before: pa.Table) -> Ids:
    """Return the ids of the pairs that have a control."""
    of_controls = before.filter(pa.array(_is_control(before)))
    return request_ids(of_controls["mask_id"].to_numpy(), of_controls["pair_category"], PAIR)


def _is_control(table: pa.Table) -> Bools:
    return np.asarray(pc.equal(table["role"].cast(pa.string()), CONTROL).to_numpy(), np.bool_)


def _is_in(categories: pa.DictionaryArray, names: Container[str]) -> Bools:
    within = np.fromiter((name in names for name in categories.dictionary.to_pylist()), np.bool_)
    return np.asarray(within[categories.indices.to_numpy()], np.bool_)


def _own_rows(ids: Ids, mask_ids: Ids, image_ids: Ids, names: pa.DictionaryArray) -> pa.Table:
    said = {name: pa.array([text] * len(ids), pa.string()) for name, text in (("role", PAIR), ("kind", OWN))}
    text = names.cast(pa.string())
    about = {"request_id": ids, "mask_id": mask_ids, "image_id": image_ids, "category": text, "pair_category": text}
    return pa.table({**about, **said}).select(_COLUMNS).cast(tables.SCHEMAS["requests"])


def _control_rows(run: Run, found: Pairs, mask_ids: Ids, say: Callable[[str], None]) -> pa.Table:
    config = inherited(run, pairing.STEP, pairing.PairsConfig())
    compare = pairing.evidence(config).comparer(say) if len(mask_ids) else None
    made = list(controls.choose(run, mask_ids, found, compare)) if compare else []
    if len(made) < len(mask_ids):
        say(f"{len(mask_ids) - len(made):,} of {len(mask_ids):,} controls are left out: no name is surely wrong there")
    masks = np.array([control.mask_id for control in made], np.int64)
    images = found.image_ids[np.searchsorted(found.mask_ids, masks)]
    ids = request_ids(masks, pa.array([control.category for control in made], pa.string()), CONTROL)
    columns = zip(ids.tolist(), made, images.tolist(), found.of(masks.tolist()) if made else [], strict=True)
    rows: list[dict[str, object]] = [
        {**control._asdict(), "request_id": request, "image_id": image, "role": CONTROL, "pair_category": own}
        for request, control, image, own in columns
    ]
    return tables.from_rows("requests", rows)


def _write(run: Run, rows: pa.Table) -> None:
    run.sweep(STEP, ["requests"])
    key = run.next_key(STEP)
    with run.part(STEP, "requests", key) as part:
        part.write(rows)
    made = files.sha256(rows["request_id"].combine_chunks().to_numpy().tobytes())[:16]
    controls_planned = int(_is_control(rows).sum())
    counts = {"requests.pair": rows.num_rows - controls_planned, "requests.control": controls_planned}
    run.commit(STEP, key, {"requests": part}, fingerprint=made, counts=counts, facts={})
