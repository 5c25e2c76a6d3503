"""How much is trained and tested, and what that can tell apart: plan.toml, checked."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from scipy.special import stdtrit

from model.ablation.intervals import Spread, spread_of_masks, spread_of_training

FormName = Literal["full", "quick"]

_FILE = Path(__file__).with_name("plan.toml")
_POWER = 0.8
_ERROR = 0.05

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long the whole is."""

    steps: Positive
    """Of training, the same for every setting"""
    seeds: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
    scenes: Positive
    """For the test"""


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How weights are updated, the same for every setting; the rest as in `OptimisationConfig`."""

    batch: Positive
    """Scenes a step"""
    rate: float
    warmup: float


class Pilot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Word overlap × 100 in trainings of the quick form before any comparison; a number for each of their seeds.

    More steps only bring seeds closer together, so the full form is not promised too much.
    """

    training: dict[str, list[float]]
    """By setting"""
    masks: dict[str, list[float]]
    """Of branches, by the kind of masks shown"""

    def of_training(self) -> Spread:
        """Return how far seeds move a setting."""
        return spread_of_training(list(self.training.values()))

    def of_masks(self) -> Spread:
        """Return how far seeds move one kind of masks against another."""
        return spread_of_masks(list(self.masks.values()))


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that was fixed beforehand."""

    learning: Learning
    full: Form
    quick: Form
    pilot: Pilot
    changes: list[str]
    """What was changed after the first comparison, each of which made all cells anew."""

    def form(self, name: FormName) -> Form:
        """Return a form by its name."""
        return self.full if name == "full" else self.quick


def load(path: Path = _FILE) -> Plan:
    """Read the plan. Raises `msgspec.ValidationError`."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Plan)


def resolved(spread: Spread, seeds: int) -> float:
    """Return the least true difference, in points, that is told from 0 with 80 % power; chance of scenes left out."""
    quantiles = stdtrit(spread.freedom, 1 - _ERROR / 2) + stdtrit(spread.freedom, _POWER)
    return float(quantiles) * spread.points * math.sqrt(2 / seeds)
