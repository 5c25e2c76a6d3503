"""Region samples by image: what a data loader asks for, from files that are sorted by category.

Made once for each data set, checked on the way, and kept as an Arrow file that all processes of a machine map into
memory together, so that none of them holds a data set. Image bytes stay in the Parquet files, where a row group of
32 MB is read for an image (3 ms from the page cache, where decoding the image takes longer).

Not with Ray Data: its streams have no place to go on from after a crash in the middle of an epoch, and a choice of
masks and a mixture that are functions of the step need images by their number, which is what a PyTorch data set is.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from model import label_texts
from model.mixing import Ints
from model.train_config import DataConfig
from pipeline import masks, regions
from pipeline.errors import UserError
from pipeline.regions import RegionSamples, Table

_VERSION = 1
"""Of the Arrow files; raised when they are made otherwise."""
_TEST = "test"
_COCO = re.compile(r"(?:^|[/_])(\d{12})\.jpg$")
"""COCO's file names end in the image's id; whatever a data set made of them calls its images."""
_REPORT = b"rr7k.training_data"


class Report(msgspec.Struct, frozen=True):
    """What a data set is, and what became of its rows."""

    name: str
    folder: str
    fingerprint: str
    """Hash of images' ids, sizes and SHA-256, where it is stated, and of all masks and labels"""
    images: int
    instances: int
    dropped: dict[str, int]
    """Instances, or images where the reason says so, by reason"""
    shared: dict[str, int]
    """COCO images that it has in common with each data set for evaluation"""


class Region(NamedTuple):
    """A mask of an image."""

    instance_id: int
    counts: str
    """COCO compressed RLE of the image's size"""
    label: str
    area: int
    """px"""
    size: Sequence[int]
    """px: columns and rows that it covers"""


class Shown(NamedTuple):
    """An image with all its masks."""

    image_id: int
    size: tuple[int, int]
    """px: width, height"""
    regions: list[Region]


class TrainingData:
    """A prepared data set; may be sent to other processes, which open the file themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.report = msgspec.json.decode(table.schema.metadata[_REPORT], type=Report)
        self._table = table
        self._files = [Path(name) for name in msgspec.json.decode(table.schema.metadata[b"files"])]
        self._opened: dict[int, pq.ParquetFile] = {}

    def __reduce__(self) -> tuple[type[TrainingData], tuple[Path]]:
        return TrainingData, (self.path,)

    def __len__(self) -> int:
        """Return how many images there are."""
        return int(self._table.num_rows)

    def image_ids(self) -> Ints:
        """Return the ids of all images, by place."""
        found: Ints = self._table["image_id"].to_numpy()
        return found

    def shown(self, place: int) -> Shown:
        """Return the image of that place with its masks."""
        row = self._table.slice(place, 1).drop_columns(["file", "group", "row"]).to_pylist()[0]
        columns = (row[name] for name in ("instance_ids", "counts", "labels", "areas", "sizes"))
        regions = [Region._make(values) for values in zip(*columns, strict=True)]
        return Shown(row["image_id"], (row["width"], row["height"]), regions)

    def picture(self, place: int) -> Image.Image:
        """Decode the image of that place; not before its header states the size that it should have.

        Raises `UserError` that names the image.
        """
        where = self._table.slice(place, 1).select(["image_id", "width", "height", "file", "group", "row"])
        number, width, height, file, group, row = (int(value) for value in where.to_pylist()[0].values())
        called = f"{self.report.name}: image {number} in {self._files[file]}"
        try:
            image = Image.open(io.BytesIO(self._bytes(file, group, row)))
            if image.size != (width, height):
                raise UserError(f"{called} is {image.width}×{image.height} px, but its row says {width}×{height}.")
            return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, pa.ArrowException, Image.DecompressionBombError) as error:
            raise UserError(f"{called} cannot be decoded: {error}. Leave it out of the data set.") from None

    def _bytes(self, file: int, group: int, row: int) -> bytes:
        if file not in self._opened:
            self._opened[file] = pq.ParquetFile(self._files[file], memory_map=True)
        held = self._opened[file].read_row_group(group, columns=["image.bytes"])["image"]
        found: bytes = pc.struct_field(held, "bytes")[row].as_py()
        return found


def prepare(name: str, config: DataConfig, out: Path) -> TrainingData:
    """Make a data set's Arrow file `out`/NAME.arrow, or take the one that is there if nothing has changed since.

    Raises `UserError`: rows of a split `test`, masks that are damaged, images that are missing, nothing to learn from.
    """
    samples = RegionSamples(Path(config.folders[name]))
    path = out / f"{name}.arrow"
    key = _key(name, config)
    if path.is_file() and pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata.get(b"key") == key:
        return TrainingData(path)
    _refuse_test(name, samples, config.splits.get(name))
    if not samples.has_images:
        raise UserError(
            f"{samples.folder}: its images are named only, and training needs their bytes. "
            "Import it with --images, or for a release: rr7k hydrate."
        )
    found = _Selection(samples, config, config.splits.get(name))
    table = found.by_image()
    counts = table.num_rows, found.instances.num_rows
    report = Report(name, str(samples.folder), _fingerprint(table), *counts, found.dropped, found.shared)
    if not report.instances:
        lost = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items()) or "it has no rows"
        raise UserError(f"{samples.folder}: nothing to learn from: {lost}.")
    listed = [str(file.absolute()) for file in samples.files("images")]
    marks = {_REPORT: msgspec.json.encode(report), b"files": msgspec.json.encode(listed), b"key": key}
    _write(table.replace_schema_metadata(marks), path)
    return TrainingData(path)


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    draft.replace(path)


def _key(name: str, config: DataConfig) -> bytes:
    """Hash what the file is made from: which files, as they were last written, and the rules."""
    rules = [_VERSION, config.labels, config.longest_label, config.splits.get(name), config.leave_out_evaluated]
    digest = hashlib.sha256(msgspec.json.encode(rules))
    for folder in (config.folders[name], *(config.folders.get(other, "") for other in sorted(config.evaluated_on))):
        if folder:
            samples = RegionSamples(Path(folder))
            for path in (*samples.files("instances"), *samples.files("images")):
                state = path.stat()
                digest.update(f"{path.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest().encode()


def _fingerprint(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for batch in table.drop_columns(["file", "group", "row"]).combine_chunks().to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()


def _refuse_test(name: str, samples: RegionSamples, chosen: str | None) -> None:
    if chosen == _TEST:
        raise UserError(f"data.splits.{name} is {_TEST}, which nothing may learn from.")
    if chosen:
        return
    kinds: tuple[Table, ...] = ("instances", "images")
    for kind in kinds:
        for path in samples.files(kind):
            with regions.opened(path) as file:
                split = file.read(["split"])["split"]
            if count := pc.sum(pc.equal(split, _TEST)).as_py():
                raise UserError(
                    f"{path}: {count:,} of {len(split):,} rows are of the split {_TEST}, which nothing may learn "
                    f"from. Take another split alone: --set data.splits.{name}=train."
                )


# --- selection ----------------------------------------------------------------------------------------------

_COLUMNS = ["instance_id", "image_id", "category_raw", "segmentation", "bbox_xywh", "area"]


class _Selection:
    """What is learnt from, and the count of what is not."""

    def __init__(self, samples: RegionSamples, config: DataConfig, split: str | None) -> None:
        self.dropped: dict[str, int] = {}
        self._samples = samples
        self._images = _places(samples)
        if split:
            self._images = self._images.filter(pc.equal(self._images["split"], split))
        self.shared = self._leave_out(config)
        table = samples.read("instances", _COLUMNS, pc.field("split") == split if split else None)
        lost = pc.invert(pc.is_in(table["image_id"], self._all_images))
        if pc.any(lost).as_py():
            first = table.filter(lost)["instance_id"][0]
            raise UserError(f"{samples.folder}: instance {first}: its image is not among the images.")
        kept = pc.is_in(table["image_id"], self._images["image_id"].combine_chunks())
        table = self._drop(table, kept, "in an image for evaluation")
        table = self._drop(table, self._sound(table), "without a pixel")
        self.instances = self._labelled(table, config).sort_by(
            [("image_id", "ascending"), ("instance_id", "ascending")]
        )

    def _drop(self, table: pa.Table, kept: Any, reason: str) -> pa.Table:
        found = table.filter(kept)
        if found.num_rows < table.num_rows:
            self.dropped[reason] = table.num_rows - found.num_rows
        return found

    def _leave_out(self, config: DataConfig) -> dict[str, int]:
        """Count the COCO images shared with data sets for evaluation, and take them out if that is wished."""
        self._all_images = self._images["image_id"].combine_chunks()
        shared = {}
        for other in config.evaluated_on:
            if folder := config.folders.get(other):
                theirs = RegionSamples(Path(folder)).read("images", ["file_name"])["file_name"]
                known = set(filter(None, map(_coco_id, theirs.to_pylist())))
                common = np.array([number in known for number in map(_coco_id, self._images["file_name"].to_pylist())])
                shared[other] = int(common.sum())
                if config.leave_out_evaluated and shared[other]:
                    self._images = self._images.filter(pa.array(~common))
                    self.dropped[f"images that {other} has too"] = shared[other]
        return shared

    def _sound(self, table: pa.Table) -> Any:
        """Say which masks have a pixel. Raises `UserError` for one that is damaged, of another size, or has no box."""
        segmentation = table["segmentation"].combine_chunks()
        if not len(segmentation):
            return pa.array([], pa.bool_())
        sizes, boxes = _numbers(segmentation.field("size"), 2), _numbers(table["bbox_xywh"], 4)
        place = pc.index_in(table["image_id"], self._images["image_id"].combine_chunks()).to_numpy()
        stated = np.stack([self._images[side].to_numpy()[place] for side in ("height", "width")], 1)
        sums = masks.run_sums(segmentation.field("counts"))
        wrong = (sizes != stated).any(1) | (sums.total != stated.prod(1)) | sums.malformed | np.isnan(boxes).any(1)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"{self._samples.folder}: {int(wrong.sum()):,} masks are no COCO RLE of their image's size, or have no "
                f"box; the first is that of instance {table['instance_id'][first]}."
            )
        return pa.array(sums.area > 0)

    def _labelled(self, table: pa.Table, config: DataConfig) -> pa.Table:
        names = table["category_raw"].combine_chunks().dictionary_encode()
        texts = [label_texts.label(name, config.labels) for name in names.dictionary.to_pylist()]
        labels = pa.array(texts, pa.string()).take(names.indices)
        table = table.append_column("label", labels)
        lengths = pc.binary_length(labels)
        table = self._drop(table, pc.greater(lengths, 0), "without a name")
        short = pc.less_equal(pc.binary_length(table["label"]), config.longest_label)
        return self._drop(table, short, f"with a name longer than {config.longest_label} bytes")

    def by_image(self) -> pa.Table:
        """Return the images that have instances, with these as lists, by image id."""
        numbers, starts = np.unique(self.instances["image_id"].to_numpy(), return_index=True)
        images = self._images.filter(pc.is_in(self._images["image_id"], pa.array(numbers, pa.int64())))
        if without := self._images.num_rows - images.num_rows:
            self.dropped["images without masks"] = without
        offsets = pa.array(np.append(starts, len(self.instances)), pa.int64())
        boxes = _numbers(self.instances["bbox_xywh"], 4)[:, 2:].astype(np.int32)
        lists: dict[str, Any] = {
            "instance_ids": self.instances["instance_id"],
            "counts": pc.struct_field(self.instances["segmentation"], "counts"),
            "labels": self.instances["label"],
            "areas": self.instances["area"],
            "sizes": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 2),
        }
        table = images.sort_by("image_id").drop_columns(["file_name", "split"])
        for name, values in lists.items():
            flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            table = table.append_column(name, pa.LargeListArray.from_arrays(offsets, flat))
        return table


def _numbers(lists: Any, width: int) -> npt.NDArray[np.float64]:
    """Return a column of lists as (rows, width); what is not of that length as NaN."""
    missing = [np.nan] * width
    found = [some if some is not None and len(some) == width else missing for some in lists.to_pylist()]
    return np.array(found, np.float64).reshape(-1, width)


def _places(samples: RegionSamples) -> pa.Table:
    """Return all images with the place of each one's bytes: file, row group, row in it."""
    columns = ["image_id", "width", "height", "file_name", "split", "sha256"]
    return pa.concat_tables(
        part for file, path in enumerate(samples.files("images")) for part in _groups(path, file, columns)
    )


def _groups(path: Path, file: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    with regions.opened(path) as opened:
        for group in range(opened.num_row_groups):
            found = opened.read_row_group(group, columns=columns)
            for name, values in (("file", file), ("group", group)):
                found = found.append_column(name, pa.array(np.full(len(found), values, np.int32)))
            yield found.append_column("row", pa.array(np.arange(len(found), dtype=np.int32))).replace_schema_metadata()


def _coco_id(file_name: str) -> int | None:
    found = _COCO.search(file_name)
    return int(found.group(1)) if found else None


def told(report: Report) -> str:
    """Return a report as lines of text."""
    lines = [f"{report.name}: {report.images:,} images, {report.instances:,} masks"]
    lines += [f"  left out: {count:,} {reason}" for reason, count in report.dropped.items()]
    lines += [f"  {count:,} of its images are in {other} too" for other, count in report.shared.items()]
    return "\n".join(lines)
