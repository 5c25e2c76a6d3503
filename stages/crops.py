"""Stage 3, pictures: what people are shown of a region, as JPEG files that are made once and found by their names.

A name is a hash of the mask's numbers and of how it is drawn, so it is known before anything is drawn, and the table
`queue` can hold it. A file that is there is never made again: killed at any point, a second run makes what is missing.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline import files, gallery, images, tables
from pipeline.errors import UsageError
from pipeline.progress import Meter
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Shard
from stages import region_prompts, todo
from stages.naming import shards
from stages.region_prompts import Region
from stages.rendering import SHARD_UNREADABLE, Piece, read_photograph

STEP = "crops"
VERSION = 1
"""Raised when the same mask would be drawn otherwise; part of every name, so that new rows get new files."""

View = Literal["page", "single"]

_QUALITY = 85
_COLUMNS = ("mask_id", "image_id", "shard", "jpg_offset", "jpg_bytes", "width", "height", "rle_counts")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")
_DRAFT = ".part"


class Look(msgspec.Struct, frozen=True):
    """What makes a picture, apart from the mask."""

    px: int
    """Longer side."""
    scale: float
    """How many times the region's box is shown."""
    quality: int = _QUALITY
    version: int = VERSION


LOOKS: dict[View, Look] = {"page": Look(256, 2.0), "single": Look(900, 4.0)}
"""page: one of up to 24 tiles, with twice the region's box, as in WOW-Seg's training script. single: one region alone,
with twice as much around it, for those that the tile left in doubt."""


class Names(NamedTuple):
    """Two files of one size, as paths below `folder`."""

    crop: str
    """With the outline."""
    raw: str
    """Without."""


class Drawn(NamedTuple):
    """What a call of `draw` came to."""

    made: int
    """Pictures made, each of two files."""
    there: int
    """Pictures that were there."""
    missing: dict[int, str]
    """Masks that have no picture, and why; their rows belong on no page."""


class Wanted(NamedTuple):
    """A picture to be made."""

    view: View
    names: Names


class Job(NamedTuple):
    """The pictures of one row group of a part of `masks`."""

    folder: str
    run: str
    """URI of the run."""
    shards: dict[str, Shard]
    piece: Piece
    wanted: dict[int, list[Wanted]]
    """By mask."""


class Refused(NamedTuple):
    """A mask that cannot be drawn."""

    mask_id: int
    image_id: int | None
    shard: str
    reason: str
    error: str


class Progress(NamedTuple):
    """A sign of life, after every image."""

    made: int
    refused: list[Refused]


# --- names ------------------------------------------------------------------------------------------------


def folder(run: Run) -> Path:
    """Return where the run's pictures lie; all workers must see it. Raises `UsageError` unless it is on a disk."""
    if files.is_remote(run.folder.uri):
        raise UsageError(
            f"{run.folder.uri}: the pictures that people look at are served from a disk, and this is an object store. "
            "Copy the run to a local folder, or one that all nodes share, and name that."
        )
    return Path(run.folder.sub(STEP).path)


def names(run: Run, mask_ids: npt.NDArray[np.int64], view: View) -> list[Names | None]:
    """Return the files of masks, in their order; None for a mask that the run does not have. Draws nothing."""
    known = todo.fingerprints(run, LOOKS[view])
    stems = dict(zip(known.ids.tolist(), known.fingerprint.view(np.uint64).tolist(), strict=True))
    return [_names(stems[mask_id]) if mask_id in stems else None for mask_id in mask_ids.tolist()]


def _names(stem: int) -> Names:
    text = f"{stem:016x}"
    return Names(f"{text[:2]}/{text}.jpg", f"{text[:2]}/{text}-raw.jpg")


# --- drawing ----------------------------------------------------------------------------------------------


def draw(run: Run, rows: pa.Table, session: Callable[[], Any], meter: Meter | None = None) -> Drawn:
    """Make the files that rows of `queue` (mask_id, view, crop, raw) name and that are not there yet.

    Every image is read and decoded once. `session` opens a Ray session (a context manager), called only when there is
    work; `meter` shows how far it is. What cannot be drawn is quarantined, and tried again by the next call: a shard
    may come back. Raises `UsageError` for a run on an object store, `BusyError` while another run draws, `UserError`
    when a task failed.
    """
    place = folder(run)
    with run.lock(STEP) as lock:
        for draft in place.glob(f"*/.*{_DRAFT}"):  # of a run that was killed; nobody else writes here
            draft.unlink()
        distinct, absent = _absent(place, rows)
        made, refused = 0, _gone(run, absent)
        if jobs := _jobs(run, place, absent):
            with session() as connected:
                lock.works_through(connected.name)
                if meter:
                    meter.start("drawing regions", sum(map(len, absent.values())), "regions")
                for progress in connected.stream(_drawn, jobs):
                    made += progress.made
                    refused += progress.refused
                    if meter:
                        meter.advance(progress.made + len(progress.refused), {}, {"refused": len(progress.refused)})
        _quarantine(run, set(rows["mask_id"].to_pylist()), refused)
    there = distinct - sum(len(wanted) for wanted in absent.values())
    return Drawn(made, there, {found.mask_id: found.error for found in refused})


def _absent(place: Path, rows: pa.Table) -> tuple[int, dict[int, list[Wanted]]]:
    """Return how many distinct pictures the rows name, and those that are not there, by mask."""
    columns = [rows[name].cast(kind).to_pylist() for name, kind in (("mask_id", "int64"), ("view", "string"))]
    columns += [rows[name].to_pylist() for name in Names._fields]
    distinct = dict.fromkeys(zip(*columns, strict=True))
    absent: dict[int, list[Wanted]] = {}
    for mask_id, view, crop, raw in distinct:
        if not (_is_there(f"{place}/{crop}") and _is_there(f"{place}/{raw}")):
            absent.setdefault(mask_id, []).append(Wanted(view, Names(crop, raw)))
    return len(distinct), absent


def _is_there(path: str) -> bool:
    """Say whether a file was written; after a crash of the machine it may have its name and no content."""
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - hundreds of thousands of `Path` take several times as long
    except FileNotFoundError:
        return False


def _gone(run: Run, absent: Mapping[int, Sequence[Wanted]]) -> list[Refused]:
    if not absent:
        return []
    known = set(run.dataset("masks").to_table(columns=["mask_id"])["mask_id"].to_pylist())
    why = "the table masks no longer has this mask"
    return [Refused(mask_id, None, "", "mask-gone", why) for mask_id in absent if mask_id not in known]


def _jobs(run: Run, place: Path, absent: dict[int, list[Wanted]]) -> list[Job]:
    """Return a job for every row group that has a mask without a picture."""
    if not absent:
        return []
    masks = todo.fingerprints(run, LOOKS["page"])
    known, uri = shards(run), run.folder.uri
    pieces = todo.every_piece(masks, np.isin(masks.ids, np.fromiter(absent, np.int64, len(absent))))
    return [Job(str(place), uri, known, piece, {i: absent[i] for i in piece.mask_ids}) for piece in pieces]


def _drawn(job: Job) -> Iterator[Progress]:
    """Make the pictures of a job."""
    table = job.piece.table(Run(job.run), [*_COLUMNS, *_BOX])
    for _, group in groupby(table.to_pylist(), key=lambda row: row["image_id"]):
        yield _image(job, list(group))


def _image(job: Job, group: list[dict[str, Any]]) -> Progress:
    first = group[0]
    try:
        photo = read_photograph(job.shards[first["shard"]], first)
    except KeyError:
        return _refused(group, SHARD_UNREADABLE, "the run no longer has this shard")
    except MissingBytesError as error:
        return _refused(group, "missing-bytes", f"{error}: the shard was changed or cut")
    except images.UnreadableImageError as error:
        return _refused(group, "image-unreadable", f"sa_{first['image_id']}.jpg: {error}")
    except OSError as error:
        return _refused(group, SHARD_UNREADABLE, f"{job.shards[first['shard']].uri}: {error}")
    regions = region_prompts.regions({name: [row[name] for row in group] for name in first})
    wanted = [(region, picture) for region in regions for picture in job.wanted[region.mask_id]]
    for region, (view, found) in wanted:
        _save(Path(job.folder), found, *pictures(photo, region, view))
    return Progress(len(wanted), [])


def _refused(group: Iterable[dict[str, Any]], reason: str, error: str) -> Progress:
    return Progress(0, [Refused(row["mask_id"], row["image_id"], row["shard"], reason, error) for row in group])


def pictures(photo: images.Photograph, region: Region, view: View) -> tuple[Image.Image, Image.Image]:
    """Return a region of an image with its outline and without, both upright; the longer side is `Look.px` px."""
    look = LOOKS[view]
    clean, mask = region_prompts.surroundings(photo, region, look.scale, look.px)
    outline = gallery.outlined(mask)
    marked = clean.copy()
    marked.paste(outline.convert("RGB"), mask=Image.fromarray(np.asarray(outline) > 0))
    return photo.upright(marked), photo.upright(clean)


def _save(place: Path, found: Names, *pair: Image.Image) -> None:
    """Write both pictures; a file has its name only once it is whole."""
    for name, picture in zip(found, pair, strict=True):
        sink = io.BytesIO()
        # A line of 3 px would be blurred into its surroundings if colour had half the resolution. Not optimised: that
        # saves 3 % of the bytes, and Pillow fails where a noisy picture needs more than a byte a pixel.
        picture.save(sink, "JPEG", quality=_QUALITY, subsampling=0)
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
        draft.write_bytes(sink.getvalue())
        draft.replace(path)


# --- what could not be drawn ------------------------------------------------------------------------------


def _quarantine(run: Run, asked: set[int], refused: Sequence[Refused]) -> None:
    """Make the step's rows of `quarantine` those of masks that were not asked about now, and of the refused."""
    before = run.dataset("quarantine", STEP).to_table().to_pylist()
    kept = [row for row in before if int(row["input"].rpartition(":")[2]) not in asked]
    rows = sorted([*kept, *map(_row, dict.fromkeys(refused))], key=lambda row: row["input"])
    if rows == before:
        return
    run.sweep(STEP, ["quarantine"])
    with run.part(STEP, "quarantine", STEP) as part:
        part.write(tables.from_rows("quarantine", rows))
    made_of = files.sha256(msgspec.json.encode(rows))[:16]
    counts = {"crops.quarantined": len(rows)}
    run.commit(STEP, STEP, {"quarantine": part}, fingerprint=made_of, counts=counts, facts={})


def _row(found: Refused) -> dict[str, Any]:
    place = f"sa_{found.image_id}.jpg" if found.image_id is not None else "masks"
    about = {"shard": found.shard, "image_id": found.image_id, "reason": found.reason, "error": found.error}
    return {"step": STEP, "input": f"mask:{found.mask_id}", "place": place, **about}
