"""A release that refers to its images becomes one that holds them, each checked by its SHA-256."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmark import description, drafts, image_files, stats
from benchmark.image_files import Row, Watcher
from benchmark.release import CONFLICTS
from pipeline import files, regions
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples, Written
from pipeline.shards import Shard, find_shards


def hydrate(
    source: Path, shards: Sequence[str], out: Path, session: Callable[[], Any], watcher: Watcher
) -> stats.Stats:
    """Write the release `source` to `out` once more, with its images out of `shards` (paths as for stage 1).

    The outcome is the same, byte for byte, as that of a release with embedded images. Raises `UsageError` when `source`
    holds its images or `out` exists, `UserError` for images that are missing or not the same.
    """
    samples = RegionSamples(source)
    if samples.has_images:
        raise UsageError(f"{source}: holds its images already.")
    made = stats.load(source)
    rows, found = _rows(samples), {(0, shard.name): shard for shard in find_shards(shards)}
    _refuse_missing(rows, found)
    with drafts.made(out) as (draft, lock), session() as connected:
        lock.works_through(connected.name)
        drafts.begin(draft, files.sha256(msgspec.json.encode([stats.as_json(made), rows])))
        for path in (*samples.files("instances"), *samples.files("categories")):
            drafts.record(draft, _copied(path, draft))
        shutil.copyfile(source / CONFLICTS, draft / CONFLICTS)
        image_files.write(draft, rows, "embed", connected, found, watcher)
        held = msgspec.structs.replace(made, images="embed")
        description.write(draft, held)
        return held


def _rows(samples: RegionSamples) -> list[Row]:
    columns = [name for name in regions.schema("images").names if name != "file_bytes"]
    rows = samples.read("images", [*columns, "file_bytes"]).sort_by("image_id").to_pylist()
    return [{**row, "shard_bytes": row.pop("file_bytes"), "run": 0} for row in rows]


def _refuse_missing(rows: Sequence[Row], shards: dict[tuple[int, str], Shard]) -> None:
    missing = sorted({row["shard"] for row in rows} - {name for _, name in shards})
    if missing:
        told = ", ".join(missing[:10]) + (f" and {len(missing) - 10:,} more" if len(missing) > 10 else "")
        raise UserError(f"the images lie in {len(missing):,} shards that --shards does not name: {told}.")


def _copied(path: Path, draft: Path) -> Written:
    """Copy a data file, and return its hash."""
    target = draft / "data" / path.name
    with path.open("rb") as source, target.open("wb") as file:
        sink = files.HashingFile(file)
        shutil.copyfileobj(source, sink, 1 << 20)
    return Written(path.name, sink.bytes, sink.sha256, 0)
