"""The test: scenes that were never trained on, named mask by mask, as the authors' evaluation does.

`WowSeg.name` answers for every mask as if it were the only one. For a single mask the branches' sequence and the packed
one are the same, with the same positions and the same attention, so that no setting is tested in a foreign layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from model.ablation import scenes, world
from model.ablation.rougher import Kind, rougher
from model.ablation.scenes import Region
from model.wowseg import WowSeg

_WORLD = 0
_LONGEST = 6
"""Tokens of an answer; the longest name has three and its end."""
_COMMON = 8
"""Kinds of things whose names count as common: half of all things there are."""

GROUPS = ("common names", "rare names", "parts", "ground decides", "ground does not")


class Scored(msgspec.Struct):
    """What came of one kind of masks; lists have a number for each scene."""

    masks: list[int]
    overlap: list[float]
    """Sum over its masks of the words that answer and name share, over the words that either has: the paper's Semantic
    IoU, which is what settings are compared by"""
    exact: list[int]
    """Masks whose answer is their name"""
    macro: float
    """Mean over all names that occur of the share of exact answers"""
    groups: dict[str, tuple[int, int]]
    """Exact answers and masks of each of `GROUPS`; things are common or rare, and the ground decides or does not"""


def score(model: WowSeg, number: int, kind: Kind = "true") -> Scored:
    """Name all regions of so many scenes, by masks of a kind."""
    found = [_answers(model, scenes.scene(_WORLD, place), kind) for place in range(number)]
    return summary(found)


def summary(found: Sequence[Sequence[tuple[Region, str]]]) -> Scored:
    """Sum up the answers to all regions of each scene."""
    right: dict[str, list[bool]] = {}
    grouped: dict[str, list[bool]] = {group: [] for group in GROUPS}
    for region, answer in (pair for pairs in found for pair in pairs):
        exact = answer == region.label
        right.setdefault(region.label, []).append(exact)
        for group in groups(region):
            grouped[group].append(exact)
    return Scored(
        masks=[len(pairs) for pairs in found],
        overlap=[sum(overlap(answer, region.label) for region, answer in pairs) for pairs in found],
        exact=[sum(answer == region.label for region, answer in pairs) for pairs in found],
        macro=float(np.mean([np.mean(each) for each in right.values()])),
        groups={group: (sum(each), len(each)) for group, each in grouped.items()},
    )


def overlap(answer: str, label: str) -> float:
    """Return words in common over words in all, 0 to 1, a colon being none (wowseg_facts.md A.2)."""
    first, second = (set(text.lower().replace(":", " ").split()) for text in (answer, label))
    return len(first & second) / len(first | second) if first | second else 0.0


def groups(region: Region) -> list[str]:
    """Return those of `GROUPS` that a region belongs to."""
    if region.part:
        return ["parts"]
    material = region.label.split()[0]
    common = (material, region.shape) in world.kinds()[0][:_COMMON]
    decides = world.depends(region.shape)
    return ["common names" if common else "rare names", "ground decides" if decides else "ground does not"]


def _answers(model: WowSeg, scene: scenes.Scene, kind: Kind) -> list[tuple[Region, str]]:
    shown = [rougher(region.pixels, kind) for region in scene.regions]
    named = model.name(scene.image, shown, most_tokens=_LONGEST)
    return [(region, one.label) for region, one in zip(scene.regions, named, strict=True)]
