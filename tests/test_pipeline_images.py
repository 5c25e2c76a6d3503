"""Declared sizes are read from the header alone, pixels only when the size is right; the reference is Pillow."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile, ImageOps
from sa1b_shards import jpeg

from pipeline import images
from pipeline.images import Photograph, Size, UnreadableImageError, jpeg_size

Bools = npt.NDArray[np.bool_]
_ORIENTATION = 0x0112  # the EXIF tag


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_sizes_as_pillow_reads_them(mode: str, progressive: bool) -> None:
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a description " * 100
    Image.new(mode, (321, 123)).save(sink, "JPEG", progressive=progressive, exif=exif)
    assert jpeg_size(sink.getvalue()) == Image.open(sink).size == (321, 123)


@given(st.integers(0, 700))
def test_a_header_cut_anywhere_gives_the_size_or_none(length: int) -> None:
    assert jpeg_size(jpeg()[:length]) in (None, (64, 48))


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_or_hang(data: bytes) -> None:
    jpeg_size(b"\xff\xd8" + data)
    assert jpeg_size(b"\x00" + data) is None


def test_padding_and_empty_sizes() -> None:
    frame = b"\xc0\x00\x11\x08" + b"\x00\x30\x00\x40" + b"\x03" * 10
    assert jpeg_size(b"\xff\xd8" + b"\xff" * 5 + frame) == (64, 48)
    assert jpeg_size(b"\xff\xd8\xff\xc0\x00\x11\x08" + bytes(14)) is None


# --- decoding ---------------------------------------------------------------------------------------------


def encoded(picture: Image.Image, orientation: int = 0) -> bytes:
    """A JPEG; 0 stands for no EXIF."""
    sink, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[_ORIENTATION] = orientation
    picture.save(sink, "JPEG", quality=95, subsampling=0, exif=exif)
    return sink.getvalue()


def decoded(data: bytes, size: Size = (64, 48)) -> npt.NDArray[np.int64]:
    return np.asarray(images.decode(data, size).pixels, np.int64)


def test_colours_stay_and_grey_becomes_rgb() -> None:
    assert abs(decoded(encoded(Image.new("RGB", (64, 48), (10, 200, 30)))) - (10, 200, 30)).max() <= 2
    assert abs(decoded(encoded(Image.new("L", (64, 48), 77))) - 77).max() <= 2


INKS = [(0, 0, 0, 0), (200, 30, 60, 20), (0, 255, 255, 0), (10, 10, 200, 100), (0, 0, 0, 255)]


def printed(inks: tuple[int, int, int, int]) -> list[float]:
    """The RGB colour of cyan, magenta, yellow and black ink, 0 to 255 each."""
    return [(255 - ink) * (255 - inks[3]) / 255 for ink in inks[:3]]


def stored_as(values: tuple[int, ...], transform: int) -> bytes:
    """A JPEG of one colour whose four components hold `values`; `transform` is that of its Adobe marker."""
    data = bytearray(encoded(Image.new("CMYK", (64, 48), tuple(255 - value for value in values))))
    data[data.index(b"Adobe") + 11] = transform  # Adobe Technical Note 5116: 0 CMYK, 2 YCCK
    return bytes(data)


@pytest.mark.parametrize("inks", INKS, ids=str)
def test_cmyk_is_inverted_as_adobe_stores_it(inks: tuple[int, int, int, int]) -> None:
    data = stored_as(tuple(255 - ink for ink in inks), transform=0)
    assert abs(decoded(data) - printed(inks)).max() <= 3


@pytest.mark.parametrize("inks", INKS, ids=str)
def test_ycck(inks: tuple[int, int, int, int]) -> None:
    red, green, blue = inks[:3]  # of the inverted inks, of which libjpeg takes the complement
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    components = (luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma), 255 - inks[3])
    assert abs(decoded(stored_as(tuple(round(value) for value in components), transform=2)) - printed(inks)).max() <= 4


def landscape() -> Image.Image:
    """Dark, with a bright region right of the middle, near the top: no two orientations look alike."""
    pixels = np.random.default_rng(0).integers(0, 60, (48, 64, 3), np.uint8)
    pixels[8:16, 40:56] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(9))
def test_upright_is_what_viewers_show(orientation: int) -> None:
    data = encoded(landscape(), orientation)
    photo = images.decode(data, (64, 48))
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (np.asarray(photo.upright(photo.pixels)) == np.asarray(shown)).all()
    assert photo.size == (64, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_marked_in_raw_coordinates_is_the_same_object_upright(orientation: int) -> None:
    data = encoded(landscape(), orientation)
    photo = images.decode(data, (64, 48))
    mask = np.zeros((48, 64), np.bool_)
    mask[8:16, 40:56] = True
    picture = np.asarray(photo.upright(images.marked(photo.show((0, 0, 64, 48), (64, 48)), mask)), np.int64)
    bright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L")) > 150
    inside = bright & ~images.outline(bright, 1)
    assert (np.asarray(photo.upright(Image.fromarray(mask))) == bright).all()
    assert abs(picture[inside] - (255, 153, 153)).max() <= 8
    assert (picture[images.outline(bright, 1)] == (255, 0, 0)).all()
    assert picture[~bright & ~images.outline(bright, 1)].max() < 100


@pytest.mark.parametrize("orientation", [9, 77, 65535])
def test_an_impossible_orientation_turns_nothing(orientation: int) -> None:
    assert images.decode(encoded(landscape(), orientation), (64, 48)).orientation == 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells what is wrong with the EXIF
@given(st.binary(max_size=60))
def test_damaged_exif_turns_nothing_and_breaks_nothing(damage: bytes) -> None:
    sink = io.BytesIO()
    landscape().save(sink, "JPEG", exif=b"Exif\0\0" + damage)
    assert images.decode(sink.getvalue(), (64, 48)).orientation in range(1, 9)


def test_the_part_that_is_asked_for_is_shown() -> None:
    photo = images.decode(encoded(landscape()), (64, 48))
    part = photo.show((40, 8, 56, 16), (32, 16))
    assert part.size == (32, 16)
    assert np.asarray(part)[2:-2, 2:-2].min() > 200


# --- what cannot be decoded -------------------------------------------------------------------------------


def declaring(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(jpeg())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def as_png() -> bytes:
    return images.as_png(Image.new("RGB", (64, 48)))


@pytest.mark.parametrize(
    ("data", "size", "says"),
    [
        (b"", (64, 48), "64×48 px expected, no JPEG found"),
        (as_png(), (64, 48), "64×48 px expected, no JPEG found"),
        (jpeg(), (48, 64), "48×64 px expected, a JPEG of 64×48 px found"),
        (declaring(20000, 15000), (64, 48), "64×48 px expected, a JPEG of 20000×15000 px found"),
        (declaring(20000, 15000), (20000, 15000), "the JPEG cannot be decoded: Image size .300000000 pixels"),
    ],
    ids=["empty", "png", "other size", "300 megapixels", "300 megapixels as announced"],
)
def test_what_is_refused_by_its_header_is_not_decoded(
    data: bytes, size: Size, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: ImageFile.ImageFile) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(UnreadableImageError, match=says):
        images.decode(data, size)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.9])
def test_a_cut_jpeg(share: float) -> None:
    data = encoded(landscape())
    with pytest.raises(UnreadableImageError):
        images.decode(data[: int(share * len(data))], (64, 48))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells what is wrong with the EXIF
@given(st.lists(st.tuples(st.integers(2, 600), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_a_picture_of_that_size_or_a_reason(damage: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(landscape(), 1))
    for place, value in damage:
        data[place] = value
    with contextlib.suppress(UnreadableImageError):
        assert images.decode(bytes(data), (64, 48)).size == (64, 48)


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "longest", "within", "fitted"),
    [
        ((2250, 1500), 1024, (1024, 683), (1024, 683)),
        ((1500, 2250), 1024, (683, 1024), (683, 1024)),
        ((1024, 768), 1024, (1024, 768), (1024, 768)),
        ((10, 20), 448, (10, 20), (224, 448)),  # never enlarged, or enlarged
        ((2000, 20), 448, (448, 4), (448, 4)),
        ((2000, 2), 448, (448, 1), (448, 1)),  # never thinner than a pixel
        ((1, 1), 448, (1, 1), (448, 448)),
    ],
)
def test_sizes(size: Size, longest: int, within: Size, fitted: Size) -> None:
    assert images.within(size, longest) == within
    assert images.fitted(size, longest) == fitted


@given(st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)), st.integers(1, 4096))
def test_the_longer_side_comes_out_exactly(size: Size, longest: int) -> None:
    assert max(images.fitted(size, longest)) == longest
    assert max(images.within(size, longest)) == min(longest, max(size))


# --- masks ------------------------------------------------------------------------------------------------


def pixel(size: Size, x: int, y: int) -> Bools:
    mask = np.zeros((size[1], size[0]), np.bool_)
    mask[y, x] = True
    return mask


def test_a_scaled_pixel_is_set_when_half_of_it_is_covered() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], np.bool_)  # 2, 1, 0 and 4 of 4
    assert images.scaled_mask(mask, (2, 2)).tolist() == [[True, False], [False, True]]
    assert images.scaled_mask(mask, (4, 4)).tolist() == mask.tolist()


@pytest.mark.parametrize(("size", "to"), [((2250, 1500), (1024, 683)), ((4000, 3000), (56, 42)), ((30000, 9), (56, 1))])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.999, 0.0), (0.0, 0.999), (0.999, 0.999), (0.3, 0.6)])
def test_one_pixel_stays_visible_where_it_was(size: Size, to: Size, place: tuple[float, float]) -> None:
    x, y = int(place[0] * size[0]), int(place[1] * size[1])
    rows, columns = np.nonzero(images.scaled_mask(pixel(size, x, y), to))
    assert 1 <= len(rows) <= 4
    assert abs(columns + 0.5 - (x + 0.5) * to[0] / size[0]).min() <= 1
    assert abs(rows + 0.5 - (y + 0.5) * to[1] / size[1]).min() <= 1


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 60))
def test_a_scaled_mask_is_empty_only_if_it_was(mask: Bools, longest: int) -> None:
    height, width = mask.shape
    size = images.fitted((width, height), longest)
    scaled = images.scaled_mask(mask, size)
    assert scaled.shape == (size[1], size[0])
    assert scaled.any() == mask.any()
    assert scaled.all() or not mask.all()


# --- marks ------------------------------------------------------------------------------------------------

PLAIN, TINTED, RED = [100, 50, 200], [162, 30, 120], [255, 0, 0]


def test_the_region_is_tinted_and_outlined_on_both_sides_of_its_edge() -> None:
    mask = np.zeros((3, 8), np.bool_)
    mask[:, 2:6] = True
    row = [PLAIN, RED, RED, TINTED, TINTED, RED, RED, PLAIN]
    assert np.asarray(images.marked(Image.new("RGB", (8, 3), tuple(PLAIN)), mask)).tolist() == [row, row, row]


def test_on_a_large_picture_the_outline_is_twice_as_wide() -> None:
    mask = np.zeros((2, 701), np.bool_)
    mask[:, 300:400] = True
    picture = np.asarray(images.marked(Image.new("RGB", (701, 2), tuple(PLAIN)), mask))
    assert np.flatnonzero((picture[0] == RED).all(axis=1)).tolist() == [298, 299, 300, 301, 398, 399, 400, 401]
    assert (picture[:, 302:398] == TINTED).all()


def test_a_mask_of_everything_has_no_outline() -> None:
    picture = images.marked(Image.new("RGB", (5, 4), tuple(PLAIN)), np.ones((4, 5), np.bool_))
    assert (np.asarray(picture) == TINTED).all()


def test_no_region_no_mark_and_the_picture_itself_stays() -> None:
    picture = Image.new("RGB", (5, 4), tuple(PLAIN))
    assert (np.asarray(images.marked(picture, np.zeros((4, 5), np.bool_))) == PLAIN).all()
    images.marked(picture, np.ones((4, 5), np.bool_))
    assert (np.asarray(picture) == PLAIN).all()


def near_an_edge(line: Bools, reach: int) -> Bools:
    """Pixels of one row or column at most `reach` steps from a change between neighbours, written out slowly."""
    edges = [i for i, (a, b) in enumerate(itertools.pairwise(line)) if a != b]
    return np.array([any(i - reach < p <= i + reach for i in edges) for p in range(len(line))], np.bool_)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(1, 4))
def test_outlines_equal_a_slow_search(mask: Bools, reach: int) -> None:
    across = np.stack([near_an_edge(row, reach) for row in mask])
    down = np.stack([near_an_edge(column, reach) for column in mask.T], axis=1)
    assert (images.outline(mask, reach) == (across | down)).all()


# --- encoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "1"])
def test_png_is_lossless(mode: str) -> None:
    picture = landscape().convert(mode)
    back = Image.open(io.BytesIO(images.as_png(picture)))
    assert back.mode == mode
    assert (np.asarray(back) == np.asarray(picture)).all()


@pytest.mark.parametrize("encode", [images.as_png, images.as_jpeg])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_was_turned_is_not_turned_again_by_its_reader(
    orientation: int, encode: Callable[[Image.Image], bytes]
) -> None:
    turned = Photograph(landscape(), orientation).upright(landscape())
    back = Image.open(io.BytesIO(encode(turned)))
    assert back.size == ImageOps.exif_transpose(back).size == turned.size
    assert _ORIENTATION not in back.getexif()


def test_thin_red_lines_survive_jpeg() -> None:
    mask = np.zeros((48, 64), np.bool_)
    mask[8:16, 40:56] = True
    picture = images.marked(Image.new("RGB", (64, 48), (90, 120, 60)), mask)
    back = np.asarray(Image.open(io.BytesIO(images.as_jpeg(picture))), np.int64)
    assert abs(back - np.asarray(picture))[images.outline(mask, 1)].max() <= 40
