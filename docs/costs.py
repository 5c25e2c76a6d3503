"""Writes costs.md: what a million regions cost, by the quote of the preset rr7k, for images of SA-1B's size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cli_options import load_config
from pipeline.images import Size
from pipeline.run import Run
from stages import quote, verification
from stages.region_prompts import BoundingBox

PAGE = Path(__file__).with_name("costs.md")
SIZE: Size = (2250, 1500)
IMAGES = 200
MILLION = 1_000_000
HEAD = """# What a million regions cost

Tokens and GPU-hours to name, and to check, a million regions by `rr7k`'s own quote for made-up boxes in images of
{width}×{height} px (SA-1B's size), with the preset `rr7k`: {namer} and {verifier} at a declared {rate:,.0f} tokens a
second on {gpus:g} GPUs. The rate was measured by nobody here; a run replaces it by its own, and `--dry-run` tells the
same of a run's real regions. Tokens are those that have to be computed: a whole image's are computed once for all its
regions. Written by docs/costs.py.

| | layout | regions of an image | questions | tokens a region | GPU-hours |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page, Markdown."""
    settings = load_config("rr7k", [])
    namer, verifier = settings.namer, settings.verifier
    width, height = SIZE
    told = {"width": width, "height": height, "namer": namer.model, "verifier": verifier.model}
    head = HEAD.format(**told, rate=namer.tokens_per_second, gpus=namer.gpus_used)
    steps = (("name", settings.names, namer, quote.NAMING), ("check", settings.verify, verifier, verification.TASK))
    return head + "".join(row for step in steps for row in _rows(*step))


def _rows(step: str, shown: Any, engine: Any, task: quote.Task) -> Iterator[str]:
    layouts = ("shared+crop", "crop", "overlay", "marks") if step == "name" else ("shared+crop", "crop", "overlay")
    with tempfile.TemporaryDirectory() as folder:
        for layout in layouts:
            for regions in (8, 100):
                prompt = shown.shown.model_copy(update={"layout": layout})
                images = ((SIZE, _boxes(number, regions)) for number in range(IMAGES))
                found = quote.quote_images(Run(folder), images, task, prompt, engine)
                work = (found.prompt_tokens - found.shared_tokens + found.generated_tokens) / found.masks
                hours = (found.gpu_hours or 0) / found.masks * MILLION
                questions = found.prompts / found.masks * MILLION
                yield f"| {step} | {layout} | {regions} | {questions:,.0f} | {work:,.0f} | {hours:,.0f} |\n"


def _boxes(seed: int, count: int) -> list[BoundingBox]:
    random = np.random.default_rng(seed)
    sides = np.exp(random.uniform(np.log(40), np.log(700), (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (np.array(SIZE) - sides)
    return [tuple(map(float, (*corner, *side))) for corner, side in zip(corners, sides, strict=True)]  # type: ignore[misc]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
