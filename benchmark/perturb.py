"""A benchmark with its masks replaced (the paper's Table 7), as a data set of its own.

    OUT/data/…                 region samples; instances keep their ids and all else that is not the mask's
    OUT/masks.parquet          what became of each mask: instance_id, outcome, iou with the true one
    OUT/perturbed.json         of which benchmark, how, by which model, and the sums

An instance whose new mask is empty is in masks.parquet only: there is nothing to show a model. Scored against OUT it is
left out; scored against the benchmark itself, it is missing. The work is cut into parts, and a killed run goes on.
"""

from __future__ import annotations

import importlib.metadata
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image as Pillow
from pycocotools import mask as coco

from benchmark import drafts, truth
from benchmark.by_image import ByImage, Image, Row
from benchmark.dataset import Region
from pipeline import files, masks, regions
from pipeline.errors import UsageError, UserError
from pipeline.regions import FileWriter, RegionSamples

Bools = npt.NDArray[np.bool_]
Source = Literal["rotated-box", "ellipse", "sam", "hq-sam", "sam2"]

SEGMENTERS: Mapping[str, tuple[str, ...]] = {"sam": ("sam",), "hq-sam": ("sam_hq",), "sam2": ("sam2", "sam2_video")}
"""Sources that are models, and the kinds of checkpoint (`model_type`) of each."""

MADE, FALLBACK, EMPTY = "made", "fallback", "empty"
"""What becomes of a mask; fallback: no ellipse could be fitted, the rotated box stands in."""

REPORT, MASKS = "perturbed.json", "masks.parquet"

_VERSION = 1
"""Raised when the same masks would come out otherwise."""
_INSTANCES = 1024
"""Of a part: what a killed run loses, and a file of the result."""
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
_PARTS = "parts"
_OUTCOMES = pa.schema(
    [
        pa.field("instance_id", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("iou", pa.float64(), nullable=False),
    ]
)


class Segmenter(Protocol):
    """What of `pipeline.segmenters.Segmenter` is asked for."""

    def segment(self, image: Pillow.Image, boxes_xyxy: npt.NDArray[np.float32]) -> Iterator[Bools]:
        """Yield a mask for each box."""


class Model(NamedTuple):
    """A segmenter, and which weights it has."""

    name: str
    weights: str
    """SHA-256 of its files, or the commit on the hub."""
    open: Callable[[], Segmenter]


class Report(msgspec.Struct):
    """What OUT says of itself."""

    name: str
    source: str
    """How masks were made: one of `Source`."""
    benchmark: str
    """Name of the benchmark whose masks these replace."""
    data_set: str
    """As published tables call it, or empty."""
    split: str
    fingerprint: str
    """Of the benchmark (`benchmark.truth`)."""
    model: str
    weights: str
    versions: dict[str, str]
    """Of the packages that drew or predicted."""
    instances: int
    outcomes: dict[str, int]
    mean_iou: float
    """Of all new masks with the true ones, an empty one being 0."""


class Watcher(NamedTuple):
    """Told of the work as it goes on."""

    start: Callable[[int], None]
    """Given the number of instances."""
    advance: Callable[[int], None]


def perturb(
    benchmark: Path, to: Source, out: Path, watcher: Watcher, *, split: str = "", model: Model | None = None
) -> Report:
    """Write the data set `out`: `benchmark` with its masks replaced by those of `to`; `split` as in `truth.load`.

    Memory: a thousand instances, and one decoded image. Raises `UsageError` when `out` is there, or a model is to see
    images that the benchmark only refers to; `UserError` for images that cannot be decoded and damaged masks.
    """
    samples, known = RegionSamples(benchmark), truth.load(benchmark, split)
    if to in SEGMENTERS and not samples.has_images:
        raise UsageError(f"{benchmark}: holds no images, and {to} sees them. rr7k hydrate makes a copy that does.")
    pictured = ByImage(samples, known.split)
    planned = [str(_VERSION), to, known.fingerprint, known.split, model.weights if model else ""]
    with drafts.made(out) as (draft, _):
        drafts.begin(draft, files.sha256("\n".join(planned).encode()))
        (draft / _PARTS).mkdir(exist_ok=True)
        watcher.start(sum(image.instances for image in pictured.images))
        _write_instances(draft, pictured, _maker(to, model), watcher, shown=to in SEGMENTERS)
        report = _report(draft, known, to, model)
        _write_images(draft, pictured)
        _write_categories(draft, known)
        shutil.rmtree(draft / _PARTS)
        (draft / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return report


# --- masks ------------------------------------------------------------------------------------------------

Maker = Callable[[Image, Sequence[Row], bytes | None], Iterator[tuple[Bools, str]]]
"""Yields a mask for each instance of an image, whose file it is given where there is one, and its outcome."""


def _maker(to: Source, model: Model | None) -> Maker:
    if to == "rotated-box":
        return _rotated_boxes
    if to == "ellipse":
        return _ellipses
    if model is None:
        raise UsageError(f"{to}: which model? Name its checkpoint.")
    return _Prompted(model)


def _rotated_boxes(image: Image, rows: Sequence[Row], data: bytes | None) -> Iterator[tuple[Bools, str]]:
    from pipeline import outlines

    for row in rows:
        yield outlines.rotated_box(Region.of(row).mask()), MADE


def _ellipses(image: Image, rows: Sequence[Row], data: bytes | None) -> Iterator[tuple[Bools, str]]:
    from pipeline import outlines

    for row in rows:
        mask = Region.of(row).mask()
        drawn = outlines.ellipse(mask)
        yield (outlines.rotated_box(mask), FALLBACK) if drawn is None else (drawn, MADE)


class _Prompted:
    """A model that is shown the true mask's tight box: the outer edges of its first and last pixels."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._opened: Segmenter | None = None

    def __call__(self, image: Image, rows: Sequence[Row], data: bytes | None) -> Iterator[tuple[Bools, str]]:
        self._opened = self._opened or self._model.open()
        boxes = np.array([row["bbox_xywh"] for row in rows], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        for mask in self._opened.segment(_decoded(image, data), boxes):
            yield mask, MADE


def _decoded(image: Image, data: bytes | None) -> Pillow.Image:
    """Decode an image whose header states the size that it should have. Raises `UserError`."""
    place = f"image {image.image_id} ({image.file_name})"
    if data is None:
        raise UserError(f"{place}: its bytes are not there. Import the data set again, with the folder of its images.")
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.size == (image.width, image.height):
                return opened.convert("RGB")
            found = f"{opened.width}×{opened.height} px, not {image.width}×{image.height}"
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        found = f"cannot be decoded: {error}"
    raise UserError(f"{place}: {found}.")


# --- instances --------------------------------------------------------------------------------------------


def _write_instances(draft: Path, pictured: ByImage, maker: Maker, watcher: Watcher, *, shown: bool) -> None:
    """Write the parts that are not there yet; a part counts once its record is written, which is last.

    With `shown`, the maker is given the images.
    """
    done = drafts.finished(draft)
    parts = list(pictured.parts(_INSTANCES))
    for number, part in enumerate(parts):
        name = f"instances-{number:05d}-of-{len(parts):05d}.parquet"
        if name in done:
            watcher.advance(sum(image.instances for image in part))
            continue
        made, outcomes = list[Row](), list[Row]()
        for old, new, outcome in _pairs(part, pictured, maker, shown):
            outcomes.append(_outcome(old, new, outcome))
            made += [new] if new["area"] else []
            watcher.advance(1)
        pq.write_table(pa.Table.from_pylist(outcomes, schema=_OUTCOMES), draft / _PARTS / name)
        with FileWriter(draft / "data" / name, "instances") as writer:
            made.sort(key=lambda row: (row["category"], row["instance_id"]))
            writer.write(regions.from_rows("instances", made))
        drafts.record(draft, writer.written)


def _pairs(part: Sequence[Image], pictured: ByImage, maker: Maker, shown: bool) -> Iterator[tuple[Row, Row, str]]:
    """Yield each instance as it is, with its new mask, and its outcome."""
    rows = pictured.rows(part, None)
    seen = [image for image in part if rows[image.image_id]]
    for image, data in zip(seen, pictured.bytes_of(seen) if shown else repeat(None), strict=False):
        here = rows[image.image_id]
        for row, (mask, outcome) in zip(here, maker(image, here, data), strict=True):
            yield row, _replaced(row, mask), outcome


def _replaced(row: Row, mask: Bools) -> Row:
    counts, area = masks.encode(mask), int(np.count_nonzero(mask))
    rle = {"size": row["segmentation"]["size"], "counts": counts}
    box = coco.toBbox(_coded(rle)).tolist()
    told = {"segmentation": rle, "bbox_xywh": box, "area": area, "area_ratio": area / mask.size}
    return {**row, **told, "bbox_source_xywh": None}


def _outcome(row: Row, new: Row, outcome: str) -> Row:
    if not new["area"]:
        return {"instance_id": row["instance_id"], "outcome": EMPTY, "iou": 0.0}
    iou = coco.iou([_coded(row["segmentation"])], [_coded(new["segmentation"])], [False])
    return {"instance_id": row["instance_id"], "outcome": outcome, "iou": float(iou[0, 0])}


def _coded(rle: Row) -> Row:
    return {**rle, "counts": rle["counts"].encode()}


# --- the rest of the data set -----------------------------------------------------------------------------


def _report(draft: Path, known: truth.Truth, to: Source, model: Model | None) -> Report:
    parts = sorted((draft / _PARTS).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path, schema=_OUTCOMES) for path in parts]).sort_by("instance_id")
    pq.write_table(table, draft / MASKS)
    outcomes = Counter(table["outcome"].to_pylist())
    if outcomes[EMPTY] == len(table):
        raise UserError(f"all {len(table):,} new masks are empty: {known.folder} can have no data set of them.")
    packages = ("torch", "transformers") if model else ("opencv-python-headless", "numpy")
    return Report(
        name=f"{known.name}, masks: {to}",
        source=to,
        benchmark=known.name,
        data_set=known.data_set,
        split=known.split,
        fingerprint=known.fingerprint,
        model=model.name if model else "",
        weights=model.weights if model else "",
        versions={name: importlib.metadata.version(name) for name in packages},
        instances=len(table),
        outcomes={name: outcomes[name] for name in (MADE, FALLBACK, EMPTY)},
        mean_iou=float(np.mean(table["iou"].to_numpy())),
    )


def _instances(draft: Path, columns: Sequence[str]) -> pa.Table:
    paths = sorted((draft / "data").glob("instances-*.parquet"))
    return pa.concat_tables([pq.read_table(path, columns=list(columns)) for path in paths])


def _write_images(draft: Path, pictured: ByImage) -> None:
    """Write the images of the split with how many instances each has now, a row group at a time."""
    shown = Counter(_instances(draft, ["image_id"])["image_id"].to_pylist())
    wanted = pa.array([image.image_id for image in pictured.images], pa.int64())
    done, samples = drafts.finished(draft), pictured.samples
    for path in samples.files("images"):
        if path.name in done:
            continue
        draft_file = draft / "data" / path.name
        with regions.opened(path) as source, FileWriter(draft_file, "images", images=samples.has_images) as writer:
            for number in range(source.num_row_groups):
                table = source.read_row_group(number)
                table = table.filter(pc.is_in(table["image_id"], wanted))
                counts = pa.array([shown[image] for image in table["image_id"].to_pylist()], pa.int32())
                writer.write(table.set_column(table.schema.get_field_index("instances"), "instances", counts))
            if not writer.rows:
                writer.abandon()
        if writer.rows:
            drafts.record(draft, writer.written)


def _write_categories(draft: Path, known: truth.Truth) -> None:
    """Count the categories anew; what else counts as right stays."""
    rows = known.categories.to_pylist() if known.categories is not None else []
    accepted = {row["category"]: (row["aliases"], row["hypernyms"]) for row in rows}
    columns = ["category", "image_id", "coarse_primary", "coarse_secondary"]
    with FileWriter(draft / "data" / "categories.parquet", "categories") as writer:
        writer.write(regions.count_categories(_instances(draft, columns), accepted))
