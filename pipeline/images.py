"""JPEG headers and decoding, bounded: nothing is decoded before its declared size is known to be sane."""

from __future__ import annotations

import io

HEADER_BYTES = 4096
"""Enough for the header of a JPEG without embedded thumbnails or profiles, SA-1B's kind."""


def jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) in px as declared in a JPEG's header, or None if `head` holds no such header.

    `head` is the beginning of the file, at least up to the frame header. No pixel is decoded, so a
    declared size of any magnitude is safe to ask for.
    """
    # The plugin class, not Image.open: that one refuses large declared sizes instead of telling them.
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        with JpegImageFile(io.BytesIO(head)) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError):  # Pillow's answers to bad bytes
        return None
    return (width, height) if width > 0 and height > 0 else None
