"""Records of a JSON, JSON Lines or CSV file that somebody else's program wrote, each with its place in the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import UsageError, UserError

_TOLD = 80
"""Characters of the file's own content in a message; a line can have a hundred million."""


class Record(NamedTuple):
    """A JSON value or a row of cells, and its line in the file, or its place in the list, from 1."""

    number: int
    content: Any


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises `UsageError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def json_records(path: Path, data: bytes) -> list[Record]:
    """Return the items of a JSON list, the lines of JSON Lines (also named .json), or a single object as it is.

    NaN and Infinity, which Python writes, are read. Raises `UserError` with the place of what is not UTF-8 or JSON.
    """
    text = _text(path, data)
    if path.suffix != ".jsonl":
        try:
            whole = _loads(str(path), text)
            return [Record(i, item) for i, item in enumerate(whole if isinstance(whole, list) else [whole], 1)]
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # a second line, after a whole first one
                raise _not_json(path, error, error.lineno) from error
    return list(_lines(path, text))


def _lines(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield Record(number, _loads(f"{path}: line {number}", line))
            except json.JSONDecodeError as error:
                raise _not_json(path, error, number) from error


def _loads(where: str, text: str) -> Any:
    """Parse JSON. Raises `json.JSONDecodeError`, and `UserError` for what Python refuses in valid JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise UserError(f"{where}: thousands of brackets in each other; no prediction has so many") from error
    except ValueError as error:
        raise UserError(f"{where}: a number of thousands of digits; no prediction has one") from error


def _not_json(path: Path, error: json.JSONDecodeError, line: int) -> UserError:
    found = error.doc[error.pos : error.pos + _TOLD]
    return UserError(f"{path}: line {line}, character {error.colno}: not JSON ({error.msg}), at {found!r}")


def csv_records(path: Path, data: bytes) -> list[Record]:
    """Return the rows of a CSV as dictionaries; LF or CRLF, with or without a byte order mark.

    Raises `UserError` for what is not UTF-8 or CSV, a row of another length than the header, or a header that repeats.
    """
    reader = csv.reader(io.StringIO(_text(path, data), newline=""), strict=True)
    records = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise UserError(f"{path}: line 1: a column appears twice: {', '.join(header)[:_TOLD]}")
        for cells in filter(None, reader):
            if len(cells) != len(header):
                wanted = f"{len(cells)} cells where the header has {len(header)}"
                raise UserError(f"{path}: line {reader.line_num}: {wanted}; is a text with a comma not in quotes?")
            records.append(Record(reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; is a quote not closed?") from error
    return records


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - data.rfind(b"\n", 0, error.start)
        raise UserError(f"{path}: line {line}, byte {byte}: not UTF-8 ({error.reason}); save it as UTF-8") from error
