"""Prediction files of our own: Parquet, CSV or JSON Lines with text, and instance_id or image_id and mask_id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmark.prediction_values import NO_TEXT, Values, integers, listed, texts
from benchmark.records import Record
from pipeline.errors import UsageError, UserError

_KEYS = (("instance_id",), ("image_id", "mask_id"))
_READ = ("instance_id", "image_id", "mask_id", "text", "model", "benchmark")
EXPECTED = "text and instance_id, or text, image_id and mask_id"

_SHOWN, _TOLD = 5, 200


class OwnFile(NamedTuple):
    """A file by columns."""

    path: Path
    numbers: Sequence[int]
    """Of the rows, from 1."""
    columns: dict[str, Values]


class OwnPredictions(NamedTuple):
    """What a file holds."""

    columns: dict[str, Any]
    """Arrays: number; instance_id, or image (the image_id) and place (the mask_id); text and problem."""
    keys: tuple[str, ...]
    model: str
    benchmark: str


def key(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that say which region is meant; none for a file that is not ours."""
    return next((key for key in _KEYS if {"text", *key} <= set(names)), ())


def from_parquet(path: Path, data: bytes) -> OwnFile:
    """Read the columns that we know. Raises `UserError` for a file that cannot be read, without rows, or not ours."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        table = file.read([name for name in names if name in _READ])
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({str(error)[:200]})") from error
    if not len(table):
        raise UserError(f"{path}: no predictions in it")
    if not key(names):
        raise UserError(f"{path}: has the columns {', '.join(names)[:_TOLD]}. Expected are {EXPECTED}")
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return OwnFile(path, range(1, len(table) + 1), {name: _plain(path, name, columns[name]) for name in columns})


def _plain(path: Path, name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column that Python can hold. Raises `UserError` for dates: it has not every one that Arrow has."""
    if _has_dates(values.type):
        told = f"column {name} holds {values.type!s:.80}, neither numbers nor text"
        raise UserError(f"{path}: {told}. Expected are {EXPECTED}")
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _has_dates(kind: pa.DataType) -> bool:
    inner = [kind.field(place).type for place in range(kind.num_fields)]
    return bool(pa.types.is_temporal(kind)) or any(map(_has_dates, inner))


def from_records(path: Path, records: Sequence[Record]) -> OwnFile:
    """Take records, one or more. Raises `UserError` for one without text or key."""
    bad = [number for number, row in records if not isinstance(row, dict) or not key(row)]
    if bad:
        raise UserError(f"{path}: row {bad[0]}: needs {EXPECTED}")
    rows = [record.content for record in records]
    names = ("text", *key(rows[0]), "model", "benchmark")
    return OwnFile(
        path, [record.number for record in records], {name: [row.get(name) for row in rows] for name in names}
    )


def read(file: OwnFile, model: str) -> OwnPredictions:
    """Read what is said, by `model` if it is named. Raises as `benchmark.predictions.read` does."""
    models = _distinct(file, "model")
    if model and models:
        file = _only(file, model)
    if (model and models and not file.numbers) or (not model and len(models) > 1):
        several = ", ".join(models[:_SHOWN])[:_TOLD]
        raise UsageError(f"{file.path}: predictions of {several}; choose one of these models")
    benchmarks = _distinct(file, "benchmark")
    if len(benchmarks) > 1:
        raise UserError(f"{file.path}: answers to several benchmarks: {', '.join(benchmarks[:_SHOWN])[:_TOLD]}")
    keys = key(file.columns)
    ids = [integers(file.path, file.numbers, name, file.columns[name]) for name in keys]
    told = dict(zip(("image", "place") if len(ids) > 1 else ("instance_id",), ids, strict=True))
    text, problem = texts(file.columns["text"])
    if pc.all(pc.equal(problem, NO_TEXT), skip_nulls=False).as_py():
        first = listed(file.columns["text"][:1])[0]
        raise UserError(f"{file.path}: column text holds no text, as in row {file.numbers[0]}: {first!r:.80}")
    columns = {"number": pa.array(file.numbers, pa.int64()), **told, "text": text, "problem": problem}
    return OwnPredictions(columns, keys, model or "".join(models), "".join(benchmarks))


def _distinct(file: OwnFile, name: str) -> list[str]:
    """Return the texts of a column; half a character, which JSON can spell and nothing can write, is a "?"."""
    found = {str(value) for value in listed(file.columns.get(name, [])) if value}
    return sorted({text.encode(errors="replace").decode() for text in found})


def _only(file: OwnFile, model: str) -> OwnFile:
    """Return the rows of one model."""
    rows = [row for row, name in enumerate(listed(file.columns["model"])) if name == model]
    columns: dict[str, Values] = {
        name: values.take(pa.array(rows, pa.int64()))
        if isinstance(values, pa.ChunkedArray)
        else [values[row] for row in rows]
        for name, values in file.columns.items()
    }
    return OwnFile(file.path, [file.numbers[row] for row in rows], columns)
