"""How far people are: pages, verdicts, errors found, and how long the rest will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from stages.decisions import (
    AUDIT,
    CONFLICT,
    QUALIFICATION,
    SCREENING,
    SIMULATED,
    ScreeningConfig,
    among,
    latest,
    screened,
)
from stages.decisions import STEP as DECISIONS
from stages.remembering import inherited

DECIDING = (SCREENING, CONFLICT)

EVERYBODY = 1000
"""Looks at a page of the qualification round, which all annotators are to see: more than there will be."""


class Round(msgspec.Struct, frozen=True):
    """Pages of a round. Of the qualification round, which everybody sees, one answer makes a page done."""

    pages: int
    done: int
    """Answered by as many as have to look at them."""
    looks: int
    """Answers that are missing."""


class Progress(msgspec.Struct, frozen=True):
    """Of a run; verdicts and times are of the rounds that decide, screening and conflict."""

    rounds: dict[str, Round]
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
    def left(self) -> int:
        """Pages without which pairs stay undecided."""
        return sum(found.pages - found.done for name, found in self.rounds.items() if name in DECIDING)

    @property
    def error_rate(self) -> float | None:
        """Share of deletes among keeps and deletes; None before the first."""
        judged = self.verdicts.get("keep", 0) + self.verdicts.get("delete", 0)
        return self.verdicts.get("delete", 0) / judged if judged else None

    @property
    def hours_left(self) -> float | None:
        """Of one person, for the rounds that decide, at the present rate; None where no rate is known."""
        looks = sum(found.looks for name, found in self.rounds.items() if name in DECIDING)
        return None if self.page_seconds is None else looks * self.page_seconds / 3600


def looks(config: ScreeningConfig) -> Mapping[str, int]:
    """Return how many people see a page of each round."""
    return {SCREENING: config.votes, CONFLICT: 1, AUDIT: 1, QUALIFICATION: EVERYBODY}


def measure(run: Run) -> Progress:
    """Count what a run's people have done. Raises `UserError` for a time that cannot be read."""
    needed = {**looks(inherited(run, DECISIONS, ScreeningConfig())), QUALIFICATION: 1}
    queue = run.dataset("queue", "queue").to_table(columns=["page_id", "round"])
    pages = queue.set_column(1, "round", queue["round"].cast(pa.string())).group_by(["page_id", "round"]).aggregate([])
    said = latest(screened(run), ("page_id", "mask_id", "category", "annotator"))
    answered = said.group_by("page_id").aggregate([("annotator", "count_distinct")])
    people = people_of(said)
    seconds, regions = page_times(people)
    return Progress(
        rounds=_rounds(pages.join(answered, "page_id"), needed),
        verdicts=dict(Counter(people.filter(people["gold"].is_null())["verdict"].to_pylist())),
        simulated=int(among(said, "round", DECIDING).sum()) - people.num_rows,
        annotators=len(people["annotator"].unique()),
        seconds=float(seconds.sum() / regions.sum()) if len(seconds) else None,
        page_seconds=float(seconds.mean()) if len(seconds) else None,
    )


def _rounds(pages: pa.Table, needed: Mapping[str, int]) -> dict[str, Round]:
    """Return how far each round of the queue is; `pages` has round and annotator_count_distinct."""
    found = {}
    for name, wanted in needed.items():
        counts = pages.filter(pc.equal(pages["round"], name))["annotator_count_distinct"]
        answers = np.minimum(pc.fill_null(counts, 0).to_numpy(), wanted)
        if len(answers):
            found[name] = Round(len(answers), int((answers == wanted).sum()), int((wanted - answers).sum()))
    return found


def people_of(said: pa.Table) -> pa.Table:
    """Return the answers that people gave in the rounds that decide; `said` as `decisions.latest` returns it."""
    deciding = said.filter(pa.array(among(said, "round", DECIDING)))
    return deciding.filter(pa.array(~among(deciding, "annotator", [SIMULATED])))


def page_times(people: pa.Table) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return seconds and regions, both (pages,), of each page that a person answered, where the time is known."""
    timed = people.filter(pc.is_valid(people["page_seconds"]))
    pages = timed.group_by(["page_id", "annotator"]).aggregate([("page_seconds", "max"), ("mask_id", "count")])
    return pages["page_seconds_max"].to_numpy().astype(np.float64), pages["mask_id_count"].to_numpy()
