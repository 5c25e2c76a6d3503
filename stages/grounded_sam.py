"""Stage 1, Grounded SAM: a second opinion on every mask, from a detector and a segmenter.

Per image, Grounding DINO finds boxes for the image's phrases, SAM turns each box into a mask, and that mask is
matched one to one with the image's own masks; the phrase becomes the matched mask's second name. What travels and is
counted as done is an image with lists, because matching is per image; the driver makes one row per mask of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline import images, masks
from pipeline.config import Section
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Shard
from stages import asking, phrases, todo
from stages.ledger import Answer, Asker, Watcher
from stages.matching import match
from stages.naming import Bounds, record, shards
from stages.remembering import inherited, remember
from stages.rendering import SHARD_UNREADABLE, Piece, read_photograph

if TYPE_CHECKING:
    from pipeline.detectors import Detector
    from pipeline.segmenters import Segmenter

NAMER = "grounded-sam"
STEP = f"names-{NAMER}"
NAMED, UNMATCHED = "named", "unmatched"

_TOGETHER = 8  # images handed on together: one row group is read once for those of it
_THRESHOLDS = ("box_threshold", "text_threshold", "nms_iou", "match_iou")
_GROUNDED = pa.schema(
    [
        ("prompt_id", pa.int64()),
        ("image_id", pa.int64()),
        ("shard", pa.string()),
        ("subjects", pa.list_(pa.int64())),  # mask ids
        ("phrases", pa.list_(pa.string())),  # of each subject; null where nothing matched
        ("scores", pa.list_(pa.float64())),
        ("ious", pa.list_(pa.float64())),
        ("seconds", pa.float64()),
        ("problem", pa.string()),
        ("reason", pa.string()),
        ("error", pa.string()),
    ]
)


class GroundConfig(Section):
    """Stage 1 ground: the detector and the segmenter of the second opinion."""

    detector: str = ""
    """Grounding DINO or MM Grounding DINO: a name in data_manifests/models.toml, a checkpoint folder, or an original
    .pth file. Unset: no second opinion."""

    segmenter: str = ""
    """SAM, SAM 2 or HQ-SAM: a name in models.toml, a checkpoint folder, an original SAM .pth file, or
    segment-anything:FILE for that package's own code."""

    models: str = ""
    """Folder where `rr7k models fetch` put the models of models.toml."""

    box_threshold: float = Field(0.35, ge=0, le=1)
    """The best token of a box's phrase must score more (0.35 in Grounding DINO's demo); higher keeps fewer boxes."""

    text_threshold: float = Field(0.25, ge=0, le=1)
    """The phrase's tokens must score more on average (0.25 there); higher keeps fewer boxes."""

    nms_iou: float = Field(0.5, ge=0, le=1)
    """Of two boxes that overlap more, the better stays (0.5 in Grounded-Segment-Anything's labelling script)."""

    match_iou: float = Field(0.5, ge=0, le=1)
    """A segmenter's mask must overlap one of SA-1B's by this much to name it."""

    replicas: int = Field(1, ge=1)
    """Copies of the two models."""

    gpus: float = Field(0, ge=0)
    """GPUs all together, one per replica at most; 0: CPU."""

    tries: int = Field(3, ge=1, le=100)
    """Runs in which an image may fail before its masks are quarantined."""

    patience: float = Field(900.0, gt=0)
    """Seconds without any image, after the first, after which the models are taken for hung."""

    @property
    def wanted(self) -> bool:
        """Whether there is to be a second opinion."""
        return bool(self.detector and self.segmenter)


class Setting(msgspec.Struct, frozen=True):
    """What makes a second name, apart from the mask and the phrases."""

    detector: str
    segmenter: str
    revision: str
    box_threshold: float
    text_threshold: float
    nms_iou: float
    match_iou: float
    version: int = 1


def build(
    run: Run,
    config: GroundConfig,
    names_step: str,
    session: Callable[[], AbstractContextManager[Any]],
    watcher: Watcher,
    *,
    redo: bool = False,
) -> None:
    """Give every mask whose image is ready its second name, or the record that nothing matched.

    `names_step` is the step whose names are phrases. `session` opens a Ray session, called only when there is work.
    Raises `UserError`.
    """
    config = inherited(run, STEP, config)
    made = _setting(config)
    with run.lock(STEP) as lock:
        wanted = phrases.wanted(run, names_step)
        plan = todo.plan(run, STEP, made, redo=redo, salts=wanted.salts)
        asker = _asker(config, made, wanted.phrases)
        run.sweep(STEP, asker.tables)
        if not plan.pieces:
            return
        remember(run, STEP, config)
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in plan.pieces))
            record(_answers(run, plan.pieces, config, wanted.phrases), run, plan, asker, watcher, Bounds())


def _setting(config: GroundConfig) -> Setting:
    from pipeline.models import manifest

    known = manifest()
    revisions = [known[name].revision if name in known else "" for name in (config.detector, config.segmenter)]
    thresholds = {name: getattr(config, name) for name in _THRESHOLDS}
    named = [Path(name).name for name in (config.detector, config.segmenter)]
    return Setting(named[0], named[1], "+".join(revisions).strip("+"), **thresholds)


def _asker(config: GroundConfig, made: Setting, sources: dict[int, dict[str, str]]) -> Asker:
    def rows(answer: Answer) -> list[dict[str, Any]]:
        subjects, known = answer["subjects"], sources[answer["image_id"]]
        every = {
            "image_id": answer["image_id"],
            "namer": NAMER,
            "seconds": answer["seconds"] / len(subjects),
            "engine": "detector",
            "model": f"{made.detector}+{made.segmenter}",
            "revision": made.revision,
            "prompt": "",
        }
        found = zip(subjects, answer["phrases"], answer["scores"], answer["ious"], strict=True)
        return [
            {
                **every,
                "mask_id": mask_id,
                "outcome": NAMED if phrase else UNMATCHED,
                "category": phrase,
                "raw": phrase or "",
                "score": score,
                "iou": iou,
                "layout": known[phrase] if phrase else "",
            }
            for mask_id, phrase, score, iou in found
        ]

    return Asker(STEP, NAMER, "names", rows, config.tries, config.gpus)


# --- on Ray -----------------------------------------------------------------------------------------------


def _answers(
    run: Run, pieces: Sequence[Piece], config: GroundConfig, wanted: dict[int, dict[str, str]]
) -> Iterator[pa.Table]:
    """Yield tables of `_GROUNDED` about the images of `pieces`; needs a running Ray."""
    import ray
    from ray.data import ActorPoolStrategy

    rows = _jobs(run, pieces, wanted)
    together = iter(lambda: list(islice(rows, _TOGETHER)), [])
    asking.quiet()
    jobs = ray.data.from_arrow([pa.Table.from_pylist(few) for few in together])
    grounded = jobs.map_batches(
        Grounder,
        fn_constructor_args=(config, run.folder.uri, shards(run)),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=config.replicas),
        num_gpus=min(config.gpus / config.replicas, 1) or None,
    )
    batches = grounded.iter_batches(batch_size=None, batch_format="pyarrow")
    yield from asking.watched(batches, max(config.patience, asking.LOADING), config.patience)


def _jobs(run: Run, pieces: Sequence[Piece], wanted: dict[int, dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield one job per image: its masks, where they are, what to look for."""
    for piece in pieces:
        table = piece.table(run, ["mask_id", "image_id"])
        by_image: dict[int, list[int]] = {}
        ids = [table[name].to_pylist() for name in ("mask_id", "image_id")]
        for mask_id, image_id in zip(*ids, strict=True):
            by_image.setdefault(image_id, []).append(mask_id)
        for image_id, mask_ids in by_image.items():
            place = {"part": piece.part, "row_group": piece.row_group}
            yield {**place, "image_id": image_id, "mask_ids": mask_ids, "phrases": list(wanted[image_id])}


def second_names(
    photo: images.Photograph,
    own: list[str],
    wanted: list[str],
    detector: Detector,
    segmenter: Segmenter,
    config: GroundConfig,
) -> dict[str, list[Any]]:
    """Return phrase, score and IoU of each of an image's masks (COCO RLE), None where nothing matched."""
    thresholds = {name: getattr(config, name) for name in _THRESHOLDS[:3]}
    found = detector.detect(photo.pixels, wanted, **thresholds) if wanted else []
    boxes = np.array([detection.box_xyxy for detection in found], np.float32).reshape(-1, 4)
    width, height = photo.size
    proposals = [masks.encode(mask) for mask in segmenter.segment(photo.pixels, boxes)] if found else []
    overlaps = masks.iou_between(proposals, own, height, width)
    names: dict[str, list[Any]] = {name: [None] * len(own) for name in ("phrases", "scores", "ious")}
    for proposal, mask in match(overlaps, np.array([d.score for d in found]), config.match_iou):
        names["phrases"][mask] = wanted[found[proposal].phrase]
        names["scores"][mask] = found[proposal].score
        names["ious"][mask] = float(overlaps[proposal, mask])
    return names


class Grounder:
    """Both models in one actor: images in, second names out."""

    def __init__(self, config: GroundConfig, run: str, known: dict[str, Shard]) -> None:
        from pipeline.detectors import GroundingDino
        from pipeline.segmenters import open_segmenter

        device = "cuda" if config.gpus else "cpu"
        self._config, self._run, self._shards = config, Run(run), known
        self._detector = GroundingDino(_source(config.detector, config), device)
        self._segmenter = open_segmenter(_source(config.segmenter, config), device)
        self._row_group = lru_cache(maxsize=1)(self._read_row_group)

    def __call__(self, jobs: pa.Table) -> pa.Table:
        """Ground every image (rows of part, row_group, image_id, mask_ids, phrases)."""
        return pa.Table.from_pylist([self._image(job) for job in jobs.to_pylist()], _GROUNDED)

    def _image(self, job: dict[str, Any]) -> dict[str, Any]:
        group = self._row_group(job["part"], job["row_group"])
        rows = [group[mask_id] for mask_id in job["mask_ids"]]
        about = {"prompt_id": job["image_id"], "image_id": job["image_id"], "shard": rows[0]["shard"]}
        about["subjects"] = job["mask_ids"]
        began = time.perf_counter()
        try:
            photograph = read_photograph(self._shards[rows[0]["shard"]], rows[0])
            own = [row["rle_counts"] for row in rows]
            found = second_names(photograph, own, job["phrases"], self._detector, self._segmenter, self._config)
        except MissingBytesError as error:
            return {**about, "reason": "missing-bytes", "problem": f"{error}: the shard was changed or cut"}
        except images.UnreadableImageError as error:
            return {**about, "reason": "image-unreadable", "problem": f"sa_{job['image_id']}.jpg: {error}"}
        except OSError as error:
            return {**about, "reason": SHARD_UNREADABLE, "problem": str(error)}
        except (RuntimeError, ValueError) as error:  # torch: out of memory, a picture it cannot take
            return {**about, "error": f"{type(error).__name__}: {error}"}
        return {**about, **found, "seconds": time.perf_counter() - began}

    def _read_row_group(self, part: str, row_group: int) -> dict[int, dict[str, Any]]:
        with self._run.opened("masks", part) as file:
            columns = ["mask_id", "image_id", "shard", "jpg_offset", "jpg_bytes", "width", "height", "rle_counts"]
            return {row["mask_id"]: row for row in file.read_row_group(row_group, columns=columns).to_pylist()}


def _source(name: str, config: GroundConfig) -> str:
    """Return where a checkpoint is: the fetched copy of a model in models.toml, else the name itself."""
    from pipeline.models import local_path, manifest

    return str(local_path(name, Path(config.models))) if name in manifest() else name
