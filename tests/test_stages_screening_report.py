"""What is told of annotators, their agreement and the audit, in the terminal's numbers and in the files."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from checking_server import write_pairs
from sa1b_shards import commit
from screened_runs import shown, vote

from pipeline.proportions import counted
from pipeline.run import Run
from stages import audit, decisions, screening_report
from stages.decisions import ScreeningConfig
from stages.screening_report import measure, write


@pytest.fixture
def screened(run: Run) -> Run:
    """Ten pairs on page p, whose two further tiles are known; page q of the qualification; page u of the audit."""
    write_pairs(run, dict.fromkeys(range(10), "dog"))
    gold = [shown(50, gold="delete", place=10), shown(51, gold="keep", place=11)]
    known = [shown(60 + k, page_id="q", round="qualification", gold="keep", place=k) for k in range(4)]
    again = [shown(m, page_id=f"u{m}", round="audit", view="single", why="kept", stratum="head") for m in range(10)]
    commit(run, queue=[*(shown(m, place=m) for m in range(10)), *gold, *known, *again])
    ann = [vote(m, "a-1", "keep", page_seconds=36.0) for m in (*range(10), 50, 51)]
    bob = [vote(m, "a-2", "delete" if m in (9, 50) else "keep", page_seconds=2.4) for m in (*range(10), 50, 51)]
    quiz: list[dict[str, Any]] = [
        vote(60 + k, "a-2", verdict, page_id="q", round="qualification", page_seconds=None)
        for k, verdict in enumerate(["keep", "keep", "unsure", "delete"])
    ]
    judged = [
        vote(m, "a-3", "delete" if m == 0 else "keep", page_id=f"u{m}", round="audit", page_seconds=3.0)
        for m in range(8)
    ]
    commit(run, screenings=[*ann, *bob, *quiz, *judged])
    decisions.build(run, ScreeningConfig())
    audit.save(run, audit.Plan(seed=0, limits={"head": 2**64 - 1}))
    return run


def test_the_report(screened: Run) -> None:
    found = measure(screened)
    one, two, three = found.annotators
    assert [a.annotator for a in found.annotators] == ["a-1", "a-2", "a-3"]
    assert (one.pages, one.timed, one.fast, one.hours) == (1, 1, 0, 36 / 3600)
    assert (two.pages, two.timed, two.fast, two.hours) == (2, 1, 1, 2.4 / 3600)
    assert (three.pages, three.fast, three.gold, three.missed) == (8, 0, None, None)
    assert two.qualification == counted(2, 4)
    assert one.qualification.observations == 0
    assert one.gold
    assert two.gold
    assert (one.gold.recall.value, two.gold.recall.value) == (0, 1)
    assert one.missed  # mask 0 was kept by all, and is wrong; a-2 did not keep the page whole
    assert (one.missed.pages, one.missed.wrong.value, two.missed) == (1, 1 / 8, None)
    assert found.alpha.pairs == 10  # 8 by three people, 2 by two
    assert found.audit
    assert (found.audit.overall.right.value, found.audit.waiting) == (7 / 8, 1)  # mask 9 is a conflict


def test_the_files(screened: Run) -> None:
    report = measure(screened)
    write(screened, report)
    told = json.loads(screened.folder.read(screening_report.JSON))
    assert told["audit"]["overall"] == {
        "share": 7 / 8,
        "lower": report.audit and report.audit.overall.right.lower,
        "upper": report.audit and report.audit.overall.right.upper,
        "observations": 8,
        "more": report.audit and report.audit.overall.more,
        "closed": False,
    }
    assert set(told["audit"]["strata"]) == {"head"}
    assert told["progress"]["rounds"]["screening"] == {"pages": 1, "done": 1, "looks": 0}
    assert [one["annotator"] for one in told["annotators"]] == ["a-1", "a-2", "a-3"]
    assert told["annotators"][0]["qualification"]["share"] is None
    table = list(csv.DictReader(io.StringIO(screened.folder.read(screening_report.CSV).decode())))
    assert table[0] == {
        "annotator": "a-1",
        "person": "yes",
        "pages": "1",
        "pages_timed": "1",
        "hours": "0.010",
        "pages_too_fast": "0",
    }


def test_nobody_has_answered(run: Run) -> None:
    commit(run, queue=[shown(1)])
    found = measure(run)
    assert (found.annotators, found.pairwise, found.audit) == ([], [], None)
    write(run, found)
    told = json.loads(run.folder.read(screening_report.JSON))
    assert (told["audit"], told["agreement"]["alpha"]) == (None, {"value": None, "pairs": 0, "votes": 0})


def test_simulated_answers_are_named(run: Run) -> None:
    commit(run, queue=[shown(1)], screenings=[vote(1, "simulated", "keep", page_seconds=None)])
    write(run, measure(run))
    assert "simulated,no,1" in run.folder.read(screening_report.CSV).decode()
