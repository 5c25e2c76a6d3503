"""Region samples out of what a reader tells, and an account of every annotation that it found.

    DIR/data/*.parquet     pipeline/regions.py
    DIR/left_out.csv       what became no instance, and why, a row each
    DIR/import.json        where it is from, and the sums

An instance has the source's own id where that is an int64 that was not met before; any other has one made of what it
is: 63 bits of the SHA-256 of image id, name and run lengths. So where it stands makes no difference, and an annotation
that comes again is noticed.
"""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from pycocotools import mask as coco

from benchmark.importers import image_folder, shapes, source
from benchmark.importers.source import Dropped, Event, Found, Image, Pixels, Place, Region, Wrong
from pipeline import files, locks, regions
from pipeline.errors import UsageError, UserError
from pipeline.labels import normalise
from pipeline.masks import run_sums

LEFT_OUT, REPORT = "left_out.csv", "import.json"
AGAIN = "the same annotation once more"

_HELD = "held"
"""In the draft: files of images that the source itself holds, by id."""

_ROWS = 65_536
"""Instances of one file, so many are in memory at once."""

_UNWRITABLE = "backslashreplace"
"""A file name may hold bytes that are no text."""

_SHOWN, _TOLD = 20, 5
"""Examples of what is wrong: kept, and told when nothing else is."""


class Report(msgspec.Struct):
    """The account: `found` = `instances` + all `dropped` + `wrong`."""

    kind: str
    split: str
    sources: list[str]
    found: int = 0
    instances: int = 0
    dropped: dict[str, int] = {}
    wrong: int = 0
    made_ids: int = 0
    """Instances whose id is not the source's."""
    images: int = 0
    embedded: int = 0
    problems: int = 0
    """Images, records and files that are wrong themselves."""
    categories: int = 0
    examples: list[str] = []
    """The first of what is wrong."""


class Order(NamedTuple):
    """What is asked for."""

    kind: str
    split: str
    """As the rows will say it: test, train, or the source's name of it."""
    sources: list[str]
    images: Path | None = None
    """Folder of the image files, whose bytes are to be copied in."""


def write(events: Iterable[Event], out: Path, order: Order, told: Callable[[Report], None]) -> Report:
    """Write what a reader yields as the new folder `out`, which appears whole or not at all.

    Memory is bounded by 65,536 masks, and some hundred bytes for each image and each id. Raises `UsageError` when `out`
    exists, `UserError` when not one instance is left, or from the reader; `BusyError` while another makes `out`.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already. Choose another --out, or remove it first; nothing was changed.")
    draft = out.with_name(f".{out.name}.part")
    with locks.hold(files.Folder(str(draft / ".locks")), "import"):
        for half in (draft / "data", draft / _HELD, draft / LEFT_OUT):
            shutil.rmtree(half) if half.is_dir() else half.unlink(missing_ok=True)
        try:
            report = _fill(events, draft, order, told)
            files.Folder(str(draft)).replace(REPORT, msgspec.json.format(msgspec.json.encode(report)))
            shutil.rmtree(draft / _HELD, ignore_errors=True)
        except BaseException:
            shutil.rmtree(draft)
            raise
    shutil.rmtree(draft / ".locks")
    draft.replace(out)
    return report


def _fill(events: Iterable[Event], draft: Path, order: Order, told: Callable[[Report], None]) -> Report:
    (draft / "data").mkdir(parents=True)
    with (draft / LEFT_OUT).open("w", newline="", encoding="utf-8", errors=_UNWRITABLE) as file:
        writer = _Writer(draft, order, csv.writer(file, lineterminator="\n"), told)
        for event in events:
            writer.take(event)
        return writer.finish()


class _Writer:
    def __init__(self, draft: Path, order: Order, rows: Any, told: Callable[[Report], None]) -> None:
        self.report = Report(order.kind, order.split, order.sources)
        self._draft, self._order, self._rows, self._told = draft, order, rows, told
        self._dropped: Counter[str] = Counter()
        self._images: dict[int, Image] = {}
        self._shown: Counter[int] = Counter()
        self._ids: dict[int | None, int] = {}
        """Instance id to the id that would be made of the instance."""
        self._named = cache(normalise)
        self._batch: list[Region] = []
        self._files = 0
        rows.writerow(["outcome", "file", "at", "reason", "annotations"])

    def take(self, event: Event) -> None:
        """Take in one event; instances are written once there are enough for a file."""
        match event:
            case Found(annotations):
                self.report.found += annotations
                self._told(self.report)
            case Image():
                self._image(event)
            case Pixels():
                self._hold(event)
            case Region():
                self._batch.append(event)
                if len(self._batch) == _ROWS:
                    self._flush()
            case Dropped(place, reason):
                self._drop(place, reason)
            case Wrong():
                self._refuse(event)

    def _image(self, image: Image) -> None:
        known = self._images.setdefault(image.image_id, image)
        if known != image:
            told = f"id {image.image_id} is that of {known.file_name} ({known.width}×{known.height} px) as well"
            self._refuse(Wrong(Place(image.file_name, ""), told, 0))

    def _hold(self, pixels: Pixels) -> None:
        path = self._draft / _HELD / str(pixels.image_id)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(pixels.data)

    def _drop(self, place: Place, reason: str) -> None:
        self._dropped[reason] += 1
        self._rows.writerow(["dropped", *place, reason, 1])

    def _refuse(self, wrong: Wrong) -> None:
        self.report.wrong += wrong.annotations
        self.report.problems += wrong.annotations == 0
        self._rows.writerow(["wrong", *wrong.place, wrong.error, wrong.annotations])
        if len(self.report.examples) < _SHOWN:
            told = f"{' '.join(filter(None, wrong.place))}: {wrong.error}"
            self.report.examples.append(told.encode("utf-8", _UNWRITABLE).decode())

    # --- instances ---

    def _flush(self) -> None:
        """Check what has come since the last time and write the sound part as a file."""
        batch, self._batch = self._batch, []
        sums = run_sums(pa.array([region.counts for region in batch], pa.string()))
        checked = zip(batch, sums.area.tolist(), sums.total.tolist(), sums.malformed.tolist(), strict=True)
        rows = list(filter(None, (self._row(*each) for each in checked)))
        if rows:
            self._write(rows)

    def _row(self, region: Region, area: int, total: int, malformed: bool) -> dict[str, Any] | None:
        """Return a region's row of `instances` but for its box, or note why there is none."""
        image, place = region.image, Place(region.place.file, f"{region.place.at}.segmentation".lstrip("."))
        name = self._named(region.name)
        if malformed:
            self._refuse(Wrong(place, "damaged run lengths: not COCO's alphabet, a negative run, or an unfinished one"))
        elif total != image.height * image.width:
            self._refuse(Wrong(place, f"the run lengths sum to {total}, not {image.height} × {image.width}"))
        elif self._images[image.image_id] != image:
            self._refuse(Wrong(region.place, f"image id {image.image_id} is that of another image as well"))
        elif not area:
            self._drop(region.place, shapes.NO_PIXEL)
        elif not name:
            self._drop(region.place, source.NO_NAME)
        else:
            return self._identified(region, name, area)
        return None

    def _identified(self, region: Region, name: str, area: int) -> dict[str, Any] | None:
        image = region.image
        made = source.hashed(image.image_id, region.name, region.counts)
        own = region.own_id
        instance_id = made if own is None or own in self._ids else own
        if instance_id != own and made in (self._ids.get(own), self._ids.get(made)):
            self._drop(region.place, AGAIN)
            return None
        if instance_id in self._ids:
            self._refuse(Wrong(region.place, f"id {instance_id}, made of what it is, is another's"))
            return None
        self._ids[instance_id] = made
        self.report.made_ids += instance_id != own
        self._shown[image.image_id] += 1
        return {
            "instance_id": instance_id,
            "image_id": image.image_id,
            "category": name,
            "category_raw": region.name,
            "split": self._order.split,
            "mini": False,
            "segmentation": {"size": [image.height, image.width], "counts": region.counts},
            "bbox_source_xywh": region.bbox_xywh,
            "area": area,
            "area_ratio": area / (image.height * image.width),
            "iscrowd": region.iscrowd,
            "source": self._order.kind,
        }

    def _write(self, rows: list[dict[str, Any]]) -> None:
        rles = [{**row["segmentation"], "counts": row["segmentation"]["counts"].encode()} for row in rows]
        for row, box in zip(rows, coco.toBbox(rles).tolist(), strict=True):
            row["bbox_xywh"] = box
        rows.sort(key=lambda row: (row["category"], row["instance_id"]))
        path = self._draft / "data" / f"instances-{self._files:05d}.parquet"
        with regions.FileWriter(path, "instances") as writer:
            writer.write(regions.from_rows("instances", rows))
        self._files += 1
        self.report.instances += len(rows)

    # --- the end ---

    def finish(self) -> Report:
        """Write what is left, the images and the categories. Raises `UserError` when there is no instance."""
        if self._batch:
            self._flush()
        report = self.report
        report.dropped = dict(self._dropped.most_common())
        left = report.found - report.instances - self._dropped.total() - report.wrong
        if left:
            raise RuntimeError(f"{left} of {report.found} annotations are not accounted for")
        if not report.instances:
            told = [f"{count:,} dropped: {reason}" for reason, count in report.dropped.items()]
            lines = "\n".join([*told, *report.examples[:_TOLD]])
            raise UserError(
                f"not one named region in {report.found:,} annotations; nothing is written\n{lines}".rstrip()
            )
        report.images = len(self._images)
        report.embedded = image_folder.write(
            self._draft / "data", self._image_rows(), self._order.images, self._draft / _HELD, self._refuse
        )
        columns = ["category", "image_id", "coarse_primary", "coarse_secondary"]
        counted = regions.count_categories(regions.RegionSamples(self._draft).read("instances", columns))
        report.categories = len(counted)
        with regions.FileWriter(self._draft / "data" / "categories.parquet", "categories") as writer:
            writer.write(counted)
        return report

    def _image_rows(self) -> Iterator[dict[str, Any]]:
        for image_id, image in sorted(self._images.items()):
            yield {
                **image._asdict(),
                "split": self._order.split,
                "mini": False,
                "instances": self._shown[image_id],
                "source": self._order.kind,
            }
