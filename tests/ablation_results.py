"""Made-up results of the ablations: cells whose word overlap, mask by mask, is what a test says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model.ablation import cells, evaluation
from model.ablation.cells import Cell, Result
from model.ablation.evaluation import Scored
from model.ablation.plan import Form, Learning, Pilot, Plan, Seeds
from model.ablation.report import Paper
from model.ablation.settings import ROWS, SHOWN
from model.ablation.training import Course

LEARNING = Learning(8, 1e-3, 0.05)
PILOT = Pilot([40.0, 42.0], [40.0, 43.0], [20.0, 26.0], {"true": [40.0, 42.0], "ellipse": [30.0, 33.0]})
MASKS = 5  # of every scene


def plan(branches: int = 3, packed: int = 3, single: int = 3) -> Plan:
    form = Form(20, Seeds(branches, packed, single), 40)
    return Plan(LEARNING, form, Form(20, Seeds(1, 1, 1), 40), PILOT, PILOT, [])


def paper() -> Paper:
    """SM 70, MM 80, Region 85, Output 84, both 86 and so on: any number per row will do."""
    wanted = {"sm": 70.0, "mm": 80.0, "region": 85.0, "output": 84.0, "both": 86.0, "mask": 70.0, "true": 90.0}
    rows = [row for row in ROWS if row.paper]
    return {
        (row.table, *row.paper): {"LVIS": wanted.get(row.name, 60.0), "PACO": wanted.get(row.name, 60.0) - 5}
        for row in rows
        if row.paper
    }


def results(form: Form, shares: Mapping[str, float], wobble: float = 0.0) -> dict[Cell, Result]:
    """All cells of a form: `shares` of word overlap by setting or kind of masks, 0 to 1, else 0.5.

    `wobble` is what seeds add, from minus itself to itself, in turn.
    """
    return {cell: _result(cell, form, shares, wobble) for cell in cells.cells(form)}


def _result(cell: Cell, form: Form, shares: Mapping[str, float], wobble: float) -> Result:
    moved = wobble * (cell.seed % 3 - 1)
    course = Course([3.0 / (1 + step) for step in range(form.steps)], 56 * form.steps, 1.0, 2.0)
    scored = {
        str(kind): _scored(form.scenes, (shares.get(kind) or shares.get(cell.setting, 0.5)) + moved)
        for kind in SHOWN[cell.setting]
    }
    return Result(cell.setting, cell.seed, course, scored)


def _scored(scenes: int, share: float) -> Scored:
    each = np.full(scenes, share * MASKS)
    each[::2] += 0.05 * MASKS
    each[1::2] -= 0.05 * MASKS
    exact = [1] * scenes
    groups = dict.fromkeys(evaluation.GROUPS, (1, 2))
    return Scored([MASKS] * scenes, each.tolist(), exact, 0.25, groups)
