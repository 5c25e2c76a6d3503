"""What a reader of a foreign data set tells, piece by piece; the writer makes region samples of it.

A reader is a generator over files. Of every annotation in them it yields one `Region`, `Dropped` or `Wrong`, and before
these, how many there are (`Found`): the writer holds it to that.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import msgspec

from benchmark.importers import shapes
from pipeline.errors import UserError

T = TypeVar("T")

_LONGEST_SIDE = 1 << 16
"""px; no photograph is larger, and a mask of such a size still fits the 32 bits of COCO's run lengths."""


class Place(NamedTuple):
    """Where in the source something stands."""

    file: str
    at: str
    """As in `annotations[3].bbox`, or empty."""


class Image(NamedTuple):
    """An image of the source, whether or not it has annotations."""

    image_id: int
    file_name: str
    width: int
    height: int


class Pixels(NamedTuple):
    """The file of an image, where the source holds it; may come with every region of the image."""

    image_id: int
    data: bytes


class Found(NamedTuple):
    """So many annotations follow."""

    annotations: int


class Region(NamedTuple):
    """An annotation with a name and a mask; the mask's run lengths are not checked yet."""

    place: Place
    image: Image
    own_id: int | None
    """The source's own annotation id, when it is an int64."""
    name: str
    counts: str
    """COCO's compressed run lengths, of the image's size."""
    bbox_xywh: list[float] | None = None
    """As the source states it, px."""
    iscrowd: bool | None = None


class Dropped(NamedTuple):
    """An annotation that is as it should be, but no named region."""

    place: Place
    reason: str
    """One of a few texts, to be counted."""


class Wrong(NamedTuple):
    """Something that cannot be read, and for how many of the annotations found it stands."""

    place: Place
    error: str
    annotations: int = 1


Event = Image | Pixels | Found | Region | Dropped | Wrong

NO_NAME = "the source gives no name"


# --- ids and names ----------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"(?:sa_|COCO_(?:train|val|test)20\d\d_)?(\d{1,18})")


def hashed(*parts: object) -> int:
    """Return an id made of `parts`: the first 63 bits of the SHA-256 of their text, in lines."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def int64(own: object) -> int | None:
    """Return `own` where it is an id as we store it, 0 to 2⁶³ - 1."""
    plain = isinstance(own, int) and not isinstance(own, bool)
    return own if plain and 0 <= own < 1 << 63 else None  # type: ignore[operator, return-value]


def id_of_name(file_name: str) -> int:
    """Return an image's id: the number that COCO and SA-1B write into the name, elsewhere a hash of the name."""
    numbered = _NUMBERED.fullmatch(PurePosixPath(file_name).stem)
    return int(numbered[1]) if numbered else hashed(file_name)


def image(place: Place, image_id: int, file_name: str, width: int, height: int) -> Image | Wrong:
    """Return the image, or what is wrong with it: no size, or a name that leads out of the image folder."""
    path = PurePosixPath(file_name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\\" in file_name or not file_name.isprintable():
        return Wrong(place, f"file name {file_name[:80]!r}: not a relative path", 0)
    if not (0 < width <= _LONGEST_SIDE and 0 < height <= _LONGEST_SIDE):
        return Wrong(place, f"{width}×{height} px is not the size of an image", 0)
    return Image(image_id, file_name, width, height)


# --- reading ----------------------------------------------------------------------------------------------


def mapped(path: Path) -> mmap.mmap:
    """Map a file into memory, as long as something refers to it: of what is cut from it no copy is held.

    Raises `UserError`.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # a ValueError: an empty file
        raise UserError(f"{path}: cannot be read: {error}") from error


_PYTHONS = re.compile(rb"[\[,:]\s*-?(?:NaN|Infinity)")
"""What Python writes though JSON has no such numbers; looked for, because reading it all again takes long."""


def _parsed(data: Any, kind: type[T]) -> T:
    """Decode JSON; NaN and Infinity become null. Raises `msgspec.DecodeError`, `ValueError`, `RecursionError`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if not _PYTHONS.search(data):
            raise
    return msgspec.json.decode(msgspec.json.encode(json.loads(bytes(data))), type=kind)


def decode(path: Path, data: Any, kind: type[T], what: str) -> T:
    """Decode the outer shape of a JSON file; `what` says in words which shape. Raises `UserError`."""
    try:
        return _parsed(data, kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: not {what}: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, or not the whole of it: {error}") from error


def entry(place: Place, raw: msgspec.Raw, kind: type[T]) -> T | Wrong:
    """Decode a small file, a line, or an entry of a list, or say which of its fields is not as it should be."""
    try:
        return _parsed(raw, kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return _wrong(place, error)


def _wrong(place: Place, error: Exception) -> Wrong:
    message, _, field = str(error).partition(" - at `$")
    return Wrong(Place(place.file, place.at + field.rstrip("`")), message)


def masked(place: Place, of: Image, segmentation: Any, own_id: object, name: str, **stated: Any) -> Event:
    """Return the annotation with its mask as run lengths, or why it has none."""
    at = Place(place.file, f"{place.at}.segmentation")
    try:
        counts = shapes.encode(segmentation, of.height, of.width)
    except shapes.NoMaskError as error:
        return Dropped(place, str(error))
    except shapes.BadMaskError as error:
        return Wrong(at, str(error))
    return Region(place, of, int64(own_id), name, counts, **stated)
