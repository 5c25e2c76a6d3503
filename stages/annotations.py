"""SA-1B annotation JSON: parsed with its types, checked against the image, turned into Arrow columns.

The fast way handles a whole file as it should be. Only a file that fails there is taken apart annotation
by annotation, so that one bad mask costs one mask and is named with its field.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import masks
from pipeline.decoding import UNDECODABLE
from pipeline.shards import IndexedImage, Problem

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Segmentation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """COCO compressed RLE; `size` is (height, width)."""

    size: tuple[Pixels, Pixels]
    counts: str


class Annotation(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One mask, with exactly SA-1B's keys (segment-anything README); the last two must be there but are not kept."""

    id: Id
    segmentation: Segmentation
    bbox: tuple[float, float, float, float]
    area: Pixels
    predicted_iou: float
    stability_score: float
    crop_box: msgspec.Raw
    point_coords: msgspec.Raw


class LooseAnnotation(Annotation, forbid_unknown_fields=True):
    """The same, to be checked against objects that a slower parser has made."""

    crop_box: Any
    point_coords: Any


class ImageInfo(msgspec.Struct, forbid_unknown_fields=True):
    """The image an annotation file belongs to."""

    image_id: Id
    width: Pixels
    height: Pixels
    file_name: str


class AnnotationFile(msgspec.Struct, forbid_unknown_fields=True):
    """A whole `sa_N.json`."""

    image: ImageInfo
    annotations: list[Annotation]


class ImageMasks(NamedTuple):
    """The annotations of one image that have the right shape, with their positions in the file."""

    image: IndexedImage
    annotations: Sequence[Annotation]
    positions: Sequence[int]


_decoder = msgspec.json.Decoder(AnnotationFile)


# --- one file ---------------------------------------------------------------------------------------------


def parse(image: IndexedImage, data: bytes) -> tuple[ImageMasks | None, list[Problem], int]:
    """Parse the annotation file of `image`.

    Returns the masks (None if the whole image is unusable), the problems, and how many annotations the
    file holds (0 if unusable).
    """
    try:
        file = _decoder.decode(data)
    except UNDECODABLE:
        return _take_apart(image, data)
    if wrong := _wrong_image(image, file.image):
        return None, [wrong], 0
    count = len(file.annotations)
    return ImageMasks(image, file.annotations, range(count)), [], count


def _json_name(image: IndexedImage) -> str:
    return f"sa_{image.image_id}.json"


def _image_problem(image: IndexedImage, path: str, reason: str, error: str) -> Problem:
    return Problem(f"image:{image.image_id}", image.image_id, f"{_json_name(image)} {path}".rstrip(), reason, error)


def _wrong_image(image: IndexedImage, info: ImageInfo) -> Problem | None:
    if info.image_id != image.image_id:
        return _image_problem(image, "$.image.image_id", "wrong-image", f"the file says image {info.image_id}")
    if (info.width, info.height) != (image.width, image.height):
        return _image_problem(
            image,
            "$.image",
            "wrong-size",
            f"the file says {info.width}×{info.height} px, the JPEG's header {image.width}×{image.height}",
        )
    return None


def _take_apart(image: IndexedImage, data: bytes) -> tuple[ImageMasks | None, list[Problem], int]:
    try:
        info, entries = _split(_loosely(data))
    except msgspec.ValidationError as error:
        message, path = _message_and_path(error)
        return None, [_image_problem(image, path, "wrong-shape", message)], 0
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None, [_image_problem(image, "", "not-json", f"the file is not valid JSON: {error}")], 0
    if wrong := _wrong_image(image, info):
        return None, [wrong], 0
    good, positions, problems = [], [], []
    for position, entry in enumerate(entries):
        try:
            good.append(msgspec.convert(entry, LooseAnnotation))
            positions.append(position)
        except msgspec.ValidationError as error:
            message, path = _message_and_path(error)
            mask_id = entry.get("id") if isinstance(entry, dict) else None
            problems.append(mask_problem(image, mask_id, position, path[1:], "wrong-shape", message))
    return ImageMasks(image, good, positions), problems, len(entries)


def _loosely(data: bytes) -> Any:
    """Read JSON with NaN, which is then found in its field; half a character, which no table holds, is spelt out."""
    text = json.dumps(json.loads(data), ensure_ascii=False)
    return json.loads(text.encode(errors="xmlcharrefreplace"))


def _split(content: Any) -> tuple[ImageInfo, list[Any]]:
    """Check the outer shape only. Raises `msgspec.ValidationError`."""

    class Outer(msgspec.Struct, forbid_unknown_fields=True):
        image: ImageInfo
        annotations: list[Any]

    outer = msgspec.convert(content, Outer)
    return outer.image, outer.annotations


def _message_and_path(error: msgspec.ValidationError) -> tuple[str, str]:
    """Split msgspec's "Expected `int`, got `str` - at `$.area`" into message and path."""
    message, _, path = str(error).partition(" - at `")
    return message, path.rstrip("`") or "$"


def mask_problem(image: IndexedImage, mask_id: Any, position: int, field: str, reason: str, error: str) -> Problem:
    """Name a bad annotation by its id, or by its place in the file where the id itself is no number."""
    name = f"mask:{mask_id}" if isinstance(mask_id, int) else f"mask:{_json_name(image)}[{position}]"
    place = f"{_json_name(image)} $.annotations[{position}]{field}"
    return Problem(name, image.image_id, place, reason, error)


# --- many files -------------------------------------------------------------------------------------------


class MaskColumns(NamedTuple):
    """N masks of one or more images as columns; `image` indexes the list of images they came from."""

    image: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]  # in the image's file
    mask_id: npt.NDArray[np.int64]
    rle_counts: pa.StringArray
    rle_size: npt.NDArray[np.int64]  # (N, 2): height, width
    bbox: npt.NDArray[np.float64]  # (N, 4): x, y, w, h
    area: npt.NDArray[np.int64]
    predicted_iou: npt.NDArray[np.float64]
    stability_score: npt.NDArray[np.float64]

    def take(self, keep: npt.NDArray[np.bool_]) -> MaskColumns:
        """Return the masks where `keep` is true."""
        if keep.all():
            return self
        chosen: list[Any] = [c.filter(pa.array(keep)) if isinstance(c, pa.Array) else c[keep] for c in self]
        return MaskColumns(*chosen)


class Batch:
    """Masks of several images, gathered column by column while each image's are still in the processor's cache."""

    def __init__(self) -> None:
        self.images: list[IndexedImage] = []
        self._per_image: list[int] = []
        self._positions: list[Sequence[int]] = []
        self._counts: list[str] = []
        self._sizes: list[int] = []
        self._boxes: list[float] = []
        self._integers: tuple[list[int], list[int]] = ([], [])
        self._scores: tuple[list[float], list[float]] = ([], [])

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, masks_of: ImageMasks) -> None:
        """Add the masks of one image."""
        entries = masks_of.annotations
        segments = [entry.segmentation for entry in entries]
        self.images.append(masks_of.image)
        self._per_image.append(len(entries))
        self._positions.append(masks_of.positions)
        self._counts += [segment.counts for segment in segments]
        self._sizes += chain.from_iterable([segment.size for segment in segments])
        self._boxes += chain.from_iterable([entry.bbox for entry in entries])
        self._integers[0].extend([entry.id for entry in entries])
        self._integers[1].extend([entry.area for entry in entries])
        self._scores[0].extend([entry.predicted_iou for entry in entries])
        self._scores[1].extend([entry.stability_score for entry in entries])

    def columns(self) -> MaskColumns:
        """Return everything added so far as columns."""
        return MaskColumns(
            image=np.repeat(np.arange(len(self.images)), self._per_image),
            position=np.fromiter(chain.from_iterable(self._positions), np.int64, len(self)),
            mask_id=np.array(self._integers[0], np.int64),
            rle_counts=pa.array(self._counts, pa.string()),
            rle_size=np.array(self._sizes, np.int64).reshape(-1, 2),
            bbox=np.array(self._boxes, np.float64).reshape(-1, 4),
            area=np.array(self._integers[1], np.int64),
            predicted_iou=np.array(self._scores[0], np.float64),
            stability_score=np.array(self._scores[1], np.float64),
        )


_BOX_SLACK = 1.0
"""px a box may reach over the image's edge: SA-1B's boxes are rounded, rescaled ones are not whole numbers."""


def find_faults(images: Sequence[IndexedImage], table: MaskColumns) -> tuple[npt.NDArray[np.bool_], list[Problem]]:
    """Check masks against their images and themselves.

    Returns which masks are sound and one problem for each that is not: an RLE of the wrong size, damaged,
    of the wrong length, empty, or of another area than stated; a number that is not finite; a box outside
    the image.
    """
    height = np.array([image.height for image in images], np.int64)[table.image]
    width = np.array([image.width for image in images], np.int64)[table.image]
    sums = masks.run_sums(table.rle_counts)
    left, top, across, down = table.bbox.T
    finite = np.isfinite(table.bbox).all(axis=1) & np.isfinite(table.predicted_iou) & np.isfinite(table.stability_score)
    with np.errstate(invalid="ignore", over="ignore"):
        outside = (left < -_BOX_SLACK) | (top < -_BOX_SLACK) | (across < 0) | (down < 0)
        outside |= (left + across > width + _BOX_SLACK) | (top + down > height + _BOX_SLACK)
    faults: list[tuple[npt.NDArray[np.bool_], str, str]] = [
        ((table.rle_size[:, 0] != height) | (table.rle_size[:, 1] != width), "rle-size", ".segmentation.size"),
        (sums.malformed, "rle-damaged", ".segmentation.counts"),
        (sums.total != height * width, "rle-length", ".segmentation.counts"),
        (sums.area == 0, "empty-mask", ".segmentation.counts"),
        (sums.area != table.area, "area-mismatch", ".area"),
        (np.asarray(~finite), "not-finite", ""),
        (outside, "box-outside", ".bbox"),
    ]
    sound = ~np.logical_or.reduce([bad for bad, _, _ in faults])
    problems = []
    for row in np.flatnonzero(~sound).tolist():
        reason, field = next((reason, field) for bad, reason, field in faults if bad[row])
        image = images[int(table.image[row])]
        error = _explain(reason, table, row, image, int(sums.area[row]), int(sums.total[row]))
        problems.append(mask_problem(image, int(table.mask_id[row]), int(table.position[row]), field, reason, error))
    return sound, problems


def _explain(reason: str, table: MaskColumns, row: int, image: IndexedImage, area: int, total: int) -> str:
    height, width = table.rle_size[row].tolist()
    box = table.bbox[row].tolist()
    numbers = {"bbox": box, "predicted_iou": table.predicted_iou[row], "stability_score": table.stability_score[row]}
    wild = ", ".join(name for name, value in numbers.items() if not np.isfinite(value).all())
    return {
        "rle-size": f"the mask is {width}×{height} px, its image {image.width}×{image.height}",
        "rle-damaged": "the run lengths hold a character outside COCO's alphabet, a negative run, or an unfinished one",
        "rle-length": f"the runs cover {total} px, the image has {image.width * image.height}",
        "empty-mask": "the mask covers no pixel",
        "area-mismatch": f"stated area {table.area[row]} px, but the runs cover {area} px",
        "not-finite": f"not a finite number: {wild}",
        "box-outside": f"the box {box} (x, y, w, h) is not inside {image.width}×{image.height} px",
    }[reason]
