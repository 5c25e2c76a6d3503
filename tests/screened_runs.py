"""Rows of stage 3 written by hand: what was shown to people and what they said."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def shown(mask_id: int, category: str = "dog", **changes: Any) -> Row:
    """A tile of the queue, on page p of the screening round."""
    where = {"page_id": "p", "place": 0, "view": "page", "round": "screening", "mask_id": mask_id}
    why = {"image_id": mask_id // 1000, "why": "head", "error": None, "inclusion_probability": 1.0, "stratum": ""}
    return {**where, **why, "category": category, "gold": None, "crop": "", "raw": "", **changes}


def vote(mask_id: int, annotator: str, verdict: str, **changes: Any) -> Row:
    """What somebody said of a tile, at noon."""
    what = {"mask_id": mask_id, "category": "dog", "page_id": "p", "round": "screening", "annotator": annotator}
    how = {"annotation_id": 1, "seconds": 2.0, "page_seconds": 48.0, "submitted_at": "2026-03-01T12:00:00Z"}
    return {**what, **how, "verdict": verdict, "server": "s", **changes}


def single(mask_id: int, annotator: str, verdict: str, **changes: Any) -> Row:
    """The same, in the conflict round."""
    return vote(mask_id, annotator, verdict, page_id="c", round="conflict", **changes)
