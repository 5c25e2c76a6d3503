"""Which names are one category: what people have reviewed, and nothing else, merges.

`categories.csv` maps a variant to its canonical name, with the reason, who and when; a row whose two names are equal
says that the name stays as it is, against the rules for plurals and adjectives. `accepted_names.csv` lists what else
counts as right for a category. Both are read with line-numbered errors: they are written by hand.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pipeline.adjectives import Adjectives
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.inflection import RULES as INFLECTION_RULES
from pipeline.inflection import singular
from pipeline.labels import normalise

RULES = 1
"""Raised when the rules of `Categories.canonical` start to answer otherwise."""

COLUMNS = ("variant", "canonical", "reason", "reviewed_by", "reviewed_on")
ACCEPTED_COLUMNS = ("category", "accepted", "kind", "reviewed_by", "reviewed_on")
KINDS = ("alias", "hypernym")

_ARTICLES = frozenset({"a", "an", "the"})
_SHOWN = 20
"""Mistakes of one file that are listed; more are counted."""


class _Row(NamedTuple):
    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Categories:
    """The reviewed table and the rules around it."""

    merges: dict[str, str]
    """Variant to canonical name; every canonical name is its own canonical name."""
    adjectives: Adjectives = field(default_factory=Adjectives)

    def canonical(self, name: str) -> str:
        """Return the category of a name; doing it twice changes nothing.

        The reviewed table is asked first, then again after each leading article or configured adjective that goes,
        each time for the name as it is and for its singular; what it does not know becomes singular.
        """
        text = normalise(name)
        while True:
            one = singular(text)
            for known in (text, one):
                if known in self.merges:
                    return self.merges[known]
            first, _, rest = text.partition(" ")
            if not rest or not (first in _ARTICLES or first in self.adjectives.words):
                return one
            text = rest

    @property
    def fingerprint(self) -> str:
        """Return the hash of all that decides about a name: table, adjectives, versions of the rules."""
        rules = f"{RULES} {INFLECTION_RULES} {sorted(self.adjectives.words)}"
        return sha256(rules.encode(), *(f"\n{a}\t{b}".encode() for a, b in sorted(self.merges.items())))


class Accepted(NamedTuple):
    """A name that counts as right, or as right but too general, for a category."""

    name: str
    kind: str
    """`alias` or `hypernym`."""


def load(path: Path, adjectives: Adjectives | None = None) -> Categories:
    """Read the reviewed table. Raises `UsageError` with the lines of all mistakes."""
    rows = _rows(path, COLUMNS)
    lines: dict[str, int] = {}
    problems = [_at(row.line, text) for row in rows for text in _wrong(row, ("variant", "canonical"))]
    for row in rows:
        variant = row.cells["variant"]
        if variant in lines:
            problems.append(_at(row.line, f"variant {variant!r} again; it is on line {lines[variant]} already"))
        lines.setdefault(variant, row.line)
    merges = {row.cells["variant"]: row.cells["canonical"] for row in rows if all(row.cells.values())}
    problems += _knots(merges, lines)
    found = Categories(merges, adjectives or Adjectives())
    if not problems:
        problems = [_at(lines[v], t) for v, c in merges.items() for t in _unsettled(c, found.canonical)]
    _refuse(path, problems)
    return found


def load_accepted(path: Path, categories: Categories) -> dict[str, list[Accepted]]:
    """Read the accepted names by category, in the file's order. Raises `UsageError` with the lines of all mistakes."""
    rows = _rows(path, ACCEPTED_COLUMNS)
    problems = [_at(row.line, text) for row in rows for text in _wrong(row, ("category", "accepted"))]
    seen: dict[tuple[str, str], int] = {}
    accepted: dict[str, list[Accepted]] = {}
    for line, cells in rows:
        category, name, kind = cells["category"], cells["accepted"], cells["kind"]
        if (category, name) in seen:
            problems.append(_at(line, f"{name!r} for {category!r} again; it is on line {seen[category, name]} already"))
        if kind and kind not in KINDS:
            problems.append(_at(line, f"kind {kind!r} is none of {', '.join(KINDS)}"))
        if category == name:
            problems.append(_at(line, f"{name!r} is the category itself"))
        problems += [_at(line, text) for text in _unsettled(category, categories.canonical)]
        seen.setdefault((category, name), line)
        accepted.setdefault(category, []).append(Accepted(name, kind))
    _refuse(path, problems)
    return accepted


def _knots(merges: dict[str, str], lines: dict[str, int]) -> Iterator[str]:
    """Find canonical names that are variants themselves, by line; around a cycle every row is one."""
    for variant, canonical in merges.items():
        if variant == canonical or merges.get(canonical, canonical) == canonical:
            continue
        walk = [variant, canonical]
        while walk[-1] in merges and merges[walk[-1]] not in walk:
            walk.append(merges[walk[-1]])
        if walk[-1] in merges and merges[walk[-1]] != walk[-1]:
            text = f"cycle: {' → '.join([*walk, merges[walk[-1]]])}; choose one of them as canonical"
        else:
            text = f"canonical {canonical!r} is a variant itself, on line {lines[canonical]}; write {walk[-1]!r}"
        yield _at(lines[variant], text)


def _unsettled(name: str, canonical: Callable[[str], str]) -> Iterator[str]:
    found = canonical(name)
    if name and found != name:
        yield (
            f"{name!r} would become {found!r} by the table or the rules; write that, "
            f"or add the row {name},{name} that keeps it"
        )


def _wrong(row: _Row, names: tuple[str, str]) -> Iterator[str]:
    """Check the cells of a row that every reviewed file has."""
    yield from (f"{column} is empty" for column, cell in row.cells.items() if not cell)
    for column in names:
        name = row.cells[column]
        if name and (normal := normalise(name)) != name:
            yield f"{column} {name!r} is not in normal form; write {normal!r}"
    day = row.cells["reviewed_on"]
    if day and not _is_day(day):
        yield f"reviewed_on {day!r} is no date; write it as 2026-11-24"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _rows(path: Path, columns: tuple[str, ...]) -> list[_Row]:
    """Read a CSV with exactly these columns, in any order; LF or CRLF, with or without a byte order mark."""
    rows = []
    problems = []
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header, columns)
        for cells in reader:
            if len(cells) == len(header):
                rows.append(_Row(reader.line_num, dict(zip(header, map(str.strip, cells), strict=True))))
            elif any(cells):
                problems.append(_at(reader.line_num, f"{len(cells)} cells where the header has {len(header)}"))
    except csv.Error as error:
        raise UsageError(f"{path}: line {reader.line_num}: {error}") from error
    _refuse(path, problems)
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line}: not UTF-8 ({error.reason}); save the file as CSV UTF-8") from error


def _check_header(path: Path, header: list[str], columns: tuple[str, ...]) -> None:
    """Refuse a header that lacks a column, has an unknown one or has one twice."""
    wrong = {
        "missing": [name for name in columns if name not in header],
        "unknown": [name for name in dict.fromkeys(header) if name not in columns],
        "repeated": [name for name in dict.fromkeys(header) if header.count(name) > 1],
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind} {', '.join(map(repr, names))}" for kind, names in wrong.items() if names)
        raise UsageError(f"{path}: line 1: columns: {found}. Expected: {','.join(columns)}")


def _at(line: int, text: str) -> str:
    return f"line {line}: {text}"


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        problems.sort(key=lambda text: int(text.split()[1].rstrip(":")))
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UsageError("\n".join(f"{path}: {text}" for text in [*problems[:_SHOWN], *more]))
