"""A release: the pairs of one run or several, chosen, split and written as a folder that explains itself.

The folder is made beside its place under a name with a dot, and appears there whole or not at all. Killed at any
point, the same command goes on: files that were finished are kept, as long as the same is to be released.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from benchmark import (
    categories,
    description,
    drafts,
    image_files,
    instance_files,
    previous,
    removals,
    selection,
    splits,
)
from benchmark import stats as statistics
from benchmark.image_files import Row, Watcher
from benchmark.previous import Previous, Refused
from benchmark.selection import RELEASED, Selection
from benchmark.stats import Options
from pipeline import regions
from pipeline.errors import UsageError, UserError
from pipeline.run import Run

VERSION = 1
"""Raised when the same input would give other files."""

CONFLICTS = "conflicts.csv"

Groups = Mapping[str, categories.Group]
"""Coarse groups by category."""


class Plan(NamedTuple):
    """What goes where."""

    chosen: pa.Table
    """The pairs to be released, with their `part`."""
    outcomes: Counter[str]
    conflicts: pa.Table
    images: list[Row]
    """One row per image, for `image_files`, ascending by image id."""
    moves: statistics.Moves | None
    """Since an earlier release."""


def release(
    runs: Sequence[Run],
    out: Path,
    options: Options,
    session: Callable[[], Any],
    watcher: Watcher,
    earlier: Path | None = None,
) -> statistics.Stats:
    """Release `runs` as the folder `out`; `session` opens a Ray session (a context manager).

    All files of the runs are verified first: what is released cannot be taken back. Images keep the splits that they
    have in the release `earlier` (benchmark/previous.py). Raises `UsageError` when `out` exists or the options are
    wrong, `UserError` for what cannot be released yet or cannot be read, `BusyError` while another process makes the
    same folder.
    """
    _check(runs, options)
    for run in runs:
        run.verify(partial(watcher.start, f"checking {selection.name_of(run)}"), watcher.advance)
    before = previous.load(earlier, options.version) if earlier else Previous()
    with drafts.made(out) as (draft, lock), session() as connected:
        lock.works_through(connected.name)
        shards = image_files.known_shards(runs)
        plan = _plan(runs, options, before, connected, shards)
        groups = categories.coarse_groups(runs)
        drafts.begin(draft, _hash(runs, plan, groups, options))
        _write_instances(draft, runs, plan, groups)
        image_files.write(draft, plan.images, options.images, connected, shards, watcher)
        return _describe(draft, runs, plan, options)


def _check(runs: Sequence[Run], options: Options) -> None:
    names = [selection.name_of(run) for run in runs]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"several runs are called {repeated[0]}: rows could not tell which they are from. Rename one.")
    if not statistics.is_version(options.version):
        raise UsageError(f"--version {options.version}: write it as 1.0.0.")
    if not statistics.is_date(options.date):
        raise UsageError(f"--date {options.date}: write it as 2026-11-24.")


# --- planning ---------------------------------------------------------------------------------------------


def _plan(runs: Sequence[Run], options: Options, before: Previous, session: Any, shards: Mapping[Any, Any]) -> Plan:
    removed = removals.load()
    found = selection.select(runs, removed, unscreened=options.unscreened)
    of_images = splits.of_images(found.pairs, before.splits)
    found = _without(found, _unscreened_in_test(found.pairs, of_images), "unscreened-in-test-image")
    rows = _image_rows(runs, found.pairs)
    leaking: Set[int] = frozenset()
    if len(set(of_images.values())) > 1:
        near = _near_duplicates(rows, of_images, session, shards)
        leaking = splits.leaking(of_images, near.items())
        found = _without(found, np.isin(found.pairs["image_id"].to_numpy(), list(leaking)), "near-duplicate-of-test")
        rows = [{**row, "dhash": near[row["image_id"]]} for row in rows if row["image_id"] not in leaking]
    if not len(found.pairs):
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(found.outcomes.items()))
        raise UserError(f"nothing is left to release of {found.outcomes.total():,} pairs: {told}")
    _place(rows, of_images, before, Counter(found.pairs["image_id"].to_pylist()))
    parts = {row["image_id"]: splits.part(row["split"], mini=row["mini"]) for row in rows}
    chosen = found.pairs.append_column("part", pa.array([parts[i] for i in found.pairs["image_id"].to_pylist()]))
    moves = previous.moves(before, rows, Refused(removed.images, leaking, of_images.keys()))
    return Plan(chosen, found.outcomes, found.conflicts, rows, moves)


def _place(rows: Sequence[Row], of_images: Mapping[int, str], before: Previous, instances: Mapping[int, int]) -> None:
    """Add to each image its split, whether it is in the small subset, and how many instances it has."""
    minis = splits.mini({row["image_id"]: of_images[row["image_id"]] for row in rows}, before.mini)
    for row in rows:
        image = row["image_id"]
        row |= {"split": of_images[image], "mini": image in minis, "instances": instances[image]}


def _without(found: Selection, dropped: Any, why: str) -> Selection:
    """Return the selection without some of its pairs, and count these."""
    moved = Counter({why: int(dropped.sum()), RELEASED: -int(dropped.sum())})
    outcomes = Counter({name: found.outcomes[name] + moved[name] for name in found.outcomes | moved})
    return Selection(found.pairs.filter(pa.array(~dropped)), +outcomes, found.conflicts)


def _unscreened_in_test(pairs: pa.Table, of_images: Mapping[int, str]) -> Any:
    test = pa.array([image for image, split in of_images.items() if split == splits.TEST], pa.int64())
    nobody = pc.equal(pairs["screened_by"], selection.NOBODY)
    return pc.and_(nobody, pc.is_in(pairs["image_id"], test)).to_numpy(zero_copy_only=False)


def _image_rows(runs: Sequence[Run], pairs: pa.Table) -> list[Row]:
    """Return each image once, from the first run that has pairs of it, ascending by id."""
    found: dict[int, Row] = {}
    for number, run in enumerate(runs):
        wanted = pairs["image_id"].filter(pa.array(pairs["run"].to_numpy() == number)).unique()
        columns = ["image_id", "shard", "file_name", "jpg_offset", "jpg_bytes", "width", "height"]
        rows = run.dataset("images").to_table(columns=columns, filter=pc.field("image_id").isin(wanted)).to_pylist()
        if len(rows) != len(wanted):
            raise UserError(
                f"{run.folder.uri}: {len(wanted) - len(rows):,} images are no longer in the run. Read the shards "
                f"again: rr7k stage-1 manifest --run {run.folder.uri}"
            )
        for row in rows:
            place = {"shard_offset": row.pop("jpg_offset"), "shard_bytes": row.pop("jpg_bytes")}
            found.setdefault(row["image_id"], {**row, **place, "run": number, "source": selection.name_of(run)})
    return [found[image] for image in sorted(found)]


def _near_duplicates(
    rows: Sequence[Row], of_images: Mapping[int, str], session: Any, shards: Mapping[Any, Any]
) -> dict[int, int]:
    """Return the difference hash of every image."""
    jobs = [image_files.job(Path(), "", part, "embed", dict(shards)) for part in image_files.parted(rows, "embed")]
    found: dict[int, int] = {}
    failures: list[str] = []
    for told in session.stream(image_files.hashed, jobs):
        found |= dict(told.hashes)
        failures += told.failures
    image_files.refuse(failures)
    return found


# --- writing ----------------------------------------------------------------------------------------------


def _hash(runs: Sequence[Run], plan: Plan, groups: Groups, options: Options) -> str:
    """Return the hash of all that decides about the data files."""
    parts = [[run.folder.uri, *(run.parts(table) for table in instance_files.TABLES)] for run in runs]
    digest = hashlib.sha256(msgspec.json.encode([VERSION, options, parts, groups]))
    for row in plan.images:
        digest.update(msgspec.json.encode(row))
    for row in (row for batch in plan.chosen.to_batches(max_chunksize=8192) for row in batch.to_pylist()):
        digest.update(msgspec.json.encode(row))
    return digest.hexdigest()


def _write_instances(draft: Path, runs: Sequence[Run], plan: Plan, groups: Groups) -> None:
    done = drafts.finished(draft)
    minis = {row["image_id"] for row in plan.images if row["mini"]}
    for part in splits.PARTS:
        pieces = list(instance_files.parted(plan.chosen.filter(pc.equal(plan.chosen["part"], part))))
        for number, piece in enumerate(pieces):
            name = splits.file_name("instances", part, number, len(pieces))
            if name not in done:
                split = part.removesuffix("-mini")
                drafts.record(draft, instance_files.write(draft / "data" / name, runs, piece, split, minis, groups))


def _describe(draft: Path, runs: Sequence[Run], plan: Plan, options: Options) -> statistics.Stats:
    """Write all that is derived from the instances and images."""
    samples = regions.RegionSamples(draft)
    columns = ["category", "image_id", "coarse_primary", "coarse_secondary"]
    counted = regions.count_categories(samples.read("instances", columns), categories.accepted_names())
    with regions.FileWriter(draft / "data" / "categories.parquet", "categories") as writer:
        writer.write(counted)
    drafts.record(draft, writer.written)
    pacsv.write_csv(plan.conflicts, draft / CONFLICTS)
    made = statistics.gather(samples, runs, plan.outcomes, plan.conflicts, options, plan.moves)
    description.write(draft, made)
    return made
