"""Other data sets of named regions, into the region-sample format (pipeline/regions.py), their names untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmark.importers import coco, jsonl, osprey, panoptic, pixel_maps, published, sa1b, writer
from benchmark.importers.source import Event
from benchmark.importers.writer import Order, Report
from pipeline.errors import UsageError

Reader = Callable[[Sequence[Path]], Iterator[Event]]

_THINGS = {"other": "other: the things, not told apart"}
"""COCO-Stuff's JSON has a 92nd category, for all pixels of things (cocostuffapi)."""

KINDS: Mapping[str, Reader] = {
    "lvis": partial(coco.read, by_url=True),
    "paco": coco.read,
    "coco": coco.read,
    "coco-stuff": partial(coco.read, void=_THINGS),
    "coco-panoptic": panoptic.read,
    **{name: partial(pixel_maps.read, layout=layout) for name, layout in pixel_maps.LAYOUTS.items()},
    "osprey": osprey.read,
    "jsonl": jsonl.read,
    "sa1b": sa1b.read,
    "rr7k": published.read,
}


def run(
    kind: str,
    paths: Sequence[Path],
    out: Path,
    split: str,
    images: Path | None = None,
    told: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Import files or folders `paths` of a data set of `kind` as the new folder `out`; see `rr7k import --help`.

    `images` is the folder of the image files, to copy them in. Raises `UsageError`, and what `writer.write` raises.
    """
    if kind not in KINDS:
        raise UsageError(f"{kind}: no such kind of data set. There are {', '.join(KINDS)}: rr7k import --help.")
    for path in [*paths, *([images] if images else [])]:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder.")
    order = Order(kind, split, [path.name for path in paths], images)
    return writer.write(KINDS[kind](paths), out, order, told)
