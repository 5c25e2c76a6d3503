"""How far people are, in numbers; and verdicts that no person gave, marked as such."""

from __future__ import annotations

from typing import Any

import pytest
from sa1b_shards import commit, rows
from screened_runs import shown, vote

from pipeline.run import Run
from stages import decisions, simulated_screening
from stages.decisions import ScreeningConfig
from stages.screening_progress import Round, measure


@pytest.fixture
def screened(run: Run) -> Run:
    """Three pages of four tiles, one of them gold; two are answered, one of them by two people and changed once."""
    pages = [shown(1000 + 10 * n + k, page_id=page, place=k) for n, page in enumerate("abc") for k in range(4)]
    pages[3] = {**pages[3], "gold": "delete", "why": "gold"}
    quick = {"page_id": "a", "page_seconds": 4.0}
    commit(run, queue=pages, screenings=[vote(1000 + k, "a-1", "keep", **quick) for k in range(4)])
    later: dict[str, Any] = {"page_id": "a", "page_seconds": 8.0, "submitted_at": "2026-03-01T13:00:00Z"}
    commit(run, screenings=[vote(1000 + k, "a-1", "delete" if k else "keep", **later) for k in range(4)])
    unknown: dict[str, Any] = {"page_id": "a", "page_seconds": None, "seconds": None}
    commit(run, screenings=[vote(1000 + k, "a-2", "unsure", **unknown) for k in range(4)])
    commit(run, screenings=[vote(1010 + k, "a-1", "keep", page_id="b", page_seconds=2.0) for k in range(4)])
    return run


def test_the_latest_answer_counts_and_gold_does_not(screened: Run) -> None:
    found = measure(screened)
    assert found.rounds == {"screening": Round(pages=3, done=2, looks=1)}
    assert (found.left, found.annotators, found.simulated) == (1, 2, 0)
    assert found.verdicts == {"keep": 1 + 4, "delete": 2, "unsure": 3}
    assert found.error_rate == pytest.approx(2 / 7)
    assert (found.page_seconds, found.seconds) == (5.0, 10 / 8)
    assert found.hours_left == pytest.approx(5 / 3600)


def test_nothing_answered(run: Run) -> None:
    commit(run, queue=[shown(1000)])
    found = measure(run)
    assert (found.rounds, found.verdicts) == ({"screening": Round(1, 0, 1)}, {})
    assert (found.error_rate, found.seconds, found.hours_left) == (None, None, None)


def test_every_round_is_done_when_as_many_have_looked_as_have_to(screened: Run) -> None:
    commit(screened, queue=[shown(1, page_id="c", round="conflict", view="single", why="conflict")])
    commit(screened, queue=[shown(2, page_id="q", round="qualification", gold="keep")])
    commit(screened, queue=[shown(3, page_id="u", round="audit", view="single", why="kept")])
    commit(screened, screenings=[vote(2, name, "keep", page_id="q", round="qualification") for name in ("a-1", "a-2")])
    decisions.build(screened, ScreeningConfig(votes=2))
    found = measure(screened)
    assert found.rounds == {
        "screening": Round(pages=3, done=1, looks=3),
        "conflict": Round(1, 0, 1),
        "audit": Round(1, 0, 1),
        "qualification": Round(1, 1, 0),
    }
    assert found.left == 3
    assert found.verdicts == {"keep": 5, "delete": 2, "unsure": 3}  # the qualification decides nothing
    assert found.hours_left == pytest.approx(4 * 5 / 3600)


def test_simulated_verdicts_are_marked_given_once_and_not_counted_as_peoples(screened: Run) -> None:
    assert simulated_screening.screen(screened) == 12
    assert simulated_screening.screen(screened) == 0
    made = [row for row in rows(screened, "screenings") if row["annotator"] == "simulated"]
    assert {row["server"] for row in made} == {"simulated"}
    assert {row["verdict"] for row in made} <= {"keep", "delete"}
    (gold,) = (row for row in made if row["mask_id"] == 1003)
    assert gold["verdict"] == "delete"
    found = measure(screened)
    assert (found.simulated, found.left, found.annotators) == (12, 0, 2)
    assert found.verdicts == {"keep": 5, "delete": 2, "unsure": 3}
