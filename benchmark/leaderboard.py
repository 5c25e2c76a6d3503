"""A leaderboard: rows that `rr7k score` wrote, best first, and below them what is published.

Rows are comparable where benchmark, split, protocol and embedding weights are the same; each such group is a table of
its own. A file of rows is JSON Lines, and several can be put together by `cat`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmark import published
from benchmark.bootstrap import Interval
from benchmark.records import read_bytes
from pipeline.decoding import decoded
from pipeline.errors import UserError
from pipeline.pages import escaped, filled

_TEMPLATE = Path(__file__).parent / "templates" / "leaderboard.html"
_HELD = "\N{NO-BREAK SPACE}"
"""Behind a comma: a narrow page breaks a cell between value and interval, not within the interval."""
_SHOWN = ("similarity", "iou", "exact", "lenient_similarity")
_BYTES = 1 << 20
"""Of a row: it has a thousand or two."""


class Limits(msgspec.Struct, frozen=True):
    """A mean with its 95 % interval; null where nothing counts, or no interval is known."""

    value: float | None
    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, found: Interval) -> Limits:
        """Return an interval as JSON can have it, which knows no NaN."""
        return cls(*(None if math.isnan(number) else number for number in msgspec.structs.astuple(found)))

    def told(self) -> str:
        """Return the value × 100, as papers print it, with its interval where there is one."""
        if self.value is None:
            return "–"
        text = f"{100 * self.value:.1f}"
        known = self.lower is not None and self.upper is not None
        return f"{text} [{100 * self.lower:.1f}, {100 * self.upper:.1f}]" if known else text  # type: ignore[operator]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model scored by one protocol."""

    model: str
    preset: str
    benchmark: str
    data_set: str
    split: str
    fingerprint: str
    """Of the benchmark's instances."""
    instances: int
    counted: int
    outcomes: dict[str, int]
    scores: dict[str, Limits]
    macro: dict[str, Limits]
    predictions: str
    """SHA-256 of the file."""
    embedding_weights: str
    made_by: str
    warnings: list[str] = []

    @property
    def group(self) -> tuple[str, ...]:
        """What has to be the same for two rows to be comparable."""
        return self.benchmark, self.split, self.fingerprint, self.preset, self.embedding_weights


class Line(NamedTuple):
    """A line of a table."""

    model: str
    protocol: str
    values: tuple[Limits | None, ...]
    """Of the measures shown."""
    macro: Limits | None
    """Similarity, every category weighing the same."""
    coverage: str
    origin: str
    """Hash of the predictions, or the paper's table."""
    is_published: bool


class Board(NamedTuple):
    """A table of comparable rows."""

    title: str
    subtitle: str
    measures: tuple[str, ...]
    lines: list[Line]
    warnings: list[str]


def read(paths: Sequence[Path]) -> list[Row]:
    """Read rows; the same twice counts once. Raises `UsageError` for no such file, `UserError` for what is no row."""
    found: dict[bytes, Row] = {}
    for path in paths:
        for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
            if line.strip():
                row = _row(path, number, line)
                found[msgspec.json.encode(row)] = row
    return list(found.values())


def _row(path: Path, number: int, line: bytes) -> Row:
    if len(line) > _BYTES:
        raise UserError(f"{path}: line {number}: {len(line):,} bytes are no row of a leaderboard")
    return decoded(line, Row, f"{path}: line {number}", "Give leaderboard.jsonl of rr7k score.")


# --- tables -----------------------------------------------------------------------------------------------


def boards(rows: Iterable[Row]) -> list[Board]:
    """Return a table for each group of comparable rows, best similarity first; published rows follow.

    They do not stand among the others: other instances, or another protocol, would look like a rank.
    """
    return [_board(list(group)) for _, group in groupby(sorted(rows, key=lambda row: row.group), lambda r: r.group)]


def _board(rows: Sequence[Row]) -> Board:
    first = rows[0]
    measures = tuple(name for name in _SHOWN if any(name in row.scores for row in rows))
    beside = published.beside(first.data_set) if first.data_set else []
    own = sorted((_line(row, measures) for row in rows), key=_similarity, reverse=True)
    lines = own + sorted(_published(beside, measures), key=_similarity, reverse=True)
    warnings = [f"{row.model or 'not named'}: {text}" for row in rows for text in row.warnings]
    told = f"{first.instances:,} instances of split {first.split or 'all'}, fingerprint {first.fingerprint[:12]}"
    weights = f"embedding weights {first.embedding_weights[:12]}"
    title = f"{first.benchmark}, protocol {first.preset}"
    return Board(title, f"{told}, {weights}", measures, lines, [*warnings, *published.warnings(beside, first.preset)])


def _similarity(line: Line) -> float:
    first = line.values[0]
    return -1.0 if first is None or first.value is None else first.value


def _line(row: Row, measures: Sequence[str]) -> Line:
    values = tuple(row.scores.get(name) for name in measures)
    coverage = f"{row.counted:,} of {row.instances:,}"
    macro, origin = row.macro.get("similarity"), row.predictions[:12]
    return Line(row.model or "not named", row.preset, values, macro, coverage, origin, is_published=False)


def _published(rows: Sequence[published.Row], measures: Sequence[str]) -> list[Line]:
    found: dict[tuple[str, str], dict[str, published.Row]] = {}
    for row in rows:
        found.setdefault((row.model, row.variant), {})[row.measure] = row
    lines = []
    for (model, variant), of in found.items():
        values = tuple(Limits(of[name].value / 100) if name in of else None for name in measures)
        any_row = next(iter(of.values()))
        name = f"{model} {variant.removeprefix('params=')}"
        lines.append(Line(name, any_row.preset or "unknown", values, None, "", any_row.source, is_published=True))
    return lines


# --- as text ----------------------------------------------------------------------------------------------


def cells(board: Board, line: Line) -> list[str]:
    """Return the cells of a line, under `heads`."""
    return [
        line.model,
        *("–" if one is None else one.told() for one in (*line.values, line.macro)),
        line.coverage,
        line.protocol,
        line.origin,
    ]


def heads(board: Board) -> list[str]:
    """Return the heads of a table's columns."""
    names = [name.replace("_", " ").replace("iou", "IoU") for name in board.measures]
    return ["model", *names, "by category", "counted", "protocol", "from"]


def markdown(found: Sequence[Board]) -> str:
    """Return the tables as Markdown; whatever the names hold stays text."""
    lines: list[str] = []
    for board in found:
        lines += [f"## {_plain(board.title)}", "", _plain(board.subtitle), ""]
        lines += [_piped(heads(board)), _piped(["---"] * len(heads(board)))]
        lines += [_piped(map(_plain, cells(board, line))) for line in board.lines]
        lines += ["", *(f"- {_plain(text)}" for text in board.warnings), ""]
    return "\n".join(lines)


def html(found: Sequence[Board]) -> str:
    """Return the tables as a page."""
    return filled(_TEMPLATE.read_text(encoding="utf-8"), title="Leaderboard", boards="\n".join(map(_section, found)))


def _section(board: Board) -> str:
    head = "".join(f"<th>{escaped(name)}</th>" for name in heads(board))
    rows = "\n".join(_html_row(board, line) for line in board.lines)
    warnings = "".join(f"<li>{escaped(text)}</li>" for text in board.warnings)
    return (
        f"<section><h2><bdi>{escaped(board.title)}</bdi></h2><p>{escaped(board.subtitle)}</p>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"<ul>{warnings}</ul></section>"
    )


def _html_row(board: Board, line: Line) -> str:
    first, *rest = cells(board, line)
    kind = ' class="published"' if line.is_published else ' class="own"'
    cells_ = "".join(f"<td>{escaped(text.replace(', ', f',{_HELD}'))}</td>" for text in rest[:-1])
    origin = f"<td>{escaped(rest[-1])}</td>"
    return f"<tr{kind}><th><bdi>{escaped(first)}</bdi></th>{cells_}{origin}</tr>"


def _piped(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _plain(text: str) -> str:
    """Return a text that Markdown takes as text, in one line."""
    shown = escaped(" ".join(text.split()))
    return "".join(f"\\{char}" if char in "\\`*_[]|#~!" else char for char in shown)
