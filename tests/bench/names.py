"""`make bench`: what showing a region costs, in processor time and in tokens, beside the obvious way.

Simulated: the photographs (smooth noise of SA-1B's usual size) and the masks (tests/simulated_masks.py). The obvious
way decodes the whole image and the whole mask for every region, tints and outlines at full size, and encodes that.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from simulated_masks import HEIGHT, WIDTH, templates

from pipeline import images, masks
from stages import region_prompts
from stages.engines.base import EngineConfig
from stages.prompt_tokens import image_tokens, text_tokens
from stages.region_prompts import Region, RegionPrompt

OBVIOUS, QUESTION = 8, "What is it?"
QWEN = EngineConfig(kind="vllm", model="qwen2.5-vl-72b")
console = Console(width=110)


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


def ours(data: bytes, group: list[Region], layout: str) -> int:
    """Render every prompt of one image."""
    photo = images.decode(data, (WIDTH, HEIGHT))
    prompt = RegionPrompt.model_validate({"layout": layout})
    return sum(len(asked.mask_ids) for asked in region_prompts.prompts(photo, group, QUESTION, prompt))


def rate(work: Callable[[], int]) -> float:
    """Regions a second, the best of three."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        best = max(best, work() / (time.perf_counter() - start))
    return best


def tokens(group: list[Region], layout: str) -> tuple[float, float]:
    """Prompt tokens per mask: all, and without what the image's other prompts share."""
    prompt = RegionPrompt.model_validate({"layout": layout})
    outlines = list(region_prompts.outlines((WIDTH, HEIGHT), [region.box for region in group], prompt))
    whole = sum(image_tokens(o.sizes, QWEN) + text_tokens("name", layout, o.regions, QWEN) for o in outlines)
    shared = sum(image_tokens(o.sizes[: o.shared], QWEN) for o in outlines[1:])
    return whole / len(group), (whole - shared) / len(group)


def main() -> None:
    """Print the figures."""
    data, group = photograph(), regions()
    slow = rate(lambda: len([obvious(data, region) for region in group[:OBVIOUS]]))
    full = image_tokens([(WIDTH, HEIGHT)], QWEN) + text_tokens("name", "overlay", 1, QWEN)
    table = Table("one core", "regions/s", "× obvious", "tokens/mask", "with a prefix cache", "fewer ×", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(
        "obvious: full-size overlay, everything decoded per mask", f"{slow:,.1f}", "1", f"{full:,}", f"{full:,}"
    )
    shown: dict[str, Any] = {}
    for layout in ("shared+crop", "overlay", "crop", "marks", "cutout"):
        fast = rate(lambda layout=layout: ours(data, group, layout))  # type: ignore[misc]
        alone, cached = tokens(group, layout) if layout != "cutout" else (0.0, 0.0)
        shown[layout] = fast / slow, alone, cached
        fewer = f"{alone / cached:.1f}" if cached else ""
        table.add_row(layout, f"{fast:,.0f}", f"{fast / slow:,.1f}", f"{alone:,.0f}", f"{cached:,.0f}", fewer)
    console.print(
        f"one image of {WIDTH}×{HEIGHT} px, {len(data) / 1e6:.1f} MB, {len(group)} masks ([bold]simulated[/])"
    )
    console.print(table)
    faster, alone, cached = shown["shared+crop"]
    console.print(f"goals, shared+crop: ≥ 10 × the obvious way: {faster:.1f}; ≥ 3 × fewer tokens: {alone / cached:.1f}")


if __name__ == "__main__":
    main()
