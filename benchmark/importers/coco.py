"""COCO's annotation file and what is written like it: COCO-Stuff, LVIS v0.5 and v1, PACO, and many others.

The file is mapped, its lists are cut into entries without looking inside, and each annotation is decoded alone and
forgotten: of LVIS's gigabyte only the cuts are held, and a bad entry costs itself only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from benchmark.importers import source
from benchmark.importers.source import Dropped, Event, Found, Image, Place, Wrong

_SHAPE = 'a COCO annotation file, which is {"images": […], "annotations": […], "categories": […]}'


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class ImageInfo(msgspec.Struct):
    """An entry of `images`."""

    id: int | str
    width: int
    height: int
    file_name: str = ""
    coco_url: str = ""
    """LVIS: its last two parts are folder and name."""


class Category(msgspec.Struct):
    """An entry of `categories`."""

    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    segmentation: Any = None
    id: int | str | float | None = None
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int | bool | None = None


def read(paths: Sequence[Path], *, by_url: bool = False, void: Mapping[str, str] | None = None) -> Iterator[Event]:
    """Read COCO files. `by_url`: files are named by `coco_url`, as LVIS has it; its v0.5 names files that nobody has.

    Annotations of the categories `void` are dropped, with the reason that goes with the category. Raises `UserError`
    for a file of another shape.
    """
    for path in paths:
        yield from _read(path, source.decode(path, source.mapped(path), _File, _SHAPE), by_url, void or {})


def _read(path: Path, file: _File, by_url: bool, void: Mapping[str, str]) -> Iterator[Event]:
    images: dict[int | str, Image] = {}
    yield from images_of(path, file.images, images, by_url=by_url)
    names: dict[int, str] = {}
    yield from categories_of(path, file.categories, names)
    yield Found(len(file.annotations))
    for number, raw in enumerate(file.annotations):
        yield _annotation(Place(path.name, f"annotations[{number}]"), raw, images, names, void)


def images_of(
    path: Path, raws: Sequence[msgspec.Raw], images: dict[int | str, Image], *, by_url: bool = False
) -> Iterator[Event]:
    """Fill `images`, by the source's ids; yield each, and what is wrong with others."""
    for number, raw in enumerate(raws):
        place = Place(path.name, f"images[{number}]")
        info = source.entry(place, raw, ImageInfo)
        if isinstance(info, Wrong):
            yield info._replace(annotations=0)
            continue
        found = source.image(place, _image_id(info.id), _file_name(info, by_url), info.width, info.height)
        if isinstance(found, Image) and images.setdefault(info.id, found) != found:
            found = Wrong(place, f"id {info.id!r:.40} is that of {images[info.id].file_name} as well", 0)
        yield found


def _image_id(own: int | str) -> int:
    found = source.int64(own)
    return source.hashed(own) if found is None else found


def _file_name(info: ImageInfo, by_url: bool) -> str:
    if info.coco_url and (by_url or not info.file_name):
        return "/".join(PurePosixPath(info.coco_url).parts[-2:])
    return info.file_name


def categories_of(path: Path, raws: Sequence[msgspec.Raw], names: dict[int, str]) -> Iterator[Wrong]:
    """Fill `names`, by category id; yield what is wrong with others."""
    for number, raw in enumerate(raws):
        place = Place(path.name, f"categories[{number}]")
        category = source.entry(place, raw, Category)
        if isinstance(category, Wrong):
            yield category._replace(annotations=0)
        elif names.setdefault(category.id, category.name) != category.name:
            yield Wrong(place, f"id {category.id} is that of {names[category.id]!r:.80} as well", 0)


def _annotation(
    place: Place,
    raw: msgspec.Raw,
    images: Mapping[int | str, Image],
    names: Mapping[int, str],
    void: Mapping[str, str],
) -> Event:
    found = source.entry(place, raw, _Annotation)
    if isinstance(found, Wrong):
        return found
    if found.image_id not in images:
        return Wrong(Place(place.file, f"{place.at}.image_id"), f"no sound image {found.image_id!r:.40} in `images`")
    name = names.get(found.category_id)
    if name is None:
        return Wrong(Place(place.file, f"{place.at}.category_id"), f"no category {found.category_id} in `categories`")
    if name in void:
        return Dropped(place, void[name])
    stated = {"bbox_xywh": found.bbox and list(found.bbox), "iscrowd": crowd(found.iscrowd)}
    return source.masked(place, images[found.image_id], found.segmentation, found.id, name, **stated)


def crowd(stated: int | bool | None) -> bool | None:
    """Return COCO's 0 or 1 as a truth value; None where the source says nothing."""
    return None if stated is None else bool(stated)
