"""The data set beside others, by categories, images and masks: published sizes, and sizes counted here."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.survey import Survey

_FILE = Path(__file__).parent.parent / "data_manifests" / "region_data_sets.csv"


class DataSet(NamedTuple):
    """How much a data set holds; None: not known, or it has no such thing."""

    name: str
    categories: int | None
    images: int | None
    masks: int | None
    """0: its regions are boxes."""
    source: str
    note: str = ""
    counted: bool = False
    """Here, from its files; otherwise as published."""


def published() -> list[DataSet]:
    """Return what is published, in the order of data_manifests/region_data_sets.csv."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return [_published(row) for row in csv.DictReader(file)]


def rows(ours: Survey, others: Sequence[Survey]) -> list[DataSet]:
    """Return ours, the others and the published ones, by categories; those without come last."""
    counted = [
        DataSet(s.name, s.size.categories, s.size.images, s.size.instances, "counted here", counted=True)
        for s in (ours, *others)
    ]
    return sorted([*counted, *published()], key=lambda row: -(row.categories or 0))


def _published(row: Mapping[str, str]) -> DataSet:
    categories, images, masks = (int(row[kind]) if row[kind] else None for kind in ("categories", "images", "masks"))
    return DataSet(row["name"], categories, images, masks, row["source"], row["note"])


def write_csv(sets: Sequence[DataSet]) -> bytes:
    """Return them as CSV."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(DataSet._fields)
    writer.writerows(sets)
    return sink.getvalue().encode()
