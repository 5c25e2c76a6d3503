"""The update: which weights decay, the learning rate's course, and the clipped gradient."""

import pytest
import torch
from torch import nn

from model.optimisation import OptimisationConfig, clip, optimiser, schedule


def test_matrices_decay_and_biases_do_not() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decaying, others = optimiser(model, OptimisationConfig()).param_groups
    assert [w.shape for w in decaying["params"]] == [(2, 3)]
    assert (decaying["weight_decay"], others["weight_decay"], len(others["params"])) == (0.05, 0.0, 3)


def test_frozen_weights_are_left_out() -> None:
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    decaying, others = optimiser(model, OptimisationConfig()).param_groups
    assert (len(decaying["params"]), len(others["params"])) == (0, 1)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    config = OptimisationConfig(learning_rate=1.0, warmup=0.2)
    adam = optimiser(nn.Linear(1, 1), config)
    course = schedule(adam, config, 10)
    rates = []
    for _ in range(11):
        rates.append(course.get_last_lr()[0])
        adam.step()
        course.step()
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == 0.0


def test_a_long_gradient_is_shortened_and_its_length_told() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert clip([weight], OptimisationConfig()) == 5
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
