"""Parquet with a row per region, as hubs hold it: an image, a mask and a name in columns that go by several names."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Set
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from PIL import Image as Pillow

from benchmark.importers import shapes, source
from benchmark.importers.sa1b import NAMES
from benchmark.importers.source import Dropped, Event, Found, Image, Pixels, Place, Wrong
from pipeline import files
from pipeline.decoding import UNDECODABLE

MASKS = ("segmentation", "mask", "rle")
"""COCO's polygons or run lengths, as they are or as JSON text; or an image file of the mask's pixels."""

IMAGES = ("image", "file_name", "image_path", "image_file", "path", "image_id")
"""An image file's bytes, as such or as `datasets` has them ({bytes, path}), its name, or its id."""

_IDS = ("instance_id", "annotation_id", "mask_id", "id")
_BOXES = ("bbox", "bbox_xywh")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")


class _BadRowError(Exception):
    """Says which column cannot be read, and why."""

    def __init__(self, column: str, error: object) -> None:
        super().__init__(error)
        self.column = column


def fits(columns: Set[str]) -> bool:
    """Say whether a table of these columns is one that is read here."""
    return all(columns & set(names) for names in (NAMES, MASKS, IMAGES))


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names behind the numbers of each column that the library `datasets` calls a ClassLabel."""
    try:
        told = msgspec.json.decode((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (*UNDECODABLE, KeyError, TypeError, AttributeError):
        return {}


def of_row(place: Place, row: Mapping[str, Any], classes: Mapping[str, list[str]]) -> Iterator[Event]:
    """Yield a row's image, the bytes of it if they are there, and its region."""
    yield Found(1)
    try:
        mask = _mask(row)
        image, data = _picture(row, place, mask)
        yield image
        if data:
            yield Pixels(image.image_id, data)
        yield _region(place, row, image, mask, _name(row, classes))
    except _BadRowError as error:
        yield Wrong(Place(place.file, f"{place.at}.{error.column}"), str(error))


def _region(place: Place, row: Mapping[str, Any], image: Image, mask: Any, name: str | None) -> Event:
    if name is None:
        return Dropped(place, source.NO_NAME)
    if isinstance(mask, np.ndarray):
        counts = dict(shapes.by_label(mask)).get(True)
        if counts is None:
            return Dropped(place, shapes.NO_PIXEL)
        mask = {"size": list(mask.shape), "counts": counts}
    box = _first(row, _BOXES)[1]
    stated = {"bbox_xywh": [float(side) for side in box]} if _is_box(box) else {}
    return source.masked(place, image, mask, _first(row, _IDS)[1], name, **stated)


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> tuple[str, Any]:
    """Return the first of `columns` that holds something, and what."""
    return next(((name, row[name]) for name in columns if row.get(name) is not None), (columns[0], None))


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(side, int | float) for side in value)


# --- the mask ---------------------------------------------------------------------------------------------


def _mask(row: Mapping[str, Any]) -> Any:
    """Return COCO's segmentation, or the pixels of a mask's image file, (height, width)."""
    column, value = _first(row, MASKS)
    data = value.get("bytes") if isinstance(value, dict) and "bytes" in value else value
    try:
        if isinstance(data, bytes) and data[:1] in b"{[":
            data = data.decode()
        if isinstance(data, str):
            return msgspec.json.decode(data)
        return _pixels(data) if isinstance(data, bytes) else value
    except (msgspec.DecodeError, OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise _BadRowError(column, f"neither run lengths, polygons nor an image file: {error}") from error


def _pixels(data: bytes) -> Any:
    with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
        return np.asarray(picture.convert("L")) > 0


def _mask_size(mask: Any) -> tuple[int, int] | None:
    """Return the mask's own (width, height)."""
    if isinstance(mask, np.ndarray):
        return int(mask.shape[1]), int(mask.shape[0])
    size = mask.get("size") if isinstance(mask, dict) else None
    known = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
    return (size[1], size[0]) if known else None  # type: ignore[index]


# --- the image and the name -------------------------------------------------------------------------------


def _picture(row: Mapping[str, Any], place: Place, mask: Any) -> tuple[Image, bytes | None]:
    column, value = _first(row, IMAGES)
    data = value.get("bytes") if isinstance(value, dict) else value if isinstance(value, bytes) else None
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    own = source.int64(row.get("image_id"))
    name = path or _first(row, IMAGES[1:-1])[1] or (None if own is None else f"{own}.jpg")
    if name is None and data is None:
        raise _BadRowError(column, "no image file, no name of one, and no image id")
    name = str(name or f"{files.sha256(data or b'')}.jpg")
    size = _size(row, data, mask)
    if size is None:
        raise _BadRowError(column, "its size is told nowhere: by width and height, run lengths or the image file")
    if own is None:
        own = source.id_of_name(name)
    image = source.image(place, own, name, *size)
    if isinstance(image, Wrong):
        raise _BadRowError(column, image.error)
    return image, data


def _size(row: Mapping[str, Any], data: bytes | None, mask: Any) -> tuple[int, int] | None:
    """Return the image's (width, height): as the row states it, else the mask's, else as the file says."""
    stated = row.get("width"), row.get("height")
    if all(isinstance(side, int) for side in stated):
        return stated  # type: ignore[return-value]
    if (own := _mask_size(mask)) or data is None:
        return own
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise _BadRowError("image", f"not an image that can be opened: {error}") from error


def _name(row: Mapping[str, Any], classes: Mapping[str, list[str]]) -> str | None:
    column, value = _first(row, NAMES)
    if isinstance(value, int) and not isinstance(value, bool) and column in classes:
        if not 0 <= value < len(classes[column]):
            raise _BadRowError(column, f"{value} is no class; there are {len(classes[column])}")
        return classes[column][value]
    if value is not None and not isinstance(value, str):
        raise _BadRowError(column, f"a name expected, {value!r:.40} found")
    return value
