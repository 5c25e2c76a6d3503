"""A release in other forms, on demand: COCO's instances JSON, and the JSONL that WOW-Seg's authors train on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow.compute as pc

from benchmark import stats
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples

Format = Literal["coco", "jsonl"]

_SEPARATOR = " , "
"""Between the labels of an answer (WOW-Seg's repository, wow_eval/convert_osprey_to_internvl.py)."""

_ENCODED = msgspec.json.Encoder()


def write(samples: RegionSamples, split: str | None, form: Format, path: Path) -> int:
    """Write a split, or all, as one file that appears whole; return its instances.

    Raises `UserError` where there are none, or a name holds what separates names, `UsageError` where no file can be.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"{path}: is a folder, or in none that is there. Choose another --out.")
    where = None if split is None else pc.field("split") == split
    columns = ["instance_id", "image_id", "category", "segmentation", "bbox_xywh", "area", "iscrowd"]
    instances = samples.read("instances", columns, where).sort_by(
        [("image_id", "ascending"), ("instance_id", "ascending")]
    )
    if not len(instances):
        raise UserError(f"{samples.folder}: no instances in split {split!r}.")
    rows = (row for batch in instances.to_batches(max_chunksize=4096) for row in batch.to_pylist())
    images = samples.read("images", ["image_id", "file_name", "width", "height"], where).sort_by("image_id").to_pylist()
    content = _coco(samples, rows, images) if form == "coco" else _jsonl(rows, images)
    _appear(path, content)
    return int(instances.num_rows)


def _appear(path: Path, content: Iterator[bytes]) -> None:
    """Write a file that has its name only once it is whole and on the disk; nothing is left of one that fails."""
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    draft.replace(path)


def _coco(samples: RegionSamples, rows: Iterator[dict[str, Any]], images: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the file piece by piece. Category ids count the categories of the release, by name, from 1."""
    names = samples.read("categories", ["category", "coarse_primary"]).to_pylist()
    ids = {row["category"]: number for number, row in enumerate(names, 1)}
    kinds = [
        {"id": ids[r["category"]], "name": r["category"], "supercategory": r["coarse_primary"] or ""} for r in names
    ]
    told = stats.load(samples.folder) if (samples.folder / stats.FILE).exists() else None
    info = {"description": told.name, "version": told.version, "date_created": told.date} if told else {}
    yield b'{"info":' + _ENCODED.encode(info) + b',"licenses":[],"categories":' + _ENCODED.encode(kinds)
    yield b',"images":' + _ENCODED.encode([{"id": image.pop("image_id"), **image} for image in images])
    yield b',"annotations":['
    for number, row in enumerate(rows):
        annotation = {
            "id": row["instance_id"],
            "image_id": row["image_id"],
            "category_id": ids[row["category"]],
            "segmentation": row["segmentation"],
            "bbox": row["bbox_xywh"],
            "area": row["area"],
            "iscrowd": int(bool(row["iscrowd"])),
        }
        yield (b",\n" if number else b"\n") + _ENCODED.encode(annotation)
    yield b"]}\n"


def _jsonl(rows: Iterator[dict[str, Any]], images: list[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a line per image, its instances by id."""
    known = {image["image_id"]: image for image in images}
    for image_id, group in groupby(rows, key=lambda row: row["image_id"]):
        found, image = list(group), known[image_id]
        labels = [row["category"] for row in found]
        for label in labels:
            if _SEPARATOR in label:
                raise UserError(f"category {label!r} holds {_SEPARATOR!r}, which separates labels there; rename it.")
        turns = [{"from": "human", "value": ""}, {"from": "gpt", "value": _SEPARATOR.join(labels)}]
        record = {
            "id": str(image_id),
            "image": image["file_name"],
            "width": image["width"],
            "height": image["height"],
            "conversations": turns,
            "masks": [row["segmentation"] for row in found],
            "label": labels,
        }
        yield _ENCODED.encode(record) + b"\n"
