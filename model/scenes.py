"""A picture of a user's: masks are made in it where they point, and the model names them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError
from pycocotools import mask as coco

from model import proposals
from model.inputs import Mask, as_counts
from model.proposals import Rules
from pipeline import masks
from pipeline.errors import UsageError, UserError
from pipeline.images import Box
from pipeline.segmenters import Bools, Look, Segmenter

if TYPE_CHECKING:
    from pathlib import Path

    from model.wowseg import WowSeg

Point = tuple[float, float]
"""x and y, px"""


class Region(NamedTuple):
    """A mask with its name."""

    counts: str
    """COCO compressed RLE of the picture's size."""
    box: Box
    area: int
    """px"""
    label: str
    logprob: float
    """Of the whole name; at most 0."""


def open_picture(source: Path | IO[bytes], name: str, *, upright: bool) -> Image.Image:
    """Read a picture as RGB, turned as its EXIF says if `upright`, else as its pixels lie.

    Raises `UserError`, which calls it by `name`, for what is no picture, is cut off, or would take more than 500 MB.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
            image = Image.open(source)
            return (ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file.") from None
    except UnidentifiedImageError:
        raise UserError(f"{name} is no picture, or of a kind that cannot be read. JPEG, PNG and WebP can.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} cannot be read: {error}") from None


class Scene:
    """One picture; it is shown to the segmenter once, when the first mask is to be made."""

    def __init__(self, model: WowSeg, image: Image.Image, segmenter: Segmenter | None = None) -> None:
        self.image = image
        self._model, self._segmenter = model, segmenter

    def given(self, found: Sequence[Mask]) -> list[Region]:
        """Name masks. Raises `UserError` for one that is empty, malformed or of another size than the picture."""
        if not found:
            return []
        counts = [as_counts(mask, self.image.size, number) for number, mask in enumerate(found)]
        size = [self.image.height, self.image.width]
        told = self._model.name(self.image, [{"size": size, "counts": text} for text in counts])
        boxes = coco.toBbox([{"size": size, "counts": text.encode()} for text in counts]).astype(int).tolist()
        areas = masks.run_sums(pa.array(counts, pa.string())).area.tolist()  # pycocotools' area ends at 255 masks
        return [
            Region(text, (left, top, left + across, top + down), area, named.label, named.logprob)
            for text, (left, top, across, down), area, named in zip(counts, boxes, areas, told, strict=True)
        ]

    def at(self, points: Sequence[Point]) -> list[Region]:
        """Name what is at each point, by the mask that the segmenter thinks best of.

        Raises `UserError` for a point outside of the picture, or where the segmenter finds nothing.
        """
        for x, y in points:
            if not (0 <= x < self.image.width and 0 <= y < self.image.height):
                raise UserError(f"point {x:g},{y:g} is outside of the picture of {_size(self.image)}.")
        if not points:
            return []
        found = self._look.points(np.array(points, np.float32))
        best = [max(offered, key=lambda one: one.predicted_iou) for offered in found]
        return self._made([proposal.mask for proposal in best], [f"at {x:g},{y:g}" for x, y in points])

    def inside(self, boxes: Sequence[tuple[float, float, float, float]]) -> list[Region]:
        """Name what is in each box, left, top, right, bottom.

        Raises `UserError` for a box that holds no pixel of the picture, or where the segmenter finds nothing.
        """
        for left, top, right, bottom in boxes:
            if not (max(left, 0) < min(right, self.image.width) and max(top, 0) < min(bottom, self.image.height)):
                raise UserError(
                    f"box {left:g},{top:g},{right:g},{bottom:g} (left, top, right, bottom) holds nothing of the "
                    f"picture of {_size(self.image)}."
                )
        if not boxes:
            return []
        found = self._look.boxes(np.array(boxes, np.float32))
        return self._made(list(found), ["in box " + ",".join(f"{side:g}" for side in box) for box in boxes])

    def everything(
        self,
        rules: Rules = Rules(),  # noqa: B008 (frozen)
        told: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Region]:
        """Name everything that the segmenter finds, the largest first. See `proposals.everything`."""
        width, height = self.image.size
        found = proposals.everything(self._look, self.image.size, rules, told)
        return self.given([{"size": [height, width], "counts": counts} for counts in found])

    @cached_property
    def _look(self) -> Look:
        if self._segmenter is None:
            raise UsageError("there is no segmenter to make masks.")
        try:
            return self._segmenter.look(self.image)
        except ValueError as error:  # such as one side that is nothing at the segmenter's own size
            raise UserError(f"the segmenter cannot take a picture of {_size(self.image)}: {error}") from None

    def _made(self, made: Sequence[Bools], places: Sequence[str]) -> list[Region]:
        for mask, place in zip(made, places, strict=True):
            if not mask.any():
                raise UserError(f"the segmenter finds nothing {place}.")
        return self.given(made)


def _size(image: Image.Image) -> str:
    return f"{image.width}×{image.height} px"
