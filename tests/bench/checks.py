"""`make bench`: what showing a pair to the model that checks costs one core, beside the obvious way.

Simulated: the photographs and masks, as in tests/bench/names.py. The obvious way decodes image and mask for every
question, tints and outlines at full size, and encodes that; ours draws a mask once for all that is asked about it.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from simulated_masks import HEIGHT, WIDTH
from simulated_regions import OBVIOUS, obvious, photograph, rate, regions

from bench.figures import Figure, Goal, goals, hand_over
from pipeline import images
from stages import questions, region_prompts
from stages.engines.base import EngineConfig, part
from stages.prompt_tokens import image_tokens, text_tokens
from stages.region_prompts import Region
from stages.verification_settings import VerifyConfig

FASTER = Goal(5, "pictures of a check, shared+crop, beside the full-size overlay", at_least=10)
CONTROLS = 10  # of a hundred pairs, the default share
console = Console(width=110)
INTERNVL = EngineConfig(kind="vllm", model="internvl3-78b", tiles=12)


def ours(data: bytes, group: list[Region], config: VerifyConfig) -> int:
    """Render every question about one image; return how many."""
    photo = images.decode(data, (WIDTH, HEIGHT))
    text, asked = questions.template(config), 0
    for prompt in region_prompts.prompts(photo, group, text, config.shown):
        for name in ("dog", "teapot")[: 1 + (prompt.mask_ids[0] < CONTROLS)]:
            asked += len([*map(part, prompt.parts[:-1]), part(questions.question(text, name, config.article))]) > 1
    return asked


def tokens(group: list[Region], config: VerifyConfig) -> tuple[float, float]:
    """Prompt tokens per pair: all, and without what the image's other prompts share."""
    outlines = list(region_prompts.outlines((WIDTH, HEIGHT), [region.box for region in group], config.shown))
    whole = sum(image_tokens(o.sizes, INTERNVL) + text_tokens("check", config.layout, 1, INTERNVL) for o in outlines)
    shared = sum(image_tokens(o.sizes[: o.shared], INTERNVL) for o in outlines[1:])
    return whole / len(group), (whole - shared) / len(group)


def main() -> list[Figure]:
    """Print the figures; return those that were asked for."""
    data, group = photograph(), regions()
    slow = rate(lambda: len([obvious(data, region) for region in group[:OBVIOUS]]))
    table = Table("one core", "questions/s", "× obvious", "tokens/pair", "with a prefix cache", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("obvious: full-size overlay, everything decoded per question", f"{slow:,.1f}", "1", "", "")
    shown = {
        "shared+crop": VerifyConfig(layout="shared+crop"),
        "shared+crop, square": VerifyConfig(layout="shared+crop", square=True),
        "overlay": VerifyConfig(layout="overlay"),
        "crop, square": VerifyConfig(layout="crop", square=True),
    }
    faster = {}
    for title, config in shown.items():
        fast = rate(lambda config=config: ours(data, group, config))  # type: ignore[misc]
        alone, cached = tokens(group, config)
        faster[title] = fast / slow
        table.add_row(title, f"{fast:,.0f}", f"{fast / slow:,.1f}", f"{alone:,.0f}", f"{cached:,.0f}")
    console.print(
        f"one image of {WIDTH}×{HEIGHT} px, {len(group)} masks ([bold]simulated[/]), {CONTROLS} of them asked about "
        "twice; tokens by InternVL's rule, 12 tiles at most"
    )
    console.print(table)
    found = [FASTER.reached(faster["shared+crop"])]
    console.print(goals(found))
    return found


if __name__ == "__main__":
    hand_over(main())
