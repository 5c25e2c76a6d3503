"""COCO's panoptic format: a JSON with the segments of each image, and beside it a PNG that paints each in its colour.

Cityscapes' `createPanopticImgs.py` and ADE20K's preparation for panoptic segmentation write the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from benchmark.importers import coco, label_images, shapes, source
from benchmark.importers.source import Dropped, Event, Found, Image, Place, Region, Wrong

_SHAPE = 'COCO panoptic, which is {"images": […], "annotations": [{"segments_info": […]}, …], "categories": […]}'

VOID = "void: pixels of no segment"


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class _Annotation(msgspec.Struct):
    image_id: int | str
    file_name: str
    segments_info: list[msgspec.Raw]


class _Segment(msgspec.Struct):
    id: int
    """The colour: R + 256 G + 256² B (panopticapi, `utils.rgb2id`)."""
    category_id: int
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int | bool | None = None


def read(paths: Sequence[Path]) -> Iterator[Event]:
    """Read `NAME.json` with the PNGs in the folder `NAME` beside it, image by image.

    Segments are unique in their image only, so ids are made (`writer`). Raises `UserError` for another shape.
    """
    for path in paths:
        yield from _read(path, source.decode(path, source.mapped(path), _File, _SHAPE))


def _read(path: Path, file: _File) -> Iterator[Event]:
    images: dict[int | str, Image] = {}
    yield from coco.images_of(path, file.images, images)
    names: dict[int, str] = {}
    yield from coco.categories_of(path, file.categories, names)
    for number, raw in enumerate(file.annotations):
        place = Place(path.name, f"annotations[{number}]")
        found = source.entry(place, raw, _Annotation)
        if isinstance(found, Wrong):
            yield found._replace(annotations=0)
            continue
        yield from _image(place, found, images, names, path.with_suffix(""))


def _image(
    place: Place, found: _Annotation, images: Mapping[int | str, Image], names: Mapping[int, str], folder: Path
) -> Iterator[Event]:
    count = len(found.segments_info)
    image = images.get(found.image_id)
    if image is None:
        yield Found(count)
        yield Wrong(Place(place.file, f"{place.at}.image_id"), f"no sound image {found.image_id!r:.40}", count)
        return
    try:
        painted = dict(shapes.by_label(_colours(found.file_name, image, folder)))
    except label_images.UnreadableError as error:
        yield Found(count)
        yield Wrong(Place(place.file, f"{place.at}.file_name"), f"{found.file_name!r:.80}: {error}", count)
        return
    void = [Dropped(place, VOID)] if painted.pop(0, None) else []
    segments = [
        _segment(Place(place.file, f"{place.at}.segments_info[{number}]"), raw, image, names, painted)
        for number, raw in enumerate(found.segments_info)
    ]
    unlisted = [Wrong(place, f"colour {colour} of {found.file_name} is not in segments_info") for colour in painted]
    yield Found(len(void) + len(segments) + len(unlisted))
    yield from [*void, *segments, *unlisted]


def _colours(file_name: str, image: Image, folder: Path) -> npt.NDArray[np.uint32]:
    """Return the (height, width) map of an image's segment ids. Raises `UnreadableError`."""
    if Path(file_name).name != file_name:
        raise label_images.UnreadableError("not a plain file name")
    pixels = label_images.open_colours(folder / file_name).astype(np.uint32)
    label_images.check_size(pixels, image.width, image.height)
    return np.asarray(pixels[..., 0] | pixels[..., 1] << 8 | pixels[..., 2] << 16, np.uint32)


def _segment(
    place: Place, raw: msgspec.Raw, image: Image, names: Mapping[int, str], painted: dict[int, str]
) -> Region | Wrong:
    """Return a segment, and take its colour out of those `painted`."""
    segment = source.entry(place, raw, _Segment)
    if isinstance(segment, Wrong):
        return segment
    counts = painted.pop(segment.id, None)
    if counts is None:
        return Wrong(Place(place.file, f"{place.at}.id"), f"no pixel has colour {segment.id}, or two segments have it")
    name = names.get(segment.category_id)
    if name is None:
        return Wrong(Place(place.file, f"{place.at}.category_id"), f"no category {segment.category_id}")
    box = segment.bbox and list(segment.bbox)
    return Region(place, image, None, name, counts, box, coco.crowd(segment.iscrowd))
