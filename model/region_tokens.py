"""How many tokens stand for a mask, told from run lengths alone: no photograph is needed for that."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from model import mask2token, tiling
from model.inputs import Preparer
from pipeline.images import Size


def count(preparer: Preparer, size: Size, counts: Sequence[str]) -> list[int]:
    """Count the tokens of each mask of an image, `size` (width, height) px, as `preparer` shows it to its model.

    `counts` are sound, non-empty COCO compressed RLEs of that size.
    """
    settings, side = preparer.settings, preparer.side
    columns, rows = tiling.grid(size, settings.tiles, side)
    blank = Image.new("RGB", (columns * side, rows * side))
    shown = mask2token.encode(blank, size, counts, scale=settings.scale, grid=preparer.grid, encoder=settings.encoder)
    return [int(region.cells.sum()) for region in shown.regions]
