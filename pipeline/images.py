"""JPEG headers and decoding, bounded: nothing is decoded before its declared size is known to be sane."""

from __future__ import annotations

import struct

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
