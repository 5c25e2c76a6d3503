"""What the cells say: every row with its interval, every ordering of the paper with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from model.ablation import evaluation, intervals
from model.ablation.cells import Cell, Result, seeds
from model.ablation.intervals import Interval, Spread, Spreads, Sums, Verdict
from model.ablation.plan import Form, FormName, Plan, Seeds, resolved
from model.ablation.settings import CONTRASTS, ROWS, SETTINGS, TRUE, Contrast, Row, Way

Paper = Mapping[tuple[int, str, str], Mapping[str, float]]
"""Semantic IoU × 100 by table, row and variant, then by data set: benchmark/published.csv."""

DATA_SETS = ("LVIS", "PACO")
MASKS_TABLE = 7
"""The table whose rows are of the same weights."""


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


class SpreadResult(msgspec.Struct):
    """How far seeds move values, and the least difference of two such that is told from 0 four times of five."""

    name: str
    """A field of `Spreads`"""
    seeds: int
    points: float
    freedom: int
    resolved: float
    of_pilot: bool
    """One seed has no spread: the plan's pilot stands in."""


class Report(msgspec.Struct):
    """All of it; `results.json`."""

    form: FormName
    steps: int
    seeds: Seeds
    scenes: int
    cells: str
    """The folder of cells, named after generator, steps and test"""
    rows: list[RowResult]
    contrasts: list[ContrastResult]
    spreads: list[SpreadResult]
    speeds: list[Speed]
    losses: dict[str, list[float]]
    """By setting, step by step, mean over seeds"""
    changes: list[str]


def build(plan: Plan, name: FormName, folder: str, done: Mapping[Cell, Result], paper: Paper) -> Report:
    """Put a report together from all cells of a form."""
    form = plan.form(name)
    by_setting = {setting: [done[Cell(setting, seed)] for seed in seeds(setting, form)] for setting in SETTINGS}
    sums = {row: _sums(row, by_setting[row.trained]) for row in ROWS if row.trained}
    spreads = _spreads(plan, name, sums)
    return Report(
        form=name,
        steps=form.steps,
        seeds=form.seeds,
        scenes=form.scenes,
        cells=folder,
        rows=[_row(row, by_setting.get(row.trained, []), sums, spreads, paper) for row in ROWS],
        contrasts=[_contrast(one, sums, spreads, paper) for one in CONTRASTS],
        spreads=_told(spreads, form),
        speeds=[_speed(setting, form.steps, results) for setting, results in by_setting.items()],
        losses={
            setting: np.mean([one.course.losses for one in results], 0).tolist()
            for setting, results in by_setting.items()
        },
        changes=plan.changes,
    )


def _sums(row: Row, results: Sequence[Result]) -> Sums:
    found = [one.scored[row.masks] for one in results]
    return Sums(np.array([one.overlap for one in found]), np.array(found[0].masks, np.float64))


def _spreads(plan: Plan, name: FormName, sums: Mapping[Row, Sums]) -> Spreads:
    """Return the spreads of a run; where it has one seed, the pilot's."""
    form, pilot = plan.form(name), plan.pilot(name).spreads()
    points = {row: found.points().tolist() for row, found in sums.items()}
    trained = {row.trained: points[row] for row in sums if row.masks == TRUE}
    ways: dict[Way, list[list[float]]] = {"branches": [], "packed": [], "single": []}
    for setting, values in trained.items():
        ways[SETTINGS[setting].way].append(values)
    found = {way: intervals.spread_of_training(values) for way, values in ways.items()}
    masks = intervals.spread_of_masks([points[row] for row in sums if row.table == MASKS_TABLE])
    own = Spreads(**found, masks=masks)
    return Spreads(*(getattr(own if form.seeds_of(name) > 1 else pilot, name) for name in Spreads._fields))


def _told(spreads: Spreads, form: Form) -> list[SpreadResult]:
    return [
        SpreadResult(name, number, spread.points, spread.freedom, resolved(spread, number), number == 1)
        for name, spread in spreads._asdict().items()
        for number in [form.seeds_of(name)]
    ]


def _of(row: Row, spreads: Spreads) -> Spread:
    found: Spread = getattr(spreads, SETTINGS[row.trained].way)
    return found


def _row(row: Row, results: Sequence[Result], sums: Mapping[Row, Sums], spreads: Spreads, paper: Paper) -> RowResult:
    theirs = _paper(row, paper)
    if not results:
        return RowResult(row.table, row.name, row.title, None, 0.0, 0.0, {}, theirs)
    found = [one.scored[row.masks] for one in results]
    groups = {
        group: 100 * sum(one.groups[group][0] for one in found) / max(1, sum(one.groups[group][1] for one in found))
        for group in evaluation.GROUPS
    }
    return RowResult(
        row.table,
        row.name,
        row.title,
        intervals.level(sums[row], _of(row, spreads)),
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


def _contrast(one: Contrast, sums: Mapping[Row, Sums], spreads: Spreads, paper: Paper) -> ContrastResult:
    rows = {row.name: row for row in ROWS if row.table == one.table}
    first, second = rows[one.first], rows[one.second]
    pairs = zip(_paper(first, paper), _paper(second, paper), strict=False)  # one may be empty
    theirs = [round(above - below, 2) for above, below in pairs]
    if one.table == MASKS_TABLE:
        found = intervals.difference_of_masks(sums[first], sums[second], spreads.masks)
    else:
        found = intervals.difference(sums[first], sums[second], _of(first, spreads), _of(second, spreads))
    return ContrastResult(one.table, first.title, second.title, found, theirs, intervals.verdict(found, theirs))


def _speed(setting: str, steps: int, results: Sequence[Result]) -> Speed:
    masks, learning, making = (
        sum(getattr(one.course, what) for one in results) / steps / len(results)
        for what in ("masks", "learning", "making")
    )
    return Speed(setting, masks, learning, making)
