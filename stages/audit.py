"""How many of the pairs to be released are right: a random sample of them is judged again, blind, by somebody else.

The sample is stratified, in proportion to the strata above a least number in each: the limits of
`pipeline.proportions` do not profit from strata, and are the shorter the more equal the weights are, so Neyman's
allocation would cost more in them than it gains. Within a stratum the pairs with the lowest hashes are taken, and a
limit once reached stays: a run that grows keeps what was drawn, and judged, before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.config import Section
from pipeline.errors import UsageError
from pipeline.proportions import Estimate, Flags, Floats, weighted
from pipeline.run import Run
from stages.decisions import (
    AUDIT,
    QUEUE,
    RELEASE,
    SCREENING,
    SIMULATED,
    among,
    deciders,
    latest,
    screened,
    votes,
)
from stages.decisions import STEP as DECISIONS
from stages.sampling import stable_hash

STEP, SETTINGS = "audit", "audit-settings"
"""What was drawn, and what was asked for."""

LEAST = 30
"""Pairs drawn of every stratum: all 30 right give a two-sided 95 % lower limit of 0.025^(1/30) = 0.88."""

_SALT = 3  # other samples of masks may use the same seed

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.str_]


class AuditConfig(Section):
    """Stage 3 audit: how many of the released pairs are judged again, and what is wanted of them."""

    size: int = Field(300, ge=1)
    """Pairs drawn, at least 30 of every stratum among them."""

    precision: float = Field(0.95, gt=0, lt=1)
    """A stratum is closed when the lower limit of its share of right pairs reaches this."""

    seed: int = 0
    """Of the draw; stays as it is once something was drawn."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was drawn, to be drawn again from a larger run."""

    seed: int
    limits: dict[str, int]
    """By stratum, the highest hash drawn, 0 to 2**64 - 1."""


class Draw(NamedTuple):
    """A sample of the released pairs. Arrays have shape (drawn,)."""

    mask_ids: Ints  # ascending
    strata: Labels
    probability: Floats
    """With which a pair of its stratum came into the sample, in (0, 1]."""
    sizes: dict[str, int]  # released pairs by stratum
    plan: Plan


class Precision(NamedTuple):
    """A share of released pairs that are right, by those judged."""

    right: Estimate
    more: int
    """Looks, beside those there are, that would halve the distance of the limits, if they find what was found before;
    at most as many as there are pairs left. Overall, spread as now; strata without any look are not among them."""
    closed: bool
    """The lower limit has reached the precision wanted."""


class Released(NamedTuple):
    """What the audit says of the pairs to be released."""

    overall: Precision
    """Its limits allow for strata of which nothing is judged: all wrong at the lower, all right at the upper."""
    strata: dict[str, Precision]
    waiting: int
    """Drawn pairs that nobody else has judged yet."""
    unresolved: int
    """Drawn pairs judged, but unsure, private, or as often right as wrong; they are not in the shares."""
    simulated: int
    """Judged pairs that no person has looked at; above 0, the shares say nothing of real pairs."""


class Missed(NamedTuple):
    """What an annotator overlooked on pages where they found nothing wrong."""

    annotator: str
    pages: int
    """Pages of the screening round with every tile kept, control tiles aside."""
    wrong: Estimate
    """Share of their pairs, 0 to 1, that the audit finds wrong; of those still to be released."""


# --- drawing ---


def load(run: Run) -> Plan | None:
    """Return what was saved of a run's last draw, or None. Raises `UserError` for a damaged record."""
    return run.plan(STEP, Plan)


def save(run: Run, plan: Plan) -> None:
    """Make a plan the run's own."""
    run.save_plan(STEP, plan)


def released(run: Run) -> tuple[Ints, Labels]:
    """Return the pairs to be released, ascending by mask, and the stratum of each: why it was shown to people.

    That is head, tail, flagged or dropped (by stage 2, and kept by people).
    """
    text = pc.field("decision").cast(pa.string())
    pairs = run.dataset("decisions", DECISIONS).to_table(columns=["mask_id", "category"], filter=text == RELEASE)
    asked = (pc.field("round").cast(pa.string()) == SCREENING) & pc.field("gold").is_null()
    shown = run.dataset("queue", QUEUE).to_table(columns=["mask_id", "category", "why"], filter=asked)
    shown = shown.set_column(2, "why", shown["why"].cast(pa.string()))
    found = pairs.join(shown, ["mask_id", "category"], join_type="inner").sort_by("mask_id").combine_chunks()
    return found["mask_id"].to_numpy(), np.array(found["why"].to_pylist(), np.str_)


def standing(run: Run, plan: Plan) -> Draw:
    """Return what a plan draws of the pairs to be released as they are now, and no more."""
    mask_ids, strata = released(run)
    return _within(mask_ids, strata, plan)


def draw(
    mask_ids: Ints, strata: Labels, size: int, *, seed: int, least: int = LEAST, before: Plan | None = None
) -> Draw:
    """Draw a sample of `size` of the released pairs, by stratum; both arrays have shape (pairs,), masks distinct.

    Every stratum gives `least` pairs or all it has, and the large ones what is proportional. Whoever was within the
    limits of the sample `before` stays, so there may be more. `size` and `least` are 1 or more. Raises `UsageError`
    for other numbers, a size too small for the least of all strata, a sample before of another seed, or arrays that
    do not fit.
    """
    _check(mask_ids, strata, size, least, seed, before)
    names, place = np.unique(strata, return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    if size < np.minimum(counts, least).sum():
        raise UsageError(f"{size} pairs are too few for {least} of each of {len(names)} strata; draw more")
    hashes = _hashes(mask_ids, seed)
    limits = dict(before.limits) if before else {}
    for k, number in enumerate(allocate(counts, size, least).tolist()):
        own = np.partition(hashes[place == k], number - 1)[number - 1]
        limits[str(names[k])] = max(limits.get(str(names[k]), 0), int(own))
    return _within(mask_ids, strata, Plan(seed=seed, limits=limits))


def _hashes(mask_ids: Ints, seed: int) -> npt.NDArray[np.uint64]:
    return stable_hash(stable_hash(mask_ids, seed).view(np.int64), _SALT)


def _within(mask_ids: Ints, strata: Labels, plan: Plan) -> Draw:
    """Return the pairs within the limits of a plan; of a stratum that it does not know, none."""
    names, place = np.unique(strata, return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    known = np.array([str(name) in plan.limits for name in names], np.bool_)
    limits = np.array([plan.limits.get(str(name), 0) for name in names], np.uint64)
    drawn = known[place] & (_hashes(mask_ids, plan.seed) <= limits[place])
    taken = np.flatnonzero(drawn)[np.argsort(mask_ids[drawn])]
    probability = (np.bincount(place[drawn], minlength=len(names)) / np.maximum(counts, 1))[place[taken]]
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return Draw(mask_ids[taken], strata[taken], probability, sizes, plan)


def _check(mask_ids: Ints, strata: Labels, size: int, least: int, seed: int, before: Plan | None) -> None:
    if mask_ids.ndim != 1 or mask_ids.shape != strata.shape:
        raise UsageError(f"shapes {mask_ids.shape} and {strata.shape} are not (pairs,) twice")
    if not len(mask_ids) or len(np.unique(mask_ids)) < len(mask_ids):
        raise UsageError("there is no pair to draw from, or a mask is there twice")
    if size < 1 or least < 1:
        raise UsageError(f"size {size} and least {least} must be 1 or more")
    if before and before.seed != seed:
        raise UsageError(f"the sample before was drawn with seed {before.seed}, not {seed}; judged pairs would be lost")


def allocate(counts: Ints, size: int, least: int) -> Ints:
    """Return how many to draw of each stratum, shape (strata,) as `counts`: `size` together, or all there are.

    In proportion to the counts, 1 or more, but not fewer than `least` and not more than there are; what is left by
    rounding goes to the largest remainders. `size` is not less than the least of all strata together.
    """
    if size >= counts.sum():
        return np.array(counts)
    low, high = 0.0, 1.0
    floors = np.minimum(counts, least)
    for _ in range(60):  # halvings: beyond the precision of a double
        middle = (low + high) / 2
        too_many = np.maximum(middle * counts, floors).sum() > size
        low, high = (low, middle) if too_many else (middle, high)
    wanted = np.maximum(low * counts, floors)
    numbers: Ints = np.floor(wanted).astype(np.int64)
    spare = np.argsort(numbers - wanted, kind="stable")
    numbers[spare[: size - numbers.sum()]] += 1
    return numbers


# --- estimating ---


def precision(right: Flags, strata: Labels, sizes: Mapping[str, int], confidence: float = 0.95) -> Estimate:
    """Return the share of right pairs of all strata, with two-sided limits, from those judged.

    `right` and `strata` have shape (judged,); `sizes` are the pairs of every stratum. Hájek's estimate, weights the
    pairs that each one judged stands for: those of its stratum / those judged of it, so a stratum that is judged
    halfway counts whole. A stratum without any is left out of the estimate and taken as all wrong at the lower limit,
    all right at the upper. Raises `ValueError` as `pipeline.proportions.weighted` does, `KeyError` for a stratum
    without a size.
    """
    found = weighted(right, _weights(strata, sizes), confidence)
    known = sum(sizes[name] for name in np.unique(strata).tolist()) / max(sum(sizes.values()), 1)
    return found._replace(lower=known * found.lower, upper=1 - known * (1 - found.upper))


def _weights(strata: Labels, sizes: Mapping[str, int]) -> Floats:
    names, place = np.unique(strata, return_inverse=True)
    counts = np.bincount(place, minlength=len(names))
    return np.asarray((np.array([sizes[name] for name in names.tolist()], np.float64) / counts)[place], np.float64)


def released_precision(run: Run, drawn: Draw, wanted: float, confidence: float = 0.95) -> Released:
    """Return how many of the released pairs are right, by what was judged of the sample in the audit round.

    The limits are two-sided and hold with `confidence`, in [0.5, 1), for a sample judged once. A stratum is closed
    when its lower limit reaches `wanted`, in (0, 1): who looks after every page and stops as soon as it does errs more
    often than stated. What somebody judged who has voted on the pair before is not used, and a program's answer only
    where no person gave one. Raises `UsageError` for numbers out of range, `UserError` as `decisions.screened`.
    """
    if not (0 < wanted < 1 and 0.5 <= confidence < 1):
        raise UsageError(f"precision {wanted} must lie in (0, 1), confidence {confidence} in [0.5, 1)")
    found = _judged(run, drawn.mask_ids)
    right, judged = found.margin > 0, found.margin != 0
    strata = {
        name: _precision(right[here & judged], drawn.strata[here & judged], {name: size}, wanted, confidence)
        for name, size in drawn.sizes.items()
        for here in [drawn.strata == name]
    }
    return Released(
        overall=_precision(right[judged], drawn.strata[judged], drawn.sizes, wanted, confidence),
        strata=strata,
        waiting=int((found.looks == 0).sum()),
        unresolved=int(((found.looks > 0) & ~judged).sum()),
        simulated=int((found.simulated & judged).sum()),
    )


def _precision(right: Flags, strata: Labels, sizes: Mapping[str, int], wanted: float, confidence: float) -> Precision:
    found = precision(right, strata, sizes, confidence)
    left = sum(sizes.values()) - len(right)
    return Precision(found, min(more_looks(right, _weights(strata, sizes), confidence), left), found.lower >= wanted)


def more_looks(right: Flags, weights: Floats, confidence: float = 0.95) -> int:
    """Return how many more observations like these would halve the distance between their limits, 1 or more.

    Shapes and ranges as in `pipeline.proportions.weighted`. Without any, all that come are taken to be right.
    """
    seen = len(right)
    width = _width(right, weights, seen, confidence) / 2
    if not seen:
        right, weights = np.ones(1, np.bool_), np.ones(1)
    low, high = seen, seen + 1
    while _width(right, weights, high, confidence) > width:
        low, high = high, 2 * high
    while high - low > 1 + high // 1000:  # a thousandth is more than such a forecast is good for
        middle = (low + high) // 2
        low, high = (middle, high) if _width(right, weights, middle, confidence) > width else (low, middle)
    return high - seen


def _width(right: Flags, weights: Floats, number: int, confidence: float) -> float:
    """Return the distance of the limits of `number` observations that repeat these as evenly as can be."""
    order = np.lexsort((weights, right))
    places = order[np.arange(number) * len(right) // max(number, 1)]
    found = weighted(right[places], weights[places], confidence)
    return found.upper - found.lower


# --- who judged what ---


class _Judged(NamedTuple):
    """Answers of the audit to each drawn pair; arrays have shape (drawn,)."""

    margin: Ints  # keep less delete
    looks: Ints
    simulated: Flags  # no person has answered


def _judged(run: Run, mask_ids: Ints) -> _Judged:
    barred = deciders(run, mask_ids)
    people: defaultdict[int, list[str]] = defaultdict(list)
    programs: defaultdict[int, list[str]] = defaultdict(list)
    for row in votes(run, (AUDIT,), mask_ids).to_pylist():
        if row["annotator"] not in barred.get(row["mask_id"], ()):
            (programs if row["annotator"] == SIMULATED else people)[row["mask_id"]].append(row["verdict"])
    said = [people.get(mask) or programs.get(mask, []) for mask in mask_ids.tolist()]
    return _Judged(
        margin=np.array([one.count("keep") - one.count("delete") for one in said], np.int64),
        looks=np.array([len(one) for one in said], np.int64),
        simulated=np.array([mask in programs and mask not in people for mask in mask_ids.tolist()], np.bool_),
    )


def missed(run: Run, drawn: Draw, confidence: float = 0.95) -> list[Missed]:
    """Return, by annotator, what share of the pairs on pages that they found all correct is wrong, by the audit.

    Weights and limits are as in `released_precision`; a pair whose decision others turned to delete is not released,
    and not among them. Raises `UsageError` for a confidence outside [0.5, 1), `UserError` as `decisions.screened`.
    """
    if not 0.5 <= confidence < 1:
        raise UsageError(f"confidence {confidence} must lie in [0.5, 1)")
    found = _judged(run, drawn.mask_ids)
    judged = found.margin != 0
    wrong, weights = found.margin[judged] < 0, _weights(drawn.strata[judged], drawn.sizes)
    rows = _all_correct(run)
    made = []
    for annotator in sorted(set(rows["annotator"].to_pylist())):
        theirs = rows.filter(pc.equal(rows["annotator"], annotator))
        own = np.isin(drawn.mask_ids[judged], theirs["mask_id"].to_numpy())
        pages = pc.count_distinct(theirs["page_id"]).as_py()
        made.append(Missed(annotator, pages, weighted(wrong[own], weights[own], confidence)))
    return made


def _all_correct(run: Run) -> pa.Table:
    """Return annotator, page_id and mask_id of the tiles on pages that an annotator kept whole when screening."""
    said = screened(run)
    said = said.filter(pa.array(among(said, "round", [SCREENING]) & said["gold"].is_null().to_numpy()))
    said = latest(said, ("annotator", "page_id", "mask_id"))
    said = said.append_column("kept", pa.array(among(said, "verdict", ["keep"])))
    pages = said.group_by(["annotator", "page_id"]).aggregate([("kept", "all")])
    whole = pages.filter(pages["kept_all"]).select(["annotator", "page_id"])
    return said.select(["annotator", "page_id", "mask_id"]).join(whole, ["annotator", "page_id"], join_type="inner")
