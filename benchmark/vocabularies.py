"""The classes of a data set as texts, and which of them a free text means: the one nearest by sentence embeddings.

How a class is put into words decides the result for short names (wowseg_facts.md B.1): in "There is a {} in the scene."
a pedestrian is a sidewalk, bare it is a person. So template and synonyms are stated, and stand beside every number.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.embeddings import Vectors
from pipeline.errors import UsageError, UserError
from pipeline.labels import normalise

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CLASSES = Path(__file__).parent.parent / "data_manifests" / "classes"
BUILT_IN = {
    "cityscapes": "cityscapes.csv",
    "ade20k-150": "ade20k_150.csv",
    "ade20k-847": "ade20k_847.csv",
    "pascal-context-459": "pascal_context_459.csv",
    "coco-stuff": "coco_stuff.csv",
}
"""Vocabularies that come with us, and their tables in `CLASSES`."""

BARE = "{}"
OSPREY = "There is a {} in the scene."
"""The template of Osprey's script, with which the baselines of the paper's Table 2 were measured (B.1, step 3)."""

_INVALID = "invalid_class_id"
"""What FC-CLIP's lists call a class that is none."""

_SHOWN = 10


class Class(NamedTuple):
    """A class of a vocabulary."""

    name: str
    thing: bool | None
    """Countable, or stuff; None: the table does not say."""
    texts: tuple[str, ...]
    """What it is called when a text is compared with it."""
    known_as: frozenset[str]
    """Its names in ground truth, in normal form."""


class Vocabulary(NamedTuple):
    """Classes in the order of their data set."""

    name: str
    classes: tuple[Class, ...]
    repeated: int = 0
    """Classes whose name another has as well; by name they cannot be told apart, so they are one."""

    @property
    def things(self) -> Bools:
        """Which classes are things, (C,). Raises `UsageError` where the table does not say."""
        if any(each.thing is None for each in self.classes):
            raise UsageError(f"{self.name}: its table has no column thing (0, 1), which panoptic quality needs.")
        return np.array([each.thing for each in self.classes], np.bool_)

    def places(self, categories: Sequence[str]) -> Ints:
        """Return the place of each true category among the classes. Raises `UserError` for those of no class."""
        known = {name: place for place, each in enumerate(self.classes) for name in each.known_as}
        distinct = {category: known.get(normalise(category), -1) for category in set(categories)}
        lost = sorted(category for category, place in distinct.items() if place < 0)
        if lost:
            more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
            told = f"{len(lost):,} categories of the ground truth are no class of it: {', '.join(lost[:_SHOWN])}{more}"
            raise UserError(f"{self.name}: {told}. Name another vocabulary, or give a table of your own.")
        return np.array([distinct[category] for category in categories], np.int64)


def load(source: str, synonyms: Path | None = None) -> Vocabulary:
    """Read a vocabulary: one of `BUILT_IN`, or a CSV file with `name` and, as need be, `thing`, `void` and `also`.

    `void` 1: no class; `also`: how other files of the same data set call it. `synonyms`: a file with a line
    `NUMBER:name,synonym,…` for each class, in the same order, as FC-CLIP has them; the texts that stand for a class are
    then those of its line. Raises `UsageError` for a vocabulary or file that is not there or of another shape.
    """
    path = CLASSES / BUILT_IN[source] if source in BUILT_IN else Path(source)
    rows = [row for row in _rows(path, source) if row.get("void") != "1"]
    if synonyms is None:
        lines = [[row["name"].strip()] for row in rows]
    else:
        lines = _lines(synonyms)
        _refuse_others(synonyms, lines, rows)
    found: dict[str, Class] = {}
    for row, texts in zip(rows, lines, strict=True):
        one, key = _class(row, texts), normalise(row["name"])
        before = found.get(key, one)
        both = tuple(dict.fromkeys([*before.texts, *one.texts]))
        found[key] = before._replace(texts=both, known_as=before.known_as | one.known_as)
    name = source if source in BUILT_IN else path.stem
    return Vocabulary(name, tuple(found.values()), len(rows) - len(found))


def _class(row: dict[str, str], texts: Sequence[str]) -> Class:
    also = (row.get("also") or "").strip()
    known = {normalise(row["name"]), *([normalise(also)] if also else [])}
    thing = {"1": True, "0": False}.get(row.get("thing") or "")
    return Class(row["name"].strip(), thing, tuple(texts), frozenset(known))


def _rows(path: Path, source: str) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{source}: no vocabulary ({error}). There are: {', '.join(BUILT_IN)}; or a CSV.") from error
    if not rows or any(not (row.get("name") or "").strip() for row in rows):
        raise UsageError(f"{path}: a vocabulary needs a column name, filled in every row.")
    return rows


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    found = []
    for number, line in enumerate(filter(str.strip, lines), 1):
        numbered = re.fullmatch(r"\s*\d+\s*:(.*)", line)
        names = [name.strip() for name in numbered[1].split(",")] if numbered else []
        if not names or not all(names):
            raise UsageError(f"{path}: line {number}: NUMBER:name,synonym,… expected, {line[:80]!r} found")
        if names != [_INVALID]:
            found.append(names)
    return found


def _refuse_others(path: Path, lines: list[list[str]], rows: list[dict[str, str]]) -> None:
    """Refuse a list of another vocabulary, or in another order; some names may differ, as they do in FC-CLIP's."""
    pairs = list(zip_longest(lines, rows, fillvalue=None))
    same = [line and row and _class(row, ()).known_as & set(map(normalise, line)) for line, row in pairs]
    if len(lines) != len(rows) or 2 * sum(map(bool, same)) < len(rows):
        first = next(number for number, one in enumerate(same, 1) if not one)
        raise UsageError(
            f"{path}: {len(lines):,} classes for {len(rows):,}; the first that differs is number {first}. It has to "
            "list this vocabulary's classes, each in a line, in the same order."
        )


class Answers(NamedTuple):
    """Free texts compared with a vocabulary."""

    codes: Ints
    """(N,): row of `cosines` for each text; -1: a text without a word, which means no class."""
    cosines: npt.NDArray[np.float32]
    """(distinct texts, C): of each class the nearest of its texts."""

    @property
    def classes(self) -> Ints:
        """(N,): the class each text means, the first of the nearest; -1: none."""
        best = np.append(self.cosines.argmax(axis=1), -1)
        return np.asarray(best[self.codes], np.int64)


def compare(
    texts: Sequence[str | None], vocabulary: Vocabulary, template: str = BARE, vectors: Vectors | None = None
) -> Answers:
    """Compare each text, as it is, with the texts of all classes, each put into `template` (B.1, steps 3 and 4).

    Memory: distinct texts × classes × 4 bytes. Raises `UsageError` for a template without one {}.
    """
    if template.count("{}") != 1:
        raise UsageError(f"template {template!r}: has to have {{}} once, where the name goes.")
    vectors = vectors or Vectors()
    said = [text if text and text.strip() else None for text in texts]
    coded = pa.array(said, pa.large_string()).dictionary_encode()
    names = [template.replace("{}", text) for each in vocabulary.classes for text in each.texts]
    firsts = np.cumsum([0, *(len(each.texts) for each in vocabulary.classes)])[:-1]
    sentences = pa.array(names, pa.large_string()).dictionary_encode()
    of_classes = vectors.of(sentences.dictionary)[sentences.indices.to_numpy()]
    if not len(coded.dictionary):
        return Answers(np.full(len(texts), -1), np.empty((0, len(vocabulary.classes)), np.float32))
    near = np.maximum.reduceat(vectors.of(coded.dictionary) @ of_classes.T, firsts, axis=1)
    return Answers(coded.indices.fill_null(-1).to_numpy().astype(np.int64), near)
