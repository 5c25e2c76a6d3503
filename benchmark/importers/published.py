"""The published RR-7K, whose layout is not known (wowseg_facts.md, F): each file is read as what it turns out to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from benchmark.importers import coco, instance_rows, jsonl, osprey, sa1b, source
from benchmark.importers.source import Event, Pixels, Place, Wrong
from pipeline import regions
from pipeline.errors import UsageError, UserError

T = TypeVar("T")

_SUFFIXES = (".json", ".jsonl", ".parquet", ".tar")
_ROWS = 32
"""Of Parquet, at a time: a row can hold an image and all its masks."""

_HEAD = 64 << 10


def read(paths: Sequence[Path]) -> Iterator[Event]:
    """Read files, and all of a folder. Raises `UsageError` when there are none, `UserError` for another layout."""
    for path in paths:
        found = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path}: holds no {', '.join('*' + suffix for suffix in _SUFFIXES)}.")
        for file in found:
            yield from _read(file)


def _read(path: Path) -> Iterator[Event]:
    if path.suffix == ".jsonl":
        return jsonl.read([path])
    if path.suffix == ".parquet":
        return _rows(path)
    if path.suffix == ".tar":
        return sa1b.read([path])
    return _reader_of(path)([path])


def _reader_of(path: Path) -> Callable[[Sequence[Path]], Iterator[Event]]:
    """Tell the layouts of a .json apart by its outermost keys."""
    data = source.mapped(path)
    if data[:_HEAD].lstrip()[:1] == b"[":
        return osprey.read
    keys = source.decode(path, data, dict[str, msgspec.Raw], "a JSON object or list")
    if {"images", "annotations", "categories"} <= keys.keys():
        return coco.read
    if {"image", "annotations"} <= keys.keys():
        return sa1b.read
    if {"image", "masks", "label"} <= keys.keys():
        return jsonl.read
    raise UserError(
        f"{path}: neither COCO (images, annotations, categories), SA-1B (image, annotations) nor the authors' "
        f"JSON Lines (image, masks, label): its keys are {', '.join(sorted(keys))[:200]}."
    )


def _rows(path: Path) -> Iterator[Event]:
    """Read Parquet whose rows are records of the authors' JSON Lines, SA-1B's files, or single regions."""
    with regions.opened(path) as file:
        reader = _reader_of_rows(path, file.schema_arrow)
        rows = (row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist())
        for number, row in enumerate(rows):
            yield from reader(Place(path.name, f"row {number}"), row)


def _reader_of_rows(path: Path, schema: pa.Schema) -> Callable[[Place, dict[str, Any]], Iterator[Event]]:
    """Tell the layouts of Parquet apart by its columns."""
    names = set(schema.names)
    if "category_raw" in names:
        raise UserError(f"{path}: a region-sample file already; it needs no import.")
    if names >= {"image", "masks", "label"}:
        return _record
    if names >= {"image", "annotations"}:
        return _sa1b_file
    if instance_rows.fits(names):
        return partial(instance_rows.of_row, classes=instance_rows.class_names(schema))
    raise UserError(
        f"{path}: columns {', '.join(sorted(names))[:200]}; expected image, masks, label; or image, annotations; or a "
        f"region a row: a name ({', '.join(sa1b.NAMES)}), a mask ({', '.join(instance_rows.MASKS)}) and an image "
        f"({', '.join(instance_rows.IMAGES)})."
    )


def _sa1b_file(place: Place, row: dict[str, Any]) -> Iterator[Event]:
    return sa1b.of_file(place, _typed(place, {name: row[name] for name in ("image", "annotations")}, sa1b.File))


def _record(place: Place, row: dict[str, Any]) -> Iterator[Event]:
    image = row["image"]
    name, data = (image.get("path"), image.get("bytes")) if isinstance(image, dict) else (image, None)
    yield from jsonl.of_record(place, _typed(place, {**row, "image": name}, jsonl.Record))
    if name and data:
        yield Pixels(source.id_of_name(name), data)


def _typed(place: Place, row: dict[str, Any], kind: type[T]) -> T | Wrong:
    return source.entry(place, msgspec.Raw(msgspec.json.encode(_texts(row))), kind)


def _texts(value: Any) -> Any:
    """Return the value with run lengths that are stored as bytes made text."""
    if isinstance(value, dict):
        return {name: _texts(inner) for name, inner in value.items() if name != "bytes"}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
