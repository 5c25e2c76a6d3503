"""Which pairs are released: every pair has one outcome, and nothing unresolved goes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from released_runs import decide, decision, fill, pair, photograph, shard, verdict
from sa1b_shards import build, commit, square

from benchmark import removals, selection
from benchmark.removals import Removals
from benchmark.selection import Selection, select
from pipeline.errors import UsageError, UserError
from pipeline.run import Run
from stages.sample_data import annotation

Row = dict[str, Any]
NONE = Removals(frozenset(), frozenset())
DROPPED = {"kept": False, "reason": "no", "band": "head"}


@pytest.fixture
def masks(run: Run, tmp_path: Path) -> Run:
    """A run of two images, 1 and 2, with masks 100 to 102 and 200 to 202."""
    build(run, shard(tmp_path / "shards", {1: photograph(1), 2: photograph(2)}))
    return run


def chosen(runs: Run | Sequence[Run], removed: Removals = NONE, *, unscreened: bool = False) -> Selection:
    return select([runs] if isinstance(runs, Run) else runs, removed, unscreened=unscreened)


def dogs(*mask_ids: int) -> list[Row]:
    return [pair(mask, "dog") for mask in mask_ids]


def test_every_pair_has_one_outcome(masks: Run) -> None:
    verdicts = [verdict(m, "dog") for m in (100, 102, 200)] + [verdict(m, "dog", **DROPPED) for m in (101, 201)]
    said = [decision(100, "dog"), decision(102, "dog", "delete"), decision(200, "dog", "uncertain")]
    fill(masks, dogs(100, 101, 102, 200, 201), [*said, decision(201, "dog")], verdicts)
    found = chosen(masks)
    assert found.outcomes == {"released": 2, "stage-2-no": 1, "delete": 1, "uncertain": 1}
    assert found.pairs["mask_id"].to_pylist() == [100, 201]  # people brought back what stage 2 had dropped
    assert found.pairs["screened_by"].to_pylist() == ["people", "people"]


def test_one_private_verdict_removes_the_image(masks: Run) -> None:
    fill(masks, dogs(100, 101, 200), [decision(100, "dog"), decision(101, "dog", "private"), decision(200, "dog")])
    assert chosen(masks).outcomes == {"private-image": 2, "released": 1}


@pytest.mark.parametrize(
    ("removed", "outcomes"),
    [
        (Removals(frozenset({1}), frozenset()), {"taken-down": 2, "released": 1}),
        (Removals(frozenset(), frozenset({101, 7})), {"taken-down": 1, "released": 2}),
    ],
)
def test_take_downs(masks: Run, removed: Removals, outcomes: dict[str, int]) -> None:
    fill(masks, dogs(100, 101, 200), [decision(m, "dog") for m in (100, 101, 200)])
    assert chosen(masks, removed).outcomes == outcomes


def test_unscreened_takes_what_stage_2_kept(masks: Run) -> None:
    fill(masks, dogs(100, 101, 102), [decision(100, "dog"), decision(101, "dog", "delete")])
    found = chosen(masks, unscreened=True)
    assert found.outcomes == {"released": 2, "delete": 1}
    assert found.pairs["screened_by"].to_pylist() == ["people", "nobody"]


def test_unscreened_needs_no_decisions(masks: Run) -> None:
    commit(masks, pairs=dogs(100), verdicts=[verdict(100, "dog")])
    assert chosen(masks, unscreened=True).outcomes == {"released": 1}


def test_waiting_pairs_are_refused(masks: Run) -> None:
    fill(masks, dogs(100, 101, 102), [decision(100, "dog")])
    with pytest.raises(UserError, match=r"2 pairs wait for people. .* rr7k stage-3 import --run"):
        chosen(masks)


def test_pairs_without_verdicts_are_refused(masks: Run) -> None:
    fill(masks, dogs(100, 101), [decision(100, "dog")], [verdict(100, "dog"), verdict(101, "cat")])
    for unscreened in (False, True):
        with pytest.raises(UserError, match=r"1 pairs or more have no verdict of stage 2. Do: rr7k stage-2 --run"):
            chosen(masks, unscreened=unscreened)


def test_conflicts_are_refused(masks: Run) -> None:
    fill(masks, dogs(100), [decision(100, "dog")], conflicts=3)
    with pytest.raises(UserError, match=r"people disagree about 3 pairs. Show these singly: rr7k stage-3 --run"):
        chosen(masks)


def test_stale_decisions_are_refused(masks: Run) -> None:
    fill(masks, dogs(100), [decision(100, "dog")])
    commit(masks, queue=[])
    with pytest.raises(UserError, match=r"have changed since the decisions were made. Do: rr7k stage-3 import --run"):
        chosen(masks)
    decide(masks, [decision(100, "dog")])
    assert chosen(masks).outcomes == {"released": 1}


@pytest.mark.parametrize(("tables", "message"), [([], "no pairs there"), (["pairs"], "no decisions there")])
def test_an_unfinished_run_is_refused(masks: Run, tables: list[str], message: str) -> None:
    commit(masks, **{table: dogs(100) for table in tables})
    with pytest.raises(UserError, match=message):
        chosen(masks)


def test_a_program_and_people_are_not_mixed(masks: Run) -> None:
    fill(masks, dogs(100, 101), [decision(100, "dog"), decision(101, "dog", by="simulated")])
    with pytest.raises(UserError, match="1 pairs were screened by a program and 1 by people"):
        chosen(masks)


def test_a_mask_that_is_gone_is_refused(masks: Run) -> None:
    fill(masks, [pair(999, "dog", image_id=1)], [decision(999, "dog", image_id=1)])
    with pytest.raises(UserError, match="1 pairs have no mask in the run any more, 999 for one"):
        chosen(masks)


# --- several names for one region ---


@pytest.fixture
def twins(run: Run, tmp_path: Path) -> Run:
    """One image with masks 100, 101 and 102 of the same pixels and 103 of as many others in the same box."""
    import numpy as np
    from sa1b_shards import HEIGHT, WIDTH, image_members, write_tar

    corner = np.zeros((HEIGHT, WIDTH), np.bool_)
    corner[5:15, 3:13] = True
    corner[6, 6] = False
    other = corner.copy()
    other[6, 6], other[7, 7] = True, False
    drawn = [annotation(100 + k, corner, 0.9, 0.97) for k in range(3)] + [annotation(103, other, 0.9, 0.97)]
    build(run, write_tar(tmp_path / "sa_000001.tar", image_members(1, [*drawn, square(104, 20)])))
    return run


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 100),  # the lowest id
        ({101: {"keep": 3}}, 101),  # the most votes
        ({101: {"keep": 3, "delete": 2}, 102: {"keep": 2}}, 102),  # less those against
    ],
)
def test_identical_masks_go_out_once(twins: Run, changes: dict[int, Row], kept: int) -> None:
    names = {100: "dog", 101: "puppy", 102: "cat", 103: "dog", 104: "dog"}
    fill(twins, [pair(*one) for one in names.items()], [decision(m, c, **changes.get(m, {})) for m, c in names.items()])
    found = chosen(twins)
    assert found.outcomes == {"released": 3, "identical-mask": 2}
    assert found.pairs["mask_id"].to_pylist() == [kept, 103, 104]
    assert [(row["kept"], row["left_out"]) for row in found.conflicts.to_pylist()] == [
        (kept, lost) for lost in (100, 101, 102) if lost != kept
    ]


def test_the_surest_yes_decides_between_equal_votes(twins: Run) -> None:
    verdicts = [verdict(100, "dog", p_yes=0.6), verdict(101, "puppy", p_yes=0.8), verdict(102, "cat")]
    fill(
        twins,
        [pair(v["mask_id"], v["category"]) for v in verdicts],
        [decision(v["mask_id"], v["category"]) for v in verdicts],
        verdicts,
    )
    assert chosen(twins).pairs["mask_id"].to_pylist() == [101]


def other_run(tmp_path: Path) -> Run:
    run = Run(str(tmp_path / "other"))
    build(run, tmp_path / "shards" / "sa_000001.tar")
    return run


@pytest.mark.parametrize("at_once", [1, 500_000])
def test_two_runs_merge(masks: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(selection, "_AT_ONCE", at_once)
    other = other_run(tmp_path)
    fill(masks, dogs(100, 101), [decision(100, "dog"), decision(101, "dog")])
    fill(other, [pair(101, "cat"), pair(200, "cup")], [decision(101, "cat"), decision(200, "cup")])
    found = chosen([masks, other])
    assert found.outcomes == {"released": 3, "named-in-another-run": 1}
    assert found.pairs.select(["mask_id", "category", "run"]).to_pylist() == [
        {"mask_id": 100, "category": "dog", "run": 0},
        {"mask_id": 101, "category": "dog", "run": 0},
        {"mask_id": 200, "category": "cup", "run": 1},
    ]
    assert found.conflicts.to_pylist() == [
        {"kind": "named-in-another-run", "image_id": 1, "kept": 101, "kept_category": "dog"}
        | {"left_out": 101, "left_out_category": "cat"}
    ]


def test_what_people_rejected_in_one_run_does_not_come_in_by_another(masks: Run, tmp_path: Path) -> None:
    other = other_run(tmp_path)
    fill(masks, dogs(100, 101), [decision(100, "dog"), decision(101, "dog")])
    fill(other, dogs(100), [decision(100, "dog", "delete")])
    found = chosen([masks, other])
    assert found.outcomes == {"released": 1, "delete": 1, "deleted-in-another-run": 1}
    assert found.conflicts["kind"].to_pylist() == ["deleted-in-another-run"]


def test_private_holds_in_all_runs(masks: Run, tmp_path: Path) -> None:
    other = other_run(tmp_path)
    fill(masks, dogs(100, 200), [decision(100, "dog"), decision(200, "dog")])
    fill(other, dogs(101), [decision(101, "dog", "private")])
    assert chosen([masks, other]).outcomes == {"private-image": 2, "released": 1}


# --- nothing is lost ---

SAID = st.sampled_from(["release", "delete", "uncertain", "private", None])


@settings(max_examples=15)
@given(st.lists(st.tuples(SAID, st.booleans()), min_size=6, max_size=6), st.booleans())
def test_outcomes_add_up(told: list[tuple[str | None, bool]], unscreened: bool) -> None:
    with TemporaryDirectory() as folder:
        run = Run(folder + "/run")
        build(run, shard(Path(folder, "shards"), {1: photograph(1), 2: photograph(2)}))
        ids = [100, 101, 102, 200, 201, 202]
        verdicts = [verdict(m, "dog", **({} if kept else DROPPED)) for m, (_, kept) in zip(ids, told, strict=True)]
        said = [decision(m, "dog", word) for m, (word, _) in zip(ids, told, strict=True) if word]
        fill(run, dogs(*ids), said, verdicts)
        if not unscreened and (None, True) in told:
            with pytest.raises(UserError, match="wait for people"):
                chosen(run)
            return
        found = chosen(run, unscreened=unscreened)
        assert found.outcomes.total() == 6
        assert found.outcomes["released"] == len(found.pairs)
        private = {m // 100 for m, (word, _) in zip(ids, told, strict=True) if word == "private"}
        assert not private & set(found.pairs["image_id"].to_pylist())


# --- the list of take-downs ---


def test_the_list_of_take_downs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "removed.csv"
    path.write_text("image_id,mask_id,reason,date\n1,,asked for,2026-01-02\n2,201,wrong,2026-01-02\n")
    assert removals.load(path) == Removals(frozenset({1}), frozenset({201}))
    assert removals.load() == NONE  # what ships


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,reason\n", "line 1: the columns have to be image_id,mask_id,reason,date"),
        ("image_id,mask_id,reason,date\n1,,why\n", "line 2: 4 cells expected"),
        ("image_id,mask_id,reason,date\nx,,why,2026-01-02\n", "line 2: image_id 'x' is no number"),
        ("image_id,mask_id,reason,date\n1,x,why,2026-01-02\n", "line 2: mask_id 'x' is no number"),
        ("image_id,mask_id,reason,date\n1,, ,2026-01-02\n", "line 2: reason is empty"),
        ("image_id,mask_id,reason,date\n1,,why,soon\n", "line 2: date 'soon' is none"),
    ],
)
def test_mistakes_in_it_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "removed.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        removals.load(path)
