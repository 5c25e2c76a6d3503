"""Grids and tiles of an image."""

import numpy as np
import pytest
from PIL import Image

from model import tiling
from pipeline.images import Size

VECTORS = [  # reference/wowseg_facts.md C.2: size, then grid and tokens with at most 4 tiles, and with at most 12
    ((640, 480), (1, 1), 256, (4, 3), 3328),
    ((480, 640), (1, 2), 768, (3, 4), 3328),  # the tie rule parts it from the line above
    ((640, 427), (1, 1), 256, (3, 2), 1792),
    ((427, 640), (1, 2), 768, (2, 3), 1792),
    ((640, 426), (2, 1), 768, (3, 2), 1792),
    ((640, 640), (2, 2), 1280, (2, 2), 1280),
    ((500, 375), (1, 1), 256, (4, 3), 3328),
    ((640, 360), (2, 1), 768, (2, 1), 768),
    ((2048, 1024), (2, 1), 768, (4, 2), 2304),
    ((2250, 1500), (2, 2), 1280, (3, 2), 1792),
]


@pytest.mark.parametrize(("size", "four", "tokens_of_four", "twelve", "tokens_of_twelve"), VECTORS)
def test_grids(
    size: Size, four: tuple[int, int], tokens_of_four: int, twelve: tuple[int, int], tokens_of_twelve: int
) -> None:
    image = Image.new("RGB", size)
    for most, grid, tokens in ((4, four, tokens_of_four), (12, twelve, tokens_of_twelve)):
        assert tiling.grid(size, most) == grid
        cut = tiling.cut(image, most)
        assert cut.resized.size == (448 * grid[0], 448 * grid[1])
        assert 256 * len(cut.tiles) == tokens


@pytest.mark.parametrize(
    ("size", "grid"), [((1, 1), (1, 1)), ((20_000, 100), (12, 1)), ((100, 20_000), (1, 12)), ((448, 448), (1, 1))]
)
def test_extreme_shapes(size: Size, grid: tuple[int, int]) -> None:
    assert tiling.grid(size, 12) == grid


def test_no_two_grids_of_as_many_tiles_are_both_nearest() -> None:
    grids = [(a, b) for a in range(1, 13) for b in range(1, 12 // a + 1)]
    for a, b in grids:
        for c, d in grids:
            if a * b == c * d and (a, b) < (c, d):
                middle = (a / b + c / d) / 2
                assert min(abs(middle - e / f) for e, f in grids) < abs(middle - a / b) - 1e-9


def test_tiles_are_cut_row_by_row_and_the_thumbnail_is_last() -> None:
    colours = np.array([[[10, 0, 0], [20, 0, 0]], [[30, 0, 0], [40, 0, 0]]], np.uint8)
    image = Image.fromarray(colours.repeat(448, 0).repeat(448, 1))
    cut = tiling.cut(image, 4)
    assert [int(np.asarray(tile)[224, 224, 0]) for tile in cut.tiles[:4]] == [10, 20, 30, 40]
    assert np.array_equal(np.asarray(cut.resized), np.asarray(image))
    assert np.array_equal(np.asarray(cut.tiles[4]), np.asarray(image.resize((448, 448), Image.Resampling.BICUBIC)))


def test_a_tile_of_the_right_size_is_not_resampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)
    assert np.array_equal(tiling.pixels([Image.fromarray(noise)])[0], noise)


def test_other_sides() -> None:
    cut = tiling.cut(Image.new("RGB", (100, 50)), 4, side=28)
    assert cut.resized.size == (56, 28)
    assert tiling.pixels(cut.tiles, 28).shape == (3, 28, 28, 3)
