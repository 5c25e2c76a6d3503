"""Masks of everything in an image, as SAM's generator makes them: a grid of points, the good masks, no doubles.

Rules and numbers: segment-anything, automatic_mask_generator.py, without its crops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline import masks
from pipeline.images import Size
from pipeline.segmenters import Floats, Look, Proposal


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Which masks are good; the numbers are the generator's."""

    points: int = 32
    """Along each side of the image."""
    predicted_iou: float = 0.88
    """The least."""
    stability: float = 0.95
    """The least IoU of the masks of a lower and a higher threshold."""
    overlap: float = 0.7
    """IoU of two boxes above which the worse mask is a double of the better."""


class _Good(NamedTuple):
    counts: str
    area: int
    box: tuple[int, int, int, int]
    """First and last column and row (left, top, right, bottom), inclusive, as the generator's."""
    predicted_iou: float


def grid(size: Size, points: int) -> Floats:
    """Return `points` × `points` places, spread evenly over an image of `size` (width, height), px, (N, 2)."""
    along = (np.arange(points, dtype=np.float32) + 0.5) / points
    x, y = np.meshgrid(along * size[0], along * size[1])
    return np.stack([x.ravel(), y.ravel()], 1)


def everything(
    look: Look,
    size: Size,
    rules: Rules = Rules(),  # noqa: B008 (frozen)
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Return the masks of an image of `size` (width, height) as COCO compressed RLE, the largest first.

    `told` hears of the points that are done, and of how many there are.
    """
    places, good = grid(size, rules.points), list[_Good]()
    for number, found in enumerate(look.points(places, rules.predicted_iou), 1):
        for proposal in found:
            if proposal.stability >= rules.stability and proposal.mask.any():
                good.append(_good(proposal))
        told(number, len(places))
    return [one.counts for one in sorted(_without_doubles(good, rules.overlap), key=lambda one: -one.area)]


def _good(proposal: Proposal) -> _Good:
    rows, columns = np.flatnonzero(proposal.mask.any(1)), np.flatnonzero(proposal.mask.any(0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
    return _Good(masks.encode(proposal.mask), int(proposal.mask.sum()), box, proposal.predicted_iou)


def _without_doubles(good: list[_Good], overlap: float) -> list[_Good]:
    import torch
    from torchvision.ops import nms

    if not good:
        return []
    boxes = torch.tensor([one.box for one in good], dtype=torch.float32)
    kept = nms(boxes, torch.tensor([one.predicted_iou for one in good]), overlap)
    return [good[place] for place in kept.tolist()]
