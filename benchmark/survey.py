"""What figures and report show of a data set, counted from its files; run lengths and pixels are left aside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmark import stats
from benchmark.stats import Size
from pipeline.errors import UserError
from pipeline.regions import RegionSamples

Floats = npt.NDArray[np.float64]


class Survey(NamedTuple):
    """A release, or any data set in its format."""

    name: str
    facts: list[tuple[str, str]]
    """Label and text; nothing for what is no release."""
    warnings: list[str]
    """What a reader must know before any number."""
    size: Size
    splits: dict[str, int]
    """Instances by split."""
    categories: pa.Table
    """The table `categories`, ascending by name, and `size`: the median of `sizes` of its instances."""
    sizes: Floats
    """Relative mask size of every instance: the square root of its share of the image, in (0, 1] (SAM, Fig. 6)."""


def take(folder: Path) -> Survey:
    """Count a data set. Raises `UserError` for a folder that is none, or for statistics that are damaged."""
    samples = RegionSamples(folder)
    if not samples.files("categories"):
        raise UserError(f"{folder}: data/categories.parquet is missing. Make the data set again.")
    found = samples.read("instances", ["category", "image_id", "split", "area_ratio"])
    sizes = np.sqrt(found["area_ratio"].to_numpy())
    kinds = samples.read("categories").sort_by("category")
    told = stats.load(folder) if (folder / stats.FILE).exists() else None
    return Survey(
        told.name if told else folder.absolute().name,
        _facts(told) if told else [],
        _warnings(told) if told else [],
        Size(len(found), len(found["image_id"].unique()), len(kinds)),
        dict(sorted(Counter(found["split"].to_pylist()).items())),
        kinds.append_column("size", _medians(found["category"], sizes, kinds["category"])),
        sizes,
    )


def _medians(names: pa.ChunkedArray, sizes: Floats, kinds: pa.ChunkedArray) -> pa.Array:
    """Return the median size for each of `kinds`; null where it has no instance."""
    grouped = pa.table({"name": names, "size": sizes}).sort_by([("name", "ascending"), ("size", "ascending")])
    counts = grouped["name"].combine_chunks().value_counts()  # in the order of the names
    ends = np.cumsum(counts.field("counts").to_numpy())
    starts = ends - counts.field("counts").to_numpy()
    values = grouped["size"].to_numpy()
    medians = (values[(starts + ends - 1) // 2] + values[(starts + ends) // 2]) / 2
    places = pa.compute.index_in(kinds.combine_chunks(), counts.field("values"))
    return pa.array(medians).take(places)


def _facts(told: stats.Stats) -> list[tuple[str, str]]:
    screened = ", ".join(f"{count:,} {by}" for by, count in told.screened_by.items())
    return [
        ("version", told.version),
        ("date", told.date),
        ("screened by", screened),
        ("named by", ", ".join(told.namer_models)),
        ("checked by", ", ".join(told.verifier_models) or "nothing"),
    ]


def _warnings(told: stats.Stats) -> list[str]:
    """Say what the data card warns of (benchmark/card.py)."""
    marks = {
        "simulated: a program answered in place of people": told.simulated,
        "unscreened: part of it nobody has looked at": told.unscreened,
        "embedded engine: names from an ImageNet classifier": bool(told.namer_engines.get("embedded")),
    }
    return [text for text, holds in marks.items() if holds]
