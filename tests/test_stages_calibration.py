"""Judgements in, thresholds out: choosing, shrinking, and how often the stated limits hold."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError, UserError
from pipeline.proportions import beta_quantile, counted
from pipeline.run import Run
from stages import calibration
from stages.calibration import ALL, LEAST, Thresholds, candidates, choose, frequency_band
from stages.judgements import Judgements
from stages.reliability import reliability
from stages.shrinkage import prior_strength, shrink


def judgements(score: Any, right: Any, weight: Any = 1.0, pairs: Any = 500) -> Judgements:
    scores = np.asarray(score, np.float64)
    weights, counts = (np.broadcast_to(np.asarray(x), scores.shape) for x in (weight, pairs))
    return Judgements(
        score=scores,
        right=np.asarray(right, np.bool_),
        weight=weights.astype(np.float64),
        pairs=counts.astype(np.int64),
        unscored=3,
        source="judged.parquet (abc)",
    )


# --- choosing ---


def test_candidates_are_few_and_distinct() -> None:
    scores = np.arange(1, 901) / 901
    tried = candidates(scores, np.ones(900))
    assert tried == sorted({0.0, 0.5, *(scores[100 * k - 1] for k in range(1, 9))})
    assert candidates(np.array([0.0, 1, 1]), np.ones(3)) == [0.5]  # text alone: nothing else to tell apart
    assert candidates(np.array([0.0, 0.7, 0.9]), np.ones(3)) == [0.5, 0.7]  # 0 keeps what the default keeps
    assert 0.2 in candidates(np.array([0.2, 0.4, 0.6]), np.array([100, 1, 1]))  # weighted


def staircase(of_ten: list[int], each: int) -> Judgements:
    """`each` judgements at the scores 0.05, 0.15 and on; so many of ten are right at each."""
    right = [k % 10 < count for count in of_ten for k in range(each)]
    return judgements(np.repeat(np.arange(len(of_ten)) / 10 + 0.05, each), right)


def test_the_lowest_cut_that_reaches_the_precision_is_chosen() -> None:
    judged = staircase([0, 0, 5, 5, 5, 9, 10, 10, 10, 10], 100)
    found = choose(judged, 0.95)
    cuts = found.cuts[ALL]
    level = 1 - 0.05 / len(cuts)
    for cut in cuts:
        kept = judged.right[judged.score > cut.threshold]
        assert (cut.judged, cut.borrowed) == (len(kept), 0)
        assert cut.precision == cut.unshrunk == pytest.approx(kept.mean())
        assert cut.lower == pytest.approx(counted(int(kept.sum()), len(kept), level, "lower").lower)
        assert cut.recall == pytest.approx(kept.sum() / 640)
    reaching = [cut for cut in cuts if cut.lower >= 0.95]
    assert found.chosen[ALL] == reaching[0]
    assert found.thresholds.overall == 0.5 == reaching[0].threshold  # 490 of 500
    assert (found.judged, found.unscored, found.precision, found.confidence) == (1000, 3, 0.95, 0.95)


def test_a_single_band_borrows_nothing() -> None:
    found = choose(staircase([0, 0, 5, 5, 5, 9, 10, 10, 10, 10], 100), 0.95)
    assert list(found.cuts) == [ALL, "101–1,000"]
    for own, cut in zip(found.cuts["101–1,000"], found.cuts[ALL], strict=True):
        assert msgspec.structs.astuple(own) == pytest.approx(msgspec.structs.astuple(cut))
    assert found.thresholds.bands == {"101–1,000": 0.5}
    assert found.applied.lower == found.chosen[ALL].lower  # one band: no more rules than thresholds


def test_the_paper_s_rule_holds_until_a_run_is_calibrated(run: Run) -> None:
    assert calibration.load(run) is None
    assert calibration.thresholds(run) == Thresholds(overall=0.5, bands={})
    found = choose(staircase([0, 5, 9, 10, 10, 10, 10, 10, 10, 10], 50), 0.9)
    calibration.save(run, found)
    assert calibration.load(run) == found
    assert calibration.thresholds(run) == found.thresholds


def test_each_category_takes_the_threshold_of_its_band() -> None:
    chosen = Thresholds(overall=0.6, bands={"101–1,000": 0.4})
    assert [chosen.of(pairs) for pairs in (1, 100, 101, 1000, 1001)] == [0.6, 0.6, 0.4, 0.4, 0.6]


def two_bands(few: int) -> Judgements:
    """A large band whose scores mean little below 0.5, and `few` judgements, all right, of another."""
    large = staircase([2, 2, 2, 2, 2, 10, 10, 10, 10, 10], 100)
    score = np.concatenate([large.score, np.linspace(0.01, 0.99, few)])
    right = np.concatenate([large.right, np.ones(few, np.bool_)])
    return judgements(score, right, 1.0, np.concatenate([large.pairs, np.full(few, 5000)]))


def test_a_band_that_differs_gets_its_own_threshold() -> None:
    found = choose(two_bands(400), 0.9)
    assert found.thresholds.bands["1,001+"] < found.thresholds.overall == found.thresholds.bands["101–1,000"]
    own = found.chosen["1,001+"]
    assert own.unshrunk == 1
    assert own.lower < own.precision < 1  # the other band, which is worse there, is believed a little
    assert 0 < own.borrowed < 10
    everything = found.applied
    assert everything.judged > found.chosen[ALL].judged
    assert everything.lower < everything.precision


def test_a_band_with_few_judgements_falls_back() -> None:
    found = choose(two_bands(LEAST - 1), 0.9)
    assert "1,001+" not in found.thresholds.bands
    assert found.fallback["1,001+"] == f"{LEAST - 1} judged pairs above the lowest threshold, {LEAST} needed"
    assert found.thresholds.of(5000) == found.thresholds.overall
    judged = two_bands(400)
    worse = replace(judged, right=judged.right & ((judged.pairs == 500) | (np.arange(len(judged.score)) % 5 > 0)))
    assert "the lower limit reaches 0." in choose(worse, 0.9).fallback["1,001+"]


def test_out_of_reach_says_how_many_judgements_would_do() -> None:
    judged = staircase([5, 5, 5, 5, 5, 9, 9, 10, 10, 10], 10)
    with pytest.raises(
        UserError, match=r"no threshold keeps a share of 0.95 right with confidence 0.95\. The best"
    ) as told:
        choose(judged, 0.95)
    assert "at threshold 0.65 (precision 1.000 of 30 judged pairs)" in str(told.value)
    more = int(str(told.value).partition("About ")[2].partition(" ")[0])
    assert choose(repeated(judged, 1 + more / 100), 0.95).chosen[ALL].lower >= 0.95
    with pytest.raises(UserError):
        choose(repeated(judged, 1 + 0.8 * more / 100), 0.95)


def repeated(judged: Judgements, times: float) -> Judgements:
    """The same judgements so many times as often, as evenly as can be."""
    size = len(judged.score)
    places = (np.arange(round(size * times)) * size) // round(size * times)
    return judgements(judged.score[places], judged.right[places])


@pytest.mark.parametrize(
    ("judged", "message"),
    [
        (
            judgements([0.2, 0.9, 0.9], [True, True, False]),
            "cannot separate that well: the highest precision of any th",
        ),
        (judgements([0.2, 0.9], [False, False]), "highest precision of any threshold is 0.000"),
        (judgements([0.0, 0.0], [True, True]), "every judged pair has score 0"),
    ],
)
def test_scores_that_tell_nothing(judged: Judgements, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose(judged, 0.95)


@pytest.mark.parametrize(("precision", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.9, 0.4), (0.9, 1.0)])
def test_numbers_out_of_range(precision: float, confidence: float) -> None:
    with pytest.raises(UsageError, match=r"must lie in \(0, 1\)"):
        choose(judgements([0.5], [True]), precision, confidence)


JUDGED = st.integers(0, 2**32 - 1).map(lambda seed: drawn(np.random.default_rng(seed), 300))


def drawn(random: np.random.Generator, count: int) -> Judgements:
    score = random.choice([random.random(count), random.integers(0, 2, count), random.beta(3, 1, count).round(1)])
    right = random.random(count) < 0.7 + 0.3 * score
    return judgements(score, right, random.lognormal(0, 0.5, count), random.choice([20, 500, 5000], count))


@settings(max_examples=25)
@given(JUDGED, st.floats(0.01, 100), st.integers(0, 100))
def test_neither_scale_nor_order_matters(judged: Judgements, by: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(judged.score))
    other = judgements(judged.score[order], judged.right[order], by * judged.weight[order], judged.pairs[order])
    one, two = choose(judged, 0.5), choose(other, 0.5)
    assert one.thresholds == two.thresholds
    assert one.chosen[ALL].lower == pytest.approx(two.chosen[ALL].lower, abs=1e-9)
    assert one.applied.recall == pytest.approx(two.applied.recall)


@settings(max_examples=25)
@given(JUDGED)
def test_what_is_chosen_reaches_the_precision(judged: Judgements) -> None:
    found = choose(judged, 0.5)
    assert all(cut.lower >= 0.5 for cut in found.chosen.values())
    for cuts in found.cuts.values():
        assert all(cut.lower <= cut.precision for cut in cuts)
        recalls = [cut.recall for cut in cuts]
        assert recalls == sorted(recalls, reverse=True)
    for band, cuts in found.cuts.items():
        for cut, whole in zip(cuts, found.cuts[ALL], strict=False):
            assert band == ALL or cut.borrowed <= min(cut.judged, whole.judged - cut.judged) + 1e-9


# --- shrinking ---


@pytest.mark.parametrize(
    ("precisions", "sizes", "strength"),
    [
        # p = 0.7, S / (p (1 − p)) = 0.8 / 0.21; (3.8095 − 1) / (20 − 10 − 1) = 0.31217; 0.68783 / 0.31217
        ([0.9, 0.5], [10, 10], 2.20339),
        ([0.9, 0.9, 0.9], [10, 50, 90], inf),  # no further apart than chance has it
        ([1.0, 1.0], [10, 10], inf),
        ([1.0, 0.0], [10, 10], 0),  # nothing in common
        ([0.8], [10], 0),
        ([1.0, 0.0], [1, 1], 0),
    ],
)
def test_how_alike_bands_are(precisions: list[float], sizes: list[float], strength: float) -> None:
    assert prior_strength(np.array(precisions), np.array(sizes, np.float64)) == pytest.approx(strength, rel=1e-5)


def test_shrinking_by_hand() -> None:
    right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    first = np.arange(20) < 10
    one, other = shrink(right, np.ones(20), [first, ~first], 0.05)
    borrowed = 1 / (1 / 2.203390 + 1 / 10)  # 1.80556
    assert (one.unshrunk, other.unshrunk) == (0.9, 0.5)
    assert (one.borrowed, other.borrowed) == pytest.approx((borrowed, borrowed), rel=1e-5)
    assert one.precision == pytest.approx((9 + 0.5 * borrowed) / (10 + borrowed), rel=1e-5)
    assert one.lower == pytest.approx(beta_quantile(9 + 0.5 * borrowed, 2 + 0.5 * borrowed, 0.05), rel=1e-5)
    assert other.precision == pytest.approx((5 + 0.9 * borrowed) / (10 + borrowed), rel=1e-5)
    alike = shrink(np.ones(1000, np.bool_), np.ones(1000), [np.arange(1000) < 40, np.arange(1000) >= 40], 0.05)
    assert alike[0].borrowed == pytest.approx(40)  # not more than its own, though all are alike
    assert alike[1].borrowed == pytest.approx(40)  # not more than the others have


def test_bands_have_names() -> None:
    assert [frequency_band(pairs) for pairs in (1, 11, 101, 1000, 1001)] == [
        "1–10", "11–100", "101–1,000", "101–1,000", "1,001+",
    ]  # fmt: skip


# --- reliability ---


def test_bins_of_the_reliability_diagram() -> None:
    judged = judgements([0.3, 0.34, 0.1 + 0.2, 0.999, 1.0, 0.0], [1, 0, 1, 1, 1, 0], [1, 2, 1, 3, 1, 1])
    found = reliability(judged)
    assert [(b.low, b.high, b.judged) for b in found] == [(0, 0.1, 1), (0.3, 0.4, 3), (0.9, 1, 2)]
    assert found[1].score == pytest.approx((0.3 + 2 * 0.34 + 0.3) / 4)
    assert (found[0].right, found[1].right, found[2].right) == (0, 0.5, 1)
    assert (found[0].lower, found[0].upper) == pytest.approx((0, 0.975))
    assert 0 < found[1].lower < 0.5 < found[1].upper < 1


# --- how often the limits hold ---


def population(random: np.random.Generator, worst: float, best: float) -> Judgements:
    """Scored pairs in two bands, the less frequent the worse; the higher the score, the likelier they are right."""
    score = random.beta(2, 1, 20_000)
    pairs = random.choice([500, 5000], 20_000, p=[0.3, 0.7])
    right = random.random(20_000) < worst + (best - worst) * score - 0.03 * (pairs == 500)
    return judgements(score, right, 1.0, pairs)


def text_alone(random: np.random.Generator) -> Judgements:
    score = random.random(20_000) < 0.8
    return judgements(score, random.random(20_000) < np.where(score, 0.95, 0.6))


def missed(everything: Judgements, count: int, precision: float, repeats: int) -> tuple[float, float, float]:
    """Of so many calibrations the share that chose a threshold; of those the shares whose limits are above the truth.

    Pairs with low scores and of the smaller band are drawn more often, each for itself.
    """
    random = np.random.default_rng(4)
    taste = np.where(everything.score < 0.5, 3, 1) * np.where(everything.pairs == 500, 2, 1)
    probability = count * taste / taste.sum()
    overall, applied = [], []
    for _ in range(repeats):
        chosen = random.random(len(taste)) < probability
        right, weight = everything.right[chosen], 1 / probability[chosen]
        try:
            found = choose(judgements(everything.score[chosen], right, weight, everything.pairs[chosen]), precision)
        except UserError:
            continue
        own = found.thresholds.bands.get("101–1,000", found.thresholds.overall)
        limits = np.where(everything.pairs == 500, own, found.thresholds.of(5000))
        overall.append(everything.right[everything.score > found.thresholds.overall].mean() < found.chosen[ALL].lower)
        applied.append(everything.right[everything.score > limits].mean() < found.applied.lower)
    return len(overall) / repeats, float(np.mean(overall)), float(np.mean(applied))


def test_the_stated_limit_of_the_chosen_cut_covers() -> None:
    chose, overall, applied = missed(population(np.random.default_rng(5), 0.8, 0.99), 600, 0.88, 1000)
    assert chose > 0.9
    assert overall <= 0.06
    assert applied <= 0.06


def test_it_covers_where_text_alone_was_had() -> None:
    chose, overall, applied = missed(text_alone(np.random.default_rng(5)), 600, 0.9, 1000)
    assert chose > 0.9
    assert overall <= 0.06
    assert applied <= 0.06


def test_a_precision_that_is_not_there_is_seldom_chosen() -> None:
    everything = population(np.random.default_rng(6), 0.9, 0.9)
    everything = replace(everything, right=np.random.default_rng(7).random(20_000) < 0.9)
    chose, _, _ = missed(everything, 300, float(everything.right.mean()) + 0.005, 400)
    assert chose <= 0.05  # every choice is a mistake
