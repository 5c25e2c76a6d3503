"""Rows of stage 3 written by hand: what was shown to people and what they said."""

from __future__ import annotations

from typing import Any

from pipeline import tables
from pipeline.run import Run

Row = dict[str, Any]


def queued(page_id: str, place: int, mask_id: int, **changes: Any) -> Row:
    """A row of `queue`."""
    known = {"page_id": page_id, "place": place, "mask_id": mask_id, "image_id": mask_id // 1000, "category": "dog"}
    told = {"view": "page", "round": "screening", "why": "head", "error": 0.5, "inclusion_probability": 1.0}
    return {**known, **told, "stratum": "", "gold": None, "crop": "a.jpg", "raw": "a-raw.jpg", **changes}


def said(page_id: str, mask_id: int, verdict: str, annotator: str = "a-1", **changes: Any) -> Row:
    """A row of `screenings`."""
    known = {"mask_id": mask_id, "category": "dog", "page_id": page_id, "round": "screening", "annotator": annotator}
    when = {"annotation_id": 1, "submitted_at": "2026-11-24T10:00:00", "seconds": 1.0, "page_seconds": 4.0}
    return {**known, "verdict": verdict, **when, "server": "http://127.0.0.1:1/projects/1", **changes}


def commit(run: Run, **rows: list[Row]) -> None:
    """Write tables, each under the step of its own name, as further commits."""
    for table, made in rows.items():
        key = f"{len(run.commits(table)):08d}"
        with run.part(table, table, key) as part:
            part.write(tables.from_rows(table, made))
        run.commit(table, key, {table: part}, fingerprint="f", counts={}, facts={})
