"""Named masks on their picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from model import drawing
from model.scenes import Region
from pipeline import masks
from pipeline.segmenters import Bools

SIZE = (300, 200)


def region(left: int, top: int, right: int, bottom: int, label: str = "it") -> Region:
    mask = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[top:bottom, left:right] = True
    return Region(masks.encode(mask), (left, top, right, bottom), int(mask.sum()), label, -1.0)


def pixels(*regions: Region, only: int | None = None) -> np.ndarray:
    return np.asarray(drawing.draw(Image.new("RGB", SIZE), regions, only))


def test_a_mask_is_tinted_outlined_and_nothing_else_is_touched() -> None:
    drawn = pixels(region(50, 40, 250, 160))
    ink = np.array(drawing.colour(0))
    assert drawn[60, 60].tolist() == (ink * 0.35).astype(int).tolist()
    assert drawn[40, 100].tolist() == drawn[39, 100].tolist() == ink.tolist()
    assert not drawn[:38].any()
    assert not drawn[:, 253:].any()
    assert [20, 20, 20] in drawn[80:120, 100:200].reshape(-1, 3).tolist()  # the plate of its name, in its middle


def test_small_masks_lie_on_large_ones_whatever_the_order() -> None:
    small, large = region(100, 5, 130, 30, ""), region(0, 0, 300, 200, "")
    drawn = pixels(small, large)
    assert drawn[8, 128].tolist() != drawn[8, 250].tolist()
    assert drawn[5, 115].tolist() == list(drawing.colour(0))


def test_one_alone_keeps_its_colour() -> None:
    drawn = pixels(region(0, 0, 100, 100, ""), region(200, 100, 300, 200, ""), only=1)
    assert not drawn[:90, :90].any()
    assert drawn[190, 290].tolist() == (np.array(drawing.colour(1)) * 0.35).astype(int).tolist()


def test_no_name_covers_another(monkeypatch: pytest.MonkeyPatch) -> None:
    plates: list[tuple[int, int, int, int]] = []
    original = ImageDraw.ImageDraw.rectangle

    def rectangle(self: ImageDraw.ImageDraw, box: tuple[int, int, int, int], **more: Any) -> None:
        plates.append(box)
        original(self, box, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", rectangle)
    pixels(*(region(10 * n, 8 * n, 10 * n + 60, 8 * n + 50, "a thing\nwith a very long name " * 3) for n in range(18)))
    assert 3 < len(plates) < 18
    for number, one in enumerate(plates):
        assert 0 <= one[0] < one[2] <= SIZE[0]
        assert 0 <= one[1] < one[3] <= SIZE[1]
        for other in plates[:number]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize("top", [0, 100, 195])
def test_a_name_does_not_hide_a_mask_that_is_smaller(top: int) -> None:
    drawn = pixels(region(150, top, 153, top + 3, "something"))
    ink = np.array(drawing.colour(0))
    assert drawn[top + 1, 151].tolist() in (ink.tolist(), (ink * 0.35).astype(int).tolist())
    assert [20, 20, 20] in drawn.reshape(-1, 3).tolist()


def test_colours_of_a_hundred_masks_differ() -> None:
    assert len({drawing.colour(number) for number in range(100)}) == 100


def test_a_name_is_a_line() -> None:
    assert drawing.line("a \n\x1b[31mred\tcar ") == "a [31mred car"
    assert drawing.line("word " * 30) == "word word word word word word w…"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**16))
@settings(max_examples=25)
def test_the_inner_point_is_inside(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    mask: Bools = random.random((height, width)) < random.choice([1e-4, 0.3, 1])
    mask[random.integers(height), random.integers(width)] = True
    column, row = drawing.inner_point(mask)
    assert mask[row, column]


def test_one_pixel() -> None:
    one = Region(masks.encode(np.ones((1, 1), np.bool_)), (0, 0, 1, 1), 1, "it", 0.0)
    assert drawing.draw(Image.new("RGB", (1, 1)), [one]).size == (1, 1)
