"""Operations by the number of masks, counted on the 1B and on the debug size, to stand beside measured throughput."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from model import flops
from model.ablation import training
from model.ablation.report import Speed
from model.ablation.settings import SETTINGS
from model.flops import Lengths

MASKS = (1, 8, 16, 32)
PICTURES = (1, 5, 13)
"""Tiles of an image with their thumbnail"""
_SCENES = 64
"""Of the world, whose masks and tokens are averaged"""
_LABEL = 3
"""Tokens of a name with its end, nearly always: two words"""


class Counted(msgspec.Struct):
    """Forward passes of the 1B in training, TFLOP by `MASKS`, for an image of so many pictures."""

    pictures: int
    together: list[float]
    """All masks in one pass"""
    apart: list[float]
    """A pass for each mask"""


class Efficiency(msgspec.Struct):
    """Counted beside measured."""

    counted: list[Counted]
    expected: float
    """How many times more masks per operation the debug size learns from many masks than from single ones"""
    measured: float
    """And how many times more masks a second it did"""


def measure(speeds: Sequence[Speed]) -> Efficiency:
    """Count, and compare with what was measured here."""
    by_name = {speed.setting: speed for speed in speeds}
    many, single = by_name["branches"], by_name["sm"]
    return Efficiency(_real(), _expected(), many.masks_per_second / single.masks_per_second)


def _real() -> list[Counted]:
    network = flops.on_meta(flops.internvl3_1b())
    found = []
    for pictures in PICTURES:
        together = [flops.count(network, pictures, masks).forward / 1e12 for masks in MASKS]
        found.append(Counted(pictures, together, [masks * together[0] for masks in MASKS]))
    return found


def _expected() -> float:
    """Count on the debug size, for images with as many masks and tokens as those of the world have on average."""
    setting = SETTINGS["branches"]
    model = training.fresh(setting, 0)
    samples = [training.sample(model, setting, 0, number) for number in range(_SCENES)]
    masks = sum(len(one.rescued) for one in samples)
    region = sum(int(one.cells[1:].sum()) for one in samples) / masks
    text = model.preparer.text
    branch, prefix = 2 + len(text.infix), len(text.before) + 2 + len(text.between)
    lengths = Lengths(prefix, branch, round(region), _LABEL)
    network, each = flops.on_meta(model.network.config), round(masks / _SCENES)
    one, many = (flops.count(network, 1, number, lengths).forward for number in (1, each))
    return each * one / many
