"""How far people are: pages, verdicts, errors found, and how long the rest will take."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from stages.decisions import SIMULATED, among, latest, screened

_ROUNDS = ("screening", "conflict")


class Progress(msgspec.Struct, frozen=True):
    """Of the rounds that decide: screening and conflict."""

    pages: int
    done: int
    """Pages with an answer."""
    verdicts: dict[str, int]
    """Latest verdicts by kind; gold tiles and simulated ones are left out."""
    simulated: int
    """Latest verdicts that no person gave."""
    annotators: int
    """People."""
    seconds: float | None
    """Per region, mean over the pages; None where nothing is known."""
    page_seconds: float | None

    @property
    def error_rate(self) -> float | None:
        """Share of deletes among keeps and deletes; None before the first."""
        judged = self.verdicts.get("keep", 0) + self.verdicts.get("delete", 0)
        return self.verdicts.get("delete", 0) / judged if judged else None

    @property
    def hours_left(self) -> float | None:
        """Of one person, at the present rate; None where no rate is known."""
        return None if self.page_seconds is None else (self.pages - self.done) * self.page_seconds / 3600


def measure(run: Run) -> Progress:
    """Count what a run's people have done. Raises `UserError` for a time that cannot be read."""
    queue = run.dataset("queue", "queue").to_table(columns=["page_id", "round"])
    pages = queue.filter(pa.array(among(queue, "round", _ROUNDS)))["page_id"].unique()
    said = latest(screened(run), ("page_id", "mask_id", "category", "annotator"))
    said = said.filter(pc.is_in(said["page_id"], pages))
    people = said.filter(pa.array(~among(said, "annotator", [SIMULATED])))
    timed = people.filter(pc.is_valid(people["page_seconds"]))
    spent = timed.group_by(["page_id", "annotator"]).aggregate([("page_seconds", "max"), ("mask_id", "count")])
    seconds = np.asarray(spent["page_seconds_max"].to_numpy(), np.float64)
    regions = int(pc.sum(spent["mask_id_count"]).as_py() or 0)
    return Progress(
        pages=len(pages),
        done=len(said["page_id"].unique()),
        verdicts=dict(Counter(people.filter(people["gold"].is_null())["verdict"].to_pylist())),
        simulated=said.num_rows - people.num_rows,
        annotators=len(people["annotator"].unique()),
        seconds=float(seconds.sum() / regions) if regions else None,
        page_seconds=float(seconds.mean()) if len(seconds) else None,
    )
