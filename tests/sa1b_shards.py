"""Small shards in SA-1B's layout, written by hand so that every defect can be put in."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import tables
from pipeline.run import Run
from stages import manifest
from stages.sample_data import annotation

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

WIDTH, HEIGHT = 64, 48
Members = list[tuple[str, bytes]]


def jpeg(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A plain grey JPEG."""
    sink = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(sink, "JPEG")
    return sink.getvalue()


def square(mask_id: int, side: int = 10, left: int = 3, top: int = 5) -> dict[str, Any]:
    """An annotation of a square region."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top : top + side, left : left + side] = True
    return annotation(mask_id, mask, 0.9 + side / 1000, 0.97)


def image_members(image_id: int, annotations: list[Any] | None = None, prefix: str = "./") -> Members:
    """The two members of one image; by default with three masks of 1, 100 and 400 px."""
    if annotations is None:
        annotations = [square(image_id * 100 + k, side) for k, side in enumerate((1, 10, 20))]
    info = {"image_id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{image_id}.jpg"}
    content = json.dumps({"image": info, "annotations": annotations}).encode()
    return [(f"{prefix}sa_{image_id}.jpg", jpeg()), (f"{prefix}sa_{image_id}.json", content)]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar with these members, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_shard(folder: Path, number: int, images: int = 3) -> Path:
    """A sound shard of `images` images with ids from 1000 * number + 1 on."""
    ids = range(1000 * number + 1, 1000 * number + 1 + images)
    return write_tar(folder / f"sa_{number:06d}.tar", [m for i in ids for m in image_members(i)])


class InlineSession:
    """Runs tasks one after the other in this process: the step's logic without Ray."""

    name = ""
    workers = 1

    def stream(self, task: Callable[[Any], Iterator[Any]], jobs: Iterable[Any]) -> Iterator[Any]:
        for job in jobs:
            yield from task(job)


@contextmanager
def inline() -> Iterator[InlineSession]:
    yield InlineSession()


def build(run: Run, *shards: Path | str, redo: bool = False, session: Any = inline, **settings: Any) -> None:
    """Run the manifest step in this process."""
    named = {"shards": [str(shard) for shard in shards]} if shards else {}
    settings.setdefault("max_quarantined", 1.0)
    config = manifest.ManifestConfig.model_validate({**named, **settings})
    manifest.build(run, config, session, manifest.Watcher(lambda *_: None, lambda *_: None), redo=redo)


def commit(run: Run, **tables_of: list[dict[str, Any]]) -> None:
    """Write tables by hand, each under the step of its own name, as further commits."""
    for table, made in tables_of.items():
        key = run.next_key(table)
        with run.part(table, table, key) as part:
            part.write(tables.from_rows(table, made))
        run.commit(table, key, {table: part}, fingerprint="f", counts={}, facts={})


def rows(run: Run, table: str = "masks", key: str = "mask_id") -> list[dict[str, Any]]:
    """A table's rows, sorted by key: order on disk means nothing."""
    return sorted(run.dataset(table).to_table().to_pylist(), key=lambda row: str(row[key]))
