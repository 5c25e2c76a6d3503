"""How many tokens a picture costs, by the model's own resize rule, without running its processor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.images import Size
from stages.engines.base import EngineConfig

_FACTOR = 28  # px a side of a Qwen2.5-VL token: patches of 14, merged 2 × 2
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


def _too_narrow(size: Size) -> bool:
    return max(size) > _LONGEST_RATIO * min(size)


_TEXT_TOKENS: dict[str, int] = {"shared+crop": 99, "overlay": 80, "crop": 80, "marks": 115, "cutout": 45}
"""Of the questions in data_manifests/prompts/name with Qwen2.5-VL's chat template around them, pictures left out; a
test compares them with the tokenizer. `marks` counts its regions twice, one token a digit."""


def text_tokens(layout: str, regions: int, engine: EngineConfig) -> int:
    """Return the tokens of a naming prompt besides its pictures, about `regions` regions."""
    if not engine.has_tokens:
        return 0
    return _TEXT_TOKENS[layout] + (2 * (len(str(regions)) - 1) if layout == "marks" else 0)


def image_tokens(sizes: Sequence[Size], engine: EngineConfig) -> int:
    """Return the tokens of pictures of these sizes; 0 for the embedded engine, which has none.

    A picture too narrow for Qwen2.5-VL counts 0: it is for the engine to refuse it, and others may take it.
    """
    if not engine.has_tokens:
        return 0
    possible = (size for size in sizes if not _too_narrow(size))
    scaled = (qwen_size(size, engine.min_pixels, engine.max_pixels) for size in possible)
    return sum(width * height // _FACTOR**2 for width, height in scaled)
