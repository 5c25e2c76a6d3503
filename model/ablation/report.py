"""What the cells say: every row with its interval, every ordering of the paper with a verdict."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from model.ablation import evaluation, intervals
from model.ablation.cells import Cell, Result
from model.ablation.evaluation import Scored
from model.ablation.intervals import Interval, Spread, Sums, Verdict
from model.ablation.plan import FormName, Plan, resolved
from model.ablation.settings import CONTRASTS, ROWS, SETTINGS, Contrast, Row

Paper = Mapping[tuple[int, str, str], Mapping[str, float]]
"""Semantic IoU × 100 by table, row and variant, then by data set: benchmark/published.csv."""

DATA_SETS = ("LVIS", "PACO")
SCALES_TABLE, MASKS_TABLE = 5, 7
"""The rows of the latter are of the same weights, and they are in the former too."""


class RowResult(msgspec.Struct):
    """What a row achieved, × 100; means over seeds."""

    table: int
    name: str
    title: str
    overlap: Interval | None
    """None: left blank"""
    exact: float
    macro: float
    groups: dict[str, float]
    paper: list[float]
    """LVIS, PACO; empty if the paper has no such row"""


class ContrastResult(msgspec.Struct):
    """What became of an ordering."""

    table: int
    first: str
    second: str
    found: Interval
    paper: list[float]
    """The paper's difference of the two rows: LVIS, PACO; empty if it lacks one of them"""
    verdict: Verdict


class Speed(msgspec.Struct):
    """How fast a setting learned, on one thread."""

    setting: str
    masks_per_step: float
    seconds_per_step: float
    """Of processor time: forward, backward, update"""
    making_per_step: float
    """And for making scenes and samples"""

    @property
    def masks_per_second(self) -> float:
        """Of forward, backward and update."""
        return self.masks_per_step / self.seconds_per_step


class TableSpread(msgspec.Struct):
    """How far seeds move the rows of a table, and the least difference that is told from 0 four times of five."""

    points: float
    freedom: int
    of_pilot: bool
    """One seed has no spread: the plan's pilot stands in."""
    resolved: float


class Report(msgspec.Struct):
    """All of it; `results.json`."""

    form: FormName
    steps: int
    seeds: list[int]
    scenes: int
    cells: str
    """The folder of cells, named after generator, steps and test"""
    rows: list[RowResult]
    contrasts: list[ContrastResult]
    spreads: dict[int, TableSpread]
    speeds: list[Speed]
    losses: dict[str, list[float]]
    """By setting, step by step, mean over seeds"""
    changes: list[str]


def build(plan: Plan, name: FormName, folder: str, done: Mapping[Cell, Result], paper: Paper) -> Report:
    """Put a report together from all cells of a form."""
    form = plan.form(name)
    found = {row: _scored(row, form.seeds, done) for row in ROWS if row.trained}
    sums = {(row.table, row.name): _sums(each) for row, each in found.items()}
    spreads = {table: _spread(plan, name, sums, table) for table in sorted({row.table for row in ROWS})}
    of_levels = {**spreads, MASKS_TABLE: spreads[SCALES_TABLE]}
    return Report(
        form=name,
        steps=form.steps,
        seeds=form.seeds,
        scenes=form.scenes,
        cells=folder,
        rows=[_row(row, found.get(row, []), sums, of_levels, paper) for row in ROWS],
        contrasts=[_contrast(one, sums, spreads, paper) for one in CONTRASTS],
        spreads={
            table: TableSpread(spread.points, spread.freedom, len(form.seeds) == 1, resolved(spread, len(form.seeds)))
            for table, spread in spreads.items()
        },
        speeds=[_speed(setting, form.steps, form.seeds, done) for setting in SETTINGS],
        losses={
            setting: np.mean([done[Cell(setting, seed)].course.losses for seed in form.seeds], 0).tolist()
            for setting in SETTINGS
        },
        changes=plan.changes,
    )


def _scored(row: Row, seeds: list[int], done: Mapping[Cell, Result]) -> list[Scored]:
    return [done[Cell(row.trained, seed)].scored[row.masks] for seed in seeds]


def _sums(found: list[Scored]) -> Sums:
    return Sums(np.array([one.overlap for one in found]), np.array(found[0].masks, np.float64))


def _spread(plan: Plan, name: FormName, sums: Mapping[tuple[int, str], Sums], table: int) -> Spread:
    same_weights = table == MASKS_TABLE
    if len(plan.form(name).seeds) == 1:
        return plan.pilot.of_masks() if same_weights else plan.pilot.of_training()
    values = [each.points().tolist() for (where, _), each in sums.items() if where == table]
    return intervals.spread_of_masks(values) if same_weights else intervals.spread_of_training(values)


def _row(
    row: Row, found: list[Scored], sums: Mapping[tuple[int, str], Sums], spreads: Mapping[int, Spread], paper: Paper
) -> RowResult:
    theirs = _paper(row, paper)
    if not found:
        return RowResult(row.table, row.name, row.title, None, 0.0, 0.0, {}, theirs)
    groups = {
        group: 100 * sum(one.groups[group][0] for one in found) / max(1, sum(one.groups[group][1] for one in found))
        for group in evaluation.GROUPS
    }
    return RowResult(
        row.table,
        row.name,
        row.title,
        intervals.level(sums[row.table, row.name], spreads[row.table]),
        100 * float(np.mean([sum(one.exact) / sum(one.masks) for one in found])),
        100 * float(np.mean([one.macro for one in found])),
        groups,
        theirs,
    )


def _paper(row: Row, paper: Paper) -> list[float]:
    if row.paper is None:
        return []
    values = paper[(row.table, *row.paper)]
    return [values[data_set] for data_set in DATA_SETS]


def _contrast(
    one: Contrast, sums: Mapping[tuple[int, str], Sums], spreads: Mapping[int, Spread], paper: Paper
) -> ContrastResult:
    rows = {row.name: row for row in ROWS if row.table == one.table}
    pairs = zip(_paper(rows[one.first], paper), _paper(rows[one.second], paper), strict=False)  # one may be empty
    theirs = [round(first - second, 2) for first, second in pairs]
    found = intervals.difference(sums[one.table, one.first], sums[one.table, one.second], spreads[one.table])
    titles = rows[one.first].title, rows[one.second].title
    return ContrastResult(one.table, *titles, found, theirs, intervals.verdict(found, theirs))


def _speed(setting: str, steps: int, seeds: list[int], done: Mapping[Cell, Result]) -> Speed:
    courses, all_steps = [done[Cell(setting, seed)].course for seed in seeds], steps * len(seeds)
    masks, learning, making = (
        sum(getattr(course, what) for course in courses) / all_steps for what in ("masks", "learning", "making")
    )
    return Speed(setting, masks, learning, making)
