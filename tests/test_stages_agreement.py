"""Annotators against known answers, against each other, and against the clock."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from checking_server import write_pairs
from hypothesis import given
from hypothesis import strategies as st
from sa1b_shards import commit
from screened_runs import shown, vote

from pipeline.errors import UsageError, UserError
from pipeline.proportions import counted
from pipeline.run import Run
from stages.agreement import (
    FastPage,
    Hours,
    alpha,
    cohen_kappa,
    hours,
    krippendorff_alpha,
    on_controls,
    pairwise,
    too_fast,
)

Row = dict[str, Any]

# --- published examples ---


def pairs_of(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Two observers' values from how often each combination of theirs occurred."""
    cells = [(a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in cells], [b for _, b in cells]


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[88, 14, 18], [10, 40, 10], [2, 6, 12]], 0.492),  # Cohen 1960, table 1: p = 0.70, e = 0.41
        ([[20, 5], [10, 15]], 0.4),  # p = 0.7, e = 0.5
        ([[0, 5], [5, 0]], -1),
        ([[3, 0], [0, 4]], 1),
    ],
)
def test_kappa_of_published_tables(table: list[list[int]], kappa: float) -> None:
    assert cohen_kappa(*pairs_of(table)) == pytest.approx(kappa, abs=5e-4)


def counts_of(observers: list[str]) -> np.ndarray:
    """Counts by unit and value from one string of values per observer; a dot is missing."""
    values = sorted(set("".join(observers)) - {"."})
    return np.array([[unit.count(value) for value in values] for unit in zip(*observers, strict=True)], np.int64)


@pytest.mark.parametrize(
    ("observers", "value"),
    [  # Krippendorff 2011: parts A, B and C
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbccceddd"], 0.692),
        (["123321412...", "1233224125.3", ".3332342251.", "12332441251."], 0.743),
    ],
)
def test_alpha_of_published_data(observers: list[str], value: float) -> None:
    assert krippendorff_alpha(counts_of(observers)) == pytest.approx(value, abs=5e-4)


CODES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)


@given(CODES)
def test_kappa_is_that_of_scikit_learn(codes: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    one, other = ([pair[k] for pair in codes] for k in (0, 1))
    if len(set(one + other)) > 1:  # scikit-learn warns
        assert cohen_kappa(one, other) == pytest.approx(metrics.cohen_kappa_score(one, other))
    else:
        assert math.isnan(cohen_kappa(one, other))


@given(CODES, st.randoms(use_true_random=False))
def test_neither_the_order_of_units_nor_lone_values_matter(codes: list[tuple[int, int]], random: Any) -> None:
    counts = np.array([np.bincount(pair, minlength=3) for pair in codes])
    shuffled = np.array([*random.sample(counts.tolist(), len(codes)), [0, 0, 1], [0, 0, 0]])
    assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(counts), nan_ok=True)
    assert not krippendorff_alpha(counts) > 1


def test_nothing_to_compare() -> None:
    assert math.isnan(cohen_kappa([], []))
    assert math.isnan(krippendorff_alpha(np.zeros((0, 2), np.int64)))
    assert math.isnan(krippendorff_alpha(np.array([[1, 0], [0, 1]])))
    assert math.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]])))


@pytest.mark.parametrize(
    "call",
    [
        lambda: cohen_kappa([1, 2], [1]),
        lambda: cohen_kappa([1], [-1]),
        lambda: krippendorff_alpha(np.array([1, 2])),
        lambda: krippendorff_alpha(np.array([[1, -2]])),
    ],
)
def test_impossible_values(call: Any) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        call()


# --- a run ---


def controls(run: Run, said: list[Row]) -> None:
    """Masks 1 to 4 are known to be wrong, 5 to 9 to be right; mask 1 is a control on page r as well."""
    tiles = [shown(m, gold="delete" if m < 5 else "keep") for m in range(1, 10)]
    commit(run, queue=[*tiles, shown(1, page_id="r", gold="delete"), shown(10)], screenings=said)


def test_accuracy_on_controls(run: Run) -> None:
    said = dict(zip(range(1, 10), ["delete", "delete", "keep", "unsure", "delete", *["keep"] * 4], strict=True))
    others = [vote(1, "bob", "keep"), vote(10, "ann", "delete"), vote(77, "ann", "keep")]
    again = vote(1, "ann", "keep", page_id="r"), vote(9, "ann", "private", submitted_at="2026-03-01T13:00:00Z")
    controls(run, [*(vote(m, "ann", v) for m, v in said.items()), *others, *again])
    ann, bob = on_controls(run)
    assert (ann.annotator, ann.tiles, ann.unsure) == ("ann", 10, 2)
    assert ann[3:] == (counted(2, 3), counted(2, 5), counted(2, 5), counted(1, 5))
    assert (bob.annotator, bob.tiles, bob.recall, bob.false_keep) == ("bob", 1, counted(0, 1), counted(1, 1))
    assert math.isnan(bob.precision.value)


def judged(run: Run, by_person: dict[str, str]) -> None:
    """What everybody says of masks 1, 2 and on: k, d, u, p, or a dot."""
    words = {"k": "keep", "d": "delete", "u": "unsure", "p": "private"}
    masks = range(1, 1 + max(map(len, by_person.values())))
    write_pairs(run, dict.fromkeys(masks, "dog"))
    said = [vote(m, a, words[c]) for a, text in by_person.items() for m, c in enumerate(text, 1) if c in words]
    commit(run, queue=[shown(m) for m in masks], screenings=said)


def test_how_far_people_agree(run: Run) -> None:
    judged(run, {"ann": "kkkddkd.", "bob": "kkdddku.", "cat": "k......d", "simulated": "dddddddd"})
    found = pairwise(run)
    assert [two[:3] for two in found] == [("ann", "bob", 6), ("ann", "cat", 1), ("bob", "cat", 1)]
    assert found[0][3:] == pytest.approx((5 / 6, 2 / 3))  # e = (4 x 3 + 2 x 3) / 36
    assert found[1].same == 1
    assert math.isnan(found[1].kappa)
    # 13 values, 8 of them keep; one unit of two that differ: 1 - 12 x 2 / (169 - 64 - 25)
    assert alpha(run) == pytest.approx((1 - 12 * 2 / 80, 6, 13))


def test_only_blind_judgements_of_pairs_are_compared(run: Run) -> None:
    judged(run, {"ann": "kk", "bob": "kk"})
    commit(
        run,
        queue=[shown(1, page_id="g", gold="keep"), shown(2, page_id="c", round="conflict")],
        screenings=[
            vote(1, "bob", "delete", page_id="g", submitted_at="2026-03-02T12:00:00Z"),
            vote(2, "bob", "delete", page_id="c", round="conflict", submitted_at="2026-03-02T12:00:00Z"),
        ],
    )
    assert pairwise(run)[0][:4] == ("ann", "bob", 2, 1.0)
    later = {"page_id": "a", "round": "audit"}
    commit(run, queue=[shown(1, **later)], screenings=[vote(1, "cat", "delete", **later)])
    assert alpha(run)[1:] == (2, 5)


def timed(run: Run, seconds: dict[tuple[str, str], float | None]) -> None:
    """Two tiles on every page, by annotator and page."""
    commit(run, queue=[shown(m, page_id=page) for page in sorted({p for _, p in seconds}) for m in (1, 2)])
    for number, ((annotator, page), spent) in enumerate(seconds.items()):
        where = {"page_id": page, "annotation_id": number, "page_seconds": spent}
        commit(run, screenings=[vote(m, annotator, "keep", **where) for m in (1, 2)])


def test_time(run: Run) -> None:
    timed(run, {("bob", "p"): 3.0, ("ann", "p"): 1.0, ("ann", "q"): 0.5, ("ann", "r"): 4.0, ("bob", "q"): None})
    fast = [FastPage("ann", "q", 2, 0.25), FastPage("ann", "p", 2, 0.5), FastPage("bob", "p", 2, 1.5)]
    assert too_fast(run, 1.6) == fast
    assert too_fast(run, 1.5) == fast[:2]
    assert hours(run) == [Hours("ann", 3, 3, 5.5 / 3600), Hours("bob", 2, 1, 3 / 3600)]
    later = {"page_id": "q", "annotation_id": 2, "page_seconds": 9.5, "submitted_at": "2026-03-01T12:30:00Z"}
    commit(run, screenings=[vote(m, "ann", "delete", **later) for m in (1, 2)])
    assert too_fast(run, 1.6) == fast[1:]  # the time of an annotation is the whole, corrections and all
    assert hours(run)[0] == Hours("ann", 3, 3, 14.5 / 3600)


def test_nobody_timed(run: Run) -> None:
    timed(run, {("ann", "p"): None})
    assert (too_fast(run, 1.0), hours(run)) == ([], [Hours("ann", 1, 0, 0.0)])


def test_an_empty_run(run: Run) -> None:
    assert (on_controls(run), pairwise(run), too_fast(run, 1.0), hours(run)) == ([], [], [], [])
    assert alpha(run)[1:] == (0, 0)


@pytest.mark.parametrize("floor", [0.0, -1.0, math.inf, math.nan])
def test_impossible_floors(run: Run, floor: float) -> None:
    with pytest.raises(UsageError, match="above 0 seconds"):
        too_fast(run, floor)


def test_times_that_cannot_be_read(run: Run) -> None:
    commit(run, queue=[shown(1)], screenings=[vote(1, "ann", "keep", submitted_at="noon")])
    with pytest.raises(UserError, match="column submitted_at"):
        hours(run)
