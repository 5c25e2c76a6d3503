"""How a region is shown to a model: which pictures, in which order, with which question.

Masks of one image are rendered together: its JPEG is decoded once, each mask only in the window that is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from pipeline import images, masks
from pipeline.config import Section
from pipeline.errors import UsageError
from pipeline.images import Box, Photograph, Size

VERSION = 1
"""Raised when the same mask and settings would give other pictures; part of every answer's fingerprint."""

LayoutName = Literal["auto", "shared+crop", "overlay", "crop", "marks", "cutout", "masks"]
Shown = LayoutName | Literal["whole"]
"""whole: the clean image alone, for a question about all of it."""

_PROMPTS = Path(__file__).parent.parent / "data_manifests" / "prompts"
_SMALLEST_WINDOW = 32  # px of the photograph; a region of one pixel is still shown with something around it
_NARROWEST = 3  # times as long as wide: a twig's box alone would be a crop of a few pixels' height
_CUTOUT_SCALE = 1.3  # reference/stack.md §6: the context crop that an ImageNet classifier names best
_CUTOUT_PX = 288
_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#800000",
    "#f032e6",
    "#000075",
)


class RegionPrompt(Section):
    """How regions are shown to the model."""

    layout: Shown = "auto"
    """Which pictures are shown."""

    image_px: int = Field(1024, ge=56, le=4096)
    """Longer side of the whole image; it is never enlarged."""

    crop_px: int = Field(448, ge=56, le=2048)
    """Longer side of the enlarged region with its surroundings."""

    crop_scale: float = Field(2.0, ge=1, le=8)
    """How many times the region's box the crop shows (2 in WOW-Seg's training script)."""

    square: bool = False
    """The crop is a square where the image allows it: one tile of InternVL, of which any other shape takes several."""

    marks: int = Field(10, ge=2, le=30)
    """Regions per question in the layout marks."""

    @property
    def shown(self) -> RegionPrompt:
        """The part of a step's settings that decides about the pictures."""
        return RegionPrompt(**{name: getattr(self, name) for name in RegionPrompt.model_fields})


_OWN_LAYOUTS: dict[str, list[LayoutName]] = {"embedded": ["cutout"], "wowseg": ["masks"]}

P = TypeVar("P", bound=RegionPrompt)

BoundingBox = tuple[float, float, float, float]


class Region(NamedTuple):
    """A mask as the `masks` table has it."""

    mask_id: int
    box: BoundingBox
    """x, y, xmax − xmin, ymax − ymin in px."""
    rle_counts: str


Part = str | bytes
"""A piece of a prompt: text, or the bytes of a JPEG or PNG."""


class Prompt(NamedTuple):
    """One question about one or more regions of an image."""

    mask_ids: list[int]
    parts: list[Part]
    sizes: list[Size]
    """Of the pictures among the parts, (width, height) in px."""
    shared: int
    """How many pictures at the front are the same for all prompts of this image."""


def settled(prompt: P, kind: str, section: str, engine: str) -> P:
    """Choose the layout for a kind of engine, where that was left to us.

    `section` and `engine` are what prompt and engine are called in the configuration. Raises `UsageError` for a layout
    that the engine cannot read.
    """
    if kind == "wowseg" and section != "names":
        raise UsageError(f"{engine}.kind = wowseg: WOW-Seg names regions and answers no other question.")
    known = layouts(kind)
    if prompt.layout == "auto":
        return prompt.model_copy(update={"layout": known[0]})
    if prompt.layout not in known:
        raise UsageError(
            f"{section}.layout = {prompt.layout} does not go with {engine}.kind = {kind}, which reads "
            f"{' or '.join(known)}."
        )
    return prompt


def layouts(kind: str) -> list[LayoutName]:
    """Return the layouts that a kind of engine can read, its default first."""
    return _OWN_LAYOUTS.get(kind, ["shared+crop", "overlay", "crop", "marks"])


def question(task: str, prompt: RegionPrompt) -> str:
    """Return the question of `task` for a layout, as it stands in data_manifests/prompts; none with `masks`."""
    if prompt.layout == "masks":
        return ""  # the checkpoint knows what it was trained with
    return (_PROMPTS / task / f"{prompt.layout}.txt").read_text(encoding="utf-8").strip()


class Outline(NamedTuple):
    """What a prompt will be made of, known without any pixel."""

    regions: int
    sizes: list[Size]
    """Of its pictures."""
    shared: int
    """As in `Prompt`."""


def outlines(size: Size, boxes: Sequence[BoundingBox], prompt: RegionPrompt) -> Iterator[Outline]:
    """Yield the outline of each prompt that `prompts` makes of regions with these boxes in an image of `size`.

    For a photograph that has to be turned upright, width and height come swapped, which costs the same.
    """
    whole = images.within(size, prompt.image_px)
    if prompt.layout == "masks":
        yield Outline(len(boxes), [size], 1)
        return
    if prompt.layout == "marks":
        for start in range(0, len(boxes), prompt.marks):
            yield Outline(len(boxes[start : start + prompt.marks]), [whole, whole], 1)
        return
    for box in boxes:
        crop = images.fitted(_extent(_shown(size, box, prompt.crop_scale, square=prompt.square)), prompt.crop_px)
        if prompt.layout == "shared+crop":
            yield Outline(1, [whole, crop], 1)
        elif prompt.layout == "crop":
            yield Outline(1, [crop], 0)
        elif prompt.layout == "overlay":
            yield Outline(1, [whole], 0)
        else:
            square = images.fitted(_extent(_window(size, _squared(box), _CUTOUT_SCALE)), _CUTOUT_PX)
            yield Outline(1, [square, square], 0)


def prompts(photograph: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    """Render the questions about `regions`, all of one image, in their order."""
    yield from _LAYOUTS[prompt.layout](photograph, regions, text, prompt)


# --- layouts ----------------------------------------------------------------------------------------------


def _shared_and_crop(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    whole, whole_size = _whole(photo, prompt)
    for region in regions:
        crop = _marked_crop(photo, region, prompt)
        yield Prompt([region.mask_id], [whole, images.as_jpeg(crop), text], [whole_size, crop.size], 1)


def _crop(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    for region in regions:
        crop = _marked_crop(photo, region, prompt)
        yield Prompt([region.mask_id], [images.as_jpeg(crop), text], [crop.size], 0)


def _overlay(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    size = images.within(photo.size, prompt.image_px)
    clean = photo.show((0, 0, *photo.size), size)
    for region in regions:
        mask = images.scaled_mask(_mask(photo, region, (0, 0, *photo.size)), size)
        picture = photo.upright(images.marked(clean, mask))
        yield Prompt([region.mask_id], [images.as_jpeg(picture), text], [picture.size], 0)


def _marks(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    whole, whole_size = _whole(photo, prompt)
    size = images.within(photo.size, prompt.image_px)
    clean = photo.show((0, 0, *photo.size), size)
    for start in range(0, len(regions), prompt.marks):
        group = regions[start : start + prompt.marks]
        picture = _numbered(photo, clean, group)
        asked = text.replace("{count}", str(len(group)))
        ids = [region.mask_id for region in group]
        yield Prompt(ids, [whole, images.as_jpeg(picture), asked], [whole_size, picture.size], 1)


def _cutout(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    for region in regions:
        window = _window(photo.size, _squared(region.box), _CUTOUT_SCALE)
        size = images.fitted(_extent(window), _CUTOUT_PX)
        mask = images.scaled_mask(_mask(photo, region, window), size)
        pictures = [photo.upright(photo.show(window, size)), photo.upright(Image.fromarray(mask))]
        encoded = [images.as_jpeg(pictures[0]), images.as_png(pictures[1])]
        yield Prompt([region.mask_id], [*encoded, text], [p.size for p in pictures], 0)


def _masks(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    """Hand over the image and the masks as they are, in run lengths that refer to its pixels as they lie."""
    picture = images.as_png(photo.pixels)
    yield Prompt([region.mask_id for region in regions], [picture, *(r.rle_counts for r in regions)], [photo.size], 1)


def _whole_alone(photo: Photograph, regions: Sequence[Region], text: str, prompt: RegionPrompt) -> Iterator[Prompt]:
    """Ask one question about the image; its first region stands for it."""
    whole, size = _whole(photo, prompt)
    yield Prompt([regions[0].mask_id], [whole, text], [size], 0)


_Layout = Callable[[Photograph, Sequence[Region], str, RegionPrompt], Iterator[Prompt]]
_LAYOUTS: dict[Shown, _Layout] = {
    "shared+crop": _shared_and_crop,
    "overlay": _overlay,
    "crop": _crop,
    "marks": _marks,
    "cutout": _cutout,
    "masks": _masks,
    "whole": _whole_alone,
}


# --- pictures ---------------------------------------------------------------------------------------------


def _whole(photo: Photograph, prompt: RegionPrompt) -> tuple[bytes, Size]:
    size = images.within(photo.size, prompt.image_px)
    picture = photo.upright(photo.show((0, 0, *photo.size), size))
    return images.as_jpeg(picture), picture.size


def surroundings(
    photo: Photograph, region: Region, scale: float, longest: int, *, square: bool = False
) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """Return what is in `scale` times the region's box, and the region's mask in it; neither upright yet.

    The longer side is `longest` px.
    """
    window = _shown(photo.size, region.box, scale, square=square)
    size = images.fitted(_extent(window), longest)
    return photo.show(window, size), images.scaled_mask(_mask(photo, region, window), size)


def _marked_crop(photo: Photograph, region: Region, prompt: RegionPrompt) -> Image.Image:
    seen = surroundings(photo, region, prompt.crop_scale, prompt.crop_px, square=prompt.square)
    return photo.upright(images.marked(*seen))


def _numbered(photo: Photograph, clean: Image.Image, group: Sequence[Region]) -> Image.Image:
    """Outline each region in a colour of its own and put its number on it (set-of-mark prompting)."""
    pixels, places = np.array(clean), []
    for number, region in enumerate(group):
        mask = images.scaled_mask(_mask(photo, region, (0, 0, *photo.size)), clean.size)
        colour = tuple(bytes.fromhex(_COLOURS[number % len(_COLOURS)][1:]))
        pixels[images.outline(mask, 1)] = colour
        places.append((str(number + 1), colour, _middle(mask)))
    picture = photo.upright(Image.fromarray(pixels))
    canvas = ImageDraw.Draw(picture)
    for text, colour, (x, y) in places:
        at = _upright_point(photo.orientation, clean.size, x, y)
        box = canvas.textbbox(at, text, font=_FONT, anchor="mm")
        canvas.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=colour)
        canvas.text(at, text, fill="white", font=_FONT, anchor="mm")
    return picture


_FONT = ImageFont.load_default(size=14)


def _middle(mask: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return (x, y) of the mask's pixel nearest to its centre of mass, so that the number lies on the region."""
    y, x = np.nonzero(mask)
    nearest = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
    return int(x[nearest]), int(y[nearest])


def _upright_point(orientation: int, size: Size, x: int, y: int) -> tuple[int, int]:
    """Say where the pixel (x, y) of a picture of `size` goes when it is turned upright (EXIF 2.3, Orientation)."""
    right, bottom = size[0] - 1 - x, size[1] - 1 - y
    return {
        1: (x, y),
        2: (right, y),
        3: (right, bottom),
        4: (x, bottom),
        5: (y, x),
        6: (bottom, x),
        7: (bottom, right),
        8: (y, right),
    }[orientation]


def _mask(photo: Photograph, region: Region, window: Box) -> npt.NDArray[np.bool_]:
    return masks.decode_window(region.rle_counts, photo.size[1], window)


def _extent(window: Box) -> Size:
    return window[2] - window[0], window[3] - window[1]


def _squared(box: BoundingBox) -> BoundingBox:
    """Return the square around `box`, the shape a classifier takes."""
    x, y, across, down = box
    side = max(across, down)
    return x + (across - side) / 2, y + (down - side) / 2, side, side


def _shown(size: Size, box: BoundingBox, scale: float, *, square: bool) -> Box:
    """Return the window of a crop; a square one is moved rather than cut where it would leave the image."""
    if not square:
        return _window(size, box, scale)
    x, y, across, down = box
    side = min(max(_SMALLEST_WINDOW, int(np.ceil(scale * max(across + 1, down + 1)))), *size)
    least_x, least_y = (int(np.ceil(first + extent + 1)) - side for first, extent in ((x, across), (y, down)))
    if least_x > x or least_y > y:  # longer than the image's short side: all of the region before the shape
        return _window(size, box, scale)
    left, top = (
        int(min(max(0, first + (extent + 1 - side) / 2), limit - side))
        for first, extent, limit in ((x, across, size[0]), (y, down, size[1]))
    )
    return left, top, left + side, top + side


def _window(size: Size, box: BoundingBox, scale: float) -> Box:
    """Return the part of an image of `size` that shows what is in `box` at the middle of `scale` times that box."""
    x, y, across, down = box
    least = max(_SMALLEST_WINDOW, scale * max(across + 1, down + 1) / _NARROWEST)
    sides = []
    for first, extent, limit in ((x, across + 1, size[0]), (y, down + 1, size[1])):
        middle, reach = first + extent / 2, max(scale * extent, least) / 2
        start = min(max(0, int(middle - reach)), limit - 1)
        sides.append((start, max(start + 1, min(limit, int(np.ceil(middle + reach))))))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def regions(columns: dict[str, list[Any]]) -> list[Region]:
    """Return the regions of rows of the `masks` table, given as columns."""
    boxes = zip(*(columns[f"bbox_{name}"] for name in "xywh"), strict=True)
    return [Region(*row) for row in zip(columns["mask_id"], boxes, columns["rle_counts"], strict=True)]
