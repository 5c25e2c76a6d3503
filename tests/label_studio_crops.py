"""Crops to look at: regions of scikit-image's photographs, marked as people will see them, and the same without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage import data
from skimage.segmentation import felzenszwalb

from pipeline import images

SIDE = 256  # px

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def write_crops(folder: Path, count: int) -> list[str]:
    """Write NAME.jpg (marked) and NAME-raw.jpg for `count` regions; return the names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, (raw, mask) in zip(range(count), _regions(), strict=False):
        names.append(f"{number:03}")
        (folder / f"{names[-1]}.jpg").write_bytes(images.as_jpeg(_marked(raw, mask)))
        (folder / f"{names[-1]}-raw.jpg").write_bytes(images.as_jpeg(raw))
    assert len(names) == count
    return names


def _marked(raw: Image.Image, mask: Mask) -> Image.Image:
    """Tint and outline in red, with white around the red, which tells it from a red surface."""
    pixels = np.array(images.marked(raw, mask))
    pixels[images.outline(mask, 2) & ~mask] = 255
    pixels[images.outline(mask, 1)] = (255, 0, 0)
    return Image.fromarray(pixels)


def _regions() -> Iterator[tuple[Image.Image, Mask]]:
    """Take turns between the photographs."""
    sources = [_regions_of(photograph()) for photograph in (data.astronaut, data.chelsea, data.coffee)]
    while sources:
        for source in list(sources):
            if (region := next(source, None)) is None:
                sources.remove(source)
            else:
                yield region


def _regions_of(photograph: Pixels) -> Iterator[tuple[Image.Image, Mask]]:
    segments = felzenszwalb(photograph, scale=200, sigma=0.8, min_size=400)
    for segment in np.unique(segments):
        mask = segments == segment
        if mask.mean() < 0.15:
            yield _crop(photograph, mask)


def _crop(photograph: Pixels, mask: Mask) -> tuple[Image.Image, Mask]:
    """Cut a square around a region, half as large again."""
    y, x = np.nonzero(mask)
    side = int(1.5 * max(np.ptp(y), np.ptp(x)))
    left, top = (
        int(np.clip((v.min() + v.max() - side) // 2, 0, max(0, n - side)))
        for v, n in zip((x, y), mask.shape[::-1], strict=True)
    )
    window = np.s_[top : top + side, left : left + side]
    raw = Image.fromarray(photograph[window])
    size = images.fitted(raw.size, SIDE)
    return raw.resize(size, Image.Resampling.LANCZOS), images.scaled_mask(mask[window], size)
