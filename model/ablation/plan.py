"""How much is trained and tested, and what that can tell apart: plan.toml, checked."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from scipy.special import stdtrit

from model.ablation import intervals
from model.ablation.intervals import Spread, Spreads

FormName = Literal["full", "quick"]

_FILE = Path(__file__).with_name("plan.toml")
_POWER = 0.8
_ERROR = 0.05

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Seeds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Trainings of each setting, by the way in which it learns; seeds are 0 and on."""

    branches: Positive
    packed: Positive
    single: Positive


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the whole is."""

    steps: Positive
    """Of training, the same for every setting"""
    seeds: Seeds
    scenes: Positive
    """For the test"""

    def seeds_of(self, what: str) -> int:
        """Return how many seeds stand behind a field of `Spreads`."""
        return int(getattr(self.seeds, "branches" if what == "masks" else what))


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How weights are updated, the same for every setting; the rest as in `OptimisationConfig`."""

    batch: Positive
    """Scenes a step"""
    rate: float
    warmup: float


class Pilot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Word overlap × 100 in trainings made before any comparison; a number for each of their seeds."""

    branches: list[float]
    packed: list[float]
    """Of MM without rules"""
    single: list[float]
    """Of SM"""
    masks: dict[str, list[float]]
    """Of branches, by the kind of masks shown"""

    def spreads(self) -> Spreads:
        """Return how far seeds move values."""
        of = intervals.spread_of_training
        masks = intervals.spread_of_masks(list(self.masks.values()))
        return Spreads(of([self.branches]), of([self.packed]), of([self.single]), masks)


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that was fixed beforehand."""

    learning: Learning
    full: Form
    quick: Form
    full_pilot: Pilot
    quick_pilot: Pilot
    changes: list[str]
    """What was changed after the first comparison, each of which made all cells anew."""

    def form(self, name: FormName) -> Form:
        """Return a form by its name."""
        return self.full if name == "full" else self.quick

    def pilot(self, name: FormName) -> Pilot:
        """Return what a form rests on."""
        return self.full_pilot if name == "full" else self.quick_pilot


def load(path: Path = _FILE) -> Plan:
    """Read the plan. Raises `msgspec.ValidationError`."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Plan)


def resolved(spread: Spread, seeds: int) -> float:
    """Return the least true difference, in points, that is told from 0 with 80 % power; chance of scenes left out.

    Of two rows of so many seeds each, whose spread is known with its own freedom.
    """
    quantiles = stdtrit(spread.freedom, 1 - _ERROR / 2) + stdtrit(spread.freedom, _POWER)
    return float(quantiles) * spread.points * math.sqrt(2 / seeds)
