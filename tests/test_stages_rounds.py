"""The rounds beside the screening: what is shown again, to whom, and that nothing is shown twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checking_server import write_pairs
from sa1b_shards import commit
from screened_runs import shown, vote
from verified_runs import answer, check, masks

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import audit, decisions, gold, rounds
from stages.audit import AuditConfig
from stages.decisions import ScreeningConfig

Row = dict[str, Any]


@pytest.fixture
def ids(run: Run, tmp_path: Path) -> list[int]:
    """Masks that are all said to be dogs, and shown on a page of the screening round."""
    ids = masks(run, tmp_path, images=4, each=30)
    write_pairs(run, dict.fromkeys(ids, "dog"))
    commit(run, queue=[shown(m, place=k, why="tail" if k % 3 else "head") for k, m in enumerate(ids)])
    return ids


def queued(run: Run, round_name: str) -> list[Row]:
    return [row for row in run.dataset("queue").to_table().to_pylist() if row["round"] == round_name]


# --- conflicts --------------------------------------------------------------------------------------------


def test_conflicts_are_shown_singly_once(run: Run, ids: list[int]) -> None:
    said = [vote(m, "ann", "unsure") for m in ids[:3]]
    said += [vote(ids[3], "ann", "keep"), vote(ids[3], "bob", "delete"), vote(ids[4], "ann", "keep")]
    commit(run, screenings=said)
    assert rounds.conflicts(run, ScreeningConfig()) == (4, Counter(conflict=4))
    made = queued(run, "conflict")
    assert {row["mask_id"] for row in made} == set(ids[:4])
    assert {(row["view"], row["place"], row["why"], row["gold"]) for row in made} == {("single", 0, "conflict", None)}
    assert len({row["page_id"] for row in made}) == 4
    assert len({row["crop"] for row in made}) == 4
    assert rounds.conflicts(run, ScreeningConfig()).pages == 0
    commit(run, screenings=[vote(ids[9], "ann", "unsure")])
    assert rounds.conflicts(run, ScreeningConfig()).pages == 1


def test_what_people_cannot_tell_even_singly_is_not_asked_for_ever(run: Run, ids: list[int]) -> None:
    commit(run, screenings=[vote(ids[0], "ann", "unsure")])
    rounds.conflicts(run, ScreeningConfig())
    (page,) = queued(run, "conflict")
    commit(run, screenings=[vote(ids[0], "bob", "unsure", page_id=page["page_id"], round="conflict")])
    made = decisions.build(run, ScreeningConfig())
    assert (made.decisions, made.conflicts) == ({"uncertain": 1}, 0)
    assert rounds.conflicts(run, ScreeningConfig()).pages == 0


# --- audit ------------------------------------------------------------------------------------------------


def test_the_audit_shows_a_sample_of_the_kept_singly(run: Run, ids: list[int]) -> None:
    with pytest.raises(UsageError, match="no pair is kept by people yet"):
        rounds.audited(run, AuditConfig())
    commit(run, screenings=[vote(m, "ann", "delete" if k < 10 else "keep") for k, m in enumerate(ids)])
    decisions.build(run, ScreeningConfig())
    made = rounds.audited(run, AuditConfig(size=70))
    assert made == (70, Counter(kept=70))
    sample = queued(run, "audit")
    assert not {row["mask_id"] for row in sample} & set(ids[:10])
    places = {m: k for k, m in enumerate(ids)}
    assert all(row["stratum"] == ("tail" if places[row["mask_id"]] % 3 else "head") for row in sample)
    counts = Counter(row["stratum"] for row in sample)
    kept = Counter("tail" if k % 3 else "head" for k in range(10, 120))
    assert {(r["stratum"], r["inclusion_probability"]) for r in sample} == {(s, counts[s] / kept[s]) for s in counts}
    assert {(row["view"], row["gold"], row["error"]) for row in sample} == {("single", None, None)}
    order = [row["mask_id"] for row in sample]
    assert order != sorted(order)

    assert rounds.audited(run, AuditConfig()).pages == 0  # the size stays as it was
    assert rounds.audited(run, AuditConfig(size=80)).pages == 10
    assert len({row["mask_id"] for row in queued(run, "audit")}) == 80


def test_only_others_can_audit(run: Run, ids: list[int]) -> None:
    commit(run, screenings=[vote(m, "ann", "keep") for m in ids])
    decisions.build(run, ScreeningConfig())
    rounds.audited(run, AuditConfig(size=60))
    where = {row["mask_id"]: {"page_id": row["page_id"], "round": "audit"} for row in queued(run, "audit")}
    sample = list(where)
    commit(run, screenings=[vote(m, "ann", "keep", **where[m]) for m in sample])
    commit(
        run, screenings=[vote(m, "bob", "delete" if k < 4 else "keep", **where[m]) for k, m in enumerate(sample[:40])]
    )
    plan = audit.load(run)
    assert plan
    found = audit.released_precision(run, audit.standing(run, plan), 0.5)
    assert found.waiting == 20
    assert found.overall.right.observations == 40
    assert 0.7 < found.overall.right.lower < 0.9 < found.overall.right.upper < 0.98
    assert found.overall.closed


def test_a_pair_that_is_no_longer_released_leaves_the_sample(run: Run, ids: list[int]) -> None:
    commit(run, screenings=[vote(m, "ann", "keep") for m in ids])
    decisions.build(run, ScreeningConfig())
    rounds.audited(run, AuditConfig(size=60))
    plan = audit.load(run)
    assert plan
    before = audit.standing(run, plan)
    gone = int(before.mask_ids[0])
    commit(run, screenings=[vote(gone, "ann", "delete", submitted_at="2026-03-02T12:00:00Z")])
    decisions.build(run, ScreeningConfig())
    after = audit.standing(run, plan)
    assert set(before.mask_ids.tolist()) - set(after.mask_ids.tolist()) == {gone}
    assert sum(after.sizes.values()) == len(ids) - 1


# --- qualification ----------------------------------------------------------------------------------------


def test_ten_pages_of_known_answers(run: Run, ids: list[int]) -> None:
    with pytest.raises(UsageError, match="0 right and 0 wrong answers are known"):
        rounds.qualification(run)
    eve = ScreeningConfig(experts=["eve"])
    commit(run, screenings=[vote(m, "eve", "delete" if k < 15 else "keep") for k, m in enumerate(ids)])
    commit(run, checks=[check(m, "control", "cat", answer(0.1, 0.9), "no") for m in ids[:2]])
    decisions.build(run, eve)
    assert Counter(gold.known(run)["gold"].to_pylist()) == {"keep": 105, "delete": 17}
    made = rounds.qualification(run)
    assert made == (2, Counter(gold=48))  # of one mask one wrong name at most: 15 in all
    pages: dict[str, list[Row]] = {}
    for row in queued(run, "qualification"):
        pages.setdefault(row["page_id"], []).append(row)
    for page in pages.values():
        assert [row["place"] for row in page] == list(range(24))
        assert Counter(row["gold"] for row in page) == {"keep": 18, "delete": 6}
        kinds = [row["gold"] for row in page]
        assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))
    assert rounds.qualification(run).pages == 0
