"""The authors' training format (wowseg_facts.md, C.10): JSON Lines, a line an image with its masks and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from benchmark.importers import source
from benchmark.importers.source import Event, Found, Image, Place, Wrong
from pipeline.errors import UserError


class Record(msgspec.Struct):
    """A line; its `conversations` say the same once more, its `id` is the converter's own."""

    image: str
    width: int
    height: int
    masks: list[Any]
    label: list[Any]


def read(paths: Sequence[Path]) -> Iterator[Event]:
    """Read the files line by line. Raises `UserError` when one cannot be read."""
    for path in paths:
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        place = Place(path.name, f"line {number}")
                        yield from of_record(place, source.entry(place, msgspec.Raw(line), Record))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def of_record(place: Place, record: Record | Wrong) -> Iterator[Event]:
    """Yield the masks of a record; where it has more masks than labels, or fewer, the rest is wrong."""
    if isinstance(record, Wrong):
        yield record._replace(annotations=0)
        return
    count = max(len(record.masks), len(record.label))
    image = source.image(place, source.id_of_name(record.image), record.image, record.width, record.height)
    yield image
    yield Found(count)
    if not isinstance(image, Image):
        yield Wrong(place, "their image is wrong", count)
        return
    for number, (mask, label) in enumerate(zip_longest(record.masks, record.label)):
        at = Place(place.file, f"{place.at} masks[{number}]")
        if number >= min(len(record.masks), len(record.label)):
            yield Wrong(at, f"{len(record.masks)} masks, but {len(record.label)} labels")
        elif not isinstance(label, str):
            yield Wrong(Place(place.file, f"{place.at} label[{number}]"), f"text expected, {label!r:.40} found")
        else:
            yield source.masked(at, image, mask, None, label)
