"""How far people are: pages, verdicts, errors found, and how long the rest will take."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run

SIMULATED = "simulated"
"""Annotator that is no person; shown as such wherever its verdicts are."""


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
    """Count what a run's people have done."""
    queue = run.dataset("queue", "queue").to_table(columns=["page_id", "round", "mask_id", "gold"])
    queue = queue.filter(_decides(queue))
    pages = queue["page_id"].unique()
    said = latest(run)
    said = said.filter(pc.is_in(said["page_id"], pages))
    gold = queue.filter(pc.is_valid(queue["gold"]))
    people = pc.not_equal(said["annotator"].cast(pa.string()), SIMULATED)
    judged = said.filter(people).join(
        gold.select(["page_id", "mask_id"]), ["page_id", "mask_id"], join_type="left anti"
    )
    timed = said.filter(pc.and_(people, pc.is_valid(said["page_seconds"])))
    spent = timed.group_by(["page_id", "annotator"]).aggregate([("page_seconds", "max"), ("mask_id", "count")])
    seconds = np.asarray(spent["page_seconds_max"].to_numpy(), np.float64)
    regions = int(pc.sum(spent["mask_id_count"]).as_py() or 0)
    return Progress(
        pages=len(pages),
        done=len(said["page_id"].unique()),
        verdicts=dict(Counter(judged["verdict"].to_pylist())),
        simulated=said.num_rows - int(pc.sum(people).as_py() or 0),
        annotators=len(said.filter(people)["annotator"].unique()),
        seconds=float(seconds.sum() / regions) if regions else None,
        page_seconds=float(seconds.mean()) if len(seconds) else None,
    )


def latest(run: Run) -> pa.Table:
    """Return the verdicts that count: of every annotator, mask and page the last, by the time of the answer."""
    said = run.dataset("screenings", "screenings").to_table()
    said = said.set_column(said.schema.get_field_index("annotator"), "annotator", said["annotator"].cast(pa.string()))
    order = said.sort_by([("submitted_at", "ascending"), ("annotation_id", "ascending")])
    numbered = order.append_column("at", pa.array(np.arange(order.num_rows)))
    last = numbered.group_by(["page_id", "mask_id", "category", "annotator"]).aggregate([("at", "max")])
    return order.take(last["at_max"].combine_chunks().sort() if last.num_rows else pa.array([], pa.int64()))


def _decides(queue: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(queue["round"].cast(pa.string()), pa.array(["screening", "conflict"]))
