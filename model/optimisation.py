"""AdamW with warm-up, a cosine down to zero, and clipping: one update, the same in training and in the ablations."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config import Section


class OptimisationConfig(Section):
    """How weights are updated; the defaults are the authors' (reference/wowseg_facts.md C.8)."""

    learning_rate: float = Field(1e-5, gt=0)
    """At the end of the warm-up."""

    weight_decay: float = Field(0.05, ge=0)
    """Of matrices; biases and norms have none, as in the trainer that the authors used."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW's running averages."""

    eps: float = Field(1e-8, gt=0)
    """Of AdamW's denominator."""

    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of all steps in which the learning rate grows from 0."""

    clip: float = Field(1.0, gt=0)
    """The longest gradient, as the norm over all weights."""


def optimiser(model: nn.Module, config: OptimisationConfig) -> AdamW:
    """Return AdamW for the weights of a model that learn."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learning if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in learning if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps)


def schedule(optimiser: AdamW, config: OptimisationConfig, steps: int) -> LambdaLR:
    """Return the learning rate's course over so many steps; one `step()` belongs to each update."""
    warm = math.ceil(config.warmup * steps)

    def share(step: int) -> float:
        if step < warm:
            return step / warm
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return LambdaLR(optimiser, share)


def clip(weights: Iterable[Tensor], config: OptimisationConfig) -> Tensor:
    """Shorten the gradient to `config.clip` if it is longer; return its norm as it was, a scalar."""
    return torch.nn.utils.clip_grad_norm_(weights, config.clip)
