"""What a pilot run came to, image by image: what the planner reasons from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.funnel import Level
from pipeline.run import Run
from stages import decisions, funnel, head_tail, pairing, verdicts
from stages.manifest import Plan
from stages.mask_rules import MaskRules
from stages.shard_tasks import READ, STEP

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NAMES, PAIRS, CHECK, SCREENING = "names", "pairs", "stage 2", "stage 3"

_LEVELS = {NAMES: "names", PAIRS: "pairs", CHECK: "verified", SCREENING: "screened"}
_COMMANDS = {NAMES: "stage-1 names", PAIRS: "stage-1 pairs", CHECK: "stage-2", SCREENING: "stage-3"}

PENDING = 0.01
"""Share of a stage's input that may wait; it counts as not kept. With more, what is done is no fair sample: people are
shown the worst first."""


class Pilot(NamedTuple):
    """Images by number, 0 on, and pairs; arrays are of shape (images,) or (pairs,)."""

    images: int
    """All that were read, also those without a mask."""
    masks: Ints
    """Of each image, kept by the rules."""
    named: Ints
    """Of those, by one namer at least."""
    image: Ints
    """Of each pair, its image."""
    category: Ints
    """Of each pair, 0 on."""
    flagged: Bools
    """Shown to people whatever stage 2 says."""
    asked: Bools
    """Checked in stage 2."""
    kept: Bools
    """By stage 2; all where it is missing."""
    decided: Bools
    """By people."""
    released: Bools
    """Of those."""
    missing: dict[str, str]
    """Why a stage tells nothing: it was not done, or not to the end."""
    made_up: list[str]
    """What is not real: names of the embedded engine, verdicts of nobody."""

    @property
    def counts(self) -> Ints:
        """Pairs of each category."""
        return np.bincount(self.category)

    def incidence(self, chosen: Bools) -> Ints:
        """Return in how many images each category has a chosen pair, for those that have any."""
        both = np.unique(self.category[chosen] * self.images + self.image[chosen])
        return np.unique(both // self.images, return_counts=True)[1]


def read(run: Run) -> Pilot:
    """Read what the run's tables say. Raises `UsageError` for a run whose masks have not all become pairs."""
    levels = {level.name: level for level in funnel.levels(run)}
    if "masks" not in levels:
        raise UsageError(f"{run.folder.uri}: no run there. A pilot is a run of its own: rr7k stage-1 --images 500")
    missing = {stage: why for stage, name in _LEVELS.items() if (why := _missing(run, stage, levels.get(name)))}
    for stage in (NAMES, PAIRS):
        if stage in missing:
            raise UsageError(f"{run.folder.uri}: {missing[stage]}")
    masks = run.dataset("masks").to_table(columns=["mask_id", "image_id"])
    pairs = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "image_id", "category", "flagged"])
    pairs = pairs.sort_by("mask_id").combine_chunks()
    if not len(pairs):
        raise UsageError(f"{run.folder.uri}: no mask got a category; such a pilot tells nothing.")
    image_ids = np.unique(masks["image_id"].to_numpy())
    images = max(sum(made.counts["images.kept"] for made in run.commits(READ).values()), len(image_ids))
    codes = pairs["category"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return Pilot(
        images=images,
        masks=_per_image(masks["image_id"], image_ids, images),
        named=_per_image(_named(run, masks), image_ids, images),
        image=np.searchsorted(image_ids, pairs["image_id"].to_numpy()),
        category=codes,
        flagged=np.asarray(pairs["flagged"].to_numpy(zero_copy_only=False), np.bool_),
        **_outcomes(run, pairs["mask_id"].to_numpy(), missing),
        missing=missing,
        made_up=_made_up(run),
    )


def differences(run: Run, rules: MaskRules) -> list[str]:
    """Return how the release's rules about masks differ from the pilot's: its yields are then of another recipe."""
    plan = run.plan(STEP, Plan)
    before = plan.settings if plan else {}
    now = {name: getattr(rules, name) for name in MaskRules.model_fields}
    return [
        f"manifest.{name} = {before[name]:g} in the pilot, {value:g} in the release"
        for name, value in now.items()
        if before.get(name, value) != value
    ]


def _missing(run: Run, stage: str, level: Level | None) -> str:
    """Return why a stage tells nothing; empty where it does."""
    advice = f"rr7k {_COMMANDS[stage]} --run {run.folder.uri}"
    if level is None:
        return f"{stage} was not done: {advice}"
    if level.pending > PENDING * level.total:
        return f"{stage} is not finished, {level.pending:,} of {level.total:,} wait: {advice}"
    return ""


def _named(run: Run, masks: pa.Table) -> pa.ChunkedArray:
    """Return the images of the masks that somebody named, once per mask."""
    said = run.dataset("names").to_table(columns=["mask_id"], filter=pc.field("category").is_valid())
    return masks.filter(pc.is_in(masks["mask_id"], said["mask_id"]))["image_id"]


def _per_image(of: pa.ChunkedArray, image_ids: Ints, images: int) -> Ints:
    return np.bincount(np.searchsorted(image_ids, of.to_numpy()), minlength=images)


def _outcomes(run: Run, mask_ids: Ints, missing: dict[str, str]) -> dict[str, Bools]:
    """Return what stages 2 and 3 said of each pair; nothing where they are missing."""
    none = np.zeros(len(mask_ids), np.bool_)
    found = {"asked": none, "kept": ~none, "decided": none, "released": none}
    if CHECK not in missing:
        told = run.dataset("verdicts", verdicts.STEP).to_table(columns=["mask_id", "kept", "band"])
        head = pc.equal(told["band"].cast(pa.string()), head_tail.HEAD)
        found["asked"] = np.isin(mask_ids, told.filter(head)["mask_id"].to_numpy())
        found["kept"] = np.isin(mask_ids, told.filter(told["kept"])["mask_id"].to_numpy())
    if SCREENING not in missing:
        told = run.dataset("decisions", decisions.STEP).to_table(columns=["mask_id", "decision"])
        passed = pc.equal(told["decision"].cast(pa.string()), decisions.RELEASE)
        found["decided"] = np.isin(mask_ids, told["mask_id"].to_numpy())
        found["released"] = np.isin(mask_ids, told.filter(passed)["mask_id"].to_numpy())
    return found


def _made_up(run: Run) -> list[str]:
    plan = run.plan(STEP, Plan)
    generated = [shard.name for shard in plan.shards if shard.name.startswith("generated")] if plan else []
    told = [f"generated: the masks of {', '.join(generated)}, which is not SA-1B"] if generated else []
    for table, what in (("names", "names"), ("checks", "answers of stage 2")):
        engines = run.dataset(table).to_table(columns=["engine"])["engine"].cast(pa.string())
        if number := pc.sum(pc.equal(engines, "embedded")).as_py():
            told.append(f"embedded: {number:,} of {len(engines):,} {what}, by an ImageNet classifier")
    by = run.dataset("decisions", decisions.STEP).to_table(columns=["by"])["by"].cast(pa.string())
    if number := pc.sum(pc.equal(by, decisions.SIMULATED)).as_py():
        told.append(f"simulated: {number:,} of {len(by):,} decisions of stage 3, by nobody")
    return told
