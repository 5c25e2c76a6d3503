"""Semantic maps: one label a pixel, one file an image. A region is all pixels of one class, as the source has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.importers import label_images, shapes, source
from benchmark.importers.source import Dropped, Event, Found, Image, Place, Region, Wrong
from pipeline.errors import UsageError

CLASSES = Path(__file__).parent.parent.parent / "data_manifests" / "classes"


class Layout(NamedTuple):
    """How a data set writes its maps."""

    classes: str
    """Table in data_manifests/classes."""
    ending: str
    """Of the names of maps."""
    image_ending: str
    """Of the images' names, in its stead."""
    shift: int = 0
    """What a class's number in the table is raised by in the maps."""
    consecutive: bool = False
    """The maps number the table's classes from 0 without gaps, in its order."""
    void: Mapping[int, str] = {}
    """Values that are no class, and why."""
    instances: bool = False
    """Cityscapes: a value from 1000 on is 1000 × class + number; a thing's class alone is a group of them."""


_PER_CLASS = 1000
"""Cityscapes' instance ids (cityscapesScripts, `json2instanceImg.py`)."""

_FROM_0 = {255: "void: 255"}

LAYOUTS: Mapping[str, Layout] = {
    "coco-stuff-maps": Layout("coco_stuff.csv", ".png", ".jpg", shift=-1, void={255: "void: unlabeled"}),
    "coco-stuff-maps-from-0": Layout("coco_stuff.csv", ".png", ".jpg", consecutive=True, void=_FROM_0),
    "coco-stuff-pixelmaps": Layout(
        "coco_stuff.csv", ".png", ".jpg", void={0: "void: unlabeled", 183: "other: the things, not told apart"}
    ),
    "ade20k-150": Layout("ade20k_150.csv", ".png", ".jpg", shift=1, void={0: "void: other objects"}),
    "ade20k-150-from-0": Layout("ade20k_150.csv", ".png", ".jpg", void=_FROM_0),
    "ade20k-847": Layout("ade20k_847.csv", ".tif", ".jpg", void={65535: "void: 65535"}),
    "cityscapes": Layout("cityscapes.csv", "_gtFine_labelIds.png", "_leftImg8bit.png"),
    "cityscapes-instances": Layout("cityscapes.csv", "_gtFine_instanceIds.png", "_leftImg8bit.png", instances=True),
    "pascal-context-59": Layout("pascal_context_59.csv", ".png", ".jpg", shift=1, void={0: "void: background"}),
    "pascal-context-59-from-0": Layout("pascal_context_59.csv", ".png", ".jpg", void=_FROM_0),
    "pascal-context-459": Layout("pascal_context_459.csv", ".tif", ".jpg", void={65535: "void: 65535"}),
}


class _Named(NamedTuple):
    name: str
    thing: bool
    void: bool


def classes(layout: Layout) -> dict[int, _Named]:
    """Return the classes of a layout by the value that stands for them in its maps."""
    with (CLASSES / layout.classes).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    made = [_Named(row["name"], row.get("thing") == "1", row.get("void") == "1") for row in rows]
    numbers = range(len(rows)) if layout.consecutive else [int(row["class"]) + layout.shift for row in rows]
    return dict(zip(numbers, made, strict=True))


def read(paths: Sequence[Path], *, layout: Layout) -> Iterator[Event]:
    """Read all maps in folders and their subfolders, image by image, in the order of their names.

    Image names are relative to the folder given. Raises `UsageError` for a folder that holds none.
    """
    known = classes(layout)
    for folder in paths:
        found = sorted(folder.rglob(f"*{layout.ending}"))
        if not found:
            raise UsageError(f"{folder}: no folder with maps (*{layout.ending}) in it.")
        for path in found:
            yield from _read(folder, path, layout, known)


def _read(folder: Path, path: Path, layout: Layout, known: Mapping[int, _Named]) -> Iterator[Event]:
    name = path.relative_to(folder).as_posix()
    place = Place(name, "")
    try:
        labels = label_images.open_labels(path)
    except label_images.UnreadableError as error:
        yield Wrong(place, str(error), 0)
        return
    image_name = name.removesuffix(layout.ending) + layout.image_ending
    image = source.image(place, source.id_of_name(image_name), image_name, labels.shape[1], labels.shape[0])
    yield image
    if not isinstance(image, Image):
        return
    regions = list(shapes.by_label(labels))
    yield Found(len(regions))
    unknown = [value for value, _ in regions if value not in layout.void and _class(value, layout) not in known]
    if unknown:  # the map is numbered in another way, so its other values cannot be trusted
        told = f"{', '.join(map(str, unknown[:10]))}: no class of {layout.classes}; is the folder of another KIND?"
        yield Wrong(Place(name, "values"), told, len(regions))
        return
    for value, counts in regions:
        yield _region(Place(name, f"value {value}"), image, value, counts, layout, known)


def _class(value: int, layout: Layout) -> int:
    return value // _PER_CLASS if layout.instances and value >= _PER_CLASS else value


def _region(
    place: Place, image: Image, value: int, counts: str, layout: Layout, known: Mapping[int, _Named]
) -> Region | Dropped:
    if value in layout.void:
        return Dropped(place, layout.void[value])
    named = known[_class(value, layout)]
    if named.void:
        return Dropped(place, f"void: {named.name}")
    crowd = named.thing and value < _PER_CLASS if layout.instances else None
    return Region(place, image, None, named.name, counts, iscrowd=crowd)
