"""Intervals by resampled images: against the slow way, against theory, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.bootstrap import Resamples, compare, interval
from benchmark.metrics import Floats, Ints, macro_mean, micro_mean

NAN = float("nan")


def some(seed: int, instances: int = 60) -> tuple[Floats, Ints, Ints]:
    generator = np.random.default_rng(seed)
    values = generator.random((instances, 3))
    values[generator.random((instances, 3)) < 0.2] = NAN
    return values, generator.integers(12, size=instances) * 7, generator.integers(5, size=instances)


def slow(values: Floats, images: Ints, groups: Ints, counts: Ints) -> tuple[Floats, Floats]:
    """Put the drawn images' rows one below the other, and average those."""
    distinct = np.unique(images)
    rows = [row for image, n in zip(distinct, counts, strict=True) for row in np.flatnonzero(images == image).repeat(n)]
    taken, groups = values[rows], groups[rows]
    by_group = [[micro_mean(taken[groups == g, m]) for m in range(values.shape[1])] for g in range(5)]
    return np.array(by_group), np.array([macro_mean(taken[:, m], groups) for m in range(values.shape[1])])


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_fast_is_slow(seed: int) -> None:
    values, images, groups = some(seed)
    resamples = Resamples(images, draws=6, seed=seed)
    by_group, macro = resamples.group_means(values, [(groups, 5)])[0], resamples.macro_means(values, groups)
    for draw, counts in enumerate(resamples._counts):
        assert counts.sum() == len(np.unique(images))
        wanted_groups, wanted_macro = slow(values, images, groups, counts.astype(np.int64))
        np.testing.assert_allclose(by_group[draw], wanted_groups, rtol=1e-5)
        np.testing.assert_allclose(macro[draw], wanted_macro, rtol=1e-5)


def test_the_order_of_instances_changes_nothing() -> None:
    values, images, groups = some(1)
    order = np.random.default_rng(2).permutation(len(images))
    one, other = Resamples(images, 50), Resamples(images[order], 50)
    found, again = one.group_means(values, [(groups, 5)])[0], other.group_means(values[order], [(groups[order], 5)])[0]
    np.testing.assert_allclose(found, again, rtol=1e-5)
    macro, again = one.macro_means(values, groups), other.macro_means(values[order], groups[order])
    np.testing.assert_allclose(macro, again, rtol=1e-5)


def test_images_are_what_varies() -> None:
    # 100 images of which half are all right: the regions of one add nothing, √(0.25 / 100) = 0.05
    right = np.repeat(np.arange(100) % 2, 20).astype(np.float64)[:, None]
    images, one = np.repeat(np.arange(100), 20), np.zeros(2000, np.int64)
    clustered = interval(0.5, Resamples(images).group_means(right, [(one, 1)])[0][:, 0, 0])
    alone = interval(0.5, Resamples(np.arange(2000)).group_means(right, [(one, 1)])[0][:, 0, 0])
    assert clustered.upper - clustered.lower == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert alone.upper - alone.lower == pytest.approx(2 * 1.96 * 0.05 / math.sqrt(20), rel=0.1)


def test_intervals_hold_what_they_promise() -> None:
    """The true mean is inside in about 95 of 100 benchmarks; simulated, images differ and their regions resemble."""
    inside = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        images = generator.integers(150, size=600)
        values = np.clip(generator.normal(0.6, 0.2, 150)[images] + generator.normal(0, 0.1, 600), -2, 2)
        found = interval(0, Resamples(images, 200, seed).group_means(values[:, None], [(images * 0, 1)])[0][:, 0, 0])
        inside += found.lower <= 0.6 <= found.upper
    assert 180 <= inside <= 198


def test_nothing_to_average() -> None:
    nothing = interval(NAN, np.array([NAN, NAN]))
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.lower)
    one = np.zeros(1, np.int64)
    assert np.isnan(Resamples(one, 3).group_means(np.array([[NAN]]), [(one, 2)])[0]).all()
    assert np.isnan(Resamples(one, 3).macro_means(np.array([[NAN]]), one)).all()
    assert Resamples(one, 3).macro_means(np.array([[0.25]]), one).tolist() == [[0.25]] * 3  # one image, one draw


def test_two_models() -> None:
    images = np.repeat(np.arange(200), 3)
    hard = np.random.default_rng(0).random(600)  # what both find hard is far more than what parts them
    better = compare(hard + 0.01, hard, images)
    assert (better.value, better.lower, better.upper) == pytest.approx((0.01, 0.01, 0.01))
    assert better.p == pytest.approx(2 / 1001)
    same = compare(hard, hard, images)
    assert (same.value, same.lower, same.upper, same.p) == (0, 0, 0, 1)
    noise = np.random.default_rng(1).normal(0, 0.1, 600)
    one, other = compare(hard + noise, hard, images), compare(hard, hard + noise, images)
    assert (one.value, one.lower, one.upper) == pytest.approx((-other.value, -other.upper, -other.lower))
    assert one.p == pytest.approx(other.p)
    assert one.p > 0.05
    left_out = np.where(np.arange(600) < 300, NAN, hard + 0.01)
    assert compare(left_out, hard, images).value == pytest.approx(0.01)


def test_what_cannot_be_compared() -> None:
    images = np.arange(2)
    with pytest.raises(ValueError, match=r"shapes \(2,\), \(1,\) and \(2,\)"):
        compare(np.zeros(2), np.zeros(1), images)
    with pytest.raises(ValueError, match="no instance counts for both"):
        compare(np.array([NAN, 1]), np.array([1, NAN]), images)
