"""What benchmarks hand over: figures beside what was asked for; one table and one JSON file of all of them.

A bench names its goals as constants, with the number of the issue that asks for each, and what it measures makes
figures of them. `python -m tests.bench.NAME` prints them after its own table; within `python -m tests.bench`, which
runs it as a process of its own, it hands them over as well, by the file that the environment names.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from rich.markup import escape
from rich.table import Table

FILE = "RR7K_BENCH_FIGURES"
"""Names the file that figures are handed over by."""


class Goal(msgspec.Struct, frozen=True):
    """What an issue asks to be measured, and where it asks for a number, which."""

    issue: int
    what: str
    unit: str = "×"
    at_least: float | None = None
    at_most: float | None = None

    def reached(self, result: float) -> Figure:
        """Return the figure; ValueError where the result is no number."""
        if not math.isfinite(result):
            raise ValueError(f"{self.what}: {result} is no figure")
        return Figure(self, float(result))

    @property
    def target(self) -> float | None:
        """The number, whichever way it bounds."""
        return self.at_most if self.at_least is None else self.at_least

    def __str__(self) -> str:
        return "" if self.target is None else f"{'≤' if self.at_least is None else '≥'} {told(self.target, self.unit)}"


class Figure(msgspec.Struct, frozen=True):
    """What was measured."""

    goal: Goal
    result: float

    @property
    def ratio(self) -> float | None:
        """How far the goal is reached: at 1 just so, above 1 by so many times; None without a number to reach."""
        if self.goal.target is None:
            return None
        up, down = (self.goal.target, self.result) if self.goal.at_least is None else (self.result, self.goal.target)
        return up / down if down else math.inf

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None without a number to reach."""
        return None if self.ratio is None else self.ratio >= 1

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it; an endless ratio is null there."""
        goal, bounds = self.goal, "at least" if self.goal.at_least is not None else "at most"
        asked = {"target": goal.target, "bounds": bounds if goal.target is not None else None}
        measured = {"result": self.result, "unit": goal.unit, "ratio": self.ratio, "met": self.met}
        return {"issue": goal.issue, "what": goal.what, **asked, **measured}


class Outcome(msgspec.Struct, frozen=True):
    """What became of a bench."""

    bench: str
    seconds: float
    load: float
    """Of the machine, in its last minute before: what else ran."""
    figures: Sequence[Figure] = ()
    broke: str | None = None
    """Why there are no figures, in a line."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return msgspec.structs.asdict(self) | {"figures": [figure.record() for figure in self.figures]}


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    """That this process may use."""
    memory_gb: float
    load: float
    """In the last minute."""
    system: str
    python: str

    def __str__(self) -> str:
        told = f"{self.processor}, {self.cores} cores, {self.memory_gb:.0f} GB, load {self.load:.1f} at the start"
        return f"{told}; {self.system}, Python {self.python}"


def machine() -> Machine:
    """Return what this one is."""
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 1e9
    return Machine(_processor(), cores, memory, os.getloadavg()[0], platform.platform(), platform.python_version())


def _processor() -> str:
    """Return its name; Linux tells it here alone, and not on every processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def told(value: float, unit: str = "") -> str:
    """Return a number as people read it: three digits, all of those before the point."""
    size = abs(value)
    digits = 0 if size >= 100 or not size else max(0, 2 - math.floor(math.log10(size)))
    text = f"{value:.1e}" if 0 < size < 1e-3 else f"{value:,.{digits}f}"
    if digits and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}".strip()


def hand_over(figures: Sequence[Figure]) -> None:
    """Write figures to the file that the environment names; where it names none, a person looks at the bench alone."""
    if file := os.environ.get(FILE):
        Path(file).write_bytes(msgspec.json.encode(figures))


def taken_over(file: Path) -> list[Figure]:
    """Return what was handed over; nothing where no file was written."""
    return msgspec.json.decode(file.read_bytes(), type=list[Figure]) if file.exists() else []


def goals(figures: Sequence[Figure]) -> str:
    """Return the lines below a bench's own table."""
    asked = [figure for figure in figures if figure.met is not None]
    return "\n".join(["goals:", *(f"  {figure.goal.what} {figure.goal}: {told(figure.result)}" for figure in asked)])


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return the one table; goals that were missed and benches that broke stand out."""
    made = Table("bench", "issue", "figure", "target", "result", "ratio", box=None)
    for column in made.columns[3:]:
        column.justify = "right"
    for outcome in outcomes:
        for row, style in _rows(outcome):
            made.add_row(*map(escape, row), style=style)
    return made


def _rows(outcome: Outcome) -> Iterator[tuple[tuple[str, ...], str]]:
    for figure in outcome.figures:
        goal, ratio = figure.goal, "" if figure.ratio is None else told(figure.ratio)
        if figure.met is False:
            ratio = f"missed: {ratio}"
        cells = outcome.bench, str(goal.issue), goal.what, str(goal), told(figure.result, goal.unit), ratio
        yield cells, "red" if figure.met is False else ""
    if outcome.broke is not None:
        yield (outcome.bench, "", f"broke: {outcome.broke}"), "bold red"


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return what it all comes to, in a line."""
    met = [figure.met for outcome in outcomes for figure in outcome.figures]
    broke, minutes = sum(one.broke is not None for one in outcomes), sum(one.seconds for one in outcomes) / 60
    asked = sum(one is not None for one in met)
    reached = f"{len(met)} figures; {met.count(True)} of {asked} goals reached, {met.count(False)} missed"
    return f"{reached}; {broke} of {len(outcomes)} benches broke; {minutes:.1f} minutes"


def save(file: Path, where: Machine, began: str, outcomes: Sequence[Outcome]) -> None:
    """Write all of it as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"began": began, "machine": where, "benches": [outcome.record() for outcome in outcomes]}
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    part.replace(file)
