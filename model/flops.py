"""Operations of WOW-Seg, counted exactly on meta tensors: no weights, no GPU. A multiply-add is two."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch


class Lengths(NamedTuple):
    """Tokens of the pieces of a sequence; the defaults are those of the training prompt and of LVIS."""

    prefix: int = 87
    """Text that all masks share, with the tokens around the image (wowseg_facts.md C.5)."""
    branch: int = 7
    """Around a region, and the infix after it."""
    region: int = 27
    """Of a mask: LVIS's mean (paper, App. D.1)."""
    label: int = 3
    """With the token after it: a separator or the end."""


class FlopCount(NamedTuple):
    """Operations of one forward pass of training."""

    vision: float
    """Of all pictures: tiles with their thumbnail, and a window for each mask."""
    language: float
    """Attention counted dense, as SDPA computes it."""
    head: float
    """On the tokens of labels alone."""

    @property
    def forward(self) -> float:
        """Of all parts."""
        return sum(self)

    def training(self, checkpointed: bool = False) -> float:
        """Of forward and backward: three forwards, with gradient checkpointing four."""
        return (4 if checkpointed else 3) * self.forward


def internvl3_1b() -> Any:
    """Return the configuration of the paper's base model (wowseg_facts.md C.1)."""
    from transformers import InternVLConfig

    text = {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151674,
    }  # fmt: skip
    return InternVLConfig(text_config=text, vision_config={"attention_bias": True}, tie_word_embeddings=False)


def on_meta(config: Any) -> Any:
    """Return the network of an `InternVLConfig` without memory for weights; `count` takes it."""
    from transformers import InternVLForConditionalGeneration

    config = deepcopy(config)
    text = config.text_config  # "dynamic" would look at positions, which meta tensors have none of; it costs the same
    text.rope_parameters = {"rope_type": "default", "rope_theta": text.rope_parameters["rope_theta"]}
    with torch.device("meta"):
        return InternVLForConditionalGeneration(config)


def count(network: Any, tiles: int, masks: int, lengths: Lengths = Lengths()) -> FlopCount:  # noqa: B008 (frozen)
    """Count a forward pass on one image of `tiles` pictures (its thumbnail included) with `masks` masks.

    `network` is an `InternVLForConditionalGeneration` on the meta device. Either layout: in the packed one there is one
    infix, 5 tokens, for all masks, which is left out here. Tokens of labels are part of the sequence.
    """
    config = network.config
    side, _ = config.vision_config.image_size
    width, each = config.text_config.hidden_size, lengths.branch + lengths.region + lengths.label
    length = lengths.prefix + config.image_seq_length * tiles + masks * each
    embedded = torch.empty(1, length, width, device="meta", dtype=network.dtype)
    mask = torch.empty(1, 1, length, length, device="meta", dtype=network.dtype)
    states = torch.empty(masks * lengths.label, width, device="meta", dtype=network.dtype)
    picture = torch.empty(1, 3, side, side, device="meta", dtype=network.dtype)
    return FlopCount(
        (tiles + masks) * counted(lambda: network.get_image_features(picture)),
        counted(lambda: network.model.language_model(inputs_embeds=embedded, attention_mask=mask)),
        counted(lambda: network.lm_head(states)),
    )


def counted(work: Callable[[], Any]) -> float:
    """Return the operations of any torch code."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return float(counter.get_total_flops())
