"""The images of a data set: named only, or copied in from the folder where they lie."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from benchmark.importers.source import Place, Wrong
from pipeline import files, regions

_FILE_BYTES = 512 << 20
"""Bytes of images that make one file."""

_BATCH_ROWS, _BATCH_BYTES = 256, 16 << 20
"""Images held at a time."""

_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
_PLACES = ("", "train2017", "val2017")
"""Osprey's lists name images of COCO's two folders without saying of which (wowseg_facts.md, C.10)."""

Row = dict[str, Any]


def write(data: Path, rows: Iterable[Row], folder: Path | None, held: Path, refuse: Callable[[Wrong], None]) -> int:
    """Write rows of `images`, which come ascending by id, with the bytes of their files, as far as there are any.

    These are the files that the source itself holds, put into `held` by image id, and then those in `folder`, where one
    is given. A file that is missing there, or of another size in px, is told to `refuse`, and its row stays without
    bytes. Returns how many have them.
    """
    batches, embedded, number = _batches(rows, folder, held, refuse), 0, 0
    has_images = folder is not None or held.exists()
    while batch := next(batches, None):
        path = data / f"images-{number:05d}.parquet"
        with regions.FileWriter(path, "images", images=has_images) as writer:
            size = 0
            while batch:
                writer.write(regions.from_rows("images", batch))
                embedded += sum("image" in row for row in batch)
                size += sum(row.get("file_bytes", 0) for row in batch)
                batch = next(batches, None) if size < _FILE_BYTES else None
        number += 1
    return embedded


def _batches(
    rows: Iterable[Row], folder: Path | None, held: Path, refuse: Callable[[Wrong], None]
) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        found = _embedded(row, folder, held, refuse)
        batch.append({**row, **found})
        size += found.get("file_bytes", 0)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _embedded(row: Row, folder: Path | None, held: Path, refuse: Callable[[Wrong], None]) -> Row:
    """Return the columns that need the file; none, when there is none or it cannot be used."""
    name = row["file_name"]
    places = [held / str(row["image_id"])]
    if folder is not None:
        places += [folder / name, *(folder / place / Path(name).name for place in _PLACES)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if folder is not None:
            refuse(Wrong(Place(name, ""), f"no such file in {folder.name}", 0))
        return {}
    try:
        data = path.read_bytes()
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
            size = picture.size
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        refuse(Wrong(Place(name, ""), f"not an image that can be opened: {error}", 0))
        return {}
    if size != (row["width"], row["height"]):
        told = f"{size[0]}×{size[1]} px, but the annotations are of {row['width']}×{row['height']}"
        refuse(Wrong(Place(name, ""), told, 0))
        return {}
    return {"file_bytes": len(data), "sha256": files.sha256(data), "image": {"bytes": data, "path": Path(name).name}}
