"""What is scored for each table, on which data, and where that has to lie: plan.toml, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from benchmark import vocabularies
from benchmark.perturb import Source
from pipeline.errors import UsageError

Measures = Literal["names", "segments", "classes"]
"""Similarity and IoU of names; PQ and mIoU of segments; mMaskAcc."""

_FILE = Path(__file__).with_name("plan.toml")
_OF_TABLE: dict[int, Measures] = {1: "names", 2: "segments", 3: "classes", 7: "names"}
_NAMES: dict[Measures, tuple[str, ...]] = {
    "names": ("similarity", "iou"),
    "segments": ("PQ", "mIoU"),
    "classes": ("mMaskAcc",),
}


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file or folder of the data."""

    path: str
    """Below the folder of the data"""
    what: str
    """For people: what it is, and where to get it"""
    holds: str = ""
    """Of a folder: a pattern that a file in it has, or it is not what it should be"""

    def files(self, data: Path) -> Iterator[Path]:
        """Yield what is there of it: the files of a folder that `holds` describes, or the file itself."""
        path = data / self.path
        if self.holds:
            yield from (found for found in path.glob(self.holds) if found.is_file())
        elif path.is_file():
            yield path


class DataSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Regions that are named: imported, or, with `of`, those of another set with other masks."""

    kind: str = ""
    """As in `benchmark.importers.KINDS`"""
    paths: str = ""
    """Place of the annotations"""
    beside: str = ""
    """Place of what has to lie beside them"""
    images: str = ""
    """Place of the photographs; empty: they are in `paths`"""
    split: str = ""
    of: str = ""
    masks: Source | None = None
    model: str = ""
    """Place of the weights that make the masks"""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a table, as far as it is about one data set."""

    data_set: str
    """As `published.csv` calls it"""
    set: str
    row: str = ""
    """The published row that is repeated; empty: the one of the model itself"""
    preset: str = ""
    """Of names: the protocol"""
    classes: str = ""
    """Otherwise: the vocabulary"""
    template: str = vocabularies.BARE
    synonyms: str = ""
    """Place of further names of the classes"""
    semantic: str = ""
    """Of segments: the set whose maps are the truth of mIoU, if it is another"""
    over: Literal["true", "any"] = "true"
    """Of segments: as in `panoptic.mean_iou`"""

    @property
    def how(self) -> str:
        """How it is scored, for people."""
        if self.preset:
            return self.preset
        return "Osprey's template and synonyms" if self.synonyms else "bare names"

    @property
    def key(self) -> str:
        """A name for files: what is scored, and how."""
        return f"{self.set}-{self.preset or ('synonyms' if self.synonyms else 'bare')}"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the paper."""

    title: str
    notes: list[str]
    lines: list[Line]


class Task(msgspec.Struct, frozen=True):
    """A line, and the table in which it stands."""

    table: int
    line: Line

    @property
    def measures(self) -> Measures:
        """What is measured."""
        return _OF_TABLE[self.table]

    @property
    def names(self) -> tuple[str, ...]:
        """The measures, as `published.csv` calls them."""
        return _NAMES[self.measures]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of plan.toml."""

    places: dict[str, Place]
    sets: dict[str, DataSet]
    tables: dict[int, Table]

    def tasks(self, tables: Sequence[int]) -> list[Task]:
        """Return the lines of some tables, in their order."""
        return [Task(number, line) for number in tables for line in self.tables[number].lines]

    def needed(self, line: Line) -> list[str]:
        """Return the places without which a line cannot be had, in the order in which to get them."""
        sets = [self.sets[name] for name in _sets(line)]
        sets = [self.sets[one.of] for one in sets if one.of] + sets
        return list(dict.fromkeys([*(name for one in sets for name in _places(one)), *filter(None, [line.synonyms])]))


def load(path: Path = _FILE) -> Plan:
    """Read a plan. Raises `ValueError` for one that does not hold together."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    plan = msgspec.convert(raw, Plan, strict=False)
    lines = [task.line for task in plan.tasks(list(plan.tables))]
    sets = [name for line in lines for name in _sets(line)] + [one.of for one in plan.sets.values() if one.of]
    places = [name for one in plan.sets.values() for name in _places(one)]
    places += [line.synonyms for line in lines if line.synonyms]
    lost = sorted({*sets} - {*plan.sets} | {*places} - {*plan.places})
    if lost:
        raise ValueError(f"{path.name}: there is no {', '.join(lost)}")
    return plan


def _sets(line: Line) -> list[str]:
    return [name for name in (line.set, line.semantic) if name]


def _places(one: DataSet) -> list[str]:
    return [name for name in (one.paths, one.beside, one.images, one.model) if name]


def choose(plan: Plan, text: str) -> list[int]:
    """Read numbers of tables, as `1,2,7`; nothing: all. Raises `UsageError`."""
    known = sorted(plan.tables)
    if not text.strip():
        return known
    found = [part.strip() for part in text.split(",")]
    wrong = [part for part in found if not part.isdigit() or int(part) not in known]
    if wrong:
        raise UsageError(f"--tables {text}: no table {', '.join(wrong)}; there are {', '.join(map(str, known))}.")
    return sorted({int(part) for part in found})
