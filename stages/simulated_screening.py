"""Verdicts of nobody: an annotator named `simulated`, so that stage 3 can be tried to its end without people.

Every region is deleted with the chance that the queue expects it to be wrong, by a hash of its mask. The name goes with
every row, and a release refuses to mix such verdicts with people's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline import files, tables
from pipeline.run import Run
from stages.decisions import SIMULATED
from stages.sampling import stable_hash

STEP = "screenings"

_SEED = 11
_SERVER = "simulated"


def screen(run: Run) -> int:
    """Answer every page that has no simulated answer yet; return how many regions were judged."""
    with run.lock(STEP):
        done = run.dataset(STEP, STEP).to_table(columns=["page_id", "annotator"]).to_pylist()
        answered = {row["page_id"] for row in done if row["annotator"] == SIMULATED}
        queue = run.dataset("queue", "queue").to_table().to_pylist()
        chances = stable_hash(np.array([row["mask_id"] for row in queue], np.int64), _SEED) / 2**64
        found = zip(queue, chances.tolist(), strict=True)
        rows = [_verdict(row, chance) for row, chance in found if row["page_id"] not in answered]
        if rows:
            key = run.next_key(STEP)
            with run.part(STEP, STEP, key) as part:
                part.write(tables.from_rows(STEP, rows))
            made = files.sha256(*(row["page_id"].encode() for row in rows))[:16]
            counts = {"screenings.verdicts": len(rows)}
            run.commit(STEP, key, {STEP: part}, fingerprint=made, counts=counts, facts={})
    return len(rows)


def _verdict(row: dict[str, Any], chance: float) -> dict[str, Any]:
    wrong = row["gold"] == "delete" if row["gold"] else chance < (row["error"] or 0.0)
    return {
        **{name: row[name] for name in ("mask_id", "category", "page_id", "round")},
        "annotator": SIMULATED,
        "annotation_id": 0,
        "verdict": "delete" if wrong else "keep",
        "seconds": None,
        "page_seconds": None,
        "submitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "server": _SERVER,
    }
