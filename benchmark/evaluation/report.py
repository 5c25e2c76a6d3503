"""The tables, ours beside the paper's: for the terminal, and as a page.

OUT/evaluation.json    all numbers, and what they rest on
OUT/evaluation.html    to look at
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmark import published
from benchmark.evaluation.plan import Plan
from benchmark.evaluation.run import Evaluation, Outcome
from benchmark.leaderboard import Limits
from benchmark.presets import WOWSEG
from pipeline.files import Folder
from pipeline.pages import escaped, filled

JSON, PAGE = "evaluation.json", "evaluation.html"

_TEMPLATE = Path(__file__).parent.parent / "templates" / "evaluation.html"
_DIGITS = {2: 2}
"""Decimals of a table as the paper prints it; else one."""
_TOKENS = "tokens"
_PAPERS_TOKENS = "27"
"""Mean number of tokens that stand for a mask of LVIS (paper, App. D.1)."""
_TITLES = {"similarity": "S-Sim", "iou": "S-IoU"}
"""As in the paper"""

Column = tuple[str, str]
"""Data set and measure"""
Cells = dict[Column, str]


class Row(NamedTuple):
    """A row of a table, published or ours."""

    name: str
    cells: list[str]
    own: bool


class Board(NamedTuple):
    """A table."""

    title: str
    columns: list[str]
    rows: list[Row]
    notes: list[str]


def boards(evaluation: Evaluation, plan: Plan) -> list[Board]:
    """Return the tables that were asked for."""
    numbers = sorted({one.table for one in evaluation.outcomes})
    return [_board(number, evaluation, plan) for number in numbers]


def write(evaluation: Evaluation, plan: Plan, out: Path) -> None:
    """Write both files into `out`, each whole."""
    told = {"model": evaluation.model, "made by": evaluation.made_by, "weights and settings": evaluation.setting[:16]}
    facts = " · ".join(f"{name}: {text}" for name, text in told.items())
    sections = "\n".join(map(_section, boards(evaluation, plan)))
    page = filled(
        _TEMPLATE.read_text(encoding="utf-8"), title="Evaluation of WOW-Seg", facts=escaped(facts), boards=sections
    )
    folder = Folder(str(out))
    folder.replace(PAGE, page.encode())
    folder.replace(JSON, msgspec.json.format(msgspec.json.encode(evaluation)))


# --- tables -----------------------------------------------------------------------------------------------


def _board(number: int, evaluation: Evaluation, plan: Plan) -> Board:
    outcomes = [one for one in evaluation.outcomes if one.table == number]
    columns = list(dict.fromkeys(column for one in outcomes for column in _columns(one)))
    theirs, ours = _published(number, columns), _own(outcomes)
    rows = []
    for name, cells in theirs.items():
        rows.append(Row(name, [cells.get(one, "") for one in columns], own=False))
        if name in ours:
            rows.append(Row(f"{name}, this model", [ours[name].get(one, "") for one in columns], own=True))
    for name, cells in ours.items():
        if name not in theirs:
            rows.append(Row(f"this model, {name}", [cells.get(one, "") for one in columns], own=True))
    heads = [f"{data_set} {_TITLES.get(measure, measure)}" for data_set, measure in columns]
    table = plan.tables[number]
    return Board(
        f"Table {number}: {table.title}", heads, rows, [*table.notes, *_protocols(number, columns), *_notes(outcomes)]
    )


def _columns(one: Outcome) -> list[Column]:
    """Return the columns of a line; how many tokens a mask has is told in Table 1."""
    return [(one.data_set, name) for name in (*one.measures, *([_TOKENS] if one.table == 1 else []))]


def _published(number: int, columns: Sequence[Column]) -> dict[str, Cells]:
    """Return the published rows by what they are called here."""
    found: dict[str, Cells] = {}
    for data_set in dict.fromkeys(data_set for data_set, _ in columns):
        for row in published.beside(data_set, number):
            name = f"{row.model} {row.variant.removeprefix('params=')}" if number == 1 else row.model
            found.setdefault(name, {})[data_set, row.measure] = _number(row.value, number)
    for name, cells in found.items():
        if number == 1 and name.startswith("WOW-Seg") and ("LVIS", _TOKENS) in columns:
            cells["LVIS", _TOKENS] = _PAPERS_TOKENS
    return found


def _protocols(number: int, columns: Sequence[Column]) -> list[str]:
    """Say which published rows of names were measured otherwise than WOW-Seg's own."""
    sets = dict.fromkeys(data_set for data_set, measure in columns if measure == "similarity")
    return published.warnings([row for name in sets for row in published.beside(name, number)], WOWSEG.name)


def _own(outcomes: Sequence[Outcome]) -> dict[str, Cells]:
    """Return our rows by the published row that they repeat, or by how they were scored."""
    found: dict[str, Cells] = {}
    for one in outcomes:
        cells = found.setdefault(one.row or one.how, {})
        cells |= dict.fromkeys(_columns(one), "–")
        values = one.scored.values if one.scored else {}
        cells |= {(one.data_set, name): _limits(value, one.table) for name, value in values.items()}
        if one.tokens is not None and one.table == 1:
            cells[one.data_set, _TOKENS] = f"{one.tokens:.1f}"
    return found


def _limits(value: Limits, number: int) -> str:
    return "–" if value.value is None else _number(100 * value.value, number)


def _number(value: float, number: int) -> str:
    return f"{value:.{_DIGITS.get(number, 1)}f}"


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    """Say of each line what is not there, what failed, and what keeps it from being comparable."""
    notes = []
    for one in outcomes:
        texts = [f"blank: {text}" for text in one.lacks] + ([f"failed: {one.error}"] if one.error else [])
        texts += [f"{one.waiting:,} regions have no answer yet: give the same command again"] if one.waiting else []
        texts += [*one.notes, *(one.scored.warnings if one.scored else [])]
        notes += [f"{one.data_set}, {one.row or one.how}: {text}" for text in texts]
    return list(dict.fromkeys(notes))


# --- the page ---------------------------------------------------------------------------------------------


def _section(board: Board) -> str:
    head = "".join(f"<th>{escaped(name)}</th>" for name in board.columns)
    rows = "\n".join(map(_row, board.rows))
    notes = "".join(f"<li>{escaped(text)}</li>" for text in board.notes)
    return (
        f"<section><h2>{escaped(board.title)}</h2>"
        f'<div class="table"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<ul>{notes}</ul></section>"
    )


def _row(row: Row) -> str:
    kind = ' class="own"' if row.own else ' class="published"'
    cells = "".join(f"<td>{escaped(text)}</td>" for text in row.cells)
    return f"<tr{kind}><th><bdi>{escaped(row.name)}</bdi></th>{cells}</tr>"
