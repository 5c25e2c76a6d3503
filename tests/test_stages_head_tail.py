"""Which categories are frequent, and when that is decided anew."""

from __future__ import annotations

import pytest
from checking_server import write_pairs
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import rows

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import head_tail
from stages.frequency_report import draw, gather
from stages.head_tail import HeadTailConfig, Split, split, splits

COUNTS = {"dog": 300, "cup": 101, "emu": 100, "fig": 1}


def test_a_category_with_as_many_pairs_as_the_cut_is_head() -> None:
    assert split(COUNTS, 101) == Split(101, 2, 401, 2, 101)
    assert split(COUNTS, 100) == Split(100, 3, 501, 1, 1)
    assert split(COUNTS, 1) == Split(1, 4, 502, 0, 0)
    assert split({}, 5) == Split(5, 0, 0, 0, 0)


def test_the_cut_in_use_is_among_those_shown_once() -> None:
    assert [found.cut for found in splits(COUNTS, 50)] == [2, 11, 31, 50, 101, 301, 1001]
    assert [found.cut for found in splits(COUNTS, 101)] == list(head_tail.CUTS)


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 500)), st.integers(1, 600))
def test_head_and_tail_are_all_there_is(counts: dict[str, int], cut: int) -> None:
    found = split(counts, cut)
    assert found.head_categories + found.tail_categories == len(counts)
    assert found.head_pairs + found.tail_pairs == sum(counts.values())


def test_the_table_follows_the_pairs_and_the_setting_and_is_kept_otherwise(run: Run) -> None:
    write_pairs(run, {1000: "dog", 1001: "dog", 1002: "emu"})
    assert head_tail.build(run, HeadTailConfig(head_min_count=2)) == Split(2, 1, 2, 1, 1)
    assert rows(run, "bands", "category") == [
        {"category": "dog", "pairs": 2, "band": "head"},
        {"category": "emu", "pairs": 1, "band": "tail"},
    ]
    before = run.parts("bands")
    assert head_tail.build(run, HeadTailConfig()).cut == 2, "what a command does not name stays"
    assert run.parts("bands") == before
    write_pairs(run, {1000: "dog", 1001: "dog", 1002: "emu", 1003: "emu"})
    head_tail.build(run, HeadTailConfig())
    assert {row["band"] for row in rows(run, "bands", "category")} == {"head"}
    head_tail.build(run, HeadTailConfig(head_min_count=3))
    assert {row["band"] for row in rows(run, "bands", "category")} == {"tail"}


def test_without_pairs_it_says_what_to_do(run: Run) -> None:
    with pytest.raises(UsageError, match=r"no pairs to check.*rr7k stage-1"):
        head_tail.build(run, HeadTailConfig())


def test_the_curve_is_drawn_with_the_cut(run: Run) -> None:
    write_pairs(run, {1000 + k: "dog" if k < 4 else f"emu {k}" for k in range(9)})
    report = gather(run)
    assert len({draw(report), draw(report, 3), draw(report, 101)}) == 3
