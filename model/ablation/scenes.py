"""Scenes of the made-up world: things on two grounds, crowded, so that a window around one shows its neighbours too.

Every scene follows from two numbers and from nothing else.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from model.ablation import world
from model.ablation.world import Bools, Colour, Floats, Material, Part
from pipeline import masks

SIDE = 112
"""px of a scene: a tile of the debug model."""
_RADII = 10.0, 17.0
"""px of a thing, least and most"""
_THINGS = 4, 6
"""How many are wanted, least and most; where no room is left, fewer come"""
_TRIES = 12
"""Places that are tried for a thing"""
_PARTED = 0.5
"""Share of things that carry a part"""
_PART_RADIUS = 0.35
"""of its thing's"""
_PERIOD = 6.0
"""px of a pattern"""
_JITTER, _NOISE = 12.0, 6.0
"""Of colours: standard deviations over things, and over pixels"""
_WAVES = 12.0
"""How far they move the colour of a ground"""
_TURN = 0.5
"""Radians that a thing is turned at most"""
_RIM: Colour = (0, 0, 0)

Random = np.random.Generator


class Region(NamedTuple):
    """A thing or a part that has a name."""

    pixels: Bools
    """(SIDE, SIDE); a part's lie within its thing's"""
    label: str
    part: bool
    shape: str
    """Of the whole thing"""
    water: bool
    """Whether that lies on water"""


class Scene(NamedTuple):
    """A picture with its named regions, at least one."""

    image: Image.Image
    regions: list[Region]

    def masks(self) -> list[dict[str, Any]]:
        """Return the regions as COCO RLEs."""
        return [{"size": [SIDE, SIDE], "counts": masks.encode(region.pixels)} for region in self.regions]

    def labels(self) -> list[str]:
        """Return their names."""
        return [region.label for region in self.regions]


class _Thing(NamedTuple):
    """Where a thing is; arrays of the window that holds it."""

    window: tuple[slice, slice]
    """Rows and columns of the scene"""
    pixels: Bools
    u: Floats
    v: Floats
    """Its own coordinates, from -1 to 1 within it"""
    radius: float


class _Canvas:
    """A picture as it is painted."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.taken = np.zeros((SIDE, SIDE), np.bool_)
        self.regions: list[Region] = []
        self._lay()

    def _lay(self) -> None:
        """Cover it with two grounds, on both sides of a line near its middle."""
        angle, offset = self.random.uniform(0, 2 * np.pi), self.random.normal(0, SIDE / 8)
        x, y = np.arange(SIDE) - SIDE / 2, np.arange(SIDE)[:, None] - SIDE / 2
        self.side = x * np.cos(angle) + y * np.sin(angle) > offset
        chosen = self.random.choice(list(world.GROUNDS), 2, replace=False)
        grounds = [world.GROUNDS[name] for name in chosen.tolist()]
        waves = [_WAVES * np.sin(ground.waves * (x * np.sin(1 + angle) + y)) for ground in grounds]
        painted = [wave[..., None] + ground.colour for ground, wave in zip(grounds, waves, strict=True)]
        self.pixels: Floats = np.where(self.side[..., None], painted[1], painted[0])
        self.water = [ground.water for ground in grounds]

    def add(self) -> None:
        """Put a thing somewhere on one of the grounds, perhaps with a part; none where there is no room."""
        kinds, shares = world.kinds()
        kind = kinds[self.random.choice(len(kinds), p=shares)]
        thing = self._placed(kind.shape)
        if thing is None:
            return
        material = world.MATERIALS[kind.material]
        self._paint(thing, thing.pixels, _colours(material, thing.u * thing.radius, thing.v * thing.radius))
        water = self.water[int(self.side[thing.window][thing.pixels][0])]
        noun = world.noun(kind.shape, water)
        self._name(thing, thing.pixels, f"{kind.material} {noun}", False, kind.shape, water)
        if self.random.random() < _PARTED:
            name = str(self.random.choice(list(world.PARTS)))
            pixels = self._attached(world.PARTS[name], thing)
            self._name(thing, pixels, f"{noun}: {name}", True, kind.shape, water)

    def _placed(self, shape: str) -> _Thing | None:
        for _ in range(_TRIES):
            radius, turn = self.random.uniform(*_RADII), self.random.uniform(-_TURN, _TURN)
            x, y = self.random.uniform(radius + 1, SIDE - radius - 2, 2)
            left, top, width = int(x - radius), int(y - radius), int(2 * radius) + 2
            window = slice(top, top + width), slice(left, left + width)
            across, down = (left + np.arange(width) - x) / radius, (top + np.arange(width)[:, None] - y) / radius
            u, v = across * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - across * np.sin(turn)
            pixels = world.SHAPES[shape](u, v)
            sides = self.side[window][pixels]
            if sides.all() == sides.any() and not self.taken[window][pixels].any():
                self.taken[window] |= _grown(pixels)
                return _Thing(window, pixels, u, v, radius)
        return None

    def _attached(self, part: Part, thing: _Thing) -> Bools:
        """Paint a part around a pixel of a thing; return what of it lies within."""
        row, column = np.argwhere(thing.pixels)[self.random.integers(thing.pixels.sum())]
        radius, places = _PART_RADIUS * thing.radius, np.arange(len(thing.pixels))
        found = world.SHAPES[part.shape]((places - column) / radius, (places[:, None] - row) / radius) & thing.pixels
        self._paint(thing, found, np.broadcast_to(np.array(part.colour, np.float64), (*found.shape, 3)))
        self.pixels[thing.window][found & _grown(~found)] = _RIM
        return found

    def _paint(self, thing: _Thing, pixels: Bools, colours: Floats) -> None:
        self.pixels[thing.window][pixels] = colours[pixels] + self.random.normal(0, _JITTER, 3)

    def _name(self, thing: _Thing, pixels: Bools, label: str, part: bool, shape: str, water: bool) -> None:
        whole = np.zeros((SIDE, SIDE), np.bool_)
        whole[thing.window] = pixels
        self.regions.append(Region(whole, label, part, shape, water))

    def image(self) -> Image.Image:
        """Return it with noise."""
        noisy = self.pixels + self.random.normal(0, _NOISE, self.pixels.shape)
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def scene(seed: int, number: int) -> Scene:
    """Return one scene, the same wherever it is made; both numbers are 0 or more."""
    for attempt in itertools.count():
        random = np.random.default_rng([seed, number, attempt])
        canvas = _Canvas(random)
        for _ in range(random.integers(_THINGS[0], _THINGS[1] + 1)):
            canvas.add()
        if canvas.regions:
            break
    return Scene(canvas.image(), canvas.regions)


def _colours(material: Material, x: Floats, y: Floats) -> Floats:
    """Return the colour of every pixel, by a thing's own coordinates in px; (…, 3)."""
    row, column = np.floor(y / _PERIOD * 2) % 2, np.floor(x / _PERIOD * 2) % 2
    other = {
        "plain": np.zeros_like(x, np.bool_),
        "striped": row == 0,
        "checked": row != column,
        "dotted": (row == 0) & (column == 0),
    }[material.pattern]
    return np.where(other[..., None], material.other, material.colour).astype(np.float64)


def _grown(pixels: Bools) -> Bools:
    """Return the pixels and those beside them."""
    around = np.pad(pixels, 1)
    return around[1:-1, 1:-1] | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
