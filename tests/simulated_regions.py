"""A simulated image of SA-1B's size with its regions, and the obvious way to show one; for the benchmarks."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from simulated_masks import HEIGHT, WIDTH, templates

from pipeline import images, masks
from stages.region_prompts import Region

OBVIOUS = 8
"""Regions for which the obvious way is timed."""


def photograph() -> bytes:
    """A JPEG of SA-1B's size and about its weight."""
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 6, WIDTH // 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=80)
    return sink.getvalue()


def regions() -> list[Region]:
    """A hundred masks."""
    notes = templates()[0]
    return [Region(k, tuple(note["bbox"]), note["segmentation"]["counts"]) for k, note in enumerate(notes)]


def obvious(data: bytes, region: Region) -> bytes:
    """Decode all, mark at full size, encode all."""
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    mask = masks.decode(region.rle_counts, HEIGHT, WIDTH)
    return images.as_jpeg(images.marked(Image.fromarray(pixels), mask))


def rate(work: Callable[[], int]) -> float:
    """Regions a second, the best of three."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        best = max(best, work() / (time.perf_counter() - start))
    return best
