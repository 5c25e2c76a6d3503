"""Mask2Token, the paper's region encoder: which part of the image a mask is shown in, and which tokens of it it keeps.

Around the mask a window with context is cut from the resized image and encoded like a tile; of its grid of tokens those
under the mask stand for the region. Rules and numbers: reference/wowseg_facts.md C.3. Fore2Token and Blur2Token, the
paper's comparisons, keep all tokens of a window whose background is white, or blurred (C.4).

The mask is never decoded beyond its own box, nor made at the resized image's size: only what is asked for is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from pycocotools import mask as coco

from pipeline import masks
from pipeline.images import Box, Size

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Encoder = Literal["mask2token", "fore2token", "blur2token"]

GRID = 16
"""Tokens along a side of a tile in every published InternVL: 448 px, patches of 14, shuffled 2 × 2."""
SCALE = 2.0
"""Sides of the window over sides of the mask, the paper's default; the authors' demo has 2.5."""

_BLUR_PX = 10  # standard deviation (paper, App. D); at the window's own resolution, which the paper leaves open
_WHITE = (255, 255, 255)


class Region(NamedTuple):
    """How a mask is shown to the model."""

    window: Box
    """px of the resized image."""
    cells: Bools
    """Which tokens of the window stand for the region, (grid, grid); at least one."""
    rescued: bool
    """The mask fell between all cells, and keeps the one that holds the largest share of it."""


class Regions(NamedTuple):
    """The regions of one image, in the order of their masks."""

    regions: list[Region]
    pictures: list[Image.Image]
    """What is encoded for each: RGB, of its window's size."""


def encode(
    resized: Image.Image,
    size: Size,
    counts: Sequence[str],
    *,
    scale: float = SCALE,
    grid: int = GRID,
    encoder: Encoder = "mask2token",
) -> Regions:
    """Cut the window of each mask of an image and choose its tokens.

    `resized` is the image stretched to whole tiles, `size` (width, height) the original's; `counts` are sound,
    non-empty COCO compressed RLEs of that size; `grid` is the number of tokens along a side.
    """
    scaled = [_Scaled(text, size, box, resized.size) for text, box in zip(counts, _boxes(counts, size), strict=True)]
    regions = [_region(mask, scale, grid) for mask in scaled]
    pictures = [resized.crop(region.window) for region in regions]
    if encoder != "mask2token":
        pairs = zip(pictures, scaled, regions, strict=True)
        pictures = [_against(encoder, picture, mask.inside(one.window)) for picture, mask, one in pairs]
        regions = [region._replace(cells=np.ones((grid, grid), np.bool_), rescued=False) for region in regions]
    return Regions(regions, pictures)


def window(box: tuple[int, int, int, int], size: Size, scale: float) -> Box:
    """Return the window around a mask, px: a square of `scale` times its longer side, shifted and cut to the image.

    `box` is the mask's first and last column and row (left, top, right, bottom), all inclusive; `size` the image's
    (width, height).
    """
    left, top, right, bottom = box
    side = scale * max(right - left + 1, bottom - top + 1)
    first_x, last_x = _span(left, right, side, size[0])
    first_y, last_y = _span(top, bottom, side, size[1])
    return first_x, first_y, last_x + 1, last_y + 1


def _span(first: int, last: int, side: float, length: int) -> tuple[int, int]:
    """Return the window's first and last pixel along one axis: usually `side` + 1 of them, as the authors cut it."""
    side, centre = min(side, length), (first + last) / 2
    start, end = max(0, int(centre - side / 2)), min(length - 1, int(centre + side / 2))
    if end - start + 1 < side:
        if start == 0:
            end = min(length - 1, int(start + side))
        else:
            start = max(0, int(end - side))
    return start, end


def sources(original: int, scaled: int) -> Ints:
    """Return the pixel from which nearest sampling takes each of `scaled` pixels, shape (scaled,).

    In float32, as torch's `interpolate` does it: where a place falls on a pixel's edge, rounding decides.
    """
    places = np.arange(scaled, dtype=np.float32) * (np.float32(original) / np.float32(scaled))
    found: Ints = np.floor(places).astype(np.int64).clip(max=original - 1)
    return found


class _Scaled:
    """A mask as nearest sampling scales it to the resized image."""

    def __init__(self, counts: str, size: Size, box: Box, resized: Size) -> None:
        self.size = resized
        left, top, right, bottom = box
        pixels = masks.decode_window(counts, size[1], box)
        self._pixels = np.pad(pixels, 1)  # around it, background
        self._columns = np.clip(sources(size[0], resized[0]) - left + 1, 0, right - left + 1)
        self._rows = np.clip(sources(size[1], resized[1]) - top + 1, 0, bottom - top + 1)
        y, x = np.nonzero(pixels)
        self._places = (x + left + 0.5) * resized[0] / size[0], (y + top + 0.5) * resized[1] / size[1]

    def at(self, rows: Ints, columns: Ints) -> Bools:
        """Return the scaled mask at some rows and columns, shape (rows, columns)."""
        found: Bools = self._pixels[np.ix_(self._rows[rows], self._columns[columns])]
        return found

    def inside(self, box: Box) -> Bools:
        """Return the scaled mask within a window, shape (height, width)."""
        return self.at(np.arange(box[1], box[3]), np.arange(box[0], box[2]))

    def box(self) -> tuple[int, int, int, int]:
        """Return the first and last column and row (left, top, right, bottom), inclusive.

        Where sampling has missed the whole mask, those of the one pixel that holds the largest share of it.
        """
        in_columns: Bools = np.logical_or.reduce(self._pixels[np.unique(self._rows)], 0)
        in_rows: Bools = np.logical_or.reduce(self._pixels[:, np.unique(self._columns)], 1)
        columns, rows = np.flatnonzero(in_columns[self._columns]), np.flatnonzero(in_rows[self._rows])
        if not len(rows) or not len(columns):
            row, column = self.fullest((0, 0, *self.size), (self.size[1], self.size[0]))
            return column, row, column, row
        return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])

    def fullest(self, box: Box, shape: tuple[int, int]) -> tuple[int, int]:
        """Cut a window into (rows, columns) cells; return row and column of the cell with most of the mask."""
        left, top, right, bottom = box
        column = np.clip((self._places[0] - left) * shape[1] / (right - left), 0, shape[1] - 1).astype(np.int64)
        row = np.clip((self._places[1] - top) * shape[0] / (bottom - top), 0, shape[0] - 1).astype(np.int64)
        cells, held = np.unique(row * shape[1] + column, return_counts=True)
        found = divmod(int(cells[held.argmax()]), shape[1])
        return found[0], found[1]


def _boxes(counts: Sequence[str], size: Size) -> list[Box]:
    """Return the box of each mask in the original image, px."""
    if not counts:
        return []
    found = coco.toBbox([{"size": [size[1], size[0]], "counts": text.encode()} for text in counts]).astype(int)
    return [(left, top, left + width, top + height) for left, top, width, height in found.tolist()]


def _region(mask: _Scaled, scale: float, grid: int) -> Region:
    left, top, right, bottom = place = window(mask.box(), mask.size, scale)
    rows = top + np.arange(grid) * (bottom - top) // grid
    columns = left + np.arange(grid) * (right - left) // grid
    cells = mask.at(rows, columns)
    rescued = not cells.any()
    if rescued:
        cells[mask.fullest(place, (grid, grid))] = True
    return Region(place, cells, rescued)


def _against(encoder: Encoder, picture: Image.Image, foreground: Bools) -> Image.Image:
    """Put a region on white, or on its own blurred surroundings."""
    white = encoder == "fore2token"
    background = Image.new("RGB", picture.size, _WHITE) if white else picture.filter(ImageFilter.GaussianBlur(_BLUR_PX))
    background.paste(picture, mask=Image.fromarray(foreground))
    return background
