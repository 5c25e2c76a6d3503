"""Named masks drawn on their picture: tinted, outlined, with the names for which there is room."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from model.scenes import Region
from pipeline import masks
from pipeline.images import Box, outline
from pipeline.segmenters import Bools

Colour = tuple[int, int, int]

_TINT = 0.35  # share of the colour inside a mask
_TURN = 0.618034  # golden ratio: neighbours in the list are far apart in hue
_SHADES = ((0.75, 1.0), (0.9, 0.75), (0.5, 1.0))  # saturation and value, in turn
_INK = (255, 255, 255)
_PLATE = (20, 20, 20)
_LONGEST = 32  # characters of a name
_TEXT = 60, 14  # of the picture's longer side, the text's height is one such part; px at least


def colour(number: int) -> Colour:
    """Return the colour of the mask of that place in the list."""
    saturation, value = _SHADES[number % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(number * _TURN % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def line(label: str) -> str:
    """Make one line of a name, not too long, of characters that can be shown."""
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in label).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def draw(image: Image.Image, regions: Sequence[Region], only: int | None = None) -> Image.Image:
    """Draw regions, the largest below; with `only`, one of them alone, in its colour."""
    pixels = np.array(image)
    shown = [number for number in range(len(regions)) if only in (None, number)]
    shown.sort(key=lambda number: -regions[number].area)
    reach = 1 + max(image.size) // 1500
    for number in shown:
        _tint(pixels, regions[number], np.array(colour(number)), reach)
    drawn = Image.fromarray(pixels)
    _Labels(drawn).write([(regions[number], colour(number)) for number in shown])
    return drawn


def _tint(pixels: npt.NDArray[np.uint8], region: Region, ink: npt.NDArray[np.int64], reach: int) -> None:
    height, width = pixels.shape[:2]
    left, top, right, bottom = region.box
    box = max(0, left - reach), max(0, top - reach), min(width, right + reach), min(height, bottom + reach)
    mask = masks.decode_window(region.counts, height, box)
    part = pixels[box[1] : box[3], box[0] : box[2]]
    part[mask] = part[mask] * (1 - _TINT) + ink * _TINT
    part[outline(mask, reach)] = ink


def inner_point(mask: Bools) -> tuple[int, int]:
    """Return column and row of the pixel of a non-empty mask that is farthest from its edge."""
    from scipy.ndimage import distance_transform_edt

    step = 1 + max(mask.shape) // 128  # a coarser mask will do
    coarse = mask[::step, ::step]
    if not coarse.any():
        row, column = np.argwhere(mask)[0]
        return int(column), int(row)
    far = distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(far.argmax(), far.shape)
    return int(column) * step, int(row) * step


class _Labels:
    """Names on a picture; none covers another: larger masks choose first, and what finds no room is left out."""

    def __init__(self, picture: Image.Image) -> None:
        self._size, self._ink = picture.size, ImageDraw.Draw(picture)
        height = max(_TEXT[1], max(picture.size) // _TEXT[0])
        self._font, self._margin = ImageFont.load_default(height), height // 4

    def write(self, shown: Sequence[tuple[Region, Colour]]) -> None:
        taken: list[Box] = []
        for region, edge in shown:
            text = line(region.label)
            box = next((box for box in self._places(region, text) if not any(_meet(box, one) for one in taken)), None)
            if box:
                taken.append(box)
                self._ink.rectangle(box, fill=_PLATE, outline=edge, width=max(1, self._margin // 2))
                self._ink.text((box[0] + 2 * self._margin, box[1] + self._margin), text, fill=_INK, font=self._font)

    def _places(self, region: Region, text: str) -> Iterator[Box]:
        """Yield places for a name: from the mask's middle outwards, but beside a mask that it would hide."""
        left, top, right, bottom = region.box
        x, y = inner_point(masks.decode_window(region.counts, self._size[1], region.box))
        across, down = self._measure(text)
        inside = [top + y - down // 2, top, bottom - down]
        beside = [row for row in (top - down, bottom) if 0 <= row <= self._size[1] - down]
        hidden = across > right - left or down > bottom - top
        for row in beside + inside if hidden else inside + beside:
            for column in (left + x - across // 2, left, right - across):
                yield self._within(column, row, across, down)

    def _measure(self, text: str) -> tuple[int, int]:
        across, down = self._font.getbbox(text)[2], self._font.getbbox("Ág")[3]  # as high for every name
        return int(across) + 4 * self._margin, int(down) + 2 * self._margin

    def _within(self, left: int, top: int, across: int, down: int) -> Box:
        left = max(0, min(left, self._size[0] - across))
        top = max(0, min(top, self._size[1] - down))
        return left, top, left + across, top + down


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
