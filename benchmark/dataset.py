"""A data set of named regions for researchers: images, masks and categories, without Ray and without torch."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pycocotools import mask as coco

from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples

_RLE = re.compile(r"[0-o]*[0-O]")
"""COCO's alphabet; the last character must not say that more follows, or pycocotools reads past the end."""


@dataclass(frozen=True)
class Region:
    """A named region of an image."""

    instance_id: int
    image_id: int
    category: str
    split: str
    height: int
    """Of the image, px."""
    width: int
    counts: str
    """COCO's compressed run lengths."""
    bbox_xywh: tuple[float, float, float, float]
    """px: left, top, columns and rows covered."""
    area: int

    def mask(self) -> npt.NDArray[np.bool_]:
        """Decode the mask to (height, width). Raises `UserError` for damaged run lengths."""
        try:
            if not _RLE.fullmatch(self.counts):
                raise ValueError("not COCO RLE")
            pixels = coco.decode({"size": [self.height, self.width], "counts": self.counts.encode()})
            if pixels.sum() != self.area:
                raise ValueError(f"{pixels.sum()} px, not {self.area}")
        except ValueError as error:
            raise UserError(f"instance {self.instance_id}: its run lengths are damaged ({error}).") from error
        return np.asarray(pixels, np.bool_)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Make a region of a row of `instances`."""
        height, width = row["segmentation"]["size"]
        plain = {name: row[name] for name in ("instance_id", "image_id", "category", "split", "area")}
        box = tuple(row["bbox_xywh"])
        return cls(**plain, height=height, width=width, counts=row["segmentation"]["counts"], bbox_xywh=box)


_COLUMNS = ("instance_id", "image_id", "category", "split", "segmentation", "bbox_xywh", "area")


class Dataset:
    """Region samples on a disk. Opening reads footers; every question reads only the columns and rows it needs."""

    def __init__(self, samples: RegionSamples) -> None:
        self.samples = samples

    def __repr__(self) -> str:
        return f"Dataset({str(self.samples.folder)!r}): {len(self):,} regions, {len(self.categories):,} categories"

    def __len__(self) -> int:
        return int(self.samples.dataset("instances").count_rows())

    @cached_property
    def categories(self) -> pa.Table:
        """The categories with their groups, counts, frequency band and accepted names, ascending by name."""
        return self.samples.read("categories")

    def instances(self, *columns: str, split: str | None = None, mini: bool = False) -> pa.Table:
        """Return columns of `instances` (pipeline/regions.py), of all rows or of a split; `mini`: its small subset."""
        return self.samples.read("instances", columns, _chosen(split, mini))

    def images(self, *columns: str, split: str | None = None, mini: bool = False) -> pa.Table:
        """Return columns of `images`, of all rows or of a split; without names all but the bytes."""
        names = [name for name in self.samples.dataset("images").schema.names if name != "image"]
        return self.samples.read("images", columns or names, _chosen(split, mini))

    def regions(self, split: str | None = None, *, mini: bool = False) -> Iterator[Region]:
        """Yield every region, category by category within a file; memory is bounded by a row group."""
        yield from self._regions(_chosen(split, mini))

    def of_category(self, category: str) -> list[Region]:
        """Return the regions of a category; reads the row groups that hold it. Raises `UsageError`: no such name."""
        found = list(self._regions(pc.field("category") == category))
        if not found:
            raise UsageError(f"{self.samples.folder}: no category {category!r}; `categories` lists them all.")
        return found

    def of_image(self, image_id: int) -> list[Region]:
        """Return the regions of an image, by id; reads one column of all and whole rows where the image is."""
        return sorted(self._regions(pc.field("image_id") == image_id), key=lambda region: region.instance_id)

    def image(self, image_id: int) -> Image.Image:
        """Return an image's pixels as they lie in the file, which is what masks refer to, in RGB.

        Raises `UsageError` as `image_file` does.
        """
        return Image.open(io.BytesIO(self.image_file(image_id))).convert("RGB")

    def image_file(self, image_id: int) -> bytes:
        """Return an image's file.

        Raises `UsageError` when the data set refers to its images only, has none of that id, or not its file.
        """
        if not self.samples.has_images:
            raise UsageError(f"{self.samples.folder}: holds no images. rr7k hydrate makes a copy that does.")
        found = self.samples.read("images", ["image"], pc.field("image_id") == image_id)["image"].to_pylist()
        if not found:
            raise UsageError(f"{self.samples.folder}: no image {image_id}.")
        if not found[0] or found[0]["bytes"] is None:
            raise UsageError(f"{self.samples.folder}: the file of image {image_id} is not in it.")
        return bytes(found[0]["bytes"])

    def _regions(self, where: pc.Expression | None) -> Iterator[Region]:
        scanned = self.samples.dataset("instances").to_batches(
            columns=list(_COLUMNS), filter=where, batch_readahead=2, fragment_readahead=1
        )
        for batch in scanned:
            yield from map(Region.of, batch.to_pylist())


def _chosen(split: str | None, mini: bool) -> pc.Expression | None:
    where = None if split is None else pc.field("split") == split
    if mini:
        where = pc.field("mini") if where is None else where & pc.field("mini")
    return where


def load(path: str | Path) -> Dataset:
    """Open a release, or any data set in its format. Raises `UserError` for a folder that is none."""
    return Dataset(RegionSamples(Path(path)))
