"""A sample of the released pairs judged again: drawing it, what it says, and how often its limits hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checking_server import write_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from sa1b_shards import commit
from screened_runs import shown, single, vote

from pipeline.errors import UsageError, UserError
from pipeline.proportions import Estimate, counted, weighted
from pipeline.run import Run
from stages import audit
from stages.audit import Draw, Plan, allocate, draw, missed, more_looks, precision, released_precision

Row = dict[str, Any]

# --- drawing ---


@pytest.mark.parametrize(
    ("counts", "size", "least", "numbers"),
    [
        ([8000, 1500, 500], 1000, 30, [800, 150, 50]),
        ([8000, 1500, 100], 980, 30, [800, 150, 30]),  # the least, and 950 in proportion
        ([9000, 40, 10], 300, 30, [260, 30, 10]),
        ([10, 20], 99, 5, [10, 20]),
        ([7, 7, 7], 10, 1, [4, 3, 3]),
        ([100, 5], 3, 1, [2, 1]),
    ],
)
def test_allocation(counts: list[int], size: int, least: int, numbers: list[int]) -> None:
    assert allocate(np.array(counts), size, least).tolist() == numbers


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(1, 6000), st.integers(1, 50))
def test_allocations_add_up(counts: list[int], size: int, least: int) -> None:
    held = np.array(counts)
    floors = np.minimum(held, least)
    size = max(size, int(floors.sum()))
    found = allocate(held, size, least)
    assert found.sum() == min(size, held.sum())
    assert (found >= floors).all()
    assert (found <= held).all()
    order = np.argsort(held)
    assert (np.diff(found[order]) >= -1).all()  # the larger the stratum, the more, but for rounding


def population(sizes: list[int], start: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    return np.arange(start, start + sum(sizes)), np.repeat([f"s{k}" for k in range(len(sizes))], sizes)


def test_a_draw(run: Run) -> None:
    masks, strata = population([800, 150, 50])
    found = draw(masks, strata, 100, seed=1, least=10)
    assert (np.diff(found.mask_ids) > 0).all()
    assert found.strata.tolist() == strata[found.mask_ids].tolist()
    assert dict(zip(*np.unique(found.strata, return_counts=True), strict=True)) == {"s0": 76, "s1": 14, "s2": 10}
    assert found.probability.tolist() == [{"s0": 76 / 800, "s1": 14 / 150, "s2": 0.2}[name] for name in found.strata]
    assert found.sizes == {"s0": 800, "s1": 150, "s2": 50}
    order = np.random.default_rng(0).permutation(1000)
    again = draw(masks[order], strata[order], 100, seed=1, least=10)
    assert (again.mask_ids.tolist(), again.plan) == (found.mask_ids.tolist(), found.plan)
    assert draw(masks, strata, 100, seed=2, least=10).mask_ids.tolist() != found.mask_ids.tolist()
    assert audit.load(run) is None
    audit.save(run, found.plan)
    assert audit.load(run) == found.plan


SIZES = st.lists(st.integers(1, 120), min_size=1, max_size=4)


@settings(max_examples=50)
@given(SIZES, SIZES, st.integers(1, 60), st.integers(1, 200), st.integers(0, 9))
def test_a_run_that_grows_keeps_what_was_drawn(now: list[int], new: list[int], size: int, more: int, seed: int) -> None:
    masks, strata = population(now)
    first = draw(masks, strata, size + 4, seed=seed, least=1)
    arrived, theirs = population(new, start=len(masks))
    whole = np.concatenate([masks, arrived]), np.concatenate([strata, theirs])
    grown = draw(*whole, more + 4, seed=seed, least=1, before=first.plan)
    assert set(first.mask_ids.tolist()) <= set(grown.mask_ids.tolist())
    assert len(grown.mask_ids) >= min(more + 4, len(whole[0]))
    assert draw(*whole, more + 4, seed=seed, least=1, before=grown.plan).plan == grown.plan
    larger = draw(masks, strata, size + 14, seed=seed, least=1)
    assert set(first.mask_ids.tolist()) <= set(larger.mask_ids.tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "size 0 and least 5"),
        ({"least": 0}, "size 20 and least 0"),
        ({"size": 9}, "9 pairs are too few for 5 of each of 2 strata"),
        ({"mask_ids": np.array([1, 1])}, r"shapes \(2,\) and \(20,\)"),
        ({"mask_ids": np.array([1] * 20)}, "a mask is there twice"),
        ({"mask_ids": np.zeros(0, np.int64), "strata": np.zeros(0, np.str_)}, "no pair to draw from"),
        ({"before": Plan(seed=2, limits={})}, "drawn with seed 2, not 1"),
    ],
)
def test_impossible_draws(changes: dict[str, Any], message: str) -> None:
    masks, strata = population([10, 10])
    known = {"mask_ids": masks, "strata": strata, "size": 20, "seed": 1, "least": 5}
    with pytest.raises(UsageError, match=message):
        draw(**{**known, **changes})


# --- estimating ---


def test_weights_are_what_each_judged_pair_stands_for() -> None:
    right = np.array([True, True, False, True, False])
    strata = np.array(["a", "a", "a", "b", "b"])
    found = precision(right, strata, {"a": 30, "b": 200})
    assert found == weighted(right, np.array([10.0, 10, 10, 100, 100]))
    assert found.value == pytest.approx((20 + 100) / 230)
    alone = precision(right[:3], strata[:3], {"a": 30})
    assert alone == pytest.approx(counted(2, 3))
    unknown = precision(right[:3], strata[:3], {"a": 30, "b": 200})
    assert unknown.value == pytest.approx(2 / 3)
    assert (unknown.lower, unknown.upper) == pytest.approx((alone.lower * 30 / 230, 1 - (1 - alone.upper) * 30 / 230))
    nothing = precision(right[:0], strata[:0], {"a": 30})
    assert math.isnan(nothing.value)
    assert nothing[1:4] == (0, 1, 0)


@pytest.mark.parametrize(("right", "trials"), [(0, 0), (1, 1), (30, 30), (95, 100), (480, 500)])
def test_looks_that_halve_the_limits(right: int, trials: int) -> None:
    more = more_looks(np.arange(trials) < right, np.ones(trials))
    share = right / trials if trials else 1.0

    def width(number: int) -> float:
        found = counted(round(share * number), number)
        return found.upper - found.lower

    goal = width(trials) / 2
    assert more >= 1
    assert width(trials + more) <= 1.02 * goal
    assert width(trials + more - max(2, (trials + more) // 20)) > goal


def audited(run: Run, said: list[Row]) -> Draw:
    """Eight released pairs in two strata, all drawn, screened by ann on pages of four; `said` in the audit."""
    write_pairs(run, dict.fromkeys(range(8), "dog"))
    pages = [shown(m, page_id=f"p{m // 4}") for m in range(8)]
    again = [shown(m, page_id="a", round="audit") for m in range(8)]
    screening = [vote(m, "ann", "keep", page_id=f"p{m // 4}") for m in range(8)]
    commit(run, queue=[*pages, *again], screenings=[*screening, *said])
    return draw(*population([6, 2]), 8, seed=1, least=1)


def checked(mask_id: int, annotator: str, verdict: str, **changes: Any) -> Row:
    return vote(mask_id, annotator, verdict, **{"page_id": "a", "round": "audit", **changes})


def test_what_the_audit_says(run: Run) -> None:
    said = [checked(m, "bob", v) for m, v in enumerate(["keep", "keep", "delete", "unsure"])]
    split = [checked(4, "bob", "keep"), checked(4, "cat", "delete")]
    drawn = audited(run, [*said, *split, checked(5, "ann", "delete"), checked(6, "cat", "keep")])
    found = released_precision(run, drawn, wanted=0.2)
    assert (found.waiting, found.unresolved, found.simulated) == (2, 2, 0)  # ann cannot judge what she decided
    assert found.overall.right == weighted(np.array([True, True, False, True]), np.array([2.0, 2, 2, 2]))
    assert found.strata["s0"].right == pytest.approx(counted(2, 3))
    assert found.strata["s1"].right == pytest.approx(counted(1, 1))
    assert (found.strata["s0"].more, found.strata["s1"].more, found.overall.more) == (3, 1, 4)  # no more are there
    assert not found.strata["s0"].closed
    assert not released_precision(run, drawn, wanted=0.1).strata["s1"].closed  # 0.025
    assert released_precision(run, drawn, wanted=0.09).strata["s0"].closed  # 0.094


def test_a_program_is_heard_where_no_person_judged(run: Run) -> None:
    said = [checked(0, "simulated", "delete"), checked(1, "simulated", "delete"), checked(1, "bob", "keep")]
    found = released_precision(run, audited(run, said), wanted=0.9)
    assert (found.simulated, found.waiting, found.unresolved) == (1, 6, 0)
    assert found.strata["s0"].right.value == 0.5


def test_people_who_looked_at_a_conflict_have_decided_too(run: Run) -> None:
    drawn = audited(run, [checked(0, "bob", "delete"), checked(1, "bob", "delete")])
    commit(run, queue=[shown(0, page_id="c", round="conflict")], screenings=[single(0, "bob", "keep")])
    assert released_precision(run, drawn, wanted=0.9).waiting == 7


def test_importing_the_same_again_changes_nothing(run: Run) -> None:
    said = [checked(m, "bob", "delete" if m % 3 else "keep") for m in range(5)]
    drawn = audited(run, said)
    before = released_precision(run, drawn, wanted=0.9), missed(run, drawn)
    commit(run, screenings=said[::-1])
    assert (released_precision(run, drawn, wanted=0.9), missed(run, drawn)) == before


def test_what_was_missed_on_pages_found_all_correct(run: Run) -> None:
    said = [checked(m, "bob", "delete" if m in (1, 7) else "keep") for m in (0, 1, 2, 6, 7)]
    drawn = audited(run, said)
    other = [vote(m, "cat", "delete" if m == 3 else "keep", page_id="p0", annotation_id=2) for m in range(4)]
    control = [vote(9, "ann", "delete", page_id="p0")]
    commit(run, queue=[shown(9, page_id="p0", gold="delete")], screenings=[*other, *control])
    (ann,) = missed(run, drawn)  # the control tile that she deleted is none of what she found
    assert (ann.annotator, ann.pages) == ("ann", 2)
    assert ann.wrong == weighted(np.array([False, True, False, False, True]), np.array([2.0, 2, 2, 1, 1]))  # 3 / 8
    commit(run, screenings=[vote(5, "ann", "unsure", page_id="p1", submitted_at="2026-03-02T12:00:00Z")])
    (ann,) = missed(run, drawn)
    assert ann.pages == 1
    assert ann.wrong.value == pytest.approx(1 / 3)


def test_nothing_judged(run: Run) -> None:
    drawn = audited(run, [])
    found = released_precision(run, drawn, wanted=0.9)
    assert (found.waiting, found.unresolved, found.overall.more) == (8, 0, 6)  # 0.025^(1/6) = 0.54
    assert found.overall.right[1:4] == (0, 1, 0)
    assert missed(run, drawn)[0].wrong[1:4] == (0, 1, 0)


def test_bad_input(run: Run) -> None:
    drawn = audited(run, [])
    for wanted, confidence in ((0.0, 0.95), (1.0, 0.95), (0.9, 0.4), (0.9, 1.0)):
        with pytest.raises(UsageError, match=r"must lie in \(0, 1\)"):
            released_precision(run, drawn, wanted, confidence)
    with pytest.raises(UsageError, match="confidence 1"):
        missed(run, drawn, 1)
    commit(run, screenings=[checked(0, "bob", "keep", submitted_at="then")])
    with pytest.raises(UserError, match="submitted_at"):
        released_precision(run, drawn, 0.9)


# --- how often the limits hold ---

REPEATS = 1000
Strata = list[tuple[int, float]]  # released pairs and share right of each

POPULATIONS: dict[str, tuple[Strata, int, int]] = {
    "one": ([(4000, 0.95)], 200, 30),
    "tails are worse": ([(3000, 0.98), (2000, 0.95), (600, 0.85), (400, 0.7)], 300, 30),
    "tails are better": ([(4000, 0.9), (500, 0.99), (100, 1.0)], 300, 30),
    "nearly all right": ([(4000, 0.99), (1000, 0.97)], 200, 30),
    "a least that is most": ([(5000, 0.96), (400, 0.9), (300, 0.6), (200, 0.8)], 160, 30),
}


def truth(strata: Strata, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which pairs are right: of every stratum exactly the share said."""
    return np.concatenate([random.permutation(np.arange(size) < round(size * share)) for size, share in strata])


def covered(found: list[Estimate], true: float) -> float:
    """How often the true share is within the limits."""
    return float(np.mean([one.lower <= true <= one.upper for one in found]))


@pytest.mark.parametrize(("strata", "size", "least"), POPULATIONS.values(), ids=POPULATIONS)
def test_the_limits_cover(strata: Strata, size: int, least: int) -> None:
    """So many of every stratum, without replacement: how many of those are right is hypergeometric."""
    random = np.random.default_rng(1)
    sizes = {f"s{k}": number for k, (number, _) in enumerate(strata)}
    true = [round(number * share) for number, share in strata]
    numbers = allocate(np.array([number for number, _ in strata]), size, least)
    labels = np.repeat(list(sizes), numbers)
    counts = [
        random.hypergeometric(k, number - k, n, REPEATS)
        for k, (number, _), n in zip(true, strata, numbers.tolist(), strict=True)
    ]
    within = np.concatenate([np.arange(n) for n in numbers])
    rights = within < np.repeat(np.array(counts), numbers, axis=0).T  # (repeats, drawn)
    found = [precision(right, labels, sizes) for right in rights]
    assert covered(found, sum(true) / sum(sizes.values())) >= 0.94


def test_the_limits_cover_what_is_really_drawn() -> None:
    masks, labels = population([1500, 800, 300, 200])
    right = truth([(1500, 0.98), (800, 0.95), (300, 0.85), (200, 0.7)], np.random.default_rng(1))
    draws = [draw(masks, labels, 200, seed=seed) for seed in range(REPEATS)]
    found = [precision(right[one.mask_ids], one.strata, one.sizes) for one in draws]
    assert covered(found, right.mean()) >= 0.94
    values = np.array([one.value for one in found])
    assert abs(values.mean() - right.mean()) < 4 * values.std() / REPEATS**0.5
    times = np.bincount(np.concatenate([one.mask_ids for one in draws]), minlength=len(masks))
    expected = np.array(
        [REPEATS * dict(zip(draws[0].strata, draws[0].probability, strict=True))[name] for name in labels]
    )
    assert np.mean((times - expected) ** 2 / (expected * (1 - expected / REPEATS))) == pytest.approx(1, abs=0.15)


def test_the_limits_cover_when_a_run_grows_and_a_sample_is_judged_halfway() -> None:
    before, after = population([1000, 200]), population([1000, 400], start=1200)
    right = truth([(1000, 0.98), (200, 0.9), (1000, 0.9), (400, 0.7)], np.random.default_rng(2))
    whole = np.concatenate([before[0], after[0]]), np.concatenate([before[1], after[1]])
    random = np.random.default_rng(3)
    found = []
    for seed in range(REPEATS):
        drawn = draw(*whole, 200, seed=seed, before=draw(*before, 120, seed=seed).plan)
        judged = (drawn.strata == "s1") | (random.random(len(drawn.strata)) < 0.7)
        found.append(precision(right[drawn.mask_ids[judged]], drawn.strata[judged], drawn.sizes))
    assert covered(found, right.mean()) >= 0.94
