"""What a release says of a category beside its instances: its coarse group and the other names that count as right."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline import categories
from pipeline.errors import UserError
from pipeline.run import Run

_MANIFESTS = Path(__file__).parent.parent / "data_manifests"
_PLACES = "coarse-groups.csv"
"""In the run folder, written by `rr7k categories propose`: each category's place in the coarse tree, for review."""


class Group(NamedTuple):
    """A place in the coarse tree."""

    primary: str
    secondary: str


class AcceptedNames(NamedTuple):
    """Other names for a category."""

    aliases: list[str]
    hypernyms: list[str]


def coarse_groups(runs: Sequence[Run]) -> dict[str, Group]:
    """Return the coarse groups of categories: labelled in the tree, or as the runs' reviewed lists place them.

    A reviewer's decision outweighs the proposal, the first run's list the others'. Raises `UserError` for a list that
    cannot be read or a decision that names no group.
    """
    tree = tomllib.loads((_MANIFESTS / "coarse_categories.toml").read_text(encoding="utf-8"))["group"]
    groups = {entry["secondary"]: Group(entry["primary"], entry["secondary"]) for entry in tree}
    found: dict[str, Group] = {}
    for run in reversed(runs):
        found |= _reviewed(run, groups)
    return found | {name: groups[e["secondary"]] for e in tree for name in [*e["paper"], *e["names"]]}


def _reviewed(run: Run, groups: dict[str, Group]) -> dict[str, Group]:
    if not run.folder.exists(_PLACES):
        return {}
    where, found = f"{run.folder.uri}/{_PLACES}", {}
    try:
        rows = list(csv.DictReader(io.StringIO(run.folder.read(_PLACES).decode("utf-8-sig"), newline="")))
        for line, row in enumerate(rows, 2):
            decision = row["decision"].strip()
            secondary = row["secondary"] if decision in ("", "ok") else decision
            if secondary not in groups:
                raise UserError(f"{where}: line {line}: {secondary!r} is no secondary group of coarse_categories.toml")
            found[row["name"]] = groups[secondary]
    except (UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise UserError(f"{where}: cannot be read ({error!r}). Make it again: rr7k categories propose") from error
    return found


def accepted_names() -> dict[str, AcceptedNames]:
    """Return the reviewed aliases and hypernyms by category. Raises `UsageError` for mistakes in the files."""
    reviewed = categories.load(_MANIFESTS / "categories.csv")
    found = {}
    for category, names in categories.load_accepted(_MANIFESTS / "accepted_names.csv", reviewed).items():
        kinds = {kind: sorted(name.name for name in names if name.kind == kind) for kind in categories.KINDS}
        found[category] = AcceptedNames(kinds["alias"], kinds["hypernym"])
    return found
