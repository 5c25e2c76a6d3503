"""Settings that a command does not name stay as the run has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pipeline.config import Section
from pipeline.run import Run
from stages.engines.base import EngineConfig

S = TypeVar("S", bound=Section)


class Remembered(msgspec.Struct, frozen=True):
    """What a step was last asked for."""

    settings: dict[str, Any]


def inherited(run: Run, step: str, config: S) -> S:
    """Fill in what `config` does not name with what the run's `step` was last told."""
    before = run.plan(step, Remembered)
    return config if before is None else over(before.settings, config)


def over(before: Mapping[str, Any], config: S) -> S:
    """Return the settings `before`, with what `config` names in their place."""
    named = {name: getattr(config, name) for name in config.model_fields_set}
    known = {name: value for name, value in before.items() if name in type(config).model_fields}
    return type(config)(**{**known, **named})


def over_engine(before: Mapping[str, Any], config: EngineConfig) -> EngineConfig | None:
    """Return the same for an engine, or None where `config` names another kind: that one inherits nothing."""
    if "kind" in config.model_fields_set and config.kind != before["kind"]:
        return None
    return over(before, config)


def remember(run: Run, step: str, config: Section) -> None:
    """Keep what `step` was told."""
    run.save_plan(step, Remembered(config.model_dump()))
