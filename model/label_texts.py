"""From a data set's own name of a category to the label that is learnt."""

from __future__ import annotations

from typing import Literal

from pipeline.labels import normalise

Rule = Literal["raw", "normal", "wowseg"]


def label(name: str, rule: Rule) -> str:
    """Return the label of a category that its data set calls `name`; may be empty."""
    if rule == "raw":
        return name.strip()
    return normalise(name) if rule == "normal" else converted(name)


def converted(name: str) -> str:
    """Return a name as the authors' converter writes it, for training and evaluation (wowseg_facts.md A.4).

    Each `(` to the next `)` goes, with one `_` directly before it; `_` and `-` become spaces; `a:b` becomes `a: b`.
    """
    while (start := name.find("(")) >= 0 and (end := name.find(")", start)) >= 0:
        start -= name[:start].endswith("_")
        name = name[:start] + name[end + 1 :]
    parts = name.replace("_", " ").replace("-", " ").split(":")
    return " ".join(": ".join(map(str.strip, parts)).split())
