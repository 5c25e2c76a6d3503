"""How many tokens a picture costs, by the model's own resize rule, without running its processor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pipeline.images import Size
from stages.engines.base import EngineConfig

_FACTOR = 28  # px a side of a Qwen2.5-VL token: patches of 14, merged 2 × 2
_TILE_PX, _TILE_TOKENS = 448, 256  # InternVL: a tile, after its pixel shuffle
_LONGEST_RATIO = 200  # Qwen2.5-VL refuses narrower pictures


def qwen_size(size: Size, min_pixels: int, max_pixels: int) -> Size:
    """Return the (width, height) to which Qwen2.5-VL scales a picture (transformers' smart_resize).

    Both sides become multiples of 28, the area is brought between `min_pixels` and `max_pixels`, the ratio of the
    sides is kept as well as that allows. Raises `ValueError` for a ratio above 200.
    """
    if _too_narrow(size):
        raise ValueError(f"a picture of {size[0]}×{size[1]} px is too narrow for Qwen2.5-VL")
    width, height = (round(side / _FACTOR) * _FACTOR for side in size)  # 0 up to 14 px: to be enlarged below
    area = size[0] * size[1]
    if width * height > max_pixels:
        scale = math.sqrt(area / max_pixels)
        width, height = (max(_FACTOR, math.floor(side / scale / _FACTOR) * _FACTOR) for side in size)
    elif width * height < min_pixels:
        scale = math.sqrt(min_pixels / area)
        width, height = (math.ceil(side * scale / _FACTOR) * _FACTOR for side in size)
    return width, height


def tiles(size: Size, most: int) -> int:
    """Return into how many tiles of 448 px InternVL cuts a picture, the thumbnail of several counted as one more.

    The grid of at most `most` tiles whose shape is nearest the picture's; of two equally near, the larger when the
    picture has more than half its pixels (reference/wowseg_facts.md C.2).
    """
    width, height = size
    grids = [(a, b) for a in range(1, most + 1) for b in range(1, most // a + 1)]
    best, nearest = 1, math.inf
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        far = abs(width / height - columns / rows)
        if far < nearest or (far == nearest and width * height > _TILE_PX**2 * columns * rows / 2):
            best, nearest = columns * rows, far
    return best + (best > 1)


def _too_narrow(size: Size) -> bool:
    return max(size) > _LONGEST_RATIO * min(size)


Question = Literal["name", "check"]

_TEXT_TOKENS: dict[tuple[Question, str], int] = {
    ("name", "shared+crop"): 99,
    ("name", "overlay"): 80,
    ("name", "crop"): 80,
    ("name", "marks"): 115,
    ("name", "cutout"): 45,
    ("check", "shared+crop"): 49,
    ("check", "overlay"): 47,
    ("check", "crop"): 47,
}
"""Of the questions in data_manifests/prompts with Qwen2.5-VL's chat template around them, pictures left out; a test
compares them with the tokenizer. `marks` counts its regions twice, one token a digit; `check` has a category of two
tokens."""


def text_tokens(question: Question, layout: str, regions: int, engine: EngineConfig) -> int:
    """Return the tokens of a prompt besides its pictures, about `regions` regions."""
    if not engine.has_tokens:
        return 0
    return _TEXT_TOKENS[question, layout] + (2 * (len(str(regions)) - 1) if layout == "marks" else 0)


def image_tokens(sizes: Sequence[Size], engine: EngineConfig) -> int:
    """Return the tokens of pictures of these sizes; 0 for the embedded engine, which has none.

    A picture too narrow for Qwen2.5-VL counts 0: it is for the engine to refuse it, and others may take it.
    """
    if not engine.has_tokens:
        return 0
    if engine.tiles:
        return sum(_TILE_TOKENS * tiles(size, engine.tiles) for size in sizes)
    possible = (size for size in sizes if not _too_narrow(size))
    scaled = (qwen_size(size, engine.min_pixels, engine.max_pixels) for size in possible)
    return sum(width * height // _FACTOR**2 for width, height in scaled)
