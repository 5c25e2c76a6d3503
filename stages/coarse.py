"""The coarse tree: which of a few dozen groups a category belongs to, by hand or by its nearest labelled names."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline import embeddings
from pipeline.errors import UsageError
from pipeline.labels import normalise

Vectors = npt.NDArray[np.float32]

_NEAREST = 3
"""Labelled names of a group whose mean similarity counts: one odd name does not attract, a large group has no pull.

Each labelled name placed by the others: 78 % in the right primary group, with the single nearest name 69 %.
"""

_COLUMNS = ("name", "primary", "secondary", "nearest", "score", "labelled", "decision")


class Group(NamedTuple):
    """A place in the tree."""

    primary: str
    secondary: str


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    primary: str
    secondary: str
    paper: list[str]
    """Names that the paper lists here."""
    names: list[str]
    """Names that we put here."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    group: list[_Entry]


@dataclass(frozen=True)
class Tree:
    """The labelled names and their places."""

    places: dict[str, Group]

    @property
    def groups(self) -> list[Group]:
        """The places, in the file's order."""
        return list(dict.fromkeys(self.places.values()))


class Assignment(NamedTuple):
    """Where a category belongs, and how sure that is."""

    name: str
    primary: str
    secondary: str
    nearest: str
    """The labelled name that is most like it within the group."""
    score: float
    """Mean cosine to the nearest labelled names of the group; higher means surer, 1 for a labelled name."""
    labelled: bool


def load(path: Path) -> Tree:
    """Read a tree. Raises `UsageError` for what is no tree, naming the group and the name."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        file = msgspec.convert(data, _File)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}") from error
    places: dict[str, Group] = {}
    for entry in file.group:
        group = Group(entry.primary, entry.secondary)
        for name in [*entry.paper, *entry.names]:
            _check(path, name, group, places)
            places[name] = group
    if not places:
        raise UsageError(f"{path}: no group has a name")
    return Tree(places)


def _check(path: Path, name: str, group: Group, places: dict[str, Group]) -> None:
    where = f"{path}: group {group.primary!r}, {group.secondary!r}"
    if not name or normalise(name) != name:
        raise UsageError(f"{where}: {name!r} is not in normal form; write {normalise(name)!r}")
    if name in places:
        raise UsageError(f"{where}: {name!r} again; it is in {places[name].primary!r}, {places[name].secondary!r}")


def assign(
    names: Sequence[str], tree: Tree, embed: Callable[[Sequence[str]], Vectors] = embeddings.embed
) -> list[Assignment]:
    """Place normalised names, in their order: the labelled by the tree, others by their nearest labelled names."""
    new = [name for name in dict.fromkeys(names) if name not in tree.places]
    placed = dict(zip(new, _nearest(new, tree, embed), strict=True)) if new else {}
    return [placed.get(name) or Assignment(name, *tree.places[name], name, 1.0, True) for name in names]


def _nearest(names: list[str], tree: Tree, embed: Callable[[Sequence[str]], Vectors]) -> list[Assignment]:
    labelled, groups = list(tree.places), tree.groups
    alike = embed(names) @ embed(labelled).T  # names × labelled names
    members = [[i for i, name in enumerate(labelled) if tree.places[name] == group] for group in groups]
    scores = np.stack([_mean_of_best(alike[:, places]) for places in members], axis=1)
    found = []
    for row, name in enumerate(names):
        best = int(scores[row].argmax())
        nearest = labelled[max(members[best], key=lambda place: alike[row, place])]
        found.append(Assignment(name, *groups[best], nearest, float(scores[row, best]), False))
    return found


def _mean_of_best(alike: Vectors) -> Vectors:
    """Average the highest similarities of each row, of as many as there are in a small group."""
    best = np.sort(alike, axis=1)[:, -_NEAREST:]
    return np.asarray(best.mean(axis=1), np.float32)


def write_csv(assignments: Iterable[Assignment]) -> bytes:
    """Return the review file, the least sure first, with an empty `decision`: the right secondary group, or ok."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for a in sorted(assignments, key=lambda a: (a.score, a.name)):
        labelled = "yes" if a.labelled else "no"
        writer.writerow([a.name, a.primary, a.secondary, a.nearest, f"{a.score:.3f}", labelled, ""])
    return sink.getvalue().encode()
