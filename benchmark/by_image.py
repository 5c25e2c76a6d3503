"""Region samples image by image; on the disk they lie category by category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from benchmark import run_lengths
from benchmark.run_lengths import Ints
from benchmark.truth import MINI, TEST
from pipeline.errors import UserError
from pipeline.regions import RegionSamples

Row = dict[str, Any]

REGION = ("instance_id", "image_id", "category", "split", "segmentation", "bbox_xywh", "area")
"""Columns that make a `benchmark.dataset.Region`."""

TOGETHER = 4096
"""Instances read at a time, with their run lengths some MB; each reading goes through the file's column once."""
_FILES = 16
"""Image files held at a time: of a row group, each reading of which costs some MB."""


class Image(NamedTuple):
    """An image of a data set."""

    image_id: int
    file_name: str
    width: int
    """px"""
    height: int
    instances: int
    """How many of those asked for it shows."""


class ByImage:
    """The instances of a data set, or of a split of it."""

    def __init__(self, samples: RegionSamples, split: str = "") -> None:
        """Read which images there are, ascending by id; `split` as `benchmark.truth` has it, empty: all."""
        self.samples = samples
        self._where = where = _split(split) if split else None
        shown = samples.read("instances", ["image_id"], where)["image_id"].value_counts().flatten()
        counts = dict(zip(shown[0].to_pylist(), shown[1].to_pylist(), strict=True))
        table = samples.read("images", ["image_id", "file_name", "width", "height"], where).sort_by("image_id")
        self.images = [Image(**row, instances=counts.get(row["image_id"], 0)) for row in table.to_pylist()]

    def by_name(self) -> dict[str, Image]:
        """Return the images by the name of their file, without folder and ending: the same in all data sets of them.

        Raises `UserError` where two have the same.
        """
        found: dict[str, Image] = {}
        for image in self.images:
            name = PurePosixPath(image.file_name).stem
            if found.setdefault(name, image) != image:
                raise UserError(f"{self.samples.folder}: two images are called {name}; which is meant is not clear.")
        return found

    def parts(self, instances: int = TOGETHER) -> Iterator[list[Image]]:
        """Cut the images, in order, into parts that show `instances` at most, or are one image."""
        part: list[Image] = []
        size = 0
        for image in self.images:
            if part and size + image.instances > instances:
                yield part
                part, size = [], 0
            part.append(image)
            size += image.instances
        if part:
            yield part

    def rows(self, images: Sequence[Image], columns: Sequence[str] | None = REGION) -> dict[int, list[Row]]:
        """Return the instances of images by image id, ascending by instance id; `columns` None: all of them.

        Raises `UserError` for a mask that has not the size of its image.
        """
        ids = pa.array([image.image_id for image in images], pa.int64())
        chosen = pc.field("image_id").isin(ids)
        where = chosen if self._where is None else self._where & chosen
        sizes = {image.image_id: [image.height, image.width] for image in images}
        found: dict[int, list[Row]] = defaultdict(list)
        for row in self.samples.read("instances", columns, where).sort_by("instance_id").to_pylist():
            size, wanted = row["segmentation"]["size"], sizes[row["image_id"]]
            if size != wanted:
                told = f"its mask is of an image of {size} px (height, width), not {wanted}"
                raise UserError(f"{self.samples.folder}: instance {row['instance_id']}: {told}.")
            found[row["image_id"]].append(row)
        return found

    def bytes_of(self, images: Sequence[Image]) -> Iterator[bytes | None]:
        """Yield the file of each image, in order; None: it is not there. A few are held at a time."""
        for start in range(0, len(images), _FILES):
            ids = [image.image_id for image in images[start : start + _FILES]]
            table = self.samples.read("images", ["image_id", "image"], pc.field("image_id").isin(ids))
            found = dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
            yield from ((found.pop(image_id) or {}).get("bytes") for image_id in ids)


def _split(name: str) -> pc.Expression:
    return (pc.field("split") == TEST) & pc.field("mini") if name == MINI else pc.field("split") == name


def pixels(row: Row) -> Ints:
    """Return the numbers of a mask's pixels, ascending, counted down the columns. Raises `UserError` for damage."""
    (height, width), counts = row["segmentation"]["size"], row["segmentation"]["counts"]
    try:
        found = run_lengths.pixels(counts, height * width)
        if len(found) != row["area"]:
            raise ValueError(f"{len(found):,} px, not {row['area']:,}")
    except ValueError as error:
        raise UserError(f"instance {row['instance_id']}: its run lengths are damaged ({error}).") from error
    return found
