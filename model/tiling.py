"""The image side of InternVL: a photograph becomes a grid of square tiles and a thumbnail.

Facts of the authors' code: reference/wowseg_facts.md C.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.images import Size

SIDE = 448
"""px of a tile in every published InternVL."""
TRAIN, TEST = 4, 12
"""The most tiles of an image, without the thumbnail, in the authors' training and evaluation."""

Pixels = npt.NDArray[np.uint8]
"""(pictures, side, side, 3), RGB"""


class Tiling(NamedTuple):
    """An image as the model sees it."""

    resized: Image.Image
    """The image stretched to whole tiles; crops of regions are cut from it."""
    tiles: list[Image.Image]
    """Row by row; then, if there are several, the thumbnail."""


def grid(size: Size, most: int, side: int = SIDE) -> tuple[int, int]:
    """Return (columns, rows), at most `most` tiles, whose shape is nearest the image's, `size` = (width, height) px.

    Of two equally near, the larger if the image has more than half its pixels. (Two of the same number of tiles are
    never both nearest, so their order means nothing.)
    """
    width, height = size
    grids = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    best, nearest = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda one: one[0] * one[1]):
        far = abs(width / height - columns / rows)
        if far < nearest or (far == nearest and width * height > 0.5 * side * side * columns * rows):
            best, nearest = (columns, rows), far
    return best


def cut(image: Image.Image, most: int, side: int = SIDE) -> Tiling:
    """Stretch an RGB image to whole tiles of `side` px and cut it; orientation in EXIF is ignored, as by the masks."""
    columns, rows = grid(image.size, most, side)
    resized = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    corners = [(column * side, row * side) for row in range(rows) for column in range(columns)]
    tiles = [resized.crop((left, top, left + side, top + side)) for left, top in corners]
    if len(tiles) > 1:
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    return Tiling(resized, tiles)


def pixels(pictures: Sequence[Image.Image], side: int = SIDE) -> Pixels:
    """Scale RGB pictures of any size to `side` px square, bicubic, shape (pictures, side, side, 3)."""
    scaled = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    return np.stack([np.asarray(picture, np.uint8) for picture in scaled])
