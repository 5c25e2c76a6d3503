"""What runs on Ray for the manifest: index one shard, read the masks of one shard's sampled images.

Both are generators that yield progress and commit as their last act; killed at any line, they leave no
trace that a reader sees, and can be run again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import files, tables
from pipeline.run import PartWriter, Run
from pipeline.shards import IndexedImage, MissingBytesError, Problem, Range, Shard, ShardReader, index_shard, open_shard
from stages import mask_rules
from stages.annotations import Batch, MaskColumns, find_faults, mask_problem, parse
from stages.mask_rules import MaskRules
from stages.sampling import stable_hash, within

REPEATED_IMAGE = "duplicate-image"
STEP = "manifest"
INDEX = "manifest-index"
READ = "manifest-read"
VERSION = 1
"""Raised when the same shard and rules would give other rows."""

_BATCH = 8192
"""Masks checked, filtered and written together: about 10 MB of run lengths, one Parquet row group."""
_REPORT_EVERY = 64  # images between two signs of life
_MAX_JSON = 256 << 20  # bytes; the largest of SA-1B's are below 2 MB

_STEPS = (1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8)
RATIO_EDGES = (*(float(f"{step}e{decade}") for decade in range(-8, 0) for step in _STEPS), 1.0)
"""Bin edges for the share of the image that a mask covers: ten a decade, every 1, 2 and 5 among them."""


class Progress(NamedTuple):
    """A sign of life: what was done since the last."""

    bytes: int
    images: int
    masks: int
    failure: str = ""
    """Why the shard could not be read this time; it stays pending."""


class IndexJob(NamedTuple):
    """Index one shard."""

    run: str
    lease: str
    shard: Shard
    max_pixels: int

    @property
    def bytes(self) -> int:
        """Bytes passed over."""
        return self.shard.bytes


class ReadJob(NamedTuple):
    """Read a shard's images whose hash lies in (above, upto]."""

    run: str
    lease: str
    shard: Shard
    bytes: int
    """Annotations to be read."""
    images_part: str
    above: int
    upto: int
    seed: int
    rules: MaskRules
    given_up: dict[int, str]
    """Images that another shard holds as well: id and that shard."""


def fingerprint(*made_of: object) -> str:
    """Hash what a piece of work is made of: shard identity, settings, version."""
    return files.sha256(msgspec.json.encode(made_of))[:16]


def _quarantined(shard: Shard, problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [{"step": STEP, "shard": shard.name, **problem._asdict()} for problem in problems]


def _by_reason(kind: str, problems: Sequence[Problem]) -> dict[str, int]:
    reasons = Counter(p.reason for p in problems if p.input.startswith(f"{kind}:"))
    return {f"{kind}s.quarantined.{reason}": count for reason, count in sorted(reasons.items())}


# --- index ------------------------------------------------------------------------------------------------


def index(job: IndexJob) -> Iterator[Progress]:
    """Index a shard and commit its rows of `images` and `quarantine`."""
    run, shard = Run(job.run, job.lease), job.shard
    try:
        found = index_shard(shard, job.max_pixels)
        checksum = _stated_sha256(shard)
    except OSError as error:
        yield Progress(0, 0, 0, f"{shard.uri}: {error}")
        return
    with ExitStack() as stack:
        parts = {name: stack.enter_context(run.part(INDEX, name, shard.key)) for name in ("images", "quarantine")}
        parts["images"].write(_image_rows(shard, found.images))
        parts["quarantine"].write(tables.from_rows("quarantine", _quarantined(shard, found.problems)))
    run.commit(
        INDEX,
        shard.key,
        parts,
        fingerprint=fingerprint(shard.identity, job.max_pixels, VERSION),
        counts={"images.found": found.found, **_by_reason("image", found.problems)},
        facts={
            "shard": msgspec.to_builtins(shard),
            "state": found.state,
            "sha256": checksum,
            "other_members": found.other_members,
            "settings": {"max_pixels": job.max_pixels},
        },
    )
    yield Progress(shard.bytes, found.found, 0)


def _stated_sha256(shard: Shard) -> str | None:
    """Return the checksum in the `.sha256` file beside a tar, as `rr7k fetch-shards` leaves it."""
    folder = files.Folder(files.parent(shard.uri))
    name = f"{files.base_name(shard.uri)}.sha256"
    if shard.kind == "folder" or not folder.exists(name):
        return None
    return next(iter(folder.read(name).decode(errors="replace").split()), None)


def _image_rows(shard: Shard, images: Sequence[IndexedImage]) -> pa.Table:
    images = sorted(images, key=lambda image: image.json.offset)
    return (
        pa.table(
            {
                "image_id": [i.image_id for i in images],
                "shard": pa.repeat(shard.name, len(images)).dictionary_encode(),
                "file_name": [i.file_name for i in images],
                "jpg_offset": [i.jpg.offset for i in images],
                "jpg_bytes": [i.jpg.bytes for i in images],
                "json_offset": [i.json.offset for i in images],
                "json_bytes": [i.json.bytes for i in images],
                "width": pa.array([i.width for i in images], pa.int32()),
                "height": pa.array([i.height for i in images], pa.int32()),
            }
        )
        if images
        else pa.table({})
    )


# --- read -------------------------------------------------------------------------------------------------


def read(job: ReadJob) -> Iterator[Progress]:
    """Read the masks of a shard's sampled images and commit rows of `masks` and `quarantine`."""
    run = Run(job.run, job.lease)
    key = f"{job.shard.key}-{job.upto:016x}"
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            parts = {name: stack.enter_context(run.part(READ, name, key)) for name in ("masks", "quarantine")}
            reading = ShardReading(job, parts)
            yield from reading.run(_sampled(run, job))
    except ShardUnavailableError as failure:
        yield Progress(0, 0, 0, str(failure))
        return
    run.commit(
        READ,
        key,
        parts,
        fingerprint=fingerprint(job.shard.identity, job.rules.model_dump(), job.seed, VERSION),
        counts=reading.counts(),
        facts={
            "shard": msgspec.to_builtins(job.shard),
            "above": job.above,
            "upto": job.upto,
            "settings": {**job.rules.model_dump(), "seed": job.seed},
            "given_up": sorted(job.given_up),
            "area_ratios": reading.histogram.tolist(),
            "seconds": round(time.perf_counter() - started, 3),
        },
    )
    yield Progress(0, 0, 0)


class ShardUnavailableError(Exception):
    """The shard cannot be read now; nothing about it is recorded, so that the next run tries again."""


def _sampled(run: Run, job: ReadJob) -> list[IndexedImage]:
    with run.opened("images", job.images_part) as file:
        table = file.read()
    if not table.num_rows:
        return []
    hashes = stable_hash(table["image_id"].to_numpy(), job.seed)
    chosen = within(hashes, job.above, job.upto)
    return [
        IndexedImage(
            row["image_id"],
            row["file_name"],
            Range(row["jpg_offset"], row["jpg_bytes"]),
            Range(row["json_offset"], row["json_bytes"]),
            row["width"],
            row["height"],
        )
        for row in table.filter(pa.array(chosen)).to_pylist()
    ]


class ShardReading:
    """Reads one shard's annotation files in order and writes what is kept, a batch at a time."""

    def __init__(self, job: ReadJob, parts: dict[str, PartWriter]) -> None:
        self.job = job
        self.parts = parts
        self.histogram = np.zeros(len(RATIO_EDGES) - 1, np.int64)
        self._tally: Counter[str] = Counter()
        self._batch = Batch()
        self._seen = SeenIds()
        self._made_by = fingerprint(job.shard.identity, job.rules.model_dump(), job.seed, VERSION)

    def run(self, images: Sequence[IndexedImage]) -> Iterator[Progress]:
        """Read `images`, which lie in file order. Raises `ShardUnavailableError` when the shard cannot be read now."""
        done = Progress(0, 0, 0)
        with ExitStack() as stack:
            with self._reading():
                shard = stack.enter_context(open_shard(self.job.shard))
            for number, image in enumerate(images, 1):
                masks = self._read_image(shard, image)
                done = Progress(done.bytes + image.json.bytes, done.images + 1, done.masks + masks)
                if number % _REPORT_EVERY == 0:
                    yield done
                    done = Progress(0, 0, 0)
        self._flush()
        yield done

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Tell an error of the shard from one of the run folder."""
        try:
            yield
        except OSError as error:
            raise ShardUnavailableError(f"{self.job.shard.uri}: {error}") from error

    def counts(self) -> dict[str, int]:
        """Return the funnel counts of everything read."""
        return dict(sorted(self._tally.items()))

    def _read_image(self, shard: ShardReader, image: IndexedImage) -> int:
        """Read one image's masks into the batch; return how many the file holds."""
        if refusal := self._refusal(image):
            self._refuse(image, *refusal)
            return 0
        try:
            with self._reading():
                data = shard.read(f"sa_{image.image_id}.json", image.json)
        except MissingBytesError as error:
            self._refuse(image, "missing-bytes", f"{error}. The shard has changed: run again with --redo.")
            return 0
        parsed, problems, found = parse(image, data)
        self._quarantine(problems)
        self._tally["masks.found"] += found
        if parsed is None:
            return 0
        self._tally["images.kept"] += 1
        self._batch.add(parsed)
        if len(self._batch) >= _BATCH:
            self._flush()
        return found

    def _refusal(self, image: IndexedImage) -> tuple[str, str] | None:
        if holder := self.job.given_up.get(image.image_id):
            return REPEATED_IMAGE, f"shard {holder} holds this image as well; it is read from there"
        if image.json.bytes > _MAX_JSON:
            return "too-large", f"{image.json.bytes} bytes of annotations, more than {_MAX_JSON}"
        return None

    def _refuse(self, image: IndexedImage, reason: str, error: str) -> None:
        place = f"sa_{image.image_id}.json"
        self._quarantine([Problem(f"image:{image.image_id}", image.image_id, place, reason, error)])

    def _quarantine(self, problems: Sequence[Problem]) -> None:
        if problems:
            self.parts["quarantine"].write(tables.from_rows("quarantine", _quarantined(self.job.shard, problems)))
            self._tally.update(_by_reason("image", problems))
            self._tally.update(_by_reason("mask", problems))

    def _flush(self) -> None:
        """Check, filter and write the batch."""
        images, table = self._batch.images, self._batch.columns()
        self._batch = Batch()
        sound, problems = find_faults(images, table)
        table = table.take(sound)
        new = self._seen.first_time(table.mask_id)
        self._quarantine([*problems, *_repeats(images, table, new)])
        table = table.take(new)
        self.histogram += np.histogram(mask_rules.area_ratio(images, table), RATIO_EDGES)[0]
        keep, dropped = mask_rules.apply(self.job.rules, images, table)
        self._tally.update({f"masks.dropped.{reason}": count for reason, count in dropped.items()})
        self._tally["masks.kept"] += int(keep.sum())
        self.parts["masks"].write(mask_rows(self.job.shard.name, self._made_by, images, table.take(keep)))


class SeenIds:
    """The mask ids met so far in a shard, sorted: 8 bytes each."""

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)

    def first_time(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of `ids` were not met before, here or earlier in `ids`, and remember them."""
        unique, first = np.unique(ids, return_index=True)
        place = np.minimum(np.searchsorted(self._ids, unique), max(len(self._ids) - 1, 0))
        known = self._ids[place] == unique if len(self._ids) else np.zeros(len(unique), np.bool_)
        new = np.zeros(len(ids), np.bool_)
        new[first[~known]] = True
        self._ids = np.sort(np.concatenate([self._ids, unique[~known]]), kind="stable")
        return new


def _repeats(images: Sequence[IndexedImage], table: MaskColumns, new: npt.NDArray[np.bool_]) -> list[Problem]:
    problems = []
    for row in np.flatnonzero(~new).tolist():
        mask_id, position = int(table.mask_id[row]), int(table.position[row])
        error = f"id {mask_id} appeared before in this shard; ids must be unique"
        problems.append(mask_problem(images[int(table.image[row])], mask_id, position, ".id", "repeated-id", error))
    return problems


def mask_rows(shard: str, made_by: str, images: Sequence[IndexedImage], table: MaskColumns) -> pa.Table:
    """Build rows of `masks` from checked and filtered columns."""

    def of_image(values: list[int], kind: pa.DataType) -> pa.Array:
        return pa.array(np.array(values)[table.image], kind)

    n = len(table.area)
    return pa.table(
        {
            "mask_id": table.mask_id,
            "image_id": of_image([i.image_id for i in images], pa.int64()),
            "shard": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [shard]),
            "jpg_offset": of_image([i.jpg.offset for i in images], pa.int64()),
            "jpg_bytes": of_image([i.jpg.bytes for i in images], pa.int64()),
            "width": of_image([i.width for i in images], pa.int32()),
            "height": of_image([i.height for i in images], pa.int32()),
            "rle_counts": table.rle_counts,
            "area": table.area,
            "area_ratio": mask_rules.area_ratio(images, table),
            **{f"bbox_{name}": table.bbox[:, k] for k, name in enumerate("xywh")},
            "predicted_iou": table.predicted_iou,
            "stability_score": table.stability_score,
            "fingerprint": pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [made_by]),
        }
    )
