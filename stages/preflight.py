"""Does the engine look at its pictures at all? Asked of every engine when it starts.

Servers and adapters have been seen to drop images without a word (reference/pipeline_anchors.md 4.10). Every name
would then be made up, and the job would end green.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline import masks
from pipeline.errors import UserError
from pipeline.images import Photograph
from stages import region_prompts
from stages.engines.base import PROMPTS, EngineConfig, part
from stages.prompt_tokens import image_tokens
from stages.region_prompts import Region, RegionPrompt

_CASES = {-1: "a blank picture", -2: "a cat", -3: "a cup of coffee"}
"""The prompts' ids, below those of any mask, and what is shown; the same question, so only the picture differs."""


class Preflight:
    """Three prompts that go first, and what to conclude from the answers."""

    def __init__(self, question: str, prompt: RegionPrompt, engine: EngineConfig) -> None:
        rows = []
        for number, photograph in zip(_CASES, _photographs(), strict=True):
            asked = next(iter(region_prompts.prompts(photograph, [_middle(photograph, number)], question, prompt)))
            rows.append(
                {
                    "prompt_id": number,
                    "image_id": number,
                    "shard": "",
                    "subjects": [number],
                    "parts": [part(piece) for piece in asked.parts],
                    "image_tokens": image_tokens(asked.sizes, engine),
                    "shared_tokens": 0,
                }
            )
        self.prompts = pa.Table.from_pylist(rows, PROMPTS)
        self.passed = False
        self._answers: dict[int, dict[str, Any]] = {}

    def take_own(self, answers: pa.Table) -> pa.Table:
        """Keep the answers that belong here; return the others."""
        own = pc.less(answers["prompt_id"], 0)
        self._answers.update({row["prompt_id"]: row for row in answers.filter(own).to_pylist()})
        return answers.filter(pc.invert(own))

    @property
    def complete(self) -> bool:
        """Say whether all answers are there."""
        return len(self._answers) == len(_CASES)

    def passed_on(
        self, tables: Iterable[pa.Table], mode: Literal["refuse", "warn"], say: Callable[[str], None]
    ) -> Iterator[pa.Table]:
        """Pass answers about masks on, once those that belong here have been judged. Raises as `judge` does."""
        early: list[pa.Table] = []
        for table in tables:
            early.append(self.take_own(table))
            if self.complete:
                self.judge(mode, say)
                yield from early
                early = []

    def judge(self, mode: Literal["refuse", "warn"], say: Callable[[str], None]) -> None:
        """Conclude, once.

        Raises `UserError` when the engine does not work, and when it ignores pictures and `mode` is refuse.
        """
        if self.passed:
            return
        if errors := [row["error"] for row in self._answers.values() if row["error"]]:
            raise UserError(f"the engine does not work: {errors[0]}\nNothing was asked about the masks.")
        told = "; ".join(f"{shown}: {self._answers[number]['text']!r}" for number, shown in _CASES.items())
        say(f"preflight: {told}")
        if len({(row["text"], row["logprob"]) for row in self._answers.values()}) == 1:
            complaint = f"the engine gives the same answer whatever it is shown ({told}): it does not see the pictures."
            if mode == "refuse":
                raise UserError(f"{complaint}\nCheck the server's image support, or set names.preflight = warn.")
            say(f"warning: {complaint}")
        if all(row["logprob"] is None for row in self._answers.values()):
            say("the engine tells no log probabilities: the column logprob stays empty")
        self.passed = True


def _photographs() -> list[Photograph]:
    """Return the pictures of `_CASES`; the two photographs ship with scikit-image (CC0)."""
    from skimage import data

    known = [data.chelsea(), data.coffee()]
    blank = np.full_like(known[0], 128)
    return [Photograph(Image.fromarray(pixels), 1) for pixels in (blank, *known)]


def _middle(photograph: Photograph, number: int) -> Region:
    width, height = photograph.size
    mask = np.zeros((height, width), np.bool_)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return Region(number, (width // 4, height // 4, width // 2 - 1, height // 2 - 1), masks.encode(mask))
