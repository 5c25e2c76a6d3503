"""Training of one setting with one seed: scenes that nobody has seen before at every step, made as they are needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from model import debug, optimisation
from model.ablation import scenes, world
from model.ablation.plan import Form, Learning
from model.ablation.settings import Setting
from model.inputs import Sample
from model.optimisation import OptimisationConfig
from model.wowseg import WowSeg

_FIRST_WORLD = 1
"""Scenes for training are those of world 1 + seed; those of world 0 are for the test."""


class Course(msgspec.Struct):
    """How training went."""

    losses: list[float]
    """Of each step: the mean over the tokens of labels, as the authors'"""
    masks: int
    """Seen in all steps"""
    making: float
    """Seconds of processor time in which scenes and samples were made"""
    learning: float
    """And those of forward, backward and update"""


def fresh(setting: Setting, seed: int) -> WowSeg:
    """Return the debug model with random weights for a setting; each word of the world's names is one token."""
    texts = [*world.names(), *(f" {name}" for name in world.names()), " ,"]
    return debug.debug(seed, texts, tiles=1, prompt="demo", encoder=setting.encoder, scale=setting.scale)


def train(
    model: WowSeg, setting: Setting, seed: int, form: Form, learning: Learning, stepped: Callable[[], None]
) -> Course:
    """Train a model; scenes and masks depend on the seed alone, so that all settings see the same.

    `stepped` is called after each step.
    """
    config = OptimisationConfig(learning_rate=learning.rate, warmup=learning.warmup)
    optimiser = optimisation.optimiser(model, config)
    schedule = optimisation.schedule(optimiser, config, form.steps)
    course = Course([], 0, 0.0, 0.0)
    model.train()
    for step in range(form.steps):
        began = time.process_time()
        batch = [sample(model, setting, seed, step * learning.batch + place) for place in range(learning.batch)]
        made = time.process_time()
        loss = model(batch).over_tokens()
        optimiser.zero_grad()
        loss.backward()
        optimisation.clip(model.parameters(), config)
        optimiser.step()
        schedule.step()
        course.losses.append(round(loss.item(), 4))
        course.masks += sum(len(one.rescued) for one in batch)
        course.making += made - began
        course.learning += time.process_time() - made
        stepped()
    model.eval()
    return course


def sample(model: WowSeg, setting: Setting, seed: int, number: int) -> Sample:
    """Prepare one scene for a setting: with some of its masks, or with one of them."""
    scene = scenes.scene(_FIRST_WORLD + seed, number)
    masks, labels = chosen(setting, seed, number, scene.masks(), scene.labels())
    return model.preparer.sample(scene.image, masks, labels, setting.layout)


def chosen(
    setting: Setting, seed: int, number: int, masks: Sequence[Any], labels: Sequence[str]
) -> tuple[Sequence[Any], Sequence[str]]:
    """Return the masks and labels of a scene that a setting learns from: any number of them, or one; at random.

    Images of the paper's data sets have one named region or many. With all of a scene's masks at every step, packed
    settings would be tested with a number of masks that they have never met: one.
    """
    if setting.single:
        places = [int(np.random.default_rng([seed, number, 1]).integers(len(masks)))]
    else:
        random = np.random.default_rng([seed, number, 2])
        count = int(random.integers(1, len(masks), endpoint=True))
        places = random.permutation(len(masks))[:count].tolist()
    return [masks[place] for place in places], [labels[place] for place in places]


def quiet() -> None:
    """Make this process compute alike however many there are, and as fast for numbers near 0 as for others."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
