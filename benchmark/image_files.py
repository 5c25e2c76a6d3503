"""The images of a release: read from their shards by byte range, hashed, and written, a file a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from benchmark import drafts, splits
from pipeline import files, images, regions
from pipeline.errors import UserError
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Range, Shard, ShardReader, open_shard

Mode = Literal["embed", "reference"]

_FILE_BYTES: dict[Mode, int] = {"embed": 512 << 20, "reference": 4 << 30}
"""Bytes of images that make one file: small enough to fetch, large enough to be few."""

_GROUP_BYTES = 16 << 20
"""Bytes of images held before a row group is written: the memory of a task is a few times this."""

_SHOWN = 20
Row = dict[str, Any]


class Job(NamedTuple):
    """One file of images, or, without a name, hashes only."""

    folder: str
    name: str
    embed: bool
    rows: list[Row]
    """Rows of `images` but for what the bytes tell, with `shard_bytes` and `run`, ascending by image id."""
    shards: dict[tuple[int, str], Shard]


class Copied(NamedTuple):
    """A sign of life."""

    images: int
    bytes: int
    failures: list[str]
    hashes: list[tuple[int, int]]
    """Image id and difference hash; of jobs without a name."""


class _Manifest(msgspec.Struct):
    """What of the manifest's plan is read here."""

    shards: list[Shard]


class Watcher(NamedTuple):
    """Told of the work as it goes on."""

    start: Callable[[str, int], None]
    """Given what is read now, and the bytes of all of it."""
    advance: Callable[[int], None]
    """Given the bytes read since the last time."""


def known_shards(runs: Sequence[Run]) -> dict[tuple[int, str], Shard]:
    """Return the shards of the runs, by the run's index and the shard's name."""
    found: dict[tuple[int, str], Shard] = {}
    for number, run in enumerate(runs):
        plan = run.plan("manifest", _Manifest)
        found |= {(number, shard.name): shard for shard in plan.shards} if plan else {}
    return found


def parted(rows: Sequence[Row], mode: Mode) -> list[list[Row]]:
    """Cut rows into those of one file each, in their order."""
    found: list[list[Row]] = []
    size = _FILE_BYTES[mode]
    for row in rows:
        if not found or size + row["shard_bytes"] > _FILE_BYTES[mode]:
            found.append([])
            size = 0
        found[-1].append(row)
        size += row["shard_bytes"]
    return found


def write(
    folder: Path,
    rows: Sequence[Row],
    mode: Mode,
    session: Any,
    shards: Mapping[tuple[int, str], Shard],
    watcher: Watcher,
) -> None:
    """Write the files of images that the draft `folder` lacks. Raises `UserError` with those that cannot be read."""
    done = drafts.finished(folder)
    jobs: list[Job] = []
    for part in splits.PARTS:
        pieces = parted([row for row in rows if splits.part(row["split"], mini=row["mini"]) == part], mode)
        for number, piece in enumerate(pieces):
            name = splits.file_name("images", part, number, len(pieces))
            if name not in done:
                jobs.append(job(folder, name, piece, mode, shards))
    watcher.start("images", sum(row["shard_bytes"] for job in jobs for row in job.rows))
    failures: list[str] = []
    for told in session.stream(copy, jobs):
        watcher.advance(told.bytes)
        failures += told.failures
    refuse(failures)


def job(folder: Path, name: str, rows: list[Row], mode: Mode, shards: Mapping[tuple[int, str], Shard]) -> Job:
    """Return the task that writes a file, or without a name hashes its images; with the shards it reads alone."""
    used = {(row["run"], row["shard"]) for row in rows}
    return Job(str(folder), name, mode == "embed", rows, {key: shards[key] for key in used if key in shards})


def copy(task: Job) -> Iterator[Copied]:
    """Read and hash the images of a task and write its file; not the file if any of them cannot be read."""
    failures: list[str] = []
    folder = Path(task.folder)
    with ExitStack() as stack:
        writer = regions.FileWriter(folder / "data" / task.name, "images", images=task.embed)
        stack.enter_context(writer)
        for group in _groups(task, failures):
            writer.write(regions.from_rows("images", group))
            yield Copied(len(group), sum(row["file_bytes"] for row in group), [], [])
        if failures:
            writer.abandon()
    if not failures:
        drafts.record(folder, writer.written)
    yield Copied(0, 0, failures, [])


def hashed(task: Job) -> Iterator[Copied]:
    """Read and decode the images of a task for their difference hashes."""
    failures: list[str] = []
    for row, data in _read(task, failures):
        try:
            found = [(row["image_id"], splits.dhash(data))]
        except OSError as error:
            failures.append(f"{_place(task, row)}: cannot be decoded: {error}")
        else:
            yield Copied(1, len(data), [], found)
    yield Copied(0, 0, failures, [])


def _groups(task: Job, failures: list[str]) -> Iterator[list[Row]]:
    """Yield the rows of a file, complete, as many at a time as are held in memory."""
    group: list[Row] = []
    size = 0
    for row, data in _read(task, failures):
        digest = files.sha256(data)
        if row.get("sha256", digest) != digest:
            failures.append(f"{_place(task, row)}: SHA-256 {row['sha256']} expected, {digest} found")
            continue
        known = {**row, "file_bytes": len(data), "sha256": digest}
        image = {"image": {"bytes": data, "path": row["file_name"]}} if task.embed else {}
        group.append({name: value for name, value in known.items() if name not in ("run", "shard_bytes")} | image)
        size += len(data)
        if size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _read(task: Job, failures: list[str]) -> Iterator[tuple[Row, bytes]]:
    """Yield each row with its image file; note the place of those that are not as the run says."""
    opened: tuple[int, str] | None = None
    reader: ShardReader | None = None
    with ExitStack() as stack:
        for row in task.rows:
            key = (row["run"], row["shard"])
            try:
                if reader is None or key != opened:
                    stack.pop_all().close()
                    reader, opened = stack.enter_context(open_shard(task.shards[key])), key
                data = reader.read(row["file_name"], Range(row["shard_offset"], row["shard_bytes"]))
            except KeyError:
                failures.append(f"{row['file_name']}: shard {row['shard']!r} is not there")
            except MissingBytesError as error:
                failures.append(str(error))
            except OSError as error:
                failures.append(f"{_place(task, row)}: {error}")
            else:
                size = images.jpeg_size(data)
                if size == (row["width"], row["height"]):
                    yield row, data
                else:
                    stated = f"{row['width']}×{row['height']} px"
                    failures.append(f"{_place(task, row)}: no JPEG of {stated} there: the shard was changed")


def _place(task: Job, row: Row) -> str:
    return f"{task.shards[row['run'], row['shard']].uri}: {row['file_name']}"


def refuse(failures: Sequence[str]) -> None:
    """Raise `UserError` with the places of images that could not be read."""
    if failures:
        more = [f"and {len(failures) - _SHOWN:,} more"] if len(failures) > _SHOWN else []
        raise UserError(
            "\n".join(
                [
                    f"{len(failures):,} images cannot be read as the run says:",
                    *sorted(failures)[:_SHOWN],
                    *more,
                    "Bring the shards back, or name the images in data_manifests/removed.csv, and run this again.",
                ]
            )
        )
