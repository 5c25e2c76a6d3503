"""InternVL's own checkpoints (`InternVLChatModel`), which WOW-Seg's are as well, as transformers' InternVL.

The map of reference/wowseg_facts.md D.1 to D.3. Mask2Token has no weights and no configuration of its own, so that a
released WOW-Seg folder is read as an InternVL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError

MODEL_TYPE = "internvl_chat"

_LAYER = r"vision_model\.encoder\.layers\.(\d+)"
_NATIVE_LAYER = r"model.vision_tower.encoder.layer.\1"

NAMES = (
    (r"vision_model\.embeddings\.class_embedding", "model.vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    (
        r"vision_model\.embeddings\.patch_embedding\.(.+)",
        r"model.vision_tower.embeddings.patch_embeddings.projection.\1",
    ),
    (rf"{_LAYER}\.attn\.qkv\.(.+)", rf"{_NATIVE_LAYER}.attention.[q|k|v]_proj.\2"),
    (rf"{_LAYER}\.attn\.proj\.(.+)", rf"{_NATIVE_LAYER}.attention.projection_layer.\2"),
    (rf"{_LAYER}\.attn\.([qk])_norm\.(.+)", rf"{_NATIVE_LAYER}.attention.\2_norm.\3"),
    (rf"{_LAYER}\.norm1\.(.+)", rf"{_NATIVE_LAYER}.layernorm_before.\2"),
    (rf"{_LAYER}\.norm2\.(.+)", rf"{_NATIVE_LAYER}.layernorm_after.\2"),
    (rf"{_LAYER}\.ls([12])", rf"{_NATIVE_LAYER}.lambda_\2"),
    (rf"{_LAYER}\.mlp\.(.+)", rf"{_NATIVE_LAYER}.mlp.\2"),
    (r"mlp1\.0\.(.+)", r"model.multi_modal_projector.layer_norm.\1"),
    (r"mlp1\.1\.(.+)", r"model.multi_modal_projector.linear_1.\1"),
    (r"mlp1\.3\.(.+)", r"model.multi_modal_projector.linear_2.\1"),
    (r"language_model\.model\.(.+)", r"model.language_model.\1"),
    (r"language_model\.lm_head\.(.+)", r"lm_head.\1"),
)
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
