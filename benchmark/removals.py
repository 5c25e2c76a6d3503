"""Take-downs: images and masks that no release may hold any more, whatever a run says of them."""

from __future__ import annotations

import csv
import io
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UsageError

COLUMNS = ("image_id", "mask_id", "reason", "date")
FILE = Path(__file__).parent.parent / "data_manifests" / "removed.csv"


class Removals(NamedTuple):
    """What is taken down."""

    images: frozenset[int]
    masks: frozenset[int]


def load(path: Path = FILE) -> Removals:
    """Read the list: a row without `mask_id` removes the image and all its instances.

    Raises `UsageError` with the lines of all mistakes.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UsageError(f"{path}: line 1: the columns have to be {','.join(COLUMNS)}")
    problems = [f"{path}: line {line}: {text}" for line, row in rows if (text := _wrong(row))]
    if problems:
        raise UsageError("\n".join(problems))
    whole = frozenset(int(row["image_id"]) for _, row in rows if not row["mask_id"])
    return Removals(whole, frozenset(int(row["mask_id"]) for _, row in rows if row["mask_id"]))


def _wrong(row: dict[str, str]) -> str:
    if None in row or None in row.values():
        return f"{len(COLUMNS)} cells expected"
    if not row["image_id"].isdigit():
        return f"image_id {row['image_id']!r} is no number"
    if row["mask_id"] and not row["mask_id"].isdigit():
        return f"mask_id {row['mask_id']!r} is no number; leave it empty to remove the image"
    if not row["reason"].strip():
        return "reason is empty"
    try:
        date.fromisoformat(row["date"])
    except ValueError:
        return f"date {row['date']!r} is none; write it as 2026-11-24"
    return ""
