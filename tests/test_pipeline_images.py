"""Declared sizes are read from the header alone; the reference is Pillow."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sa1b_shards import jpeg

from pipeline.images import jpeg_size


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
