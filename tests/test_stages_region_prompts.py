"""What a model is shown of a region: which pictures, which part of the photograph, and the region visible in it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import images
from pipeline.images import Box, Photograph, Size
from stages.region_prompts import LayoutName, Prompt, Region, RegionPrompt, outlines, prompts, question, surroundings
from stages.sample_data import annotation

Pixels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LAYOUTS: list[LayoutName] = ["shared+crop", "overlay", "crop", "marks", "cutout"]
TINTED: list[LayoutName] = ["shared+crop", "overlay", "crop"]
"""Layouts whose last picture shows one region in red."""
RED, TINT = (255, 0, 0), (178, 76, 76)
"""On a grey photograph: the outline, and grey under 40 % of red."""


def grey(size: Size, orientation: int = 1) -> Photograph:
    return Photograph(Image.new("RGB", size, (128, 128, 128)), orientation)


def noise(size: Size, orientation: int = 1) -> Photograph:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Photograph(Image.fromarray(pixels), orientation)


def masked(mask_id: int, mask: Bools) -> Region:
    note = annotation(mask_id, mask, 0.9, 0.9)
    x, y, across, down = note["bbox"]
    return Region(mask_id, (x, y, across, down), note["segmentation"]["counts"])


def rectangle(size: Size, box: Box, mask_id: int = 1) -> Region:
    """The region of all pixels inside `box`."""
    return masked(mask_id, inside(size, box))


def inside(size: Size, box: Box) -> Bools:
    left, top, right, bottom = box
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def asked(photo: Photograph, regions: Sequence[Region], how: RegionPrompt, text: str = "What?") -> list[Prompt]:
    return list(prompts(photo, regions, text, how))


def opened(prompt: Prompt) -> list[Image.Image]:
    return [Image.open(io.BytesIO(part)) for part in prompt.parts if isinstance(part, bytes)]


def last(prompt: Prompt) -> Pixels:
    """The pixels of a prompt's last picture."""
    return np.asarray(opened(prompt)[-1].convert("RGB"), np.int64)


def reddish(pixels: Pixels) -> Bools:
    """Where a grey photograph is marked red."""
    return np.asarray((pixels[..., 0] - pixels[..., 1] > 50) & (abs(pixels[..., 1] - pixels[..., 2]) < 30), np.bool_)


THREE = [rectangle((300, 200), (10 + 90 * k, 20, 60 + 90 * k, 120), mask_id=70 + k) for k in range(3)]


# --- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "about", "kinds", "shared"),
    [
        ("shared+crop", [[70], [71], [72]], ["JPEG", "JPEG", "text"], 1),
        ("overlay", [[70], [71], [72]], ["JPEG", "text"], 0),
        ("crop", [[70], [71], [72]], ["JPEG", "text"], 0),
        ("marks", [[70, 71], [72]], ["JPEG", "JPEG", "text"], 1),
        ("cutout", [[70], [71], [72]], ["JPEG", "PNG", "text"], 0),
    ],
)
def test_the_parts_of_each_layout(layout: LayoutName, about: list[list[int]], kinds: list[str], shared: int) -> None:
    made = asked(noise((300, 200)), THREE, RegionPrompt(layout=layout, marks=2))
    assert [prompt.mask_ids for prompt in made] == about
    for prompt in made:
        formats = [Image.open(io.BytesIO(part)).format if isinstance(part, bytes) else "text" for part in prompt.parts]
        assert formats == kinds
        assert prompt.parts[-1] == "What?"
        assert prompt.shared == shared
        assert prompt.sizes == [picture.size for picture in opened(prompt)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_prompts_of_an_image_begin_with_the_same_bytes_and_differ_after(layout: LayoutName, orientation: int) -> None:
    made = asked(noise((300, 200), orientation), THREE, RegionPrompt(layout=layout, marks=2))
    shared = made[0].shared
    assert len({tuple(prompt.parts[:shared]) for prompt in made}) == 1
    assert len({prompt.parts[shared] for prompt in made}) == len(made)
    other = asked(noise((300, 200), orientation), [rectangle((300, 200), (5, 5, 9, 9))], RegionPrompt(layout=layout))
    assert other[0].parts[:shared] == made[0].parts[:shared]


@pytest.mark.parametrize("layout", ["shared+crop", "marks"])
def test_the_shared_picture_is_the_photograph_itself(layout: LayoutName) -> None:
    photo = grey((300, 200), 8)
    (prompt,) = asked(photo, [THREE[0]], RegionPrompt(layout=layout))
    whole = opened(prompt)[0]
    assert whole.size == (200, 300)
    assert abs(np.asarray(whole, np.int64) - 128).max() <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_regions_no_prompts(layout: LayoutName) -> None:
    assert asked(grey((30, 20)), [], RegionPrompt(layout=layout)) == []
    assert list(outlines((30, 20), [], RegionPrompt(layout=layout))) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_its_question(layout: LayoutName) -> None:
    text = question("name", RegionPrompt(layout=layout))
    assert text == text.strip() != ""
    assert ("{count}" in text) == (layout == "marks")


# --- outlines ---------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """An image's size, how it was held, and its regions' boxes."""

    size: Size
    orientation: int
    boxes: list[Box]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    width, height = draw(st.integers(1, 160)), draw(st.integers(1, 160))
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))))
    return Scene((width, height), draw(st.integers(1, 8)), boxes)


shown = st.builds(
    RegionPrompt,
    layout=st.sampled_from(LAYOUTS),
    image_px=st.integers(56, 200),
    crop_px=st.integers(56, 200),
    crop_scale=st.floats(1, 8),
    marks=st.integers(2, 4),
)


@settings(max_examples=200)
@given(scenes(), shown)
def test_outlines_tell_before_what_prompts_make(scene: Scene, shown: RegionPrompt) -> None:
    regions = [rectangle(scene.size, box, number) for number, box in enumerate(scene.boxes)]
    made = asked(noise(scene.size, scene.orientation), regions, shown)
    told = list(outlines(scene.size, [region.box for region in regions], shown))
    turn = -1 if scene.orientation >= 5 else 1  # lying photographs: width and height change places
    assert [[size[::turn] for size in outline.sizes] for outline in told] == [prompt.sizes for prompt in made]
    assert [prompt.sizes for prompt in made] == [[picture.size for picture in opened(prompt)] for prompt in made]
    assert [outline.regions for outline in told] == [len(prompt.mask_ids) for prompt in made]
    assert [outline.shared for outline in told] == [prompt.shared for prompt in made]
    assert [mask_id for prompt in made for mask_id in prompt.mask_ids] == list(range(len(regions)))


@pytest.mark.parametrize(
    ("layout", "sizes"),
    [
        ("shared+crop", [(1024, 683), (448, 224)]),
        ("overlay", [(1024, 683)]),
        ("crop", [(448, 224)]),  # twice 400 × 200
        ("marks", [(1024, 683), (1024, 683)]),
        ("cutout", [(288, 288), (288, 288)]),
    ],
)
def test_sizes_at_the_size_of_sa_1b(layout: LayoutName, sizes: list[Size]) -> None:
    box = (900.0, 600.0, 399.0, 199.0)
    (outline,) = outlines((2250, 1500), [box], RegionPrompt(layout=layout))
    assert outline.sizes == sizes


# --- the region is visible --------------------------------------------------------------------------------

HARD: dict[str, tuple[Size, Box]] = {
    "pixel top left": ((300, 200), (0, 0, 1, 1)),
    "pixel top right": ((300, 200), (299, 0, 300, 1)),
    "pixel bottom left": ((300, 200), (0, 199, 1, 200)),
    "pixel bottom right": ((300, 200), (299, 199, 300, 200)),
    "pixel of a large image": ((2250, 1500), (1234, 567, 1235, 568)),
    "small image": ((20, 16), (5, 5, 9, 9)),
    "strip": ((2000, 20), (40, 5, 60, 15)),
    "pixel of a strip": ((2000, 20), (1999, 19, 2000, 20)),
    "upright strip": ((20, 2000), (5, 900, 15, 950)),
}
EVERYTHING: list[Size] = [(300, 200), (2000, 20), (20, 2000), (3, 2), (1, 1)]


@pytest.mark.parametrize("layout", TINTED)
@pytest.mark.parametrize("case", HARD)
def test_small_regions_are_seen_in_red(layout: LayoutName, case: str) -> None:
    size, box = HARD[case]
    (prompt,) = asked(grey(size), [rectangle(size, box)], RegionPrompt(layout=layout))
    red = reddish(last(prompt))
    assert red.any()
    assert not red.all()


@pytest.mark.parametrize("case", HARD)
def test_in_the_whole_image_the_red_is_where_the_region_is(case: str) -> None:
    size, box = HARD[case]
    (prompt,) = asked(grey(size), [rectangle(size, box)], RegionPrompt(layout="overlay"))
    rows, columns = np.nonzero(reddish(last(prompt)))
    across, down = prompt.sizes[0][0] / size[0], prompt.sizes[0][1] / size[1]
    found = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert found == pytest.approx([box[0] * across, box[1] * down, box[2] * across, box[3] * down], abs=3)


@pytest.mark.parametrize("layout", TINTED)
@pytest.mark.parametrize("size", EVERYTHING, ids=str)
def test_a_region_that_is_the_whole_image_is_tinted_and_has_no_outline(layout: LayoutName, size: Size) -> None:
    (prompt,) = asked(grey(size), [rectangle(size, (0, 0, *size))], RegionPrompt(layout=layout))
    assert abs(last(prompt) - TINT).max() <= 2


@pytest.mark.parametrize("case", HARD)
def test_a_cutouts_mask_shows_the_region(case: str) -> None:
    size, box = HARD[case]
    (prompt,) = asked(grey(size), [rectangle(size, box)], RegionPrompt(layout="cutout"))
    picture, mask = opened(prompt)
    assert (picture.mode, mask.mode) == ("RGB", "1")
    assert 0 < np.asarray(mask).mean() < 1
    assert abs(np.asarray(picture, np.int64) - 128).max() <= 1  # no mark in it


@pytest.mark.parametrize("size", EVERYTHING, ids=str)
def test_a_cutouts_mask_of_everything(size: Size) -> None:
    (prompt,) = asked(grey(size), [rectangle(size, (0, 0, *size))], RegionPrompt(layout="cutout"))
    assert np.asarray(opened(prompt)[1]).all()


@pytest.mark.parametrize("layout", TINTED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_red_turns_with_the_photograph(layout: LayoutName, orientation: int) -> None:
    size, box = (120, 80), (90, 10, 110, 30)
    photo = grey(size, orientation)
    photo.pixels.paste((0, 0, 255), box)  # the object is blue: red over blue is no grey
    picture = last(asked(photo, [rectangle(size, box)], RegionPrompt(layout=layout, image_px=120))[0])
    tint, outline = (abs(picture - colour).max(axis=-1) < 25 for colour in ((102, 0, 153), RED))
    assert tint.sum() > 200
    assert outline.any()
    assert not (abs(picture - (0, 0, 255)).max(axis=-1) < 60).any()  # no blue is left unmarked
    assert not (abs(picture - TINT).max(axis=-1) < 25).any()  # and no grey is marked


# --- the window -------------------------------------------------------------------------------------------


def ramp(size: Size) -> Photograph:
    """A photograph whose red tells x and whose green tells y."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Photograph(Image.fromarray(np.dstack([x, y, 0 * x]).astype(np.uint8)), 1)


def window(size: Size, box: Box, scale: float) -> list[int]:
    """Left, top, right, bottom of the part of the photograph that is shown around a rectangle."""
    picture, _ = surroundings(ramp(size), rectangle(size, box), scale, 1500)
    pixels = np.asarray(picture, np.int64)
    return [*pixels[0, 0, :2].tolist(), *(pixels[-1, -1, :2] + 1).tolist()]


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ((100, 90, 140, 110), 2.0, (80, 80, 160, 120)),
        ((100, 90, 140, 110), 3.0, (60, 70, 180, 130)),
        ((100, 80, 150, 120), 1.0, (100, 80, 150, 120)),
        ((100, 90, 140, 110), 1.0, (100, 84, 140, 116)),  # never less than 32 px
        ((100, 90, 101, 91), 2.0, (84, 74, 117, 107)),
        ((0, 0, 40, 20), 2.0, (0, 0, 60, 30)),  # cut off at the edges
        ((210, 180, 250, 200), 2.0, (190, 170, 250, 200)),
        ((0, 0, 250, 200), 2.0, (0, 0, 250, 200)),
        ((0, 0, 1, 1), 1.0, (0, 0, 17, 17)),
        ((50, 99, 200, 101), 1.2, (35, 70, 215, 130)),  # never narrower than a third of its length
        ((249, 199, 250, 200), 1.0, (233, 183, 250, 200)),
    ],
)
def test_the_window_is_so_many_times_the_box_around_its_middle(box: Box, scale: float, expected: Box) -> None:
    assert window((250, 200), box, scale) == pytest.approx(expected, abs=1)
    (outline,) = outlines(
        (250, 200),
        [rectangle((250, 200), box).box],
        RegionPrompt(layout="crop", crop_scale=scale, crop_px=2048),
    )
    across, down = expected[2] - expected[0], expected[3] - expected[1]
    assert outline.sizes[0][0] / outline.sizes[0][1] == pytest.approx(across / down, rel=2e-3)


@given(scenes(), st.floats(1, 8))
def test_the_window_holds_the_whole_region(scene: Scene, scale: float) -> None:
    for box in scene.boxes[:2]:
        region = rectangle(scene.size, box)
        picture, mask = surroundings(grey(scene.size), region, scale, 400)
        share = mask.sum() / mask.size
        longest = max(box[2] - box[0], box[3] - box[1])
        across, down = (
            min(limit, math.ceil(max(scale * (stop - start), 32, scale * longest / 3)) + 1)
            for start, stop, limit in zip(box[:2], box[2:], scene.size, strict=True)
        )
        assert picture.size == mask.shape[::-1]
        assert share > 0
        # The window is at most this large, so the region's share of it is at least that of its pixels.
        assert share >= 0.9 * (box[2] - box[0]) * (box[3] - box[1]) / (across * down) - 0.02


def test_a_cutout_is_square_unless_the_image_ends() -> None:
    size = (250, 200)
    how = RegionPrompt(layout="cutout")
    boxes = [rectangle(size, box).box for box in ((100, 90, 140, 110), (0, 90, 40, 110), (100, 20, 150, 180))]
    assert [outline.sizes for outline in outlines(size, boxes, how)] == [
        [(288, 288)] * 2,  # 52 × 52 px around the middle of 40 × 20
        [(255, 288)] * 2,  # six of them are left of the image: 46 × 52
        [(288, 277)] * 2,  # of 208 × 208, the image has 200 rows
    ]


# --- marks ------------------------------------------------------------------------------------------------

COLOURS = [(230, 25, 75), (60, 180, 75)]
"""Of the numbers 1 and 2."""


def white(pixels: Pixels) -> Bools:
    """Where a number's own strokes are."""
    return np.asarray(pixels.min(axis=-1) > 225, np.bool_)


def coloured(pixels: Pixels, colour: tuple[int, int, int]) -> Bools:
    return np.asarray(abs(pixels - colour).max(axis=-1) < 60, np.bool_)


MARKS = RegionPrompt(layout="marks")
SIZE = (240, 160)
APART: list[Box] = [(20, 20, 80, 70), (120, 20, 180, 70)]
"""Turned or mirrored, one never lies where the other or itself was."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_numbers_lie_on_their_regions(orientation: int) -> None:
    photo = grey(SIZE, orientation)
    (prompt,) = asked(photo, [rectangle(SIZE, box, k) for k, box in enumerate(APART)], MARKS)
    picture, ground = last(prompt), np.zeros(SIZE[::-1] if orientation < 5 else SIZE, np.bool_)
    for box, colour in zip(APART, COLOURS, strict=True):
        mask = np.asarray(photo.upright(Image.fromarray(inside(SIZE, box))))
        ground |= mask
        assert (white(picture) & mask).sum() >= 5
        within = np.asarray(photo.upright(Image.fromarray(inside(SIZE, box) & ~images.outline(inside(SIZE, box), 3))))
        assert (coloured(picture, colour) & within).sum() >= 60  # the badge, not the outline
    assert not (white(picture) & ~ground).any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_numbers_are_upright(orientation: int) -> None:
    whole = (0, 0, 90, 90)
    turned, straight = (
        last(asked(grey((90, 90), turn), [rectangle((90, 90), whole)], MARKS)[0]) for turn in (orientation, 1)
    )
    rows, columns = (np.flatnonzero(white(turned).any(axis=axis)) for axis in (1, 0))
    strokes = white(turned)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rows, columns = (np.flatnonzero(white(straight).any(axis=axis)) for axis in (1, 0))
    assert (strokes == white(straight)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).mean() > 0.9


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("corner", [(0, 0), (239, 0), (0, 159), (239, 159)])
def test_the_number_of_a_pixel_covers_it(corner: tuple[int, int], orientation: int) -> None:
    box = (corner[0], corner[1], corner[0] + 1, corner[1] + 1)
    photo = grey(SIZE, orientation)
    (prompt,) = asked(photo, [rectangle(SIZE, box)], MARKS)
    mask = np.asarray(photo.upright(Image.fromarray(inside(SIZE, box))))
    picture = last(prompt)
    assert abs(picture[mask] - 128).max() > 40
    assert coloured(picture, COLOURS[0]).sum() > 20  # the part of the badge that is in the picture


def test_the_number_of_a_bent_region_lies_on_it_rather_than_on_its_middle() -> None:
    mask = inside(SIZE, (20, 20, 220, 140)) & ~inside(SIZE, (60, 20, 180, 110))  # a U: its middle is outside
    (prompt,) = asked(grey(SIZE), [masked(1, mask)], MARKS)
    assert (white(last(prompt)) & mask).sum() >= 5
    assert abs(last(prompt)[92, 120] - 128).max() <= 2  # the centre of mass


def test_each_number_has_its_own_colour() -> None:
    boxes = [(10 + 40 * k, 10, 40 + 40 * k, 60) for k in range(10)]
    (prompt,) = asked(grey((420, 70)), [rectangle((420, 70), box, k) for k, box in enumerate(boxes)], MARKS)
    pixels = last(prompt)
    found = [tuple((pixels[12 : box[3] - 2, box[0]] // 32).mean(axis=0).round().tolist()) for box in boxes]
    assert len(set(found)) == 10


def test_groups_are_numbered_from_one_and_counted() -> None:
    text = "{count} regions, 1 to {count}"
    regions = [rectangle(SIZE, (10 + 40 * k, 20, 40 + 40 * k, 60), 50 + k) for k in range(5)]
    made = asked(grey(SIZE), regions, RegionPrompt(layout="marks", marks=2), text)
    assert [prompt.mask_ids for prompt in made] == [[50, 51], [52, 53], [54]]
    assert [prompt.parts[-1] for prompt in made] == ["2 regions, 1 to 2", "2 regions, 1 to 2", "1 regions, 1 to 1"]
    assert asked(grey(SIZE), regions[4:], MARKS, text)[0].parts == made[2].parts


@pytest.mark.parametrize("size", EVERYTHING, ids=str)
def test_a_marked_region_that_is_the_whole_image(size: Size) -> None:
    (prompt,) = asked(grey(size), [rectangle(size, (0, 0, *size))], MARKS)
    assert opened(prompt)[-1].size == prompt.sizes[-1]
    assert (abs(last(prompt) - 128) > 40).any()


def test_twelve_regions_are_numbered_from_1_to_12() -> None:
    size, boxes = (640, 90), [(10 + 52 * k, 10, 58 + 52 * k, 80) for k in range(12)]
    (prompt,) = asked(
        grey(size), [rectangle(size, box, k) for k, box in enumerate(boxes)], RegionPrompt(layout="marks", marks=12)
    )
    light = np.maximum(last(prompt).min(axis=-1) - 140, 0)  # grey and every colour are darker
    strokes = [int(light[inside(size, box)].sum()) for box in boxes]
    assert strokes[0] == min(strokes)  # no digit has less of them than 1
    assert strokes[10] > 1.5 * strokes[0]  # 11 and 1
    assert strokes[11] > 1.2 * strokes[1]  # 12 and 2


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((100, 90, 140, 110), True),
        ((0, 90, 40, 110), True),  # moved to the right, not cut
        ((210, 180, 250, 200), True),
        ((50, 99, 200, 101), True),  # as long as the image's short side allows
        ((0, 0, 1, 1), True),
        ((20, 50, 240, 60), False),  # longer than the image is high: all of the region before the shape
    ],
)
def test_a_crop_may_be_asked_to_be_square(box: Box, square: bool) -> None:
    size = (250, 200)
    how = RegionPrompt(layout="crop", square=True)
    region = rectangle(size, box)
    (outline,) = outlines(size, [region.box], how)
    assert (outline.sizes[0][0] == outline.sizes[0][1]) is square
    picture, mask = surroundings(grey(size), region, how.crop_scale, 200, square=True)
    (prompt,) = prompts(grey(size), [region], "What?", how)
    assert prompt.sizes == outline.sizes
    window = max(200, *size) if not square else 200 * (box[2] - box[0]) / max(1, mask.any(axis=0).sum())
    shown = mask.sum() * (window / 200) ** 2 if square else (box[2] - box[0]) * (box[3] - box[1])
    assert shown == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.25), "all of the region is shown"
    assert picture.size == mask.shape[::-1]
