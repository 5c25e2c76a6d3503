"""What there is in the made-up open world, and what it is called.

A thing has a material and a shape, and lies on land or on water. Its name is the material and a noun: `striped boat`.
Four of the eight shapes are called otherwise on water than on land: the same bar is a log or a boat, so that what it
lies on decides. A part is named after its whole: `boat: lamp`. How often a material and a shape go together follows
Zipf's law: few names are common, most are rare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Colour = tuple[int, int, int]
Shape = Callable[[Floats, Floats], Bools]
"""Which points (u, v) belong to it, both from -1 to 1."""

_ZIPF = 1.0
"""Exponent: the kind of rank r is r to the minus this as common as the first."""
_ORDER = 7
"""Seed of the ranks: any will do."""


class Kind(NamedTuple):
    """A material and a shape that go together."""

    material: str
    shape: str


class Material(NamedTuple):
    """How a thing is painted; plain if both colours are the same."""

    pattern: str
    colour: Colour
    other: Colour


class Ground(NamedTuple):
    """What things lie on."""

    water: bool
    colour: Colour
    waves: float
    """Radians a px"""


class Part(NamedTuple):
    """What a thing may carry."""

    shape: str
    colour: Colour


SHAPES: Mapping[str, Shape] = {
    "disc": lambda u, v: u**2 + v**2 < 1,
    "bar": lambda u, v: (abs(u) < 1) & (abs(v) < 0.4),
    "triangle": lambda u, v: (v < 0.85) & (v > 1.9 * abs(u) - 0.95),
    "ring": lambda u, v: (u**2 + v**2 < 1) & (u**2 + v**2 > 0.25),
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.8,
    "star": lambda u, v: np.hypot(u, v) < 0.6 + 0.4 * np.cos(5 * np.arctan2(v, u)),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 0.95),
    "crescent": lambda u, v: (u**2 + v**2 < 1) & ((u - 0.5) ** 2 + v**2 > 0.6),
}

NOUNS: Mapping[str, tuple[str, str]] = {
    "disc": ("ball", "buoy"),
    "bar": ("log", "boat"),
    "triangle": ("tent", "sail"),
    "ring": ("wheel", "float"),
    "square": ("box", "box"),
    "star": ("star", "star"),
    "cross": ("cross", "cross"),
    "crescent": ("moon", "moon"),
}
"""What a shape is called on land, and on water."""

MATERIALS: Mapping[str, Material] = {
    "red": Material("plain", (210, 30, 30), (210, 30, 30)),
    "blue": Material("plain", (30, 30, 220), (30, 30, 220)),
    "golden": Material("plain", (250, 200, 20), (250, 200, 20)),
    "white": Material("plain", (245, 245, 245), (245, 245, 245)),
    "purple": Material("plain", (150, 40, 170), (150, 40, 170)),
    "striped": Material("striped", (250, 250, 250), (30, 30, 30)),
    "dotted": Material("dotted", (250, 240, 230), (220, 20, 60)),
    "checked": Material("checked", (20, 20, 20), (250, 210, 0)),
}

GROUNDS: Mapping[str, Ground] = {
    "meadow": Ground(False, (70, 150, 60), 0.9),
    "sand": Ground(False, (215, 190, 135), 0.5),
    "lake": Ground(True, (70, 130, 190), 0.25),
    "swamp": Ground(True, (70, 105, 105), 0.4),
}

PARTS: Mapping[str, Part] = {
    "lamp": Part("disc", (255, 255, 120)),
    "hatch": Part("square", (60, 40, 20)),
}


def noun(shape: str, water: bool) -> str:
    """Return what a shape is called on land or on water."""
    return NOUNS[shape][water]


def depends(shape: str) -> bool:
    """Say whether what a thing lies on decides its name."""
    land, water = NOUNS[shape]
    return land != water


@cache
def kinds() -> tuple[tuple[Kind, ...], Floats]:
    """Return all materials with all shapes, the commonest first, and the share of each, which add up to 1."""
    found = [Kind(material, shape) for material in MATERIALS for shape in SHAPES]
    order = np.random.default_rng(_ORDER).permutation(len(found))
    weights = 1 / np.arange(1, len(found) + 1) ** _ZIPF
    return tuple(found[place] for place in order), weights / weights.sum()


def names() -> list[str]:
    """Return every name there is: things, the commonest kinds first, then parts."""
    things = [f"{kind.material} {one}" for kind in kinds()[0] for one in NOUNS[kind.shape]]
    parts = [f"{one}: {part}" for both in NOUNS.values() for one in both for part in PARTS]
    return list(dict.fromkeys([*things, *parts]))
