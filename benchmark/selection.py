"""Which pairs of a run are released, and why each of the others is not: every pair has exactly one outcome."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.removals import Removals
from pipeline import files
from pipeline.errors import UserError
from pipeline.run import Run

RELEASED = "released"
NOBODY, SIMULATED = "nobody", "simulated"
"""Who screened a pair, beside `people` and `expert`."""

_SOURCES = ("pairs", "verdicts", "queue", "screenings")
"""Tables, and the steps that make them, from which decisions are derived."""

_PREFERENCE = [("margin", "descending"), ("p_yes", "descending"), ("run", "ascending"), ("mask_id", "ascending")]
"""Of several names for one region the first stays: most votes to keep less those to delete, then the surest yes."""

_SHAPE = ("area", "bbox_x", "bbox_y", "bbox_w", "bbox_h")

_PAIR = ["mask_id", "category"]
"""What a verdict and a decision are about: another category is another pair."""

_AT_ONCE = 100_000
"""Pairs that are looked at together: about 150 MB."""

Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]


class Selection(NamedTuple):
    """What is released, and what became of every pair."""

    pairs: pa.Table
    """mask_id, image_id, category, run (index), screened_by, keep, delete, unsure; ascending by mask."""
    outcomes: Counter[str]
    """Pairs by outcome: released, or why not."""
    conflicts: pa.Table
    """Regions with several names: kind, image_id, kept, kept_category, left_out, left_out_category; by mask."""


def select(runs: Sequence[Run], removals: Removals, *, unscreened: bool) -> Selection:
    """Choose the pairs that people released and, with `unscreened`, those that stage 2 kept and nobody has judged.

    A vote for private in any run removes the image; what people rejected in one run does not come in by another. A
    region that two runs or two identical masks name goes out once, by `_PREFERENCE`; the others are listed. Memory
    grows with the pairs released. Raises `UserError` where pairs wait for a verdict, votes are unresolved, decisions
    are older than what they are made of, or answers of a program are mixed with those of people.
    """
    for run in runs:
        _refuse_unready(run, unscreened)
    private = pa.concat_tables([_private(run) for run in runs])["image_id"].unique().to_numpy()
    outcomes: Counter[str] = Counter()
    waiting: Counter[int] = Counter()
    released, vetoed = [], []
    for bounds in _ranges(runs):
        found = pa.concat_tables([_pairs(run, number, bounds) for number, run in enumerate(runs)])
        found = found.sort_by([("mask_id", "ascending"), ("run", "ascending")]).combine_chunks()
        if not unscreened:
            waiting.update(_waiting(found))
        outcome = _outcomes(found, removals, private)
        vetoed.append(_veto(found, outcome))
        outcomes.update(outcome.tolist())
        released.append(found.filter(pa.array(outcome == RELEASED)))
    for number, count in sorted(waiting.items()):
        _refuse_waiting(runs[number], count)
    chosen = pa.concat_tables(released).combine_chunks()
    _refuse_mixture(chosen)
    kinds, listed = _once_each(runs, chosen)
    outcomes.update(kinds.tolist())
    outcomes[RELEASED] -= len(kinds)
    conflicts = pa.concat_tables([*vetoed, listed]).sort_by([("left_out", "ascending"), ("kind", "ascending")])
    columns = ["mask_id", "image_id", "category", "run", "screened_by", "keep", "delete", "unsure"]
    return Selection(chosen.filter(pa.array(kinds == RELEASED)).select(columns), +outcomes, conflicts)


def _ranges(runs: Sequence[Run]) -> Iterator[tuple[int, int]]:
    """Yield ranges of mask ids, from and before, with about `_AT_ONCE` pairs each; together they hold all."""
    columns = [run.dataset("pairs", "pairs").to_table(columns=["mask_id"])["mask_id"].to_numpy() for run in runs]
    ids = np.sort(np.concatenate(columns))
    starts = np.unique(ids[::_AT_ONCE]).tolist()
    yield from zip(starts, [*starts[1:], int(ids[-1]) + 1], strict=True)


def _private(run: Run) -> pa.Table:
    """Return the images that somebody found private."""
    said = run.dataset("decisions", "decisions").to_table(columns=["image_id", "decision"])
    return said.filter(pc.equal(said["decision"].cast(pa.string()), "private")).select(["image_id"])


# --- one run ----------------------------------------------------------------------------------------------


def _pairs(run: Run, number: int, bounds: tuple[int, int]) -> pa.Table:
    """Return a run's pairs with mask ids within `bounds`, and what was said of each. Refuses those never checked."""
    within = (pc.field("mask_id") >= bounds[0]) & (pc.field("mask_id") < bounds[1])
    columns = {
        "pairs": ["mask_id", "image_id", "category"],
        "verdicts": ["mask_id", "category", "kept", "reason", "p_yes"],
        "decisions": ["mask_id", "category", "decision", "by", "keep", "delete", "unsure"],
    }
    rows = {name: _plain(run.dataset(name, name).to_table(columns=c, filter=within)) for name, c in columns.items()}
    told = rows["pairs"].join(rows["verdicts"], _PAIR).join(rows["decisions"], _PAIR)
    if unasked := (pc.sum(pc.and_(pc.is_null(told["decision"]), pc.is_null(told["kept"]))).as_py() or 0):
        uri = run.folder.uri
        raise UserError(f"{uri}: {unasked:,} pairs or more have no verdict of stage 2. Do: rr7k stage-2 --run {uri}")
    votes = {name: pc.fill_null(told[name], 0).cast(pa.int32()) for name in ("keep", "delete", "unsure")}
    return pa.table(
        {
            **{name: told[name] for name in ("mask_id", "image_id", "category", "kept", "reason", "p_yes", "decision")},
            "run": np.full(len(told), number, np.int32),
            "screened_by": pc.fill_null(told["by"], NOBODY),
            **votes,
            "margin": pc.subtract(votes["keep"], votes["delete"]),
        }
    )


def _waiting(found: pa.Table) -> Counter[int]:
    """Count by run the pairs that stage 2 kept and nobody has decided about."""
    return Counter(found.filter(pc.and_(pc.is_null(found["decision"]), found["kept"]))["run"].to_pylist())


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with text columns as strings: joins take no dictionaries."""
    kinds = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))


def _refuse_unready(run: Run, unscreened: bool) -> None:
    """Refuse a run without pairs, or whose decisions are missing, older than what they are made of, or open."""
    uri, command = run.folder.uri, f"rr7k stage-3 import --run {run.folder.uri}"
    if not run.rows_on_disk("pairs"):
        raise UserError(f"{uri}: no pairs there. Make them: rr7k stage-1 --run {uri} --shards PATH")
    made = run.commits("decisions").get("decisions")
    if made is None:
        if unscreened and not run.parts("screenings"):
            return
        raise UserError(f"{uri}: no decisions there. Have people look at the pairs (rr7k stage-3), then: {command}")
    if made.facts.get("made_of") != {table: run.parts(table, table) for table in _SOURCES}:
        raise UserError(f"{uri}: pairs, verdicts or votes have changed since the decisions were made. Do: {command}")
    if open_votes := made.counts.get("decisions.conflict", 0):
        raise UserError(
            f"{uri}: people disagree about {open_votes:,} pairs. Show these singly: rr7k stage-3 --run {uri}; once "
            f"they are judged: {command}"
        )


def _refuse_waiting(run: Run, waiting: int) -> None:
    uri = run.folder.uri
    raise UserError(
        f"{uri}: {waiting:,} pairs wait for people. Once they have looked: rr7k stage-3 import --run {uri}. "
        "To release them as they are, marked in name, card and every row: --unscreened"
    )


def _refuse_mixture(released: pa.Table) -> None:
    by = Counter(released["screened_by"].to_pylist())
    persons = by["people"] + by["expert"]
    if by[SIMULATED] and persons:
        raise UserError(
            f"{by[SIMULATED]:,} pairs were screened by a program and {persons:,} by people; they are not released "
            "together. Screen the former for real (rr7k stage-3), or release a run that has only one kind."
        )


# --- outcomes ---------------------------------------------------------------------------------------------


def _outcomes(found: pa.Table, removals: Removals, private: Ints) -> Texts:
    """Return each pair's outcome by what was said of it alone; `private` are image ids."""
    mask_ids, image_ids = found["mask_id"].to_numpy(), found["image_id"].to_numpy()
    kept = pc.fill_null(found["kept"], False).to_numpy(zero_copy_only=False)
    reason = pc.fill_null(found["reason"], "").to_numpy(zero_copy_only=False)
    outcome = np.where(kept, RELEASED, "stage-2-" + reason)
    decision = found["decision"].to_numpy(zero_copy_only=False)
    decided = found["decision"].is_valid().to_numpy()
    outcome[decided] = np.where(decision[decided] == "release", RELEASED, decision[decided])
    outcome[np.isin(image_ids, private)] = "private-image"
    removed = np.isin(image_ids, list(removals.images)) | np.isin(mask_ids, list(removals.masks))
    outcome[removed] = "taken-down"
    return np.asarray(outcome, np.object_)


def _veto(found: pa.Table, outcome: Texts) -> pa.Table:
    """Leave out what people rejected in another run, changing `outcome`; return the conflicts."""
    mask_ids = found["mask_id"].to_numpy()
    twice = np.r_[False, mask_ids[1:] == mask_ids[:-1], False]
    rows = np.flatnonzero(twice[1:] | twice[:-1]).tolist()
    keys = [(found["mask_id"][row].as_py(), found["category"][row].as_py()) for row in rows]
    rejected = {key: row for key, row in zip(keys, rows, strict=True) if outcome[row] in ("delete", "uncertain")}
    lost = [
        (row, rejected[key])
        for key, row in zip(keys, rows, strict=True)
        if outcome[row] == RELEASED and key in rejected
    ]
    for row, _ in lost:
        outcome[row] = "deleted-in-another-run"
    return _listed([_conflict("deleted-in-another-run", found, against, row) for row, against in lost])


def _once_each(runs: Sequence[Run], chosen: pa.Table) -> tuple[Texts, pa.Table]:
    """Leave one name to every region; return what becomes of each pair, shape (pairs,), and the conflicts."""
    columns = {name: chosen[name] for name, _ in _PREFERENCE}
    rows = pa.table({**columns, "region": _regions(runs, chosen), "row": np.arange(len(chosen))})
    rows = rows.sort_by([("region", "ascending"), *_PREFERENCE])
    order, regions = rows["row"].to_numpy(), rows["region"].to_numpy()
    repeated = np.flatnonzero(np.r_[False, regions[1:] == regions[:-1]][: len(order)])
    first = np.searchsorted(regions, regions[repeated])
    kinds = np.full(len(chosen), RELEASED, np.object_)
    listed = []
    for kept, lost in zip(order[first].tolist(), order[repeated].tolist(), strict=True):
        same_mask = chosen["mask_id"][kept].as_py() == chosen["mask_id"][lost].as_py()
        kinds[lost] = "named-in-another-run" if same_mask else "identical-mask"
        listed.append(_conflict(kinds[lost], chosen, kept, lost))
    return kinds, _listed(listed)


CONFLICT_COLUMNS = ("kind", "image_id", "kept", "kept_category", "left_out", "left_out_category")


def _conflict(kind: str, found: pa.Table, kept: int, lost: int) -> dict[str, Any]:
    a, b = (found.slice(row, 1).select(["image_id", "mask_id", "category"]).to_pylist()[0] for row in (kept, lost))
    values = (kind, a["image_id"], a["mask_id"], a["category"], b["mask_id"], b["category"])
    return dict(zip(CONFLICT_COLUMNS, values, strict=True))


def _listed(conflicts: list[dict[str, Any]]) -> pa.Table:
    numbers = ("image_id", "kept", "left_out")
    kinds = [(name, pa.int64() if name in numbers else pa.string()) for name in CONFLICT_COLUMNS]
    return pa.Table.from_pylist(conflicts, schema=pa.schema(kinds))


# --- identical regions ------------------------------------------------------------------------------------


def _regions(runs: Sequence[Run], chosen: pa.Table) -> Ints:
    """Return a number per row, shape (rows,), that masks of one image with the same pixels share: the lowest's id.

    Raises `UserError` for pairs whose mask the run no longer has.
    """
    shapes = pa.concat_tables([_shapes(run, chosen, number) for number, run in enumerate(runs)])
    alike = shapes.group_by(["image_id", *_SHAPE]).aggregate([("mask_id", "count_distinct"), ("mask_id", "distinct")])
    twins = alike.filter(pc.greater(alike["mask_id_count_distinct"], 1))["mask_id_distinct"].to_pylist()
    digests = _digests(runs, sorted(mask_id for ids in twins for mask_id in ids))
    lowest: dict[int, int] = {}
    for ids in twins:
        by_pixels: dict[bytes, int] = {}
        for mask_id in sorted(ids):
            lowest[mask_id] = by_pixels.setdefault(digests[mask_id], mask_id)
    return np.array([lowest.get(mask_id, mask_id) for mask_id in chosen["mask_id"].to_pylist()], np.int64)


def _shapes(run: Run, chosen: pa.Table, number: int) -> pa.Table:
    wanted = chosen["mask_id"].filter(pa.array(chosen["run"].to_numpy() == number))
    columns = ["mask_id", "image_id", *_SHAPE]
    shapes = run.dataset("masks").to_table(columns=columns, filter=pc.field("mask_id").isin(wanted.combine_chunks()))
    if len(shapes) != len(wanted):
        missing = np.setdiff1d(wanted.to_numpy(), shapes["mask_id"].to_numpy())
        uri = run.folder.uri
        raise UserError(
            f"{uri}: {len(missing):,} pairs have no mask in the run any more, {missing[0]} for one. "
            f"Make the pairs again: rr7k stage-1 pairs --run {uri}"
        )
    return shapes


def _digests(runs: Sequence[Run], mask_ids: list[int]) -> dict[int, bytes]:
    wanted = pc.field("mask_id").isin(pa.array(mask_ids, pa.int64()))
    found: dict[int, bytes] = {}
    for run in runs if mask_ids else ():
        for batch in run.dataset("masks").to_batches(columns=["mask_id", "rle_counts"], filter=wanted):
            for mask_id, counts in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                found[mask_id] = hashlib.blake2b(counts.encode(), digest_size=16).digest()
    return found


def name_of(run: Run) -> str:
    """Return what a run is called in a release: its folder's name, which tells no path."""
    return files.base_name(run.folder.uri)
