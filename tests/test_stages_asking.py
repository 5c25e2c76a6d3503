"""How long answers are waited for, and what is said when nobody waits any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from stages import asking

_SLOW, _SHORT, _LONG = 1.0, 0.2, 60.0
"""Seconds: of a step that is slow, of a patience that does not last so long, of one that does."""

_LEFT = """
import threading, time
from contextlib import suppress
from pipeline import cluster
from pipeline.config import ClusterConfig
from pipeline.errors import UserError
from stages import asking

class Loading:
    def __init__(self):
        time.sleep(60)

    def __call__(self, table):
        return table

def wait(tables):
    with suppress(UserError):
        list(asking.watched(tables, 60, 60))

with cluster.session(ClusterConfig()):
    import ray.data
    asking.quiet()
    answers = ray.data.range(4).map_batches(Loading, concurrency=1)
    threading.Thread(target=wait, args=(answers.iter_batches(),), daemon=True).start()
    time.sleep(4)
time.sleep(2)
"""
"""A program that leaves its session while an engine loads, and ends a little later."""


def tables(*steps: int | float) -> Iterator[pa.Table]:
    """Yield tables of so many rows (int), with pauses of so many seconds (float) between them."""
    for step in steps:
        if isinstance(step, float):
            time.sleep(step)
        else:
            yield pa.table({"row": range(step)})


def sizes(*steps: int | float, start: float, patience: float, warm_up: int = 0) -> list[int]:
    return [table.num_rows for table in asking.watched(tables(*steps), start, patience, warm_up)]


@pytest.mark.parametrize(
    ("steps", "start", "patience", "warm_up"),
    [
        ([3, 4], _LONG, _LONG, 0),
        ([_SLOW, 3, 4], _LONG, _SHORT, 0),
        ([2, _SLOW, 1, _SLOW, 4], _LONG, _SHORT, 3),
    ],
    ids=["at once", "a slow start", "a slow start behind the warm-up"],
)
def test_what_comes_in_time_is_passed_on(steps: list[int | float], start: float, patience: float, warm_up: int) -> None:
    rows = [step for step in steps if isinstance(step, int)]
    assert sizes(*steps, start=start, patience=patience, warm_up=warm_up) == rows


@pytest.mark.parametrize(
    ("steps", "start", "patience", "warm_up"),
    [
        ([_SLOW, 3], _SHORT, _LONG, 0),
        ([3, _SLOW, 4], _LONG, _SHORT, 0),
        ([3, _SLOW, 4], _SHORT, _LONG, 3),
        ([3, 1, _SLOW, 4], _LONG, _SHORT, 3),
    ],
    ids=["never starts", "hangs later", "hangs behind the warm-up", "hangs behind the first after it"],
)
def test_what_hangs_is_given_up(steps: list[int | float], start: float, patience: float, warm_up: int) -> None:
    with pytest.raises(UserError, match=r"no answer has come for 0 s: the engine is taken for hung"):
        sizes(*steps, start=start, patience=patience, warm_up=warm_up)


def test_a_session_left_while_an_engine_loads_says_nothing() -> None:
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    root = Path(__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", _LEFT], cwd=root, env=env, capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout + ended.stderr == ""
