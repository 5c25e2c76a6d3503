"""What a unit of work costs: GPU-hours by what the pilot has measured, or else by declared rates; seconds of people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline.images import Size
from pipeline.run import Run
from stages import decisions, grounded_sam, naming_settings, phrases, verification_settings
from stages.engines.base import EngineConfig
from stages.naming_settings import NamesConfig
from stages.quote import NAMING, Task, quote_images
from stages.recipe import ratio
from stages.region_prompts import BoundingBox, RegionPrompt
from stages.richness import Limits
from stages.screening_progress import page_times, people_of
from stages.verification import TASK
from stages.verification_settings import VerifyConfig

ASSUMED_SECONDS = Limits(2.0, 1.0, 4.0)
"""Of a person for a region, while nobody has screened: an assumption, measured by nobody."""

_SAMPLE = 500  # images whose prompts are counted

_COLUMNS = ("image_id", "width", "height", "bbox_x", "bbox_y", "bbox_w", "bbox_h")


class Rate(msgspec.Struct, frozen=True):
    """GPU-hours, or a person's seconds, for a unit; `limits` None: not known."""

    step: str
    unit: str
    """mask, image, question, or look."""
    limits: Limits | None
    source: str


class Asked(NamedTuple):
    """How a step asks."""

    step: str
    unit: str
    task: Task | None = None
    """None: what it will take cannot be counted in tokens."""
    prompt: RegionPrompt | None = None
    engine: EngineConfig | None = None


def asked(
    names: NamesConfig, namer: EngineConfig, verify: VerifyConfig, verifier: EngineConfig, *, ground: bool
) -> list[Asked]:
    """Return the steps of a release that use GPUs. Raises `UsageError` for a layout that an engine cannot read."""
    second = [Asked(phrases.STEP, "image"), Asked(grounded_sam.STEP, "mask")] if ground else []
    return [
        Asked(naming_settings.STEP, "mask", NAMING, naming_settings.settled(names, namer), namer),
        *second,
        Asked(verification_settings.STEP, "question", TASK, verification_settings.settled(verify, verifier), verifier),
    ]


def gpu(run: Run, step: Asked) -> Rate:
    """Return the GPU-hours of a unit: the pilot's own, or by the engine's declared tokens per second."""
    facts = [commit.facts for commit in run.commits(step.step).values() if commit.facts["masks"]]
    hours, units = (np.array([fact[name] for fact in facts], np.float64) for name in ("gpu_hours", "masks"))
    if hours.sum():
        return Rate(step.step, step.unit, ratio(hours, units), f"measured on {units.sum():,.0f} {step.unit}s")
    engine = step.engine
    if step.task is None or step.prompt is None or engine is None:
        return Rate(step.step, step.unit, None, "not measured in the pilot")
    if not engine.has_tokens or not engine.tokens_per_second or not engine.gpus_used:
        return Rate(step.step, step.unit, None, "not measured in the pilot, and no tokens_per_second on GPUs is set")
    cost = quote_images(run, _images(run), step.task, step.prompt, engine)
    tokens = (cost.prompt_tokens - cost.shared_tokens + cost.generated_tokens) / max(cost.masks, 1)
    each = tokens / engine.tokens_per_second / 3600 * engine.gpus_used
    source = f"declared: {tokens:,.0f} tokens, {engine.tokens_per_second:,.0f} a second on {engine.gpus_used:g} GPUs"
    return Rate(step.step, step.unit, Limits(each, each, each), source)


def person(run: Run) -> Rate:
    """Return a person's seconds for a look at a region, by the pages that people answered, or the assumption."""
    said = decisions.latest(decisions.screened(run), ("page_id", "mask_id", "category", "annotator"))
    seconds, regions = page_times(people_of(said))
    if not len(seconds):
        return Rate("stage 3", "look", ASSUMED_SECONDS, "assumed, since nobody has screened")
    limits = ratio(seconds, regions.astype(np.float64))
    return Rate("stage 3", "look", limits, f"measured on {len(seconds):,} pages of {regions.sum():,} regions")


def _images(run: Run) -> Iterator[tuple[Size, list[BoundingBox]]]:
    """Yield size and boxes of the pilot's images with masks, of at most `_SAMPLE` of them."""
    table = run.dataset("masks").to_table(columns=list(_COLUMNS)).sort_by("image_id")
    ids = np.unique(table["image_id"].to_numpy())
    chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), _SAMPLE)).astype(np.int64)]
    table = table.filter(np.isin(table["image_id"].to_numpy(), chosen))
    rows = zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
    for _, group in groupby(rows, key=lambda row: row[0]):
        of_image = list(group)
        yield of_image[0][1:3], [row[3:] for row in of_image]
