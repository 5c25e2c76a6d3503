"""Does the engine look at its pictures at all? Asked of every engine when it starts.

Servers and adapters have been seen to drop images without a word (reference/pipeline_anchors.md 4.10). Every name
would then be made up, and the job would end green.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

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

Answers = Mapping[str, Mapping[str, Any]]
"""What was answered to each case, as rows of ANSWERS, by its title."""


class Case(NamedTuple):
    """A prompt whose answer is known, more or less."""

    title: str
    shown: Literal["blank", "cat", "coffee"]
    question: str


class Preflight:
    """A few prompts that go first, and what to conclude from the answers.

    `complaint` says what is wrong with the engine, judging by all answers, or None; `setting` is what lets it pass.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        prompt: RegionPrompt,
        engine: EngineConfig,
        complaint: Callable[[Answers], str | None],
        setting: str,
    ) -> None:
        self._titles = {-1 - place: case.title for place, case in enumerate(cases)}  # ids below those of any subject
        self._complaint, self._setting = complaint, setting
        rows = []
        for number, case in zip(self._titles, cases, strict=True):
            photograph = _photograph(case.shown)
            region = _middle(photograph, number)
            asked = next(iter(region_prompts.prompts(photograph, [region], case.question, prompt)))
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
        return len(self._answers) == len(self._titles)

    def passed_on(
        self, tables: Iterable[pa.Table], mode: Literal["refuse", "warn"], say: Callable[[str], None]
    ) -> Iterator[pa.Table]:
        """Pass other answers on, once those that belong here have been judged. Raises as `judge` and `tables` do."""
        early: list[pa.Table] = []
        try:
            for table in tables:
                early.append(self.take_own(table))
                if self.complete:
                    self.judge(mode, say)
                    yield from early
                    early = []
        except UserError as error:
            lost = sum(table.num_rows for table in early)
            if self.complete or not lost:
                raise
            raise UserError(
                f"{error}\nNot kept: {lost:,} answers from before the engine had shown that it works."
            ) from error

    def judge(self, mode: Literal["refuse", "warn"], say: Callable[[str], None]) -> None:
        """Conclude, once.

        Raises `UserError` when the engine does not work, and when there is a complaint and `mode` is refuse.
        """
        if self.passed:
            return
        if errors := [row["error"] for row in self._answers.values() if row["error"]]:
            raise UserError(f"the engine does not work: {errors[0]}\nNothing was asked about the masks.")
        answers = {title: self._answers[number] for number, title in self._titles.items()}
        told = "; ".join(f"{title}: {row['text']!r:.80}" for title, row in answers.items())
        say(f"preflight: {told}")
        if complaint := self._complaint(answers):
            if mode == "refuse":
                raise UserError(f"{complaint} ({told})\nMend that, or set {self._setting} = warn.")
            say(f"warning: {complaint} ({told})")
        if all(row["logprob"] is None for row in self._answers.values()):
            say("the engine tells no log probabilities: the column logprob stays empty")
        self.passed = True


def of_names(question: str, prompt: RegionPrompt, engine: EngineConfig) -> Preflight:
    """Return the preflight of an engine that is asked for names: one question, so that only the picture differs."""
    shown: tuple[tuple[str, Literal["blank", "cat", "coffee"]], ...]
    shown = (("a blank picture", "blank"), ("a cat", "cat"), ("a cup of coffee", "coffee"))
    cases = [Case(title, picture, question) for title, picture in shown]
    return Preflight(cases, prompt, engine, blindness, "names.preflight")


def blindness(answers: Answers) -> str | None:
    """Complain when all answers are the same."""
    if len({(row["text"], row["logprob"]) for row in answers.values()}) > 1:
        return None
    return (
        "the engine gives the same answer whatever it is shown: it does not see the pictures. Has the server image "
        "support?"
    )


def _photograph(shown: Literal["blank", "cat", "coffee"]) -> Photograph:
    """Return a picture; the two photographs ship with scikit-image (CC0)."""
    from skimage import data

    pixels = data.coffee() if shown == "coffee" else data.chelsea()
    return Photograph(Image.fromarray(np.full_like(pixels, 128) if shown == "blank" else pixels), 1)


def _middle(photograph: Photograph, number: int) -> Region:
    width, height = photograph.size
    mask = np.zeros((height, width), np.bool_)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return Region(number, (width // 4, height // 4, width // 2 - 1, height // 2 - 1), masks.encode(mask))
