"""Masks with run lengths as long as SA-1B's, for benchmarks: random ragged blobs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from stages import sample_data

WIDTH, HEIGHT = 2250, 1500
MASKS, TEMPLATES = 100, 4  # per image; distinct images, which a shard repeats under new ids


def blob(random: np.random.Generator) -> np.ndarray[Any, Any]:
    """A ragged region, its area log-uniform between 0.001 % and 30 % of the image."""
    radius = np.sqrt(10 ** random.uniform(-5, -0.5) * WIDTH * HEIGHT / np.pi)
    reach = int(2 * radius) + 1
    dy, dx = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    wave, noise = random.uniform(0, 6, 12), random.normal(0, 0.003, (2 * reach + 1, 2 * reach + 1))
    angles = np.linspace(-np.pi, np.pi, 2000)
    wobble = sum(np.sin((k + 2) * angles + phase) / (k + 2) for k, phase in enumerate(wave))
    region = np.hypot(dy, dx) < radius * (1 + 0.2 * np.interp(np.arctan2(dy, dx), angles, wobble) + noise)
    top, left = int(random.integers(HEIGHT)) - reach, int(random.integers(WIDTH)) - reach
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    rows = slice(max(top, 0), min(top + 2 * reach + 1, HEIGHT))
    columns = slice(max(left, 0), min(left + 2 * reach + 1, WIDTH))
    mask[rows, columns] = region[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    mask[max(top + reach, 0), max(left + reach, 0)] = True
    return mask


@cache
def templates() -> list[list[dict[str, Any]]]:
    """The masks of a few images."""
    random = np.random.default_rng(0)
    return [[sample_data.annotation(0, blob(random), 0.95, 0.98) for _ in range(MASKS)] for _ in range(TEMPLATES)]
