"""Debug-sized WOW-Seg models with weights large enough that everything matters, and pictures with masks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.inputs import Settings
from model.wowseg import WowSeg

Bools = npt.NDArray[np.bool_]
WIDTH, HEIGHT = 150, 110


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small matrices gain nothing from several threads, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def wowseg(layers: int = 2, seed: int = 0, attention: str = "sdpa", double: bool = True, **settings: Any) -> WowSeg:
    """A model with random weights, in float64 unless told otherwise, whose answers end now and then."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    from model import debug

    tokens = debug.tokenizer()
    known = debug.config(tokens).to_dict()
    known["text_config"] |= {"num_hidden_layers": layers, "layer_types": None}
    torch.manual_seed(seed)
    network: Any = InternVLForConditionalGeneration(InternVLConfig.from_dict(known))
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15)
        network.lm_head.weight[tokens.convert_tokens_to_ids("<|im_end|>")] *= 2.5
    network.set_attn_implementation({"text_config": attention})
    model = WowSeg(network.eval(), tokens, Settings(**{"tiles": 2, **settings}))
    return model.double() if double else model


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def rectangles(count: int, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> list[Bools]:
    """Masks of different sizes and places."""
    random, masks = np.random.default_rng(seed), []
    for _ in range(count):
        left, top = random.integers(0, width - 20), random.integers(0, height - 20)
        mask = np.zeros((height, width), np.bool_)
        mask[top : top + random.integers(4, 60), left : left + random.integers(4, 60)] = True
        masks.append(mask)
    return masks
