"""How a run of a training ended, as the workers tell the driver."""

from __future__ import annotations

from typing import Literal

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """How it ended."""

    state: Literal["finished", "stopped", "failed"]
    step: int
    """Updates made: unless it failed, all of them in a checkpoint."""
    message: str = ""
