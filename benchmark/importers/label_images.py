"""PNG and TIFF files whose pixels are labels, not colours to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_NUMBERS = ("P", "L", "I", "I;16", "I;16B")
"""Pillow's modes of one number a pixel; of a palette the index is the label."""


class UnreadableError(Exception):
    """The file is no such image; says why."""


def _open(path: Path, modes: tuple[str, ...]) -> npt.NDArray[Any]:
    try:
        with Image.open(path, formats=("PNG", "TIFF")) as image:
            if image.mode not in modes:
                raise UnreadableError(f"pixels of kind {image.mode}, not {' or '.join(modes)}")
            return np.asarray(image)
    except FileNotFoundError:
        raise UnreadableError("no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"cannot be decoded: {error}") from error


def open_labels(path: Path) -> npt.NDArray[Any]:
    """Return the (height, width) labels of a file with one number a pixel. Raises `UnreadableError`."""
    return _open(path, _NUMBERS)


def open_colours(path: Path) -> npt.NDArray[np.uint8]:
    """Return the (height, width, 3) pixels of a colour image. Raises `UnreadableError`."""
    return _open(path, ("RGB",))


def check_size(pixels: npt.NDArray[Any], width: int, height: int) -> None:
    """Raise `UnreadableError` when the pixels are not those of an image of that size."""
    if pixels.shape[:2] != (height, width):
        raise UnreadableError(f"{pixels.shape[1]}×{pixels.shape[0]} px, but its image has {width}×{height}")
