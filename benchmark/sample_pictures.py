"""Pictures of a sample of regions, small JPEG files: the surroundings of each with its outline, or its mask alone.

    FOLDER/MADE_OF         hash of the data set and of what draws; with another one the pictures are made anew
    FOLDER/34/1234.jpg     the region of instance 1234

A region of which no photograph is there, or none that can be read, is drawn as a white shape on grey.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from benchmark import pictures
from pipeline import files
from pipeline.errors import UsageError
from pipeline.images import Box, Photograph
from pipeline.regions import RegionSamples, opened

VERSION = 1
"""Raised when pictures come to look otherwise."""

_MADE_OF = "MADE_OF"
_QUALITY = 75
"""Without chroma subsampling, which red lines do not survive."""
_ROWS = 256
"""Regions of a task where there are no photographs."""

Row = dict[str, Any]


class _Job(NamedTuple):
    """Regions, image by image, whose photographs are in one row group."""

    rows: list[Row]
    file: Path | None
    """None: no photographs."""
    group: int


def choose(samples: RegionSamples, each: int) -> pa.Table:
    """Choose up to `each` instances of every category by the hashes of their ids.

    Returns instance_id, image_id, category and area_ratio, by category, then hash.
    """
    found = samples.read("instances", ["instance_id", "image_id", "category", "area_ratio"])
    found = found.append_column("hash", pa.array(_hashes(found["instance_id"].to_numpy())))
    found = found.sort_by([("category", "ascending"), ("hash", "ascending")])
    counts = found["category"].combine_chunks().value_counts().field("counts").to_numpy()
    ranks = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found.filter(pa.array(ranks < each)).drop_columns(["hash"])


def shuffled(ids: Sequence[int]) -> list[int]:
    """Return the places of ids in the order of their hashes."""
    return [int(place) for place in np.argsort(_hashes(np.array(ids, np.int64)), kind="stable")]


def path(instance_id: int) -> str:
    """Return a picture's path within the folder: in folders of two digits, so that none holds too many."""
    return f"{str(instance_id)[-2:]:0>2}/{instance_id}.jpg"


def write(
    samples: RegionSamples, chosen: pa.Table, folder: Path, told: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Draw the chosen regions that the folder lacks; `told` hears how many were drawn, some at a time.

    Holds as many row groups in memory as there are processors. Returns what could not be read, image by image. Raises
    `UsageError` for a folder that holds something else.
    """
    _begin(folder, samples)
    there = {file.stem for file in folder.glob("*/*.jpg")}
    wanted = [i for i in chosen["instance_id"].to_pylist() if str(i) not in there]
    failures: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count, problems in pool.map(partial(_draw, folder), list(_jobs(samples, wanted))):
            told(count)
            failures += problems
    return sorted(failures)


def _hashes(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Scramble ids (the finaliser of splitmix64), so that their order says nothing of where they are from."""
    mixed = ids.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _begin(folder: Path, samples: RegionSamples) -> None:
    """Clear the folder of the pictures of something else."""
    parts = [*samples.files("instances"), *samples.files("images")]
    stated = [(part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    mark, made_of = folder / _MADE_OF, files.sha256(msgspec.json.encode([VERSION, stated]))
    if folder.exists() and any(folder.iterdir()):
        if not mark.exists():
            raise UsageError(f"{folder}: holds something that is not of a report. Choose another --out.")
        if mark.read_text() == made_of:
            return
        shutil.rmtree(folder)
    files.Folder(str(folder)).replace(_MADE_OF, made_of.encode())


def _jobs(samples: RegionSamples, wanted: Sequence[int]) -> Iterator[_Job]:
    columns = ["instance_id", "image_id", "segmentation", "bbox_xywh"]
    where = pc.field("instance_id").isin(pa.array(wanted, pa.int64()))
    rows = samples.dataset("instances").to_table(columns=columns, filter=where, batch_readahead=2).to_pylist()
    rows.sort(key=lambda row: row["image_id"])
    if not samples.has_images:
        yield from (_Job(rows[start : start + _ROWS], None, 0) for start in range(0, len(rows), _ROWS))
        return
    of_image = {image: list(found) for image, found in groupby(rows, key=lambda row: row["image_id"])}
    for file in samples.files("images"):
        with opened(file) as source:
            for group in range(source.num_row_groups):
                ids = source.read_row_group(group, ["image_id"])["image_id"].to_pylist()
                if here := [row for image in ids for row in of_image.get(image, ())]:
                    yield _Job(here, file, group)


# --- one task ---------------------------------------------------------------------------------------------


def _draw(folder: Path, job: _Job) -> tuple[int, list[str]]:
    """Draw the regions of a task; return how many, and what could not be read."""
    failures = []
    photographs = _bytes(job)
    for image, found in groupby(job.rows, key=lambda row: row["image_id"]):
        rows = list(found)
        height, width = rows[0]["segmentation"]["size"]
        windows = [pictures.window(row["bbox_xywh"], (width, height)) for row in rows]
        photo = None
        try:
            if data := photographs.get(image):
                photo = pictures.decoded(data, (width, height), windows)
        except pictures.UNREADABLE as error:
            failures.append(f"image {image}: {error}")
        for row, window in zip(rows, windows, strict=True):
            _save(folder / path(row["instance_id"]), _picture(row, window, photo))
    return len(job.rows), failures


def _bytes(job: _Job) -> dict[int, bytes]:
    if job.file is None:
        return {}
    with opened(job.file) as source:
        found = source.read_row_group(job.group, ["image_id", "image.bytes"])
    wanted = pa.array({row["image_id"] for row in job.rows})
    found = found.filter(pc.is_in(found["image_id"], wanted))
    return {row["image_id"]: row["image"]["bytes"] for row in found.to_pylist() if row["image"]}


def _picture(row: Row, shown: Box, photo: Photograph | None) -> Image.Image:
    (height, width), counts = row["segmentation"]["size"], row["segmentation"]["counts"]
    if photo is None:
        return pictures.shape(counts, height, shown)
    clean, outline = pictures.layers(counts, (width, height), shown, photo)
    clean.paste(outline.convert("RGB"), mask=Image.fromarray(np.asarray(outline) > 0))
    return clean


def _save(target: Path, picture: Image.Image) -> None:
    """Write a picture under its name once it is whole; it can be made again, so that nothing waits for the disk."""
    target.parent.mkdir(exist_ok=True)
    draft = target.with_suffix(".part")
    picture.save(draft, "JPEG", quality=_QUALITY, subsampling=0)
    draft.replace(target)
