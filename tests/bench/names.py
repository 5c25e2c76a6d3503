"""`make bench`: what showing a region costs, in processor time and in tokens, beside the obvious way.

Simulated: the photographs (smooth noise of SA-1B's usual size) and the masks (tests/simulated_masks.py). The obvious
way decodes the whole image and the whole mask for every region, tints and outlines at full size, and encodes that.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from simulated_masks import HEIGHT, WIDTH
from simulated_regions import OBVIOUS, obvious, photograph, rate, regions

from bench.figures import Figure, Goal, goals, hand_over
from pipeline import images
from stages import region_prompts
from stages.engines.base import EngineConfig
from stages.prompt_tokens import image_tokens, text_tokens
from stages.region_prompts import Region, RegionPrompt

FASTER = Goal(3, "regions shown, shared+crop, beside the full-size overlay", at_least=10)
FEWER = Goal(3, "prompt tokens of shared+crop, fewer with a prefix cache", at_least=3)
MARKS = Goal(3, "prompt tokens of marks, fewer with a prefix cache")
QUESTION = "What is it?"
QWEN = EngineConfig(kind="vllm", model="qwen2.5-vl-72b")
console = Console(width=110)


def ours(data: bytes, group: list[Region], layout: str) -> int:
    """Render every prompt of one image."""
    photo = images.decode(data, (WIDTH, HEIGHT))
    prompt = RegionPrompt.model_validate({"layout": layout})
    return sum(len(asked.mask_ids) for asked in region_prompts.prompts(photo, group, QUESTION, prompt))


def tokens(group: list[Region], layout: str) -> tuple[float, float]:
    """Prompt tokens per mask: all, and without what the image's other prompts share."""
    prompt = RegionPrompt.model_validate({"layout": layout})
    outlines = list(region_prompts.outlines((WIDTH, HEIGHT), [region.box for region in group], prompt))
    whole = sum(image_tokens(o.sizes, QWEN) + text_tokens("name", layout, o.regions, QWEN) for o in outlines)
    shared = sum(image_tokens(o.sizes[: o.shared], QWEN) for o in outlines[1:])
    return whole / len(group), (whole - shared) / len(group)


def main() -> list[Figure]:
    """Print the figures; return those that were asked for."""
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
    (faster, alone, cached), (_, marked, marked_cached) = shown["shared+crop"], shown["marks"]
    found = [FASTER.reached(faster), FEWER.reached(alone / cached), MARKS.reached(marked / marked_cached)]
    console.print(goals(found))
    return found


if __name__ == "__main__":
    hand_over(main())
