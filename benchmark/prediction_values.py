"""Ids and texts out of a column of predictions, whatever the file holds there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError

NO_TEXT, OVERLONG = "no text", "overlong"

Values: TypeAlias = list[Any] | pa.ChunkedArray

_LONGEST = 100_000
"""Characters of a text that are still read: MiniLM looks at 256 tokens, and no name has a thousandth of that."""

_INT64 = 2**63
_EXACT_FLOAT = 2**53


def listed(values: Values) -> list[Any]:
    """Return the values of a column as Python has them."""
    return list(values.to_pylist()) if isinstance(values, pa.ChunkedArray) else values


def integers(path: Path, numbers: Sequence[int], name: str, values: Values) -> pa.Array:
    """Return the ids of column `name`, int64. Raises `UserError` for what is none, with its number."""
    if isinstance(values, pa.ChunkedArray) and pa.types.is_signed_integer(values.type) and not values.null_count:
        return values.combine_chunks().cast(pa.int64())
    rows = zip(numbers, listed(values), strict=True)
    return pa.array([_integer(path, number, name, value) for number, value in rows], pa.int64())


def _integer(path: Path, number: int, name: str, value: Any) -> int:
    """Return an id; floats because a column with gaps becomes one in pandas, digits because CSV has nothing else."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,19}(\.0)?\s*", value, re.ASCII):
        value = int(value.strip().removesuffix(".0"))
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return value
    raise UserError(f"{path}: row {number}: {name} {value!r:.80} is no whole number of 64 bits")


def texts(values: Values) -> tuple[pa.Array, pa.Array]:
    """Return texts (large_string), and why there is none (string): NO_TEXT, OVERLONG, or null where there is one."""
    if not (isinstance(values, pa.ChunkedArray) and _is_text(values.type)):
        pairs = [_text(value) for value in listed(values)]
        found, why = zip(*pairs, strict=True) if pairs else ((), ())
        return pa.array(found, pa.large_string()), pa.array(why, pa.string())
    texts = values.cast(pa.large_string()).combine_chunks()
    endless = pc.greater(pc.utf8_length(texts), _LONGEST)
    problems = pc.if_else(pc.is_null(texts), NO_TEXT, pc.if_else(endless, OVERLONG, pa.scalar(None, pa.string())))
    return pc.if_else(endless, pa.scalar(None, pa.large_string()), texts), problems


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(value: Any) -> tuple[str | None, str | None]:
    if not isinstance(value, str) or (not value.isascii() and re.search("[\ud800-\udfff]", value)):
        return None, NO_TEXT  # half a character, which JSON can spell, is none either
    return (value, None) if len(value) <= _LONGEST else (None, OVERLONG)
