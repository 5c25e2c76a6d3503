"""Verdicts brought back from a Label Studio: append-only, each version of an answer once.

An answer that its annotator changes becomes further rows; which counts is decided where they are read. What cannot be
read is quarantined with its reason and makes no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from annotation_ui import answers, projects
from annotation_ui.answers import Refused
from annotation_ui.client import Client
from pipeline import files, tables
from pipeline.run import Run

STEP = "screenings"

Row = dict[str, Any]
Version = tuple[int, str, str]
"""An answer as it was at a time: its id, when it was changed, and where it is."""

_OVERLAP = timedelta(minutes=15)
"""How much is read twice: an answer is stored some time after the moment that it bears, 47 s were seen."""


_LONGEST = 1e9  # seconds: thirty years


class Fetched(NamedTuple):
    """What came in."""

    answers: int
    """Pages answered, or answered anew, since the last time."""
    verdicts: int
    refused: int
    """Answers that are none."""


def fetch(run: Run, client: Client, *, recent: bool = False) -> Fetched:
    """Add what people answered since the last time to `screenings`; given twice, the second adds nothing.

    With `recent`, for looking again and again, only pages that changed since a quarter of an hour before the last
    answer are read; what a server whose clock was turned back hides so, the next whole look finds. Raises `UserError`
    for a server that cannot be asked, or a project that is gone; what came in before is kept.
    """
    with run.lock(STEP):
        run.sweep(STEP, [STEP, "quarantine"])
        known = _known(run)
        tiles = _tiles(run)
        rows: list[Row] = []
        refused: list[Row] = []
        count = 0
        try:
            for place, task, annotation in _answers(run, client, known if recent else set()):
                version = (annotation["id"], annotation["updated_at"], place)
                if version in known:
                    continue
                found = _verdicts(task, annotation, tiles, place)
                count += not isinstance(found, Refused)
                if isinstance(found, Refused):
                    refused.append(_refused(version, place, found))
                else:
                    rows += found
        finally:  # what came in before a server breaks off is kept
            _commit(run, rows, refused)
    return Fetched(count, len(rows), len(refused))


def _answers(
    run: Run, client: Client, known: set[Version]
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the answers of all the run's projects, skips left out: where, page, answer; `known` ones need not be."""
    server = client.name()
    for batch in projects.batches(run):
        project = client.find(batch.title)
        place = f"{server}/projects/{project}"
        changes = [datetime.fromisoformat(changed) for _, changed, where in known if where == place]
        for task in client.annotated(project, max(changes) - _OVERLAP if changes else None):
            for annotation in task.get("annotations", []):
                if not annotation["was_cancelled"]:
                    yield place, task, annotation


def annotator(server: str, user: int) -> str:
    """Return an annotator's pseudonym: the same for a user of a server (`Client.name`), and no name."""
    return f"a-{files.sha256(f'{server}{user}'.encode())[:8]}"


def _known(run: Run) -> set[Version]:
    """Return the versions of answers that the run has, refused ones included."""
    stored = run.dataset(STEP, STEP).to_table(columns=["annotation_id", "submitted_at", "server"])
    columns = (stored[name].to_pylist() for name in stored.column_names)
    known: set[Version] = set(zip(*columns, strict=True))
    for row in run.dataset("quarantine", STEP).to_table(columns=["input", "place"]).to_pylist():
        number, _, changed = row["input"].removeprefix("annotation:").partition("@")
        known.add((int(number), changed, row["place"]))
    return known


def _tiles(run: Run) -> dict[str, dict[str, Row]]:
    """Return the queue's rows by page and uid."""
    columns = ["page_id", "place", "mask_id", "category", "round"]
    found: dict[str, dict[str, Row]] = {}
    for row in run.dataset("queue", projects.STEP).to_table(columns=columns).to_pylist():
        found.setdefault(row["page_id"], {})[projects.uid(row["mask_id"], row["place"])] = row
    return found


def _verdicts(
    task: Mapping[str, Any], annotation: Mapping[str, Any], tiles: Mapping[str, Mapping[str, Row]], place: str
) -> list[Row] | Refused:
    page = tiles.get(str(task.get("data", {}).get("page_id")))
    if page is None:
        return Refused("a page that this run never sent")
    if annotation["completed_by"] is None:
        return Refused("its annotator's account is deleted")
    found = answers.verdicts(task, annotation)
    if isinstance(found, Refused):
        return found
    if strangers := [uid for uid in found if uid not in page]:
        return Refused(f"{strangers[0]!r:.100}: not on the page as it was sent")
    spent = _seconds(annotation.get("lead_time"))
    every = {
        "annotator": annotator(place.rpartition("/projects/")[0], annotation["completed_by"]),
        "annotation_id": annotation["id"],
        "seconds": spent / len(found) if spent else None,
        "page_seconds": spent,
        "submitted_at": annotation["updated_at"],
        "server": place,
    }
    return [{**_about(page[uid]), **every, "verdict": verdict} for uid, verdict in found.items()]


def _seconds(told: Any) -> float | None:
    """Return how long an answer took, where that is a time: anybody can send another."""
    return float(told) if isinstance(told, int | float) and 0 <= told < _LONGEST else None


def _about(tile: Row) -> Row:
    return {name: tile[name] for name in ("mask_id", "category", "page_id", "round")}


def _refused(version: Version, place: str, found: Refused) -> Row:
    return {
        "step": STEP,
        "input": f"annotation:{version[0]}@{version[1]}",
        "shard": "",
        "image_id": None,
        "place": place,
        "reason": "malformed",
        "error": f"{found.reason}. Open the page there and submit it again.",
    }


def _commit(run: Run, rows: list[Row], refused: list[Row]) -> None:
    if not rows and not refused:
        return
    key = run.next_key(STEP)
    parts = dict(_written(run, key, {STEP: rows, "quarantine": refused}))
    made = files.sha256(*(f"{row['annotation_id']}{row['submitted_at']}".encode() for row in rows))[:16]
    counts = {"screenings.verdicts": len(rows), "screenings.refused": len(refused)}
    run.commit(STEP, key, parts, fingerprint=made, counts=counts, facts={})


def _written(run: Run, key: str, made: Mapping[str, list[Row]]) -> Iterator[tuple[str, Any]]:
    for table, rows in made.items():
        if rows:
            with run.part(STEP, table, key) as part:
                part.write(tables.from_rows(table, rows))
            yield table, part
