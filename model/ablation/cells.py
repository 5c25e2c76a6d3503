"""A cell is a setting with a seed: trained, tested, and written to a file of its own, which is what makes it done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from model.ablation import evaluation, training
from model.ablation.evaluation import Scored
from model.ablation.plan import Form, Learning
from model.ablation.settings import SETTINGS, SHOWN
from model.ablation.training import Course
from pipeline import files
from pipeline.decoding import decoded
from pipeline.files import Folder

_DECIDES = ("world", "scenes", "settings", "rougher", "training", "evaluation")
"""The files whose change makes every cell anew."""


class Cell(NamedTuple):
    """What is to be trained."""

    setting: str
    seed: int

    @property
    def file(self) -> str:
        """Its name in the folder of cells."""
        return f"{self.setting}-seed{self.seed}.json"


class Result(msgspec.Struct):
    """What came of it."""

    setting: str
    seed: int
    course: Course
    scored: dict[str, Scored]
    """By the kind of masks shown"""


def seeds(setting: str, form: Form) -> range:
    """Return the seeds of a setting."""
    return range(form.seeds_of(SETTINGS[setting].way))


def cells(form: Form) -> list[Cell]:
    """List all cells, seed by seed, so that a run that is stopped early has whole seeds."""
    found = [Cell(setting, seed) for setting in SETTINGS for seed in seeds(setting, form)]
    return sorted(found, key=lambda cell: cell.seed)


def folder(out: Path, form: Form, learning: Learning) -> Folder:
    """Return where cells lie that were made by the same generator, steps and test; those of others lie elsewhere."""
    here = Path(__file__).parent
    told = [form.steps, form.scenes, *msgspec.structs.astuple(learning)]
    sources = [(here / f"{name}.py").read_bytes() for name in _DECIDES]
    return Folder(str(out / "cells" / files.sha256(msgspec.json.encode(told), *sources)[:12]))


def results(where: Folder, form: Form) -> Mapping[Cell, Result]:
    """Read the cells of a form that are done."""
    there = set(where.names(".json"))
    return {cell: _read(where, cell) for cell in cells(form) if cell.file in there}


def _read(where: Folder, cell: Cell) -> Result:
    return decoded(where.read(cell.file), Result, f"{where.uri}/{cell.file}", "Delete it: it is then trained again.")


def make(where: Folder, cell: Cell, form: Form, learning: Learning, stepped: Callable[[], None]) -> None:
    """Train and test one cell, and write what came of it. The same bytes each time, but for the seconds."""
    setting = SETTINGS[cell.setting]
    model = training.fresh(setting, cell.seed)
    course = training.train(model, setting, cell.seed, form, learning, stepped)
    scored = {str(kind): evaluation.score(model, form.scenes, kind) for kind in SHOWN[cell.setting]}
    where.replace(cell.file, msgspec.json.encode(Result(cell.setting, cell.seed, course, scored)))
