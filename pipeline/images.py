"""JPEG headers and decoding, bounded: nothing is decoded before its declared size is known to be sane."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in px; right and bottom excluded."""

HEADER_BYTES = 4096
"""Enough for the header of a JPEG without embedded thumbnails or profiles, SA-1B's kind."""

_NO_FRAME = (0xC4, 0xC8, 0xCC)  # markers among the frame headers 0xC0 to 0xCF that are none (ITU-T T.81, table B.1)


def jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) in px as declared in a JPEG's frame header, or None if `head` holds no such header.

    `head` is the beginning of the file. No pixel is decoded, so a declared size of any magnitude is safe to
    ask for. (Pillow refuses to tell large sizes, and takes 60 µs for what a shard's index asks 11,000 times.)
    """
    if not head.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", head, position + 5)
            return (width, height) if width and height else None
        else:
            position += 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return None


# --- pixels -----------------------------------------------------------------------------------------------

_QUALITY = 90  # of JPEGs sent to models; red lines survive it without chroma subsampling
_RED = np.array([255, 0, 0], np.uint8)
_TINT = 0.4  # share of red inside a marked region
_ORIENTATION = 0x0112  # the EXIF tag


class UnreadableImageError(Exception):
    """The bytes are no whole image of the size they should have; says why."""


@dataclass(frozen=True)
class Photograph:
    """A decoded image: pixels as they lie in the file, which is what masks refer to."""

    pixels: Image.Image
    """Mode RGB."""
    orientation: int
    """EXIF, 1 to 8; how `upright` has to turn what is shown."""

    @property
    def size(self) -> Size:
        """(width, height) in px."""
        return self.pixels.size

    def show(self, box: Box, size: Size) -> Image.Image:
        """Return the part inside `box`, scaled to `size` (width, height), not yet upright."""
        return self.pixels.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)

    def upright(self, picture: Image.Image) -> Image.Image:
        """Turn a picture cut from this photograph as the camera was held."""
        if self.orientation == 1:
            return picture
        picture.getexif()[_ORIENTATION] = self.orientation
        return ImageOps.exif_transpose(picture)


def decode(data: bytes, size: Size) -> Photograph:
    """Decode a JPEG that should have `size` (width, height); grey and CMYK become RGB.

    Nothing is decoded unless the header states that size, so no declared size can exhaust memory.
    Raises `UnreadableImageError`.
    """
    if (stated := jpeg_size(data)) != size:
        found = "no JPEG" if stated is None else f"a JPEG of {stated[0]}×{stated[1]} px"
        raise UnreadableImageError(f"{size[0]}×{size[1]} px expected, {found} found")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"the JPEG cannot be decoded: {error}") from error
    return Photograph(pixels, orientation if orientation in range(1, 9) else 1)


def within(size: Size, longest: int) -> Size:
    """Scale `size` down, never up, so that its longer side is at most `longest` px."""
    return fitted(size, min(longest, max(size)))


def fitted(size: Size, longest: int) -> Size:
    """Scale `size` up or down so that its longer side is `longest` px and the other at least 1."""
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled_mask(mask: npt.NDArray[np.bool_], size: Size) -> npt.NDArray[np.bool_]:
    """Scale a mask to `size` (width, height): pixels at least half covered, or if there are none, touched at all."""
    scaled = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) >= 128
    if not scaled.any():  # by its places: a cover below 1/512 is rounded to none
        y, x = np.nonzero(mask)
        scaled[y * size[1] // mask.shape[0], x * size[0] // mask.shape[1]] = True
    return scaled


def marked(picture: Image.Image, mask: npt.NDArray[np.bool_]) -> Image.Image:
    """Tint `mask` translucent red and outline it in red (WOW-Seg, App. A; figure of the annotation pipeline).

    `mask` has the picture's height and width. The outline is 2 px wide, 4 px on pictures over 700 px.
    """
    pixels = np.array(picture)
    pixels[mask] = (pixels[mask] * (1 - _TINT) + _RED * _TINT).astype(np.uint8)
    pixels[outline(mask, 2 if max(mask.shape) > 700 else 1)] = _RED
    return Image.fromarray(pixels)


def outline(mask: npt.NDArray[np.bool_], reach: int) -> npt.NDArray[np.bool_]:
    """Return the pixels within `reach` of the edge of `mask`, on both sides; the picture's border is no edge."""
    edge = np.zeros(mask.shape, np.bool_)
    for axis in (0, 1):
        change = np.diff(mask, axis=axis)
        for shift in range(-reach + 1, reach + 1):
            start = max(shift, 0)
            stop = max(start, min(mask.shape[axis], change.shape[axis] + shift))
            place = (slice(start, stop), slice(None))[:: 1 if axis == 0 else -1]
            source = (slice(start - shift, stop - shift), slice(None))[:: 1 if axis == 0 else -1]
            edge[place] |= change[source]
    return edge


def as_png(picture: Image.Image) -> bytes:
    """Encode a picture without loss; meant for masks."""
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def as_jpeg(picture: Image.Image) -> bytes:
    """Encode a picture for a model, without chroma subsampling."""
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=_QUALITY, subsampling=0)
    return sink.getvalue()
