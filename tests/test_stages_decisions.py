"""From votes to decisions: the rule case by case, and what must never change them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from checking_server import write_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sa1b_shards import commit, rows
from screened_runs import shown, single, vote
from verified_runs import tail

from pipeline.errors import UserError
from pipeline.run import Run
from stages import decisions
from stages.decisions import ScreeningConfig

Row = dict[str, Any]
EVE, BOTH = {"experts": ["eve"]}, {"experts": ["eve", "fay"]}
EXPERTS = ScreeningConfig(experts=["eve"])


def screening(run: Run, masks: Sequence[int], said: Sequence[Row]) -> None:
    """Pairs that are all said to be dogs, shown in both rounds that decide, and votes about them."""
    write_pairs(run, dict.fromkeys(masks, "dog"))
    everything = [shown(m, **where) for m in masks for where in ({}, {"page_id": "c", "round": "conflict"})]
    commit(run, queue=everything, screenings=list(said))


@pytest.mark.parametrize(
    ("said", "config", "decided"),
    [
        ([vote(1, "ann", "keep")], {}, ("release", "people", 1, 0, 0, 0)),
        ([vote(1, "ann", "delete")], {}, ("delete", "people", 0, 1, 0, 0)),
        ([vote(1, "ann", "keep"), vote(1, "bob", "unsure")], {}, ("release", "people", 1, 0, 0, 1)),
        ([vote(1, "a", "keep"), vote(1, "b", "delete"), vote(1, "c", "delete")], {}, ("delete", "people", 1, 2, 0, 0)),
        ([vote(1, "ann", "keep"), vote(1, "bob", "delete")], {}, "conflict"),
        ([vote(1, "ann", "unsure"), vote(1, "bob", "unsure")], {}, "conflict"),
        ([], {}, "pending"),
        # enough votes
        ([vote(1, "ann", "keep")], {"votes": 2}, "pending"),
        ([vote(1, "ann", "unsure")], {"votes": 2}, "pending"),
        ([vote(1, "ann", "keep"), vote(1, "bob", "unsure")], {"votes": 2}, ("release", "people", 1, 0, 0, 1)),
        ([vote(1, "eve", "keep")], {"votes": 2, "experts": ["eve"]}, ("release", "expert", 1, 0, 0, 0)),
        ([vote(1, "ann", "private")], {"votes": 2}, ("private", "people", 0, 0, 1, 0)),
        # private is stronger than anything
        ([vote(1, "ann", "private"), single(1, "eve", "keep")], EVE, ("private", "people", 1, 0, 1, 0)),
        ([vote(1, "ann", "keep"), vote(1, "eve", "private")], EVE, ("private", "expert", 1, 0, 1, 0)),
        # an expert overrides, unless unsure
        ([single(1, "b", "keep"), vote(1, "eve", "delete")], EVE, ("delete", "expert", 1, 1, 0, 0)),
        ([vote(1, "ann", "keep"), vote(1, "eve", "unsure")], EVE, ("release", "people", 1, 0, 0, 1)),
        ([vote(1, "eve", "keep"), single(1, "eve", "delete")], EVE, ("delete", "expert", 1, 1, 0, 0)),
        ([vote(1, "eve", "keep"), vote(1, "fay", "delete"), vote(1, "a", "keep")], BOTH, "conflict"),
        # the single view outranks the page
        ([vote(1, "a", "keep"), vote(1, "b", "keep"), single(1, "c", "delete")], {}, ("delete", "people", 2, 1, 0, 0)),
        ([vote(1, "a", "keep"), vote(1, "b", "delete"), single(1, "c", "unsure")], {},
         ("uncertain", "people", 1, 1, 0, 1)),
        ([vote(1, "a", "keep"), single(1, "b", "keep"), single(1, "c", "delete")], {},
         ("uncertain", "people", 2, 1, 0, 0)),
        ([vote(1, "a", "unsure"), single(1, "b", "unsure"), single(1, "eve", "keep")], EVE,
         ("release", "expert", 1, 0, 0, 2)),
        # a program
        ([vote(1, "simulated", "delete")], {}, ("delete", "simulated", 0, 1, 0, 0)),
        ([vote(1, "simulated", "private"), vote(1, "ann", "keep")], {}, ("release", "people", 1, 0, 0, 0)),
        ([single(1, "simulated", "delete"), vote(1, "ann", "unsure")], {}, "conflict"),
        # what is no vote
        ([vote(1, "ann", "keep", category="cat")], {}, "pending"),
        ([vote(1, "ann", "keep", page_id="nowhere")], {}, "pending"),
        ([vote(1, "ann", "keep", round="audit")], {}, "pending"),
        ([vote(1, "ann", "keep", round="qualification")], {}, "pending"),
    ],
)  # fmt: skip
def test_the_rule(run: Run, said: list[Row], config: dict[str, Any], decided: Any) -> None:
    screening(run, [1], said)
    made = decisions.build(run, ScreeningConfig(**config))
    found = rows(run, "decisions")
    open_ = decisions.conflicts(run).to_pylist()
    if isinstance(decided, str):
        assert found == []
        assert (made.pending, made.conflicts) == ((1, 0) if decided == "pending" else (0, 1))
        assert open_ == ([{"mask_id": 1, "image_id": 0, "category": "dog"}] if decided == "conflict" else [])
    else:
        assert [tuple(row.values()) for row in found] == [(1, 0, "dog", *decided)]
        assert (made.decisions, made.pending, open_) == ({decided[0]: 1}, 0, [])


@pytest.mark.parametrize(
    ("times", "ids", "expected"),
    [
        (["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.5Z"], [1, 1], "delete"),  # text would sort the other way
        (["2026-03-01T12:00:00+00:00", "2026-03-01T11:59:59+00:00"], [1, 1], "release"),
        (["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+02:00"], [1, 1], "release"),
        (["2026-03-01T12:00:00Z", "2026-03-01T12:00:01"], [1, 1], "delete"),
        (["2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"], [2, 1], "release"),
        (["2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"], [1, 2], "delete"),
    ],
)
def test_who_changes_their_mind_is_heard_once(run: Run, times: list[str], ids: list[int], expected: str) -> None:
    told = zip(("keep", "delete"), times, ids, strict=True)
    screening(run, [1], [vote(1, "ann", v, submitted_at=t, annotation_id=i) for v, t, i in told])
    assert decisions.build(run, EXPERTS).decisions == {expected: 1}


def test_who_decided_is_known(run: Run) -> None:
    said = [vote(1, "ann", "keep"), single(1, "bob", "keep"), vote(1, "simulated", "keep"), vote(3, "cat", "delete")]
    screening(run, [1, 2, 3], [*said, vote(2, "dan", "keep", round="audit")])
    assert decisions.deciders(run, np.array([1, 2])) == {1: {"ann", "bob"}}


def test_control_tiles_decide_nothing(run: Run) -> None:
    screening(run, [1, 2], [vote(1, "ann", "keep", page_id="q"), vote(2, "ann", "keep")])
    commit(run, queue=[shown(1, page_id="q", gold="keep")])
    made = decisions.build(run, EXPERTS)
    assert (made.decisions, made.pending) == ({"release": 1}, 1)
    assert [row["mask_id"] for row in rows(run, "decisions")] == [2]


def test_what_is_pending_was_kept_by_stage_2_or_is_shown(run: Run) -> None:
    write_pairs(run, {1: "dog", 2: "dog", 3: "dog", 4: "dog"})
    commit(run, verdicts=[tail(1, "dog"), tail(4, "cat")], queue=[shown(2), shown(3, gold="keep")])
    assert decisions.build(run, EXPERTS)[:3] == ({}, 2, 0)


def test_rewritten_only_when_something_changed(run: Run) -> None:
    screening(run, [1, 2], [vote(1, "ann", "keep")])
    assert decisions.build(run, ScreeningConfig()).rewritten
    assert not decisions.build(run, ScreeningConfig()).rewritten
    assert len(run.folder.sub("decisions").names(".parquet")) == 1
    commit(run, screenings=[single(1, "eve", "delete"), vote(2, "ann", "delete")])
    made = decisions.build(run, EXPERTS)
    assert (made.decisions, made.rewritten) == ({"delete": 2}, True)
    assert [row["by"] for row in rows(run, "decisions")] == ["expert", "people"]
    assert not decisions.build(run, ScreeningConfig()).rewritten  # experts stay as they were named
    write_pairs(run, {1: "cat", 2: "dog", 3: "dog"})
    made = decisions.build(run, ScreeningConfig())
    assert (made.decisions, made.pending) == ({"delete": 1}, 0)  # 1 is another pair now, 3 was never to be shown


def test_an_empty_run(run: Run) -> None:
    assert decisions.build(run, ScreeningConfig()) == ({}, 0, 0, True)
    assert decisions.conflicts(run).num_rows == 0


def test_bad_input(run: Run) -> None:
    screening(run, [1], [vote(1, "ann", "keep", submitted_at="yesterday")])
    with pytest.raises(UserError, match="column submitted_at: Failed to parse string: 'yesterday'"):
        decisions.build(run, EXPERTS)
    for wrong in ({"votes": 0}, {"experts": [""]}, {"experts": ["simulated"]}):
        with pytest.raises(ValidationError):
            ScreeningConfig(**wrong)


VOTES = st.lists(
    st.builds(
        lambda mask, who, said, second, show: show(mask, who, said, submitted_at=f"2026-03-01T12:00:0{second}Z"),
        st.integers(1, 3),
        st.sampled_from(["ann", "bob", "eve", "simulated"]),
        st.sampled_from(["keep", "delete", "private", "unsure"]),
        st.integers(0, 3),
        st.sampled_from([vote, single]),
    ),
    max_size=12,
)


def decided(*imports: list[Row], votes: int = 1) -> dict[int, Row]:
    with TemporaryDirectory() as folder:
        run = Run(str(Path(folder) / "run"))
        screening(run, [1, 2, 3], [])
        for said in imports:
            commit(run, screenings=said)
        decisions.build(run, ScreeningConfig(experts=["eve"], votes=votes))
        return {row["mask_id"]: row for row in rows(run, "decisions")}


@settings(max_examples=20)
@given(VOTES, st.randoms(use_true_random=False), st.integers(1, 2))
def test_neither_order_nor_repetition_of_rows_matters(said: list[Row], random: Any, votes: int) -> None:
    once = decided(said, votes=votes)
    assert decided(random.sample(said, len(said)), said[::2], votes=votes) == once


@settings(max_examples=25)
@given(VOTES, st.integers(1, 3), st.sampled_from([vote, single]), st.sampled_from(["new", "eve"]))
def test_a_vote_more_for_keep_never_deletes(said: list[Row], mask: int, show: Any, who: str) -> None:
    others = [row for row in said if (row["annotator"], row["mask_id"]) != (who, mask)]
    before, after = decided(others), decided(others, [show(mask, who, "keep")])
    if before.get(mask, {}).get("decision") == "release":
        assert after[mask]["decision"] == "release"
    assert {m: row for m, row in after.items() if m != mask} == {m: row for m, row in before.items() if m != mask}
