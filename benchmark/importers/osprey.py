"""Osprey's evaluation lists (`lvis_val_1k_category.json`, `paco_val_1k_category.json`): JSON, an item an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from benchmark.importers import source
from benchmark.importers.source import Event, Found, Image, Place, Wrong

_SHAPE = 'an Osprey evaluation list, which is [{"file_name": …, "categories": […], "annotations": […]}, …]'


class _Record(msgspec.Struct):
    file_name: str
    height: int
    width: int
    categories: list[msgspec.Raw]
    annotations: list[msgspec.Raw]


class _Annotation(msgspec.Struct):
    segmentation: Any = None
    id: int | str | float | None = None
    bbox: tuple[float, float, float, float] | None = None


def read(paths: Sequence[Path]) -> Iterator[Event]:
    """Read Osprey's lists; the k-th category names the k-th annotation. Raises `UserError` for another shape."""
    for path in paths:
        raws = source.decode(path, source.mapped(path), list[msgspec.Raw], _SHAPE)
        for number, raw in enumerate(raws):
            yield from _record(Place(path.name, f"[{number}]"), raw)


def _record(place: Place, raw: msgspec.Raw) -> Iterator[Event]:
    found = source.entry(place, raw, _Record)
    if isinstance(found, Wrong):
        yield found._replace(annotations=0)
        return
    count = max(len(found.categories), len(found.annotations))
    image = source.image(place, source.id_of_name(found.file_name), found.file_name, found.width, found.height)
    yield image
    yield Found(count)
    if not isinstance(image, Image):
        yield Wrong(place, "their image is wrong", count)
        return
    for number, (name, annotation) in enumerate(zip_longest(found.categories, found.annotations)):
        yield _annotation(place, number, image, name, annotation)


def _annotation(
    place: Place, number: int, image: Image, name: msgspec.Raw | None, annotation: msgspec.Raw | None
) -> Event:
    at = Place(place.file, f"{place.at}.annotations[{number}]")
    if name is None or annotation is None:
        lacking = "a category" if name is None else "an annotation"
        return Wrong(at, f"the lists categories and annotations differ in length: {lacking} is missing")
    text = source.entry(Place(place.file, f"{place.at}.categories[{number}]"), name, str)
    found = source.entry(at, annotation, _Annotation)
    if isinstance(text, Wrong) or isinstance(found, Wrong):
        return text if isinstance(text, Wrong) else found  # type: ignore[return-value]
    return source.masked(at, image, found.segmentation, found.id, text, bbox_xywh=found.bbox and list(found.bbox))
