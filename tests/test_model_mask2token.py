"""Windows and tokens of masks."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from model.mask2token import Region, encode, sources
from pipeline import masks
from pipeline.images import Box, Size

Bools = npt.NDArray[np.bool_]
SQUARE, WIDE = (448, 448), (896, 448)


def block(size: Size, rows: tuple[int, int], columns: tuple[int, int]) -> Bools:
    """A rectangle; first and last row and column, inclusive."""
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return mask


def region(mask: Bools, resized: Size, scale: float = 2, grid: int = 16) -> Region:
    size = (mask.shape[1], mask.shape[0])
    return encode(Image.new("RGB", resized), size, [masks.encode(mask)], scale=scale, grid=grid).regions[0]


VECTORS = [  # reference/wowseg_facts.md C.3: image, rows, columns, scale, window, tokens
    (SQUARE, (100, 109), (200, 209), 2, (194, 94, 215, 115), 64),
    (SQUARE, (100, 109), (200, 209), 2.5, (192, 92, 218, 118), 49),
    (SQUARE, (100, 110), (200, 210), 2, (194, 94, 217, 117), 49),
    (SQUARE, (100, 110), (200, 210), 2.5, (191, 91, 219, 119), 36),
    (SQUARE, (100, 109), (200, 219), 2, (189, 84, 230, 125), 32),
    (SQUARE, (100, 109), (200, 219), 2.5, (184, 79, 235, 130), 18),
    (SQUARE, (0, 9), (0, 9), 2, (0, 0, 21, 21), 64),
    (SQUARE, (438, 447), (438, 447), 2, (427, 427, 448, 448), 49),
    (SQUARE, (0, 447), (0, 447), 2, (0, 0, 448, 448), 256),
    (SQUARE, (150, 249), (70, 369), 2, (0, 0, 448, 448), 33),
    (SQUARE, (5, 5), (7, 7), 2, (6, 4, 9, 7), 25),
    (SQUARE, (100, 100), (50, 249), 2, (0, 0, 401, 401), 8),
    (WIDE, (0, 447), (100, 199), 2, (0, 0, 896, 448), 32),
]


@pytest.mark.parametrize(("size", "rows", "columns", "scale", "window", "tokens"), VECTORS)
def test_windows_and_tokens(
    size: Size, rows: tuple[int, int], columns: tuple[int, int], scale: float, window: Box, tokens: int
) -> None:
    found = region(block(size, rows, columns), size, scale)
    assert (found.window, int(found.cells.sum()), found.rescued) == (window, tokens, False)


def test_a_mask_between_all_cells_keeps_the_fullest() -> None:
    # The line of C.3 at scale 2.5, for which the authors' rule leaves no token: whole image, cells of 28 px.
    found = region(block(SQUARE, (100, 100), (50, 249)), SQUARE, 2.5)
    assert found.window == (0, 0, 448, 448)
    assert found.rescued
    assert np.argwhere(found.cells).tolist() == [[3, 2]]  # row 100; columns 56 to 83 are the first whole cell of it


def test_a_mask_lost_in_resizing_keeps_the_pixel_it_was_in() -> None:
    mask = block((1000, 1000), (501, 501), (503, 503))  # nearest sampling to 448 takes rows 500 and 502
    found = region(mask, SQUARE)
    assert not mask[np.ix_(sources(1000, 448), sources(1000, 448))].any()
    assert found.window == (224, 223, 227, 226)  # around pixel 225, 224
    assert found.cells.any()


def slow(mask: Bools, resized: Size, scale: float) -> tuple[Box, Bools]:
    """C.3 step by step on whole masks, with torch's resizing; the mask must survive it."""
    import torch
    from torch.nn.functional import interpolate

    def nearest(pixels: Bools, height: int, width: int) -> Bools:
        scaled = interpolate(torch.from_numpy(pixels.astype(np.uint8))[None, None], (height, width), mode="nearest")
        return scaled[0, 0].numpy().astype(np.bool_)

    whole = nearest(mask, resized[1], resized[0])
    rows, columns = np.nonzero(whole)
    spans = []
    for places, length in ((columns, resized[0]), (rows, resized[1])):
        first, last = int(places.min()), int(places.max())
        side = min(scale * max(np.ptp(rows) + 1, np.ptp(columns) + 1), length)
        start = max(0, int((first + last) / 2 - side / 2))
        end = min(length - 1, int((first + last) / 2 + side / 2))
        if end - start + 1 < side:
            if start == 0:
                end = min(length - 1, int(start + side))
            else:
                start = max(0, int(end - side))
        spans.append((start, end + 1))
    (left, right), (top, bottom) = spans
    return (left, top, right, bottom), nearest(whole[top:bottom, left:right], 16, 16)


@st.composite
def any_mask(draw: st.DrawFn) -> Bools:
    """Dots, specks, borders, several parts, everything."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    mask = np.zeros((height, width), np.bool_)
    for _ in range(draw(st.integers(1, 3))):
        row, column = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[row : row + draw(st.integers(1, 70)), column : column + draw(st.integers(1, 70))] = True
    chequered = mask & (np.indices(mask.shape).sum(0) % 2 == 0)
    return chequered if draw(st.booleans()) and chequered.any() else mask


@given(any_mask(), st.sampled_from([(448, 448), (112, 56), (28, 84)]), st.sampled_from([1, 1.5, 2, 2.5, 3.5]))
@settings(max_examples=50)
def test_any_mask_is_as_the_whole_image_way_and_has_a_token(mask: Bools, resized: Size, scale: float) -> None:
    found = region(mask, resized, scale)
    left, top, right, bottom = found.window
    assert 0 <= left < right <= resized[0]
    assert 0 <= top < bottom <= resized[1]
    assert 1 <= found.cells.sum() <= 256
    survives = mask[np.ix_(sources(mask.shape[0], resized[1]), sources(mask.shape[1], resized[0]))].any()
    if survives:
        box, cells = slow(mask, resized, scale)
        assert found.window == box
        assert found.rescued == (not cells.any())
        assert found.rescued or np.array_equal(found.cells, cells)


@given(st.integers(1, 3000), st.sampled_from([448, 896, 1344, 1792, 2240, 5376, 97]))
@settings(max_examples=50)
def test_nearest_sampling_is_torchs(original: int, scaled: int) -> None:
    import torch
    from torch.nn.functional import interpolate

    row = torch.arange(original, dtype=torch.float32)[None, None]
    assert sources(original, scaled).tolist() == interpolate(row, scaled, mode="nearest")[0, 0].long().tolist()


def test_masks_of_an_image_are_independent_and_in_order() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (448, 896, 3), np.uint8))
    shapes = [block(WIDE, (0, 9), (0, 9)), block(WIDE, (100, 300), (400, 880)), block(WIDE, (447, 447), (895, 895))]
    counts = [masks.encode(mask) for mask in shapes]
    together = encode(image, WIDE, counts)
    for number, text in enumerate(counts):
        alone = encode(image, WIDE, [text])
        assert alone.regions[0].window == together.regions[number].window
        assert np.array_equal(alone.regions[0].cells, together.regions[number].cells)
        assert alone.pictures[0].tobytes() == together.pictures[number].tobytes()
        assert together.pictures[number].tobytes() == image.crop(alone.regions[0].window).tobytes()


def test_no_mask_is_no_region() -> None:
    assert encode(Image.new("RGB", SQUARE), SQUARE, []) == ([], [])


def test_fore2token_has_all_tokens_and_a_white_background() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 200, (448, 448, 3), np.uint8))
    mask = block(SQUARE, (100, 109), (200, 219))
    (found,), (picture,) = encode(image, SQUARE, [masks.encode(mask)], encoder="fore2token")
    left, top, right, bottom = found.window
    assert found.window == (189, 84, 230, 125)
    assert found.cells.all()
    inside = mask[top:bottom, left:right]
    shown, source = np.asarray(picture), np.asarray(image)[top:bottom, left:right]
    assert np.array_equal(shown[inside], source[inside])
    assert (shown[~inside] == 255).all()


def test_blur2token_has_all_tokens_and_a_blurred_background() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 200, (448, 448, 3), np.uint8))
    mask = block(SQUARE, (100, 149), (200, 249))
    (found,), (picture,) = encode(image, SQUARE, [masks.encode(mask)], encoder="blur2token")
    crop = image.crop(found.window)
    inside = mask[found.window[1] : found.window[3], found.window[0] : found.window[2]]
    shown, blurred = np.asarray(picture), np.asarray(crop.filter(ImageFilter.GaussianBlur(10)))
    assert found.cells.all()
    assert np.array_equal(shown[inside], np.asarray(crop)[inside])
    assert np.array_equal(shown[~inside], blurred[~inside])
