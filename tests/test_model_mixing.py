"""Steps, images and masks: each has its turn, and a step's number is all that matters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import mixing
from model.mixing import Plan, Visit
from model.train_config import TrainingConfig
from pipeline.errors import UserError

FEW = settings(max_examples=60)
SEEDS = st.integers(0, 1000)
SIZES = st.dictionaries(st.sampled_from(["lvis", "paco", "stuff"]), st.integers(1, 9), min_size=1)


def plan(sizes: dict[str, int], weights: dict[str, float] | None = None, grouped: int = 1, **chosen: Any) -> Plan:
    """A plan in which the images of later places are more work."""
    weights = weights or dict.fromkeys(sizes, 1.0)
    return Plan(sizes, weights, TrainingConfig(**chosen), grouped=grouped, work=lambda visit: float(visit.image))


# --- masks ---


@FEW
@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 25), SEEDS)
def test_masks_are_shown_equally_often(masks: int, most: int, visits: int, seed: int) -> None:
    counts = np.zeros(masks, np.int64)
    for visit in range(visits):
        found = mixing.chosen(masks, most, visit, seed, "lvis", 7)
        assert len(set(found.tolist())) == len(found) == min(masks, most)
        counts[found] += 1
    assert counts.max() - counts.min() <= 1


def test_choices_differ_with_image_seed_and_data_set() -> None:
    first = mixing.chosen(50, 10, 0, 1, "lvis", 7).tolist()
    assert first == mixing.chosen(50, 10, 0, 1, "lvis", 7).tolist()
    for other in ((0, 1, "lvis", 8), (0, 2, "lvis", 7), (0, 1, "paco", 7), (1, 1, "lvis", 7)):
        assert first != mixing.chosen(50, 10, *other).tolist()
    assert len(mixing.chosen(50, 10, 0, 1, "lvis", -7)) == 10  # hashes of names are ids too


# --- images ---


@FEW
@given(SIZES, st.data(), st.integers(1, 7), SEEDS)
def test_images_have_their_turns(sizes: dict[str, int], data: st.DataObject, epochs: int, seed: int) -> None:
    weights = {name: data.draw(st.floats(0.05, 4)) for name in sizes}
    seen: Counter[tuple[str, int]] = Counter()
    try:
        planned = plan(sizes, weights, epochs=epochs, seed=seed)
    except UserError:
        assert all(epochs * weights[name] <= 1 - 0.5 / size for name, size in sizes.items())
        return
    for epoch in range(epochs):
        visits = planned.epoch(epoch)
        seen.update((visit.data_set, visit.image) for visit in visits)
        for name, size in sizes.items():  # each epoch has its share
            assert abs(sum(visit.data_set == name for visit in visits) - weights[name] * size) <= 1
    for name, size in sizes.items():  # and each image
        counts = [seen[name, image] for image in range(size)]
        assert max(counts) - min(counts) <= 1


@FEW
@given(SIZES, st.data(), SEEDS)
def test_visits_are_counted_without_gaps(sizes: dict[str, int], data: st.DataObject, seed: int) -> None:
    weights = {name: data.draw(st.floats(0.5, 4)) for name in sizes}
    planned = plan(sizes, weights, epochs=5, seed=seed)
    every = [visit for epoch in range(5) for visit in planned.epoch(epoch)]
    for name, size in sizes.items():
        for image in range(size):
            numbers = sorted(visit.visit for visit in every if visit[:2] == (name, image))
            assert numbers == list(range(len(numbers)))


def test_half_a_weight_is_every_other_epoch() -> None:
    planned = plan({"lvis": 6, "paco": 4}, {"lvis": 0.5, "paco": 2.0}, epochs=4)
    epochs = [planned.epoch(number) for number in range(4)]
    halves = [{visit.image for visit in visits if visit.data_set == "lvis"} for visits in epochs]
    assert [len(half) for half in halves] == [3, 3, 3, 3]
    assert halves[0] | halves[1] == set(range(6))
    assert halves[0] == halves[2]
    assert [sum(visit.data_set == "paco" for visit in visits) for visits in epochs] == [8, 8, 8, 8]


def test_weights_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="weights are so small that in 2 epochs no image has its turn"):
        plan({"lvis": 3}, {"lvis": 0.01}, epochs=2)


# --- steps ---


@FEW
@given(SIZES, st.integers(1, 5), st.integers(1, 8), st.integers(1, 4), SEEDS)
def test_steps_share_out_the_stream(sizes: dict[str, int], epochs: int, batch: int, grouped: int, seed: int) -> None:
    planned = plan(sizes, grouped=grouped, epochs=epochs, batch=batch, seed=seed)
    steps = [planned.step(number) for number in range(planned.steps)]
    assert [len(step.visits) for step in steps[:-1]] == [batch] * (len(steps) - 1)
    stream = [visit for epoch in range(epochs) for visit in planned.epoch(epoch)]
    assert Counter(visit for step in steps for visit in step.visits) == Counter(stream)
    assert len(stream) == planned.samples
    again = plan(sizes, grouped=grouped, epochs=epochs, batch=batch, seed=seed)
    for number in reversed(range(len(steps))):
        assert again.step(number) == steps[number]


def test_a_step_is_of_its_first_samples_epoch() -> None:
    planned = plan({"lvis": 5}, epochs=3, batch=4)
    assert [planned.step(number).epoch for number in range(4)] == [0, 0, 1, 2]


def test_grouped_steps_are_of_like_samples() -> None:
    def spread(grouped: int) -> float:
        planned = plan({"lvis": 320}, grouped=grouped, batch=16, seed=3)
        images = [[visit.image for visit in planned.step(number).visits] for number in range(planned.steps)]
        return float(np.mean([np.ptp(some) for some in images]))

    assert spread(20) == 15  # sorted whole: 0 to 15, 16 to 31, …
    assert spread(1) > 200


def test_epochs_have_orders_of_their_own() -> None:
    planned = plan({"lvis": 20}, epochs=2)
    first, second = ([visit.image for visit in planned.epoch(number)] for number in (0, 1))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert planned.epoch(1)[0] == Visit("lvis", second[0], 1)


# --- workers ---


@pytest.mark.parametrize(
    ("work", "workers", "hands"),
    [
        ([], 2, [[], []]),
        ([5], 2, [[0], []]),
        ([8, 7, 6, 5, 4, 3, 2, 1], 2, [[0, 3, 4, 7], [1, 2, 5, 6]]),  # 18 and 18
        ([9, 1, 1, 1], 2, [[0, 3], [1, 2]]),  # as many for each, though 10 and 2
        ([1, 2, 3], 2, [[2], [1, 0]]),
    ],
)
def test_samples_are_dealt(work: list[float], workers: int, hands: list[list[int]]) -> None:
    assert mixing.deal(work, workers) == hands


@FEW
@given(st.lists(st.floats(1, 1000), max_size=40), st.integers(1, 9))
def test_every_sample_is_dealt_once(work: list[float], workers: int) -> None:
    hands = mixing.deal(work, workers)
    assert sorted(place for hand in hands for place in hand) == list(range(len(work)))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_workers_get_about_the_same_work() -> None:
    work = np.random.default_rng(0).lognormal(7, 0.6, 32)  # as lengths are
    loads = [sum(work[place] for place in hand) for hand in mixing.deal(work.tolist(), 8)]
    in_order = work.reshape(8, 4).sum(1)
    assert max(loads) / np.mean(loads) < 1.1 < in_order.max() / np.mean(in_order)
