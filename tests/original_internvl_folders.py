"""Folders in the layout of InternVL's own checkpoints, made from native weights by the documented map turned round."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from model.wowseg import WowSeg

_LAYER = r"model\.vision_tower\.encoder\.layer\.(\d+)"
_OLD_LAYER = r"vision_model.encoder.layers.\1"
_NAMES = (
    (r"model\.vision_tower\.embeddings\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"model\.vision_tower\.embeddings\.position_embeddings", "vision_model.embeddings.position_embedding"),
    (
        r"model\.vision_tower\.embeddings\.patch_embeddings\.projection\.(.+)",
        r"vision_model.embeddings.patch_embedding.\1",
    ),
    (rf"{_LAYER}\.attention\.projection_layer\.(.+)", rf"{_OLD_LAYER}.attn.proj.\2"),
    (rf"{_LAYER}\.layernorm_before\.(.+)", rf"{_OLD_LAYER}.norm1.\2"),
    (rf"{_LAYER}\.layernorm_after\.(.+)", rf"{_OLD_LAYER}.norm2.\2"),
    (rf"{_LAYER}\.lambda_([12])", rf"{_OLD_LAYER}.ls\2"),
    (rf"{_LAYER}\.(mlp\..+)", rf"{_OLD_LAYER}.\2"),
    (r"model\.multi_modal_projector\.layer_norm\.(.+)", r"mlp1.0.\1"),
    (r"model\.multi_modal_projector\.linear_1\.(.+)", r"mlp1.1.\1"),
    (r"model\.multi_modal_projector\.linear_2\.(.+)", r"mlp1.3.\1"),
    (r"model\.language_model\.(.+)", r"language_model.model.\1"),
    (r"lm_head\.(.+)", r"language_model.lm_head.\1"),
)


def original(tensors: dict[str, Any]) -> dict[str, Any]:
    """Rename native tensors; query, key and value become one."""
    found = {}
    for name, tensor in tensors.items():
        if packed := re.fullmatch(rf"{_LAYER}\.attention\.q_proj\.(.+)", name):
            rows = [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[f"vision_model.encoder.layers.{packed[1]}.attn.qkv.{packed[2]}"] = torch.cat(rows)
        elif not re.search(r"vision_tower.*\.[kv]_proj\.", name):
            (renamed,) = (m.expand(new) for old, new in _NAMES if (m := re.fullmatch(old, name)))
            found[renamed] = tensor.clone()
    return found


def raw_config(model: WowSeg, template: str) -> dict[str, Any]:
    """The config.json that the folder of such a model has, with InternVL's own keys."""
    text, vision = model.network.config.text_config, model.network.config.vision_config
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": vision.image_size[0],
        "max_dynamic_patch": 12, "min_dynamic_patch": 1, "ps_version": "v2", "select_layer": -1, "system_message": None,
        "template": template, "torch_dtype": "bfloat16", "use_backbone_lora": 0, "use_llm_lora": 0,
        "use_thumbnail": True,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "attn_implementation": "flash_attention_2",
            "hidden_act": "silu", "hidden_size": text.hidden_size, "initializer_range": 0.02,
            "intermediate_size": text.intermediate_size, "max_position_embeddings": 32768, "max_window_layers": 70,
            "model_type": "qwen2", "moe_config": None, "num_attention_heads": text.num_attention_heads,
            "num_hidden_layers": text.num_hidden_layers, "num_key_value_heads": text.num_key_value_heads,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "rope_theta": 1000000.0,
            "sliding_window": None, "tie_word_embeddings": False, "use_cache": False,
            "use_sliding_window": False, "vocab_size": text.vocab_size,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"], "attention_dropout": 0.0, "drop_path_rate": 0.0, "dropout": 0.0,
            "hidden_act": "gelu", "hidden_size": vision.hidden_size, "image_size": vision.image_size[0],
            "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": vision.intermediate_size,
            "layer_norm_eps": 1e-06, "model_type": "intern_vit_6b", "norm_type": "layer_norm",
            "num_attention_heads": vision.num_attention_heads, "num_channels": 3,
            "num_hidden_layers": vision.num_hidden_layers, "patch_size": vision.patch_size[0],
            "qk_normalization": False, "qkv_bias": True, "use_flash_attn": True,
        },
    }  # fmt: skip


def write(model: WowSeg, folder: Path, template: str = "internvl2_5", shards: int = 1, **changes: Any) -> Path:
    """Write such a folder; `changes` replace parts of llm_config."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    raw = raw_config(model, template)
    raw["llm_config"] |= changes
    (folder / "config.json").write_text(json.dumps(raw))
    model.preparer.tokenizer.save_pretrained(folder)
    tensors = original(model.network.state_dict())
    if changes.get("tie_word_embeddings"):
        del tensors["language_model.lm_head.weight"]
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names = sorted(tensors)
    places = {
        name: f"model-{n * shards // len(names) + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(names)
    }
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder
