"""Any engine of stage 1 answers a benchmark that holds its images: region samples in, a table of predictions out.

What is asked goes to Ray as one row per image, its regions in list columns. Answers go the way of all names, into a run
folder by region (`stages.naming`, `stages.ledger`): what is committed is never asked again, and the table of
predictions is made of what is committed.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image as Pillow

from pipeline import files, images
from pipeline.errors import UsageError, UserError
from pipeline.images import Photograph, Size
from pipeline.regions import RegionSamples, opened
from pipeline.run import Run
from stages import naming, region_prompts, todo
from stages.engines.base import EngineConfig
from stages.ledger import Watcher
from stages.naming import Bounds
from stages.naming_settings import NamesConfig, decoding, setting, settled
from stages.quote import NAMING, Quote, quote_images
from stages.region_prompts import Region, RegionPrompt
from stages.rendering import in_tables, prompt_rows, refused_row
from stages.todo import Subjects, Todo

STEP = "answers"
FILE = "predictions.parquet"

COLUMNS = pa.schema(
    [
        ("instance_id", pa.int64()),
        ("image_id", pa.int64()),
        ("text", pa.large_string()),  # the name read out of the answer; the answer itself where there is none
        ("outcome", pa.string()),  # named, or why no name could be read (stages/answers.py)
        ("raw", pa.large_string()),  # the whole answer; in the layout marks, about several regions
        ("model", pa.string()),
        ("revision", pa.string()),
        ("engine", pa.string()),
        ("layout", pa.string()),  # how the region was shown
        ("prompt", pa.string()),  # hash of the question
        ("benchmark", pa.string()),  # fingerprint of the data set that was answered
    ]
)

_IMAGES = 16
"""Images rendered by one task at a time: the row group that holds them is read once for all."""


class Benchmark(NamedTuple):
    """What is to be answered."""

    samples: RegionSamples
    fingerprint: str
    """Of the data set; goes into every prediction."""
    split: str
    mini: bool = False
    """Only the small subset of the split."""


class Written(NamedTuple):
    """A table of predictions."""

    path: str
    answered: int
    refused: int
    """Regions that were given up, for which there is no row."""
    total: int
    """Regions of the split."""


class _Image(NamedTuple):
    image_id: int
    place: tuple[str, int]
    """File and row group that hold its bytes."""
    size: Size
    regions: list[Region]


class _Images(NamedTuple):
    """Images of one row group, as a task gets them: a row each, what is asked of it in lists."""

    file: str
    row_group: int
    images: list[dict[str, Any]]


class _Plan(NamedTuple):
    todo: Todo
    images: list[_Image]
    """With the regions that are still to be asked about."""
    every: Subjects


def build(
    run: Run,
    benchmark: Benchmark,
    config: NamesConfig,
    engine: EngineConfig,
    session: Callable[[], AbstractContextManager[Any]],
    watcher: Watcher,
    *,
    bounds: Bounds,
    redo: bool = False,
) -> Written:
    """Answer every region of a split that has no answer yet, and write `predictions.parquet` into the run folder.

    `session` opens a Ray session, called only when there is work. Answers made under other settings, or about a region
    that is another now, are refused; with `redo` they are asked again. Raises `UserError`.
    """
    config = settled(config, engine)
    if bounds.gpu_hours is not None and not engine.gpus_used:
        raise UsageError("--budget-gpu-hours needs to know how many GPUs answer: set namer.gpus.")
    with run.lock(STEP) as lock:
        plan = _plan(run, benchmark, config, engine, redo=redo)
        asker = naming.asker_of(STEP, config, engine)
        run.sweep(STEP, asker.tables)
        wanted = _limited(plan.images, bounds.limit)
        if wanted:
            with session() as ray_session:
                lock.works_through(ray_session.name)
                watcher.start(sum(len(image.regions) for image in wanted))
                render = _Renderer(
                    str(benchmark.samples.folder / "data"),
                    config.shown,
                    region_prompts.question("name", config),
                    engine,
                )
                tables = naming.asked(_pieces(wanted), render.__call__, config, engine, watcher.say)
                naming.record(tables, run, plan.todo, asker, watcher, bounds)
        return _write(run, benchmark, plan.every)


def preview(run: Run, benchmark: Benchmark, config: NamesConfig, engine: EngineConfig, bounds: Bounds) -> Quote:
    """Return what `build` would cost; writes nothing. Raises `UserError` where `build` would refuse."""
    config = settled(config, engine)
    wanted = _limited(_plan(run, benchmark, config, engine, redo=False).images, bounds.limit)
    task = NAMING._replace(step=STEP, most=decoding(config).max_tokens)
    asked = ((image.size, [region.box for region in image.regions]) for image in wanted)
    return quote_images(run, asked, task, config.shown, engine)


# --- planning ---------------------------------------------------------------------------------------------


def _plan(run: Run, benchmark: Benchmark, config: NamesConfig, engine: EngineConfig, *, redo: bool) -> _Plan:
    made = setting(config, engine)
    found, hashes = _images(benchmark)
    every = _subjects(found, hashes, made)
    todo.settle_changes(run, STEP, "names", every, made, redo=redo)
    done = np.concatenate([todo.answered_ids(run, "names", STEP), todo.quarantined_ids(run, STEP)])
    missing = ~np.isin(every.ids, done)
    prints = dict(every.prints(missing))
    left = [image._replace(regions=[region for region in image.regions if region.mask_id in prints]) for image in found]
    tries = todo.tries(run, STEP, every)
    return _Plan(Todo(made, [], tries, prints), [image for image in left if image.regions], every)


def _images(benchmark: Benchmark) -> tuple[list[_Image], dict[int, str]]:
    """Return the images of the split in their order on disk, with all their regions, and the images' hashes."""
    samples = benchmark.samples
    if not samples.has_images:
        raise UsageError(f"{samples.folder}: holds no images to show. rr7k hydrate makes a copy that does.")
    regions = _regions(benchmark)
    found, hashes = [], {}
    for path in samples.files("images"):
        with opened(path) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=["image_id", "width", "height", "sha256"]).to_pylist()
                for row in rows:
                    if here := regions.pop(row["image_id"], None):
                        size = row["width"], row["height"]
                        found.append(_Image(row["image_id"], (path.name, group), size, here))
                        hashes[row["image_id"]] = row["sha256"] or ""
    if regions:
        raise UserError(f"{samples.folder}: image {min(regions)} has regions but is not among the images.")
    return found, hashes


def _regions(benchmark: Benchmark) -> dict[int, list[Region]]:
    """Return the split's regions by image, each image's ascending by id."""
    where = pc.field("split") == benchmark.split
    if benchmark.mini:
        where &= pc.field("mini")
    columns = ["instance_id", "image_id", "bbox_xywh", "segmentation"]
    found: defaultdict[int, list[Region]] = defaultdict(list)
    for batch in benchmark.samples.dataset("instances").to_batches(columns=columns, filter=where):
        _check(batch, benchmark.samples.folder)
        for row in batch.to_pylist():
            x, y, columns_covered, rows_covered = row["bbox_xywh"]
            box = (x, y, columns_covered - 1, rows_covered - 1)
            found[row["image_id"]].append(Region(row["instance_id"], box, row["segmentation"]["counts"]))
    if not found:
        raise UsageError(f"{benchmark.samples.folder}: no instances in split {benchmark.split}.")
    return {image: sorted(regions) for image, regions in found.items()}


def _check(batch: pa.RecordBatch, folder: Path) -> None:
    """Raise `UserError` for run lengths that cannot be decoded."""
    from pipeline.masks import run_sums

    masks = batch["segmentation"]
    sums = run_sums(masks.field("counts"))
    sizes = np.array(masks.field("size").to_pylist(), np.int64).reshape(len(batch), 2)
    wrong = sums.malformed | (sums.total != sizes.prod(axis=1)) | (sums.area == 0)
    if wrong.any():
        instance = batch["instance_id"][int(np.flatnonzero(wrong)[0])]
        raise UserError(f"{folder}: instance {instance}: its run lengths are damaged. Get the data set again.")


def _subjects(found: Sequence[_Image], hashes: dict[int, str], made: msgspec.Struct) -> Subjects:
    """Return every region with the hash of its image, its mask, and `made`."""
    seed = files.sha256(msgspec.json.encode(made))
    rows = [(region, image.image_id) for image in found for region in image.regions]
    prints = [_hash(f"{seed} {image} {hashes[image]} {region.mask_id} {region.rle_counts}") for region, image in rows]
    return Subjects(
        np.array([region.mask_id for region, _ in rows], np.int64),
        np.array([image for _, image in rows], np.int64),
        np.array(prints, np.int64),
        np.zeros(len(rows), np.int64),
        [],
    )


def _hash(text: str) -> int:
    return int.from_bytes(bytes.fromhex(files.sha256(text.encode())[:16]), signed=True)


def _limited(found: Sequence[_Image], limit: int | None) -> list[_Image]:
    """Return the first `limit` regions."""
    if limit is None:
        return list(found)
    chosen = []
    for image in found:
        if limit > 0:
            chosen.append(image._replace(regions=image.regions[:limit]))
        limit -= len(image.regions)
    return chosen


def _pieces(found: Sequence[_Image]) -> list[_Images]:
    by_place: defaultdict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for image in found:
        ids, boxes, counts = (list(column) for column in zip(*image.regions, strict=True))
        row = {"image_id": image.image_id, "size": image.size, "ids": ids, "boxes": boxes, "counts": counts}
        by_place[image.place].append(row)
    return [
        _Images(*place, rows[start : start + _IMAGES])
        for place, rows in by_place.items()
        for start in range(0, len(rows), _IMAGES)
    ]


# --- rendering --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Renderer:
    """Makes prompts out of images of the data set; sent to every node, all of which see its folder."""

    folder: str
    prompt: RegionPrompt
    question: str
    engine: EngineConfig

    def __call__(self, pieces: pa.Table) -> Iterator[pa.Table]:
        """Render every piece (rows of file, row_group, images); yields tables of `PROMPTS`."""
        yield from in_tables(row for piece in pieces.to_pylist() for row in self._rows(piece))

    def _rows(self, piece: dict[str, Any]) -> Iterator[dict[str, Any]]:
        asked = {image["image_id"]: image for image in piece["images"]}
        with opened(Path(self.folder, piece["file"])) as file:
            table = file.read_row_group(piece["row_group"], columns=["image_id", "image"])
        for number, held in zip(table["image_id"].to_pylist(), table["image"], strict=True):
            if number in asked:
                about = {"image_id": number, "shard": piece["file"]}
                yield from ({**about, **row} for row in self._image(held.as_py(), asked[number]))

    def _image(self, held: dict[str, Any] | None, image: dict[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            photograph = _decoded((held or {}).get("bytes") or b"", tuple(image["size"]))
        except images.UnreadableImageError as error:
            for subject in image["ids"]:
                yield refused_row(subject, "image-unreadable", f"image {image['image_id']}: {error}")
        else:
            rows = zip(image["ids"], map(tuple, image["boxes"]), image["counts"], strict=True)
            regions = [Region(*row) for row in rows]
            yield from prompt_rows(photograph, regions, self.question, self.prompt, self.engine)


def _decoded(data: bytes, size: Size) -> Photograph:
    """Decode an image that should have `size`; not only JPEG, which is all that SA-1B has.

    Raises `UnreadableImageError`, before anything of another size is decoded.
    """
    if data.startswith(b"\xff\xd8"):
        return images.decode(data, size)
    try:
        with Pillow.open(io.BytesIO(data), formats=("PNG", "TIFF", "BMP", "WEBP")) as image:
            if image.size != size:
                raise images.UnreadableImageError(f"{size} px expected, {image.size} found")
            return Photograph(image.convert("RGB"), 1)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise images.UnreadableImageError(f"the image cannot be decoded: {error}") from error


# --- predictions ------------------------------------------------------------------------------------------


def _write(run: Run, benchmark: Benchmark, every: Subjects) -> Written:
    """Write the answers that are about regions of the split, ascending by id."""
    here = pa.array(every.ids)
    names = run.dataset("names", STEP).to_table(filter=pc.field("mask_id").isin(here)).sort_by("mask_id")
    columns: dict[str, Any] = {name: names[name] for name in COLUMNS.names if name in names.column_names}
    columns |= {"instance_id": names["mask_id"], "text": _texts(names)}
    columns |= {"benchmark": pa.repeat(benchmark.fingerprint, len(names))}
    made = pa.table([columns[name] for name in COLUMNS.names], COLUMNS.names).cast(COLUMNS)
    sink = pa.BufferOutputStream()
    pq.write_table(made, sink, compression="zstd")
    run.folder.replace(FILE, sink.getvalue().to_pybytes())
    refused = int(np.isin(every.ids, todo.quarantined_ids(run, STEP)).sum())
    return Written(files.join(run.folder.uri, FILE), len(made), refused, len(every.ids))


def _texts(names: pa.Table) -> pa.ChunkedArray:
    """Return what is to be scored: the name, else what was said; nothing where that was said of several regions.

    What WOW-Seg says is a name, and is scored to the letter.
    """
    raw, layout = names["raw"].cast(pa.large_string()), names["layout"].cast(pa.string())
    said = pc.if_else(pc.equal(layout, "marks"), pa.scalar("", pa.large_string()), raw)
    name = pc.coalesce(names["category"].cast(pa.large_string()), said)
    return pc.if_else(pc.equal(layout, "masks"), raw, name)
