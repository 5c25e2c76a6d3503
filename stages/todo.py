"""Which subjects a step has not asked about yet, and which of its answers were made otherwise than they would be now.

A subject is a mask, or a request about a mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import files
from pipeline.errors import UsageError, UserError
from pipeline.run import Run
from stages.rendering import Piece
from stages.sampling import stable_hash


@dataclass(frozen=True)
class Todo:
    """What is to be asked, and how."""

    setting: msgspec.Struct
    pieces: list[Piece]
    tries: dict[int, int]
    """Subjects that failed before: in how many runs, under this setting."""
    prints: dict[int, int] = field(default_factory=dict)
    """Subject to fingerprint."""
    masks: dict[int, int] | None = None
    """Subject to the mask it is about; None where it is that mask."""

    def mask_of(self, subject: int) -> int:
        """Return the mask that a subject is about."""
        return subject if self.masks is None else self.masks[subject]


class Salts(NamedTuple):
    """What else makes the names of an image's masks; masks of other images are not to be asked about."""

    image_ids: npt.NDArray[np.int64]
    """Ascending."""
    fingerprint: npt.NDArray[np.int64]


def plan(run: Run, step: str, made: msgspec.Struct, *, redo: bool, salts: Salts | None = None) -> Todo:
    """List the masks to be asked about by `step`, when names are made under `made`.

    Rows made under another setting, or about a mask that has changed, are refused, or with `redo` forgotten.
    Raises `UserError`.
    """
    masks = fingerprints(run, made, salts)
    if not len(masks.ids):
        if salts is not None:
            return Todo(made, [], {})
        raise UsageError(f"{run.folder.uri}: no masks to name. Make them first: rr7k stage-1 manifest")
    settle_changes(run, step, "names", masks, made, redo=redo)
    answered = answered_ids(run, "names", step)
    refused = quarantined_ids(run, step)
    missing = ~np.isin(masks.ids, np.concatenate([answered, refused]))
    return Todo(made, every_piece(masks, missing), tries(run, step, masks), dict(masks.prints(missing)))


class Subjects(NamedTuple):
    """Every subject, by default every mask of the run in its order on disk, with what its fingerprint would be now."""

    ids: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    fingerprint: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    """Index into `places`."""
    places: list[tuple[str, int]]
    """Part and row group."""

    def prints(self, chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """Yield (id, fingerprint) of the chosen subjects."""
        return zip(self.ids[chosen].tolist(), self.fingerprint[chosen].tolist(), strict=True)


_HASHED = ("mask_id", "image_id", "jpg_bytes", "width", "height", "area", "bbox_x", "bbox_y", "bbox_w", "bbox_h")
"""Columns that tell a mask from a changed one; the run lengths would too, at a hundred times the bytes."""


def fingerprints(run: Run, made: msgspec.Struct, salts: Salts | None = None) -> Subjects:
    """Hash every mask together with `made`, and with its image's salt; reads a few numbers a mask."""
    seed = int(files.sha256(msgspec.json.encode(made))[:15], 16)
    ids, image_ids, prints, place = [], [], [], []
    places: list[tuple[str, int]] = []
    for part in run.parts("masks"):
        with run.opened("masks", part) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=list(_HASHED))
                ids.append(table["mask_id"].to_numpy())
                image_ids.append(table["image_id"].to_numpy())
                prints.append(_hashed(table, seed))
                place.append(np.full(table.num_rows, len(places)))
                places.append((part, group))
    if not ids:
        none = np.empty(0, np.int64)
        return Subjects(none, none, none, none, [])
    joined = [np.concatenate(column) for column in (ids, image_ids, prints, place)]
    masks = Subjects(joined[0], joined[1], joined[2], joined[3], places)
    return masks if salts is None else _salted(masks, salts)


def _salted(masks: Subjects, salts: Salts) -> Subjects:
    there = np.isin(masks.image_ids, salts.image_ids)
    salt = salts.fingerprint[np.searchsorted(salts.image_ids, masks.image_ids[there])]
    prints = stable_hash(masks.fingerprint[there] ^ salt, 0).view(np.int64)
    return Subjects(masks.ids[there], masks.image_ids[there], prints, masks.place[there], masks.places)


def _hashed(table: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    value = np.full(table.num_rows, seed, np.uint64)
    for name in _HASHED:
        column = table[name].to_numpy()
        bits = column.view(np.uint64) if column.dtype == np.float64 else column.astype(np.uint64)
        value = stable_hash((value ^ bits).view(np.int64), 0)
    return value.view(np.int64)


def answered_ids(run: Run, table: str, step: str, key: str = "mask_id") -> npt.NDArray[np.int64]:
    """Return the subjects that `step` has rows of `table` about, by the column that holds them."""
    return np.asarray(run.dataset(table, step).to_table(columns=[key])[key].to_numpy(), np.int64)


def quarantined_ids(run: Run, step: str) -> npt.NDArray[np.int64]:
    """Return the subjects that `step` quarantined."""
    inputs = run.dataset("quarantine", step).to_table(columns=["input"])["input"].to_pylist()
    return np.array([int(name.rpartition(":")[2]) for name in inputs], np.int64)


def tries(run: Run, step: str, subjects: Subjects) -> dict[int, int]:
    """Return in how many runs `step` failed about each subject, as it would be asked now."""
    failed = run.dataset("failures", step).to_table(columns=["fingerprint"])["fingerprint"]
    now = dict(zip(subjects.fingerprint.tolist(), subjects.ids.tolist(), strict=True)) if len(failed) else {}
    return Counter(now[fingerprint] for fingerprint in failed.to_pylist() if fingerprint in now)


def every_piece(masks: Subjects, chosen: npt.NDArray[np.bool_]) -> list[Piece]:
    """Return the chosen masks, in their order on disk."""
    ids, place = masks.ids[chosen], masks.place[chosen]
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    pieces = []
    for start, stop in pairwise([*starts, len(place)]):
        part, row_group = masks.places[place[start]]
        pieces.append(Piece(part, row_group, ids[start:stop].tolist()))
    return pieces


def limited(pieces: list[Piece], limit: int | None) -> list[Piece]:
    """Return the first `limit` masks of `pieces`."""
    if limit is None:
        return pieces
    chosen = []
    for piece in pieces:
        if limit > 0:
            chosen.append(piece._replace(mask_ids=piece.mask_ids[:limit]))
        limit -= len(piece.mask_ids)
    return chosen


def settle_changes(
    run: Run, step: str, table: str, subjects: Subjects, made: msgspec.Struct, *, redo: bool, key: str = "mask_id"
) -> None:
    """Refuse rows made otherwise than they would be now; with `redo`, forget them and what was quarantined.

    `key` is the column of `table` that holds the subject. Raises `UserError`.
    """
    stored = run.dataset(table, step).to_table(columns=[key, "fingerprint"])
    ids, prints = stored[key].to_numpy(), stored["fingerprint"].to_numpy()
    stale = _changed(subjects, ids, prints)
    if redo:
        run.discard(step, table, key, pa.array(ids[stale], pa.int64()))
        run.discard(step, "quarantine")
        run.discard(step, "failures")
    elif stale.any():
        before = [msgspec.convert(commit.facts["setting"], type(made)) for commit in run.commits(step).values()]
        changed = dict.fromkeys(change for old in before for change in _changes(old, made))
        raise UserError(
            "\n".join(
                [
                    f"this run holds {int(stale.sum()):,} {table} made differently:",
                    *(f"  {change}" for change in changed or ["what they are about has changed"]),
                    "Use a new run folder, restore the setting, or ask again with --redo.",
                ]
            )
        )


def _changed(subjects: Subjects, ids: npt.NDArray[np.int64], prints: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which rows, given by subject and fingerprint, are about a subject whose fingerprint is another now."""
    if not len(subjects.ids):
        return np.zeros(len(ids), np.bool_)
    order = np.argsort(subjects.ids)
    at = order[np.minimum(np.searchsorted(subjects.ids, ids, sorter=order), len(order) - 1)]
    return np.asarray((subjects.ids[at] == ids) & (subjects.fingerprint[at] != prints), np.bool_)


def _changes(before: msgspec.Struct, now: msgspec.Struct) -> list[str]:
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(now)
    return [f"{name} was {old[name]!r}, is {value!r}" for name, value in new.items() if old[name] != value]
