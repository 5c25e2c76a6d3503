"""What of the data is there, and what to put where for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.evaluation.data import is_release
from benchmark.evaluation.plan import Place, Plan, Task
from pipeline.errors import UsageError
from pipeline.regions import RegionSamples


class Checked(NamedTuple):
    """A line of a table that can be had, or what it lacks."""

    task: Task
    lacks: list[str]
    """Places, by their names in the plan"""


def check(plan: Plan, data: Path, tables: Sequence[int]) -> list[Checked]:
    """Look, for every line of some tables, whether what it takes is there. Raises `UsageError`: there is no `data`."""
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder. Make it, and put the data sets there; --check says which.")
    missing = {name for name, place in plan.places.items() if not _is_there(place, data)}
    tasks = plan.tasks(tables)
    return [Checked(task, [name for name in plan.needed(task.line) if name in missing]) for task in tasks]


def _is_there(place: Place, data: Path) -> bool:
    folder = data / place.path
    if is_release(folder):
        return RegionSamples(folder).has_images
    return next(place.files(data), None) is not None


def told(plan: Plan, name: str, data: Path) -> str:
    """Say what is wrong at a place, and what belongs there."""
    place = plan.places[name]
    if is_release(data / place.path):
        return f"{place.path} is a release without its images: rr7k hydrate makes a copy that has them"
    if place.holds and (data / place.path).is_dir():
        return f"{place.path} holds no {place.holds}: put there {place.what}"
    return f"{place.path} is not there: {place.what}"
