"""What a release of a wanted size takes, reckoned from a pilot: images, shards, questions, looks. Pure arithmetic.

Means per image of the pilot, times images. Their limits of 95 % come from drawing the pilot's images again (cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, §3.8). Where two uncertain numbers are
multiplied, each is taken at its limit: such limits hold in 95 % or more.

Two things change with size. A category rare in the pilot may be frequent in the whole, so that stage 2 is asked about
it; of what people let pass it then keeps the share it kept in the pilot, which is cautious, since it keeps right pairs
more often than wrong ones. And new categories come ever more seldom (`stages.richness`); under a cap, instances are
reckoned without those the pilot did not meet, which is cautious too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from scipy.special import gammaincc

from pipeline.proportions import beta_quantile, counted
from stages.richness import REACH, Limits, images_for, richness, smallest
from stages.yields import CHECK, SCREENING, Bools, Floats, Ints, Pilot

EVERYTHING = 11_185_362
"""Images of SA-1B, in 1,000 tars."""
IMAGES_A_SHARD = EVERYTHING / 1000

FEW = 30
"""Images below which drawing them again says little of the error."""

_DRAWS, _SEED = 1000, 0
_LEVELS = (0.025, 0.975)

Side = Literal["value", "lower", "upper"]

_OPPOSITE: dict[Side, Side] = {"value": "value", "lower": "upper", "upper": "lower"}
"""The more is asked about, the less is left."""


class Goals(NamedTuple):
    """Size of the release; the paper's (§3.4)."""

    images: int = 80_000
    instances: int = 200_000
    categories: int = 7_662


class Rules(NamedTuple):
    """What of the configuration decides how much is asked and shown."""

    head_min_count: int
    control_share: float
    dropped_share: float
    gold_share: float
    votes: int
    audited: int
    cap: int | None = None
    """Instances of a category that are released at most."""


class Stated(NamedTuple):
    """Shares that the user vouches for, each as a range in 0 to 1, in place of what the pilot says."""

    confirmed: Limits | None = None
    """Of the pairs of frequent categories, those that stage 2 keeps."""
    released: Limits | None = None
    """Of the pairs shown, those that people keep."""


NOTHING = Stated()


class Yield(msgspec.Struct, frozen=True):
    """A mean over the pilot's images."""

    name: str
    value: float
    lower: float
    upper: float
    of: str
    """What it is measured on, or that it is stated."""


class Need(msgspec.Struct, frozen=True):
    """Images that a goal needs. None: cannot be told; `why` then says so."""

    goal: int
    value: int | None
    lower: int | None
    upper: int | None
    why: str = ""


class Amount(msgspec.Struct, frozen=True):
    """Of the whole; None: not known."""

    value: float
    lower: float
    upper: float | None


class Capped(msgspec.Struct, frozen=True):
    """What a cap does, at the images that are planned."""

    cap: int
    instances_before: float
    instances: float
    thrown_away: float
    images_lost: float
    """Images all of whose instances are thrown away."""


class Recipe(msgspec.Struct, frozen=True):
    """The plan. Amounts are for `images`; where `at_least` is set a goal needs more, and nobody can tell how many."""

    yields: list[Yield]
    needs: dict[str, Need]
    binding: str | None = None
    """The goal that needs the most images, as far as can be told; None: none of them can."""
    images: Amount | None = None
    at_least: bool = True
    shards: int | None = None
    masks: Amount | None = None
    questions: Amount | None = None
    """To stage 2."""
    looks: Amount | None = None
    """Of people at a region."""
    instances: Amount | None = None
    categories: Amount | None = None
    """Without an upper limit where that is more than `REACH` times the pilot: a lower bound."""
    capped: Capped | None = None


class Columns(NamedTuple):
    """What an image comes to in a release of some size: shape (images of the pilot,)."""

    questions: Floats
    confirmed: Floats
    shown: Floats
    instances: Floats
    images: Floats
    """Chance that something of it is released."""


class Planner:
    """Reckons with one pilot. `whole` tells why a release cannot be reckoned; empty where it can."""

    def __init__(self, pilot: Pilot, rules: Rules, stated: Stated = NOTHING) -> None:
        self.pilot, self.rules, self.stated = pilot, rules, stated
        self._met = pilot.incidence(np.ones(len(pilot.image), np.bool_))
        self._each = pilot.counts / self._met
        random = np.random.default_rng(_SEED)
        self._draws = np.empty((_DRAWS, pilot.images), np.float32)
        for row in self._draws:
            row[:] = np.bincount(random.integers(pilot.images, size=pilot.images), minlength=pilot.images)
        asked = counted(int((pilot.asked & pilot.kept).sum()), int(pilot.asked.sum()))
        self._confirmed = stated.confirmed or Limits(*asked[:3])
        self.whole = self._why_not()

    def _why_not(self) -> str:
        missing = self.pilot.missing
        if not self.stated.confirmed and CHECK in missing:
            return f"{missing[CHECK]}; or state a range with --confirmed"
        if not self.stated.confirmed and not self.pilot.asked.any():
            return "no category of the pilot was frequent, so stage 2 asked nothing; state a range with --confirmed"
        if not self.stated.released and SCREENING in missing:
            return f"{missing[SCREENING]}; or state a range with --released"
        return ""

    # --- images, as they would be in the whole ---

    def columns(self, images: int, side: Side = "value", *, cap: bool = True) -> Columns:
        """Return what the pilot's images come to in a run of so many; shares that are not exact are taken at `side`."""
        pilot, rules = self.pilot, self.rules
        kept = self._kept(self.head(images, _OPPOSITE[side]), getattr(self._confirmed, side))
        shown = np.where(pilot.flagged, 1.0, kept + rules.dropped_share * (1 - kept))
        chance = kept * self._passed(side)
        if cap and rules.cap:
            total = np.bincount(pilot.category, chance) * (images / pilot.images)
            chance = chance * np.minimum(1, rules.cap / np.maximum(total, rules.cap))[pilot.category]
        with np.errstate(divide="ignore"):
            nothing = np.exp(self._sums(np.log1p(-chance)))
        asked = self._sums(self.head(images, side) * (1 + rules.control_share))
        return Columns(asked, self._sums(kept), self._sums(shown), self._sums(chance), 1 - nothing)

    def head(self, images: int, side: Side = "value") -> Floats:
        """Return each pair's chance that its category is frequent in a run of so many images, 0 to 1.

        What is frequent in a small sample was often met by luck. If categories' rates follow a power law, as words'
        do, one that was met in k images has a rate that is Gamma(k - s), s the share of those met in one image
        (Gnedin, Hansen and Pitman, Probability Surveys 4, 2007). Each such image has as many of its pairs as here.
        At `side` s is 1, its largest, or as far below the estimate: not limits of 95 %, but wide enough in simulations.
        """
        once = float((self._met == 1).mean())
        power = {"value": once, "lower": 1.0, "upper": max(2 * once - 1, 0.0)}[side]
        wanted = self.rules.head_min_count / self._each * self.pilot.images / images
        chances = gammaincc(self._met - power, wanted)
        return np.asarray(chances[self.pilot.category], np.float64)

    def _kept(self, head: Floats, share: float) -> Floats:
        """Return each pair's chance to come through stage 2, which asks about it with the chance `head`."""
        if self.stated.confirmed:
            return np.asarray(1 - head * (1 - share), np.float64)
        return np.asarray(1 - head * np.where(self.pilot.asked, ~self.pilot.kept, 1 - share), np.float64)

    def _passed(self, side: Side) -> Floats:
        """Return each pair's chance to come through stage 3; one that was not shown has that of its like."""
        pilot = self.pilot
        if self.stated.released:
            return np.full(len(pilot.image), float(getattr(self.stated.released, side)))
        like = np.ones_like(pilot.kept) if self.stated.confirmed else ~pilot.kept
        among = pilot.decided & like
        usual = float(pilot.released[among].mean()) if among.any() else 0.0
        return np.where(pilot.decided, pilot.released.astype(np.float64), usual)

    def _sums(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.pilot.image, values, self.pilot.images), np.float64)

    def mean(self, column: Floats, side: Side = "value") -> float:
        """Return the mean over images of a column, shape (images of the pilot,), or a limit of it."""
        if side == "value":
            return float(column.mean())
        means = self._draws @ column.astype(np.float32) / len(column)
        return float(np.quantile(means, _LEVELS[side == "upper"]))

    def share(self, column: Floats, side: Side = "value") -> float:
        """Return the same of chances, with the limits of a share: drawn again, one of 1 would have no error."""
        if side == "value":
            return float(column.mean())
        right, wrong = float(column.sum()), float((1 - column).sum())
        if side == "lower":
            return beta_quantile(right, wrong + 1, _LEVELS[0])
        return 1 - beta_quantile(wrong, right + 1, _LEVELS[0])

    # --- the plan ---

    def need(self, goal: int, name: Literal["images", "instances"], *, cap: bool = True) -> Need:
        """Return how many images make so many released images or instances."""
        if self.whole:
            return Need(goal, None, None, None, self.whole)
        mean = self.share if name == "images" else self.mean

        def least(side: Side) -> int | None:
            def reached(images: int) -> float:
                return images * mean(getattr(self.columns(images, side, cap=cap), name), side)

            return smallest(goal, reached, EVERYTHING)

        value, lower, upper = (least(side) for side in ("value", "upper", "lower"))
        capped = " of the categories that the pilot knows, under the cap" if cap and self.rules.cap else ""
        why = "" if value else f"more than all of SA-1B's {EVERYTHING:,} images hold{capped}"
        return Need(goal, value, lower or EVERYTHING, upper, why)

    def need_of_categories(self, goal: int) -> Need:
        """Return how many images hold so many categories, as far as that can be told."""
        if self.whole or self.stated.released or self.stated.confirmed:
            why = self.whole or "which categories are left is not known where shares are stated"
            return Need(goal, None, None, None, why)
        pilot = self.pilot
        found = images_for(goal, pilot.incidence(self._left()), pilot.images, EVERYTHING)
        near = REACH * pilot.images
        why = f"cannot be told from so small a pilot, which reaches to {near:,} images: more than that"
        return Need(goal, found.value, found.lower, found.upper, "" if found.value else why)

    def _left(self) -> Bools:
        """Return which pairs of the pilot are released."""
        return self.pilot.kept & self.pilot.released

    def plan(self, goals: Goals) -> Recipe:
        """Return the whole plan."""
        needs = {
            "images": self.need(goals.images, "images"),
            "instances": self.need(goals.instances, "instances"),
            "categories": self.need_of_categories(goals.categories),
        }
        told = {name: need.value for name, need in needs.items() if need.value}
        if needs["categories"].lower is not None:  # told of, if only as more than the reach
            told.setdefault("categories", REACH * self.pilot.images)
        if not told:
            return Recipe(self.yields(), needs)
        return self._planned(needs, max(told, key=lambda name: told[name]), max(told.values()))

    def _planned(self, needs: dict[str, Need], binding: str, number: int) -> Recipe:
        most = needs[binding]
        images = Amount(number, most.lower or number, most.upper)
        left = {side: self.columns(number, side) for side in ("value", "lower", "upper")}

        def amount(column: str, factor: float = 1.0, more: float = 0.0, *, of: Amount = images) -> Amount:
            value, lower = (factor * self.mean(getattr(left[s], column), s) for s in ("value", "lower"))
            upper = factor * self.mean(getattr(left["upper"], column), "upper")
            last = None if of.upper is None else of.upper * upper + more
            return Amount(of.value * value + more, of.lower * lower + more, last)

        masks = self.pilot.masks.astype(np.float64)
        looks = self.rules.votes / (1 - self.rules.gold_share)
        limits = [self.mean(masks, side) for side in ("value", "lower", "upper")]
        return Recipe(
            yields=self.yields(),
            needs=needs,
            binding=binding,
            images=images,
            at_least=any(need.value is None for need in needs.values()),
            shards=math.ceil(number / IMAGES_A_SHARD),
            masks=_times(images, Limits(*limits)),
            questions=amount("questions"),
            looks=amount("shown", looks, self.rules.audited),
            instances=amount("instances", of=Amount(number, number, number)),
            categories=self._categories(number),
            capped=self._capped(number),
        )

    def _categories(self, images: int) -> Amount | None:
        if self.stated.released or self.stated.confirmed:
            return None
        found = richness(self.pilot.incidence(self._left()), self.pilot.images, images)
        return Amount(found.value, found.lower, found.upper if images <= REACH * self.pilot.images else None)

    def _capped(self, images: int) -> Capped | None:
        if not self.rules.cap:
            return None
        before, after = (self.columns(images, cap=cap) for cap in (False, True))
        all_, left = (images * self.mean(of.instances) for of in (before, after))
        lost = images * (self.mean(before.images) - self.mean(after.images))
        return Capped(self.rules.cap, all_, left, all_ - left, lost)

    # --- what the pilot itself came to ---

    def yields(self) -> list[Yield]:
        """Return the pilot's own means per image, stage by stage, as far as it went."""
        pilot = self.pilot
        of = f"{pilot.images:,} images"
        every, pairs = pilot.masks.sum(), len(pilot.image)
        found = [
            self._yield("masks kept by the rules", pilot.masks, of),
            self._yield("named", pilot.named, f"{of}, {every:,} masks"),
            self._yield("paired", self._sums(np.ones(pairs)), f"{of}, {every:,} masks"),
        ]
        if CHECK not in pilot.missing:
            kept = self._sums(pilot.kept.astype(np.float64))
            found.append(self._yield("confirmed", kept, f"{of}, {pairs:,} pairs, {pilot.asked.sum():,} asked about"))
        if SCREENING not in pilot.missing and CHECK not in pilot.missing:
            released = self._sums(self._left().astype(np.float64))
            told = f"{of}, {pilot.decided.sum():,} pairs decided"
            found += [
                self._yield("screened and released", released, told),
                self._yield("images with something released", (released > 0).astype(np.float64), told, self.share),
            ]
        stated = {"stage 2 keeps, of a head pair": self.stated.confirmed, "people keep": self.stated.released}
        return found + [Yield(name, *share, of="stated") for name, share in stated.items() if share]

    def _yield(
        self, name: str, column: Floats | Ints, of: str, mean: Callable[[Floats, Side], float] | None = None
    ) -> Yield:
        numbers, reckon = column.astype(np.float64), mean or self.mean
        return Yield(name, reckon(numbers, "value"), reckon(numbers, "lower"), reckon(numbers, "upper"), of)


def ratio(parts: Floats, wholes: Floats) -> Limits:
    """Return Σ parts / Σ wholes, both of shape (observations,), one at least, with limits by drawing them again.

    A single observation gives no limits: they equal the ratio.
    """
    random = np.random.default_rng(_SEED)
    chosen = random.integers(len(parts), size=(_DRAWS, len(parts)))
    wholes_drawn = np.maximum(wholes[chosen].sum(1), np.finfo(np.float64).tiny)
    lower, upper = np.quantile(parts[chosen].sum(1) / wholes_drawn, _LEVELS)
    return Limits(float(parts.sum() / wholes.sum()), float(lower), float(upper))


def _times(amount: Amount, by: Limits) -> Amount:
    """Multiply, each at its limit."""
    upper = None if amount.upper is None else amount.upper * by.upper
    return Amount(amount.value * by.value, amount.lower * by.lower, upper)
