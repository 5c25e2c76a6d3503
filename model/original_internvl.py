"""InternVL's own checkpoints (`InternVLChatModel`), which WOW-Seg's are as well, as transformers' InternVL.

The map of reference/wowseg_facts.md D.1 to D.3. Mask2Token has no weights and no configuration of its own, so that a
released WOW-Seg folder is read as an InternVL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from model.inputs import Settings

MODEL_TYPE = "internvl_chat"

_LAYER, _NATIVE_LAYER = "vision_model.encoder.layers.#", "model.vision_tower.encoder.layer.#"
_PAIRS = (
    ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.*", "model.vision_tower.embeddings.patch_embeddings.projection.*"),
    (f"{_LAYER}.attn.qkv.*", f"{_NATIVE_LAYER}.attention.[q|k|v]_proj.*"),
    (f"{_LAYER}.attn.proj.*", f"{_NATIVE_LAYER}.attention.projection_layer.*"),
    (f"{_LAYER}.attn.q_norm.*", f"{_NATIVE_LAYER}.attention.q_norm.*"),
    (f"{_LAYER}.attn.k_norm.*", f"{_NATIVE_LAYER}.attention.k_norm.*"),
    (f"{_LAYER}.norm1.*", f"{_NATIVE_LAYER}.layernorm_before.*"),
    (f"{_LAYER}.norm2.*", f"{_NATIVE_LAYER}.layernorm_after.*"),
    (f"{_LAYER}.ls1", f"{_NATIVE_LAYER}.lambda_1"),
    (f"{_LAYER}.ls2", f"{_NATIVE_LAYER}.lambda_2"),
    (f"{_LAYER}.mlp.*", f"{_NATIVE_LAYER}.mlp.*"),
    ("mlp1.0.*", "model.multi_modal_projector.layer_norm.*"),
    ("mlp1.1.*", "model.multi_modal_projector.linear_1.*"),
    ("mlp1.3.*", "model.multi_modal_projector.linear_2.*"),
    ("language_model.model.*", "model.language_model.*"),
    ("language_model.lm_head.*", "lm_head.*"),
)
"""Names of tensors here and there; # is a number, * the rest, [ | | ] the parts of a packed tensor."""


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")


def _parts(name: str) -> list[str]:
    """Return the names of the parts of a packed tensor, in their order."""
    packed = re.search(r"\[(.+)]", name)
    return [name.replace(packed[0], part) for part in packed[1].split("|")] if packed else [name]


def _target(name: str) -> str:
    places = count(1)
    return re.sub(r"[#*]", lambda _: f"\\{next(places)}", name)


NAMES = tuple((_pattern(theirs), _target(ours)) for theirs, ours in _PAIRS)
"""Patterns of tensor names, and the native names; of a packed tensor, those of its parts."""

_TEXT = (
    "attention_dropout", "hidden_act", "hidden_size", "initializer_range", "intermediate_size",
    "max_position_embeddings", "max_window_layers", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "rms_norm_eps", "rope_scaling", "rope_theta", "sliding_window", "use_sliding_window", "vocab_size",
)  # fmt: skip
_VISION = (
    "attention_dropout", "hidden_act", "hidden_size", "image_size", "initializer_range", "intermediate_size",
    "layer_norm_eps", "norm_type", "num_attention_heads", "num_channels", "num_hidden_layers", "patch_size",
)  # fmt: skip
_VISION_RENAMED = {"qkv_bias": "attention_bias", "qk_normalization": "use_qk_norm", "dropout": "hidden_dropout_prob"}


def config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of transformers' `InternVLConfig` for a config.json of `InternVLChatModel`.

    Raises `UserError` for a language model that is no Qwen2, or the pixel shuffle of version 1.
    """
    text, vision = raw["llm_config"], raw["vision_config"]
    if (kind := text.get("model_type", "qwen2")) != "qwen2":
        raise UserError(f"config.json: llm_config.model_type is {kind}; only qwen2 is supported (the models of 1B).")
    if raw.get("ps_version", "v1") != "v2":
        raise UserError("config.json: ps_version is not v2; the pixel shuffle of version 1 is not supported.")
    image = {"image_size": raw["force_image_size"]} if raw.get("force_image_size") else {}
    renamed = {ours: vision[theirs] for theirs, ours in _VISION_RENAMED.items() if theirs in vision}
    return {
        "text_config": {"model_type": "qwen2", **{name: text[name] for name in _TEXT if name in text}},
        "vision_config": {**{name: vision[name] for name in _VISION if name in vision}, **renamed, **image},
        "downsample_ratio": raw.get("downsample_ratio", 0.5),
        "vision_feature_layer": raw.get("select_layer", -1),
    }


def tensors(native: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return native tensors under InternVL's own names. Raises `UserError` for one that has no place there."""
    import torch

    found: dict[str, list[Tensor]] = {}
    left = dict(native)
    for theirs, ours in _PAIRS:
        for part in _parts(ours):
            for match in filter(None, map(re.compile(_pattern(part)).fullmatch, list(left))):
                found.setdefault(match.expand(_target(theirs)), []).append(left.pop(match[0]))
    if left:
        raise UserError(f"InternVL's own format has no place for {len(left)} tensors, such as {min(left)}.")
    return {name: torch.cat(parts) if len(parts) > 1 else parts[0].contiguous() for name, parts in found.items()}


def stated(config: Any, settings: Settings) -> dict[str, Any]:
    """Return config.json of `InternVLChatModel` for a native configuration: what `config` reads, and a little more."""
    text, vision = config.text_config.to_dict(), config.vision_config.to_dict()
    rope = text["rope_parameters"]
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"} | {"type": rope["rope_type"]}
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": None if rope["rope_type"] == "default" else scaling}
    side = vision["image_size"][0]
    vision |= {theirs: vision[ours] for theirs, ours in _VISION_RENAMED.items()}
    vision |= {"image_size": side, "patch_size": vision["patch_size"][0]}
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": MODEL_TYPE,
        "template": settings.template,
        "torch_dtype": str(config.dtype).removeprefix("torch."),
        "downsample_ratio": config.downsample_ratio,
        "ps_version": "v2",
        "select_layer": config.vision_feature_layer,
        "force_image_size": side,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": settings.tiles,
        "llm_config": _chosen(text, "Qwen2ForCausalLM", "qwen2", *_TEXT, "tie_word_embeddings"),
        "vision_config": _chosen(vision, "InternVisionModel", "intern_vit_6b", *_VISION, *_VISION_RENAMED),
    }


def _chosen(values: Mapping[str, Any], architecture: str, kind: str, *names: str) -> dict[str, Any]:
    chosen = {name: values[name] for name in names if name in values}
    return {"architectures": [architecture], "model_type": kind, **chosen}
