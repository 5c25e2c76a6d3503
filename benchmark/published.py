"""Published numbers, to stand beside a model's own (published.csv: facts of the tables named in each row)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).with_name("published.csv")


class Row(NamedTuple):
    """A published number."""

    source: str
    """Paper and table."""
    model: str
    variant: str
    data_set: str
    measure: str
    """similarity and iou as in benchmark.score; PQ, mIoU, mMaskAcc as the paper has them."""
    value: float
    """× 100, as printed."""
    preset: str
    """The protocol it was measured by (benchmark/presets.py); empty: not published, or no such protocol."""
    note: str


def rows() -> list[Row]:
    """Read them all, in the order of the paper."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return [Row(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file)]  # type: ignore[arg-type]


def beside(data_set: str, table: int = 1) -> list[Row]:
    """Return the similarity and IoU of a data set in one of the paper's tables; its names are LVIS, PACO and RR-7K."""
    return [row for row in rows() if row.data_set == data_set and row.source.endswith(f" Table {table}")]


def warnings(shown: Sequence[Row], preset: str) -> list[str]:
    """Say which of the rows shown beside a score by `preset` were measured otherwise, or nobody knows how."""
    other: dict[str, list[str]] = {}
    for row in shown:
        if row.preset != preset:
            other.setdefault(row.preset, []).append(row.model)
    lines = []
    for theirs, models in other.items():
        how = f"by {theirs}, not {preset}" if theirs else "by a protocol that is not published"
        lines.append(f"{', '.join(dict.fromkeys(models))}: measured {how}; not strictly comparable.")
    return lines
