"""Settings that a command does not name stay as the run has them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from pipeline.config import Section
from pipeline.run import Run

S = TypeVar("S", bound=Section)


class Remembered(msgspec.Struct, frozen=True):
    """What a step was last asked for."""

    settings: dict[str, Any]


def inherited(run: Run, step: str, config: S) -> S:
    """Fill in what `config` does not name with what the run's `step` was last told."""
    before = run.plan(step, Remembered)
    if before is None:
        return config
    named = {name: getattr(config, name) for name in config.model_fields_set}
    known = {name: value for name, value in before.settings.items() if name in type(config).model_fields}
    return type(config)(**{**known, **named})


def remember(run: Run, step: str, config: Section) -> None:
    """Keep what `step` was told."""
    run.save_plan(step, Remembered(config.model_dump()))
