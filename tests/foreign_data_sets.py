"""Small files in other data sets' layouts, and what `rr7k import` makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmark import importers
from benchmark.importers.writer import Report
from pipeline import masks, regions

Row = dict[str, Any]

SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]
"""A polygon; in an image of 6×5 px (width × height) it covers rows 1 and 2 of columns 1 and 2."""


class Imported(NamedTuple):
    report: Report
    instances: list[Row]
    images: list[Row]
    folder: Path

    @property
    def left_out(self) -> list[str]:
        """The rows of left_out.csv but for the header."""
        return (self.folder / "left_out.csv").read_text().splitlines()[1:]

    def named(self) -> list[tuple[str, Any]]:
        """Every instance's raw name and its pixels as rows of 0 and 1."""
        return [(row["category_raw"], pixels(row)) for row in self.instances]


def pixels(row: Row) -> Any:
    """The mask of a row of `instances`."""
    height, width = row["segmentation"]["size"]
    return masks.decode(row["segmentation"]["counts"], height, width).astype(int).tolist()


def imported(kind: str, paths: Sequence[Path], out: Path, images: Path | None = None, split: str = "val") -> Imported:
    """Import, check the format's own rules and the sums, and return what was made, by id."""
    report = importers.run(kind, paths, out, split, images)
    samples = regions.RegionSamples(out)
    instances, rows = samples.read("instances"), samples.read("images")
    regions.check(instances, rows, str(out))
    assert report.found == report.instances + sum(report.dropped.values()) + report.wrong
    assert report.instances == len(instances)
    return Imported(report, instances.sort_by("instance_id").to_pylist(), rows.sort_by("image_id").to_pylist(), out)


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def coco(annotations: Sequence[Any], **changed: Any) -> Row:
    """A COCO file of one image of 6×5 px and two categories."""
    return {
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "000000000007.jpg", "width": 6, "height": 5}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "Bow_(weapon)"}],
        "annotations": list(annotations),
        **changed,
    }


def annotation(number: int, **changed: Any) -> Row:
    return {
        "id": number, "image_id": 7, "category_id": 1, "segmentation": [SQUARE], "bbox": [1, 1, 2, 2], **changed,
    }  # fmt: skip


def save_labels(path: Path, labels: Sequence[Sequence[int]], kind: Any = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(labels, kind)).save(path)
    return path
