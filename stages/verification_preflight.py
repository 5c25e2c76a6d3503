"""Does the engine tell right names from wrong ones? Asked before the first pair, and watched while controls come in."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Literal

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.proportions import counted
from stages import questions, yes_no
from stages.engines.base import EngineConfig
from stages.preflight import Answers, Case, Preflight
from stages.verification_settings import VerifyConfig

_SETTING = "verify.preflight"
_RIGHT = ("a cat, asked whether it is one", "a cup of coffee, asked whether it is one")
_WRONG = ("a cat, asked whether it is an airplane", "a blank picture, asked whether it is a cat")

_ENOUGH = 20  # controls before anything is concluded from them
_LEVEL = 0.01
"""Of the limit below which the false-yes rate has to be possible. Small, as it is looked at again and again."""


def preflight(config: VerifyConfig, engine: EngineConfig) -> Preflight:
    """Return two questions whose answer is yes and two whose answer is no."""
    text = questions.template(config)
    asked = (
        Case(_RIGHT[0], "cat", questions.question(text, "cat", config.article)),
        Case(_RIGHT[1], "coffee", questions.question(text, "cup of coffee", config.article)),
        Case(_WRONG[0], "cat", questions.question(text, "airplane", config.article)),
        Case(_WRONG[1], "blank", questions.question(text, "cat", config.article)),
    )
    return Preflight(asked, config.shown, engine, complaint, _SETTING)


def complaint(answers: Answers) -> str | None:
    """Complain about an engine that gives right and wrong names the same answers, with the same probabilities or none.

    Four pictures are too few for more: an engine that errs about one of them passes.
    """
    readings = {title: yes_no.read(row["text"], row["likeliest"]) for title, row in answers.items()}
    said = {reading.outcome for reading in readings.values()}
    if said == {"unclear"}:
        return "the engine says neither yes nor no to any question."
    right, wrong = ([readings[title].score for title in titles] for titles in (_RIGHT, _WRONG))
    if len(said) > 1 or _tells_apart(right, wrong):
        return None
    return f"the engine says {said.pop()} to everything, to wrong names as surely as to right ones."


def _tells_apart(right: list[float | None], wrong: list[float | None]) -> bool:
    """Say whether every right name got a higher score than every wrong one."""
    told = [score for score in right if score is not None], [score for score in wrong if score is not None]
    return all(told) and min(told[0]) > max(told[1])


class ControlWatch:
    """Counts the yeses to wrong names while answers come in, and stops an engine that says yes to most of them."""

    def __init__(
        self,
        control_ids: Container[int],
        before: tuple[int, int],
        mode: Literal["refuse", "warn"],
        say: Callable[[str], None],
    ) -> None:
        """Begin with the yeses and answers of earlier runs, which may be enough to stop this one."""
        self._control_ids, self._mode, self._say = control_ids, mode, say
        self._yes, self._asked = before
        self._warned = False
        self._judge()

    def passed_on(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Pass rows of `ANSWERS` on. Raises `UserError` once most controls get a yes, unless told to warn."""
        for table in tables:
            for row in table.select(["prompt_id", "text", "likeliest", "error", "problem"]).to_pylist():
                if row["prompt_id"] in self._control_ids and not (row["error"] or row["problem"]):
                    self._asked += 1
                    self._yes += yes_no.read(row["text"], row["likeliest"]).outcome == "yes"
            yield table  # first, so that what was answered is kept
            self._judge()

    def _judge(self) -> None:
        if self._warned or self._asked < _ENOUGH or not self._yes:
            return
        if counted(self._yes, self._asked, 1 - _LEVEL, "lower").lower <= 0.5:
            return
        told = f"the engine says yes to {self._yes:,} of {self._asked:,} wrong names: its yes means next to nothing."
        if self._mode == "refuse":
            raise UserError(
                f"{told}\nLook at them with rr7k show verdicts; choose another model or verify.layout, or set "
                f"{_SETTING} = warn. What was answered is kept."
            )
        self._warned = True
        self._say(f"warning: {told}")
