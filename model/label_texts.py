"""From a data set's own name of a category to the label that is learnt."""

from __future__ import annotations

from typing import Literal

from pipeline.converted_labels import converted
from pipeline.labels import normalise

Rule = Literal["raw", "normal", "wowseg"]


def label(name: str, rule: Rule) -> str:
    """Return the label of a category that its data set calls `name`; may be empty."""
    if rule == "raw":
        return name.strip()
    return normalise(name) if rule == "normal" else converted(name)
