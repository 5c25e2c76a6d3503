"""SA-1B's annotation files, one an image, with a name added to each annotation."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmark.importers import source
from benchmark.importers.source import Dropped, Event, Found, Image, Place, Wrong
from pipeline.errors import UsageError, UserError

NAMES = ("category", "category_name", "label", "name", "class_name")
"""Where the name may stand: SA-1B itself has none, and nobody has laid it down."""


class _Info(msgspec.Struct):
    image_id: int | str
    width: int
    height: int
    file_name: str


class File(msgspec.Struct):
    """A whole `sa_N.json`."""

    image: _Info
    annotations: list[msgspec.Raw]


class _Annotation(msgspec.Struct):
    segmentation: Any = None
    id: int | str | float | None = None
    bbox: tuple[float, float, float, float] | None = None
    category: str | None = None
    category_name: str | None = None
    label: str | None = None
    name: str | None = None
    class_name: str | None = None


def read(paths: Sequence[Path]) -> Iterator[Event]:
    """Read `sa_N.json` files, folders of them, and shards (tar). Raises `UserError` for what is none of these."""
    for path in paths:
        for place, data in _files(path):
            yield from of_file(place, source.entry(place, msgspec.Raw(data), File))


def _files(path: Path) -> Iterator[tuple[Place, bytes]]:
    try:
        if path.suffix == ".tar":
            yield from _members(path)
        elif path.is_dir():
            found = sorted(path.rglob("*.json"))
            if not found:
                raise UsageError(f"{path}: holds no *.json.")
            for file in found:
                yield Place(file.relative_to(path).as_posix(), ""), file.read_bytes()
        else:
            yield Place(path.name, ""), path.read_bytes()
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _members(path: Path) -> Iterator[tuple[Place, bytes]]:
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # or memory would grow with the shard
            if member.isreg() and member.name.endswith(".json"):
                file = archive.extractfile(member)
                yield Place(f"{path.name}/{member.name.removeprefix('./')}", ""), file.read() if file else b""


def of_file(place: Place, file: File | Wrong) -> Iterator[Event]:
    """Yield the annotations of an image's file."""
    if isinstance(file, Wrong):
        yield file._replace(annotations=0)
        return
    info, count = file.image, len(file.annotations)
    own = source.int64(info.image_id)
    image_id = source.hashed(info.image_id) if own is None else own
    image = source.image(place, image_id, info.file_name, info.width, info.height)
    yield image
    yield Found(count)
    if not isinstance(image, Image):
        yield Wrong(place, "their image is wrong", count)
        return
    for number, raw in enumerate(file.annotations):
        at = Place(place.file, f"annotations[{number}]")
        found = source.entry(at, raw, _Annotation)
        yield found if isinstance(found, Wrong) else _annotation(at, image, found)


def _annotation(place: Place, image: Image, found: _Annotation) -> Event:
    name = next(filter(None, (getattr(found, field) for field in NAMES)), None)
    if name is None:
        return Dropped(place, source.NO_NAME)
    box = found.bbox and list(found.bbox)
    return source.masked(place, image, found.segmentation, found.id, name, bbox_xywh=box)
