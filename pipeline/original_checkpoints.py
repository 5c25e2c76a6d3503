"""The `.pth` files of the original Grounding DINO and segment-anything, loaded into transformers' own classes.

A table of names for each: the left side is a whole name in the original file, `[a|b|c]` on the right cuts a tensor in
as many equal parts by rows, and ` + ` stores it under two names. No tensor of the file or of the model is left
unaccounted for: what is on purpose not carried over stands in a table of its own, with the reason.

Sizes are read off the tensors. What no tensor shows is as in the published models: 4 sampling points, text attention
heads of 64, 8 attention heads of SAM's mask decoder.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Tensors = Mapping[str, Tensor]

_SWIN = "model.backbone.conv_encoder.model.swin."
_BLOCK = r"backbone\.0\.layers\.(\d+)\.blocks\.(\d+)\."
_TO_BLOCK = _SWIN + r"encoder.layers.\1.blocks.\2."
_QKV = "[query|key|value]"
_POINTS = 4
_TEXT_HEAD = 64
_WINDOW_PX = 32  # of a window's side in Swin's last stage

_DETECTOR = (
    (r"backbone\.0\.patch_embed\.proj\.(.+)", _SWIN + r"embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.0\.patch_embed\.norm\.(.+)", _SWIN + r"embeddings.norm.\1"),
    (_BLOCK + r"norm1\.(.+)", _TO_BLOCK + r"layernorm_before.\3"),
    (_BLOCK + r"norm2\.(.+)", _TO_BLOCK + r"layernorm_after.\3"),
    (_BLOCK + r"attn\.qkv\.(.+)", _TO_BLOCK + r"attention.[q_proj|k_proj|v_proj].\3"),
    (_BLOCK + r"attn\.proj\.(.+)", _TO_BLOCK + r"attention.o_proj.\3"),
    (
        _BLOCK + r"attn\.relative_position_bias_table",
        _TO_BLOCK + r"attention.relative_position_bias.relative_position_bias_table",
    ),
    (_BLOCK + r"(mlp\..+)", _TO_BLOCK + r"\3"),
    (r"backbone\.0\.layers\.(\d+)\.(downsample\..+)", _SWIN + r"encoder.layers.\1.\2"),
    (r"backbone\.0\.norm0\.(.+)", r"model.backbone.conv_encoder.model.hidden_states_norms.stage1.\1"),
    (r"backbone\.0\.norm1\.(.+)", r"model.backbone.conv_encoder.model.hidden_states_norms.stage2.\1"),
    (r"backbone\.0\.norm2\.(.+)", r"model.backbone.conv_encoder.model.hidden_states_norms.stage3.\1"),
    (r"backbone\.0\.norm3\.(.+)", r"model.backbone.conv_encoder.model.hidden_states_norms.stage4.\1"),
    (r"bert\.(?!pooler|embeddings\.position_ids)(.+)", r"model.text_backbone.\1"),
    (r"feat_map\.(.+)", r"model.text_projection.\1"),
    (r"input_proj\.(.+)", r"model.input_proj_vision.\1"),
    (r"(bbox_embed\..+)", r"\1"),
    (r"transformer\.level_embed", r"model.level_embed"),
    (r"transformer\.tgt_embed\.(.+)", r"model.query_position_embeddings.\1"),
    (r"transformer\.enc_output(_norm)?\.(.+)", r"model.enc_output\1.\2"),
    (r"transformer\.enc_out_bbox_embed\.(.+)", r"model.encoder_output_bbox_embed.\1"),
    (r"transformer\.decoder\.norm\.(.+)", r"model.decoder.layer_norm.\1"),
    (r"transformer\.decoder\.ref_point_head\.(.+)", r"model.decoder.reference_points_head.\1"),
    (r"transformer\.decoder\.(bbox_embed\..+)", r"model.decoder.\1"),
)

_ENCODER_LAYER = {
    "layers": (
        (r"(self_attn\..+)", r"deformable_layer.\1"),
        (r"norm1\.(.+)", r"deformable_layer.self_attn_layer_norm.\1"),
        (r"norm2\.(.+)", r"deformable_layer.final_layer_norm.\1"),
        (r"linear([12])\.(.+)", r"deformable_layer.fc\1.\2"),
    ),
    "text_layers": (
        (r"self_attn\.in_proj_(.+)", rf"text_enhancer_layer.self_attn.{_QKV}.\1"),
        (r"self_attn\.out_proj\.(.+)", r"text_enhancer_layer.self_attn.out_proj.\1"),
        (r"norm1\.(.+)", r"text_enhancer_layer.layer_norm_before.\1"),
        (r"norm2\.(.+)", r"text_enhancer_layer.layer_norm_after.\1"),
        (r"linear([12])\.(.+)", r"text_enhancer_layer.fc\1.\2"),
    ),
    "fusion_layers": (
        (r"gamma_v", r"fusion_layer.vision_param"),
        (r"gamma_l", r"fusion_layer.text_param"),
        (r"layer_norm_v\.(.+)", r"fusion_layer.layer_norm_vision.\1"),
        (r"layer_norm_l\.(.+)", r"fusion_layer.layer_norm_text.\1"),
        (r"attn\.(values_|out_|)v_proj\.(.+)", r"fusion_layer.attn.\1vision_proj.\2"),
        (r"attn\.(values_|out_|)l_proj\.(.+)", r"fusion_layer.attn.\1text_proj.\2"),
    ),
}
_DECODER_LAYER = (
    (r"self_attn\.in_proj_(.+)", rf"self_attn.{_QKV}.\1"),
    (r"self_attn\.out_proj\.(.+)", r"self_attn.out_proj.\1"),
    (r"ca_text\.in_proj_(.+)", rf"encoder_attn_text.{_QKV}.\1"),
    (r"ca_text\.out_proj\.(.+)", r"encoder_attn_text.out_proj.\1"),
    (r"catext_norm\.(.+)", r"encoder_attn_text_layer_norm.\1"),
    (r"cross_attn\.(.+)", r"encoder_attn.\1"),
    (r"norm1\.(.+)", r"encoder_attn_layer_norm.\1"),
    (r"norm2\.(.+)", r"self_attn_layer_norm.\1"),
    (r"norm3\.(.+)", r"final_layer_norm.\1"),
    (r"linear([12])\.(.+)", r"fc\1.\2"),
)
_DETECTOR_NOT_READ = (
    r".*\.relative_position_index",  # follows from the window size
    r"bert\.embeddings\.position_ids",  # 0, 1, 2, …
    r"bert\.pooler\..+",  # of the first token: Grounding DINO reads every token
    r"label_enc\.weight",  # of training with noised labels
)
_DETECTOR_NOT_GIVEN = (rf"{re.escape(_SWIN)}layernorm\..+",)  # after the last stage: the stages' own norms are used

_HEADS = r"output_hypernetworks_mlps\.\d+|iou_prediction_head"
_SEGMENTER = (
    (r"image_encoder\.pos_embed", r"vision_encoder.pos_embed"),
    (r"image_encoder\.patch_embed\.proj\.(.+)", r"vision_encoder.patch_embed.projection.\1"),
    (r"image_encoder\.blocks\.(\d+)\.norm([12])\.(.+)", r"vision_encoder.layers.\1.layer_norm\2.\3"),
    (r"image_encoder\.blocks\.(\d+)\.((?:attn|mlp)\..+)", r"vision_encoder.layers.\1.\2"),
    (r"image_encoder\.neck\.0\.(.+)", r"vision_encoder.neck.conv1.\1"),
    (r"image_encoder\.neck\.1\.(.+)", r"vision_encoder.neck.layer_norm1.\1"),
    (r"image_encoder\.neck\.2\.(.+)", r"vision_encoder.neck.conv2.\1"),
    (r"image_encoder\.neck\.3\.(.+)", r"vision_encoder.neck.layer_norm2.\1"),
    (
        r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding + shared_image_embedding.positional_embedding",
    ),
    (r"prompt_encoder\.point_embeddings\.(.+)", r"prompt_encoder.point_embed.\1"),
    (r"prompt_encoder\.((?:not_a_point|no_mask)_embed\..+)", r"prompt_encoder.\1"),
    (r"prompt_encoder\.mask_downscaling\.0\.(.+)", r"prompt_encoder.mask_embed.conv1.\1"),
    (r"prompt_encoder\.mask_downscaling\.1\.(.+)", r"prompt_encoder.mask_embed.layer_norm1.\1"),
    (r"prompt_encoder\.mask_downscaling\.3\.(.+)", r"prompt_encoder.mask_embed.conv2.\1"),
    (r"prompt_encoder\.mask_downscaling\.4\.(.+)", r"prompt_encoder.mask_embed.layer_norm2.\1"),
    (r"prompt_encoder\.mask_downscaling\.6\.(.+)", r"prompt_encoder.mask_embed.conv3.\1"),
    (r"mask_decoder\.((?:iou_token|mask_tokens)\..+)", r"mask_decoder.\1"),
    (r"mask_decoder\.transformer\.norm_final_attn\.(.+)", r"mask_decoder.transformer.layer_norm_final_attn.\1"),
    (r"mask_decoder\.transformer\.(.+)\.norm(\d)\.(.+)", r"mask_decoder.transformer.\1.layer_norm\2.\3"),
    (r"(mask_decoder\.transformer\..+)", r"\1"),
    (r"mask_decoder\.output_upscaling\.0\.(.+)", r"mask_decoder.upscale_conv1.\1"),
    (r"mask_decoder\.output_upscaling\.1\.(.+)", r"mask_decoder.upscale_layer_norm.\1"),
    (r"mask_decoder\.output_upscaling\.3\.(.+)", r"mask_decoder.upscale_conv2.\1"),
    (rf"mask_decoder\.({_HEADS})\.layers\.0\.(.+)", r"mask_decoder.\1.proj_in.\2"),
    (rf"mask_decoder\.({_HEADS})\.layers\.1\.(.+)", r"mask_decoder.\1.layers.0.\2"),
    (rf"mask_decoder\.({_HEADS})\.layers\.2\.(.+)", r"mask_decoder.\1.proj_out.\2"),
)  # fmt: skip
_SEGMENTER_NOT_READ = (r"pixel_mean", r"pixel_std")  # of ImageNet; the image processor has them


def grounding_dino(path: Path) -> Any:
    """Load an original checkpoint as `GroundingDinoForObjectDetection`. Raises `UserError` where tensors do not fit."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    tensors = read(path)
    try:
        sizes = _detector_sizes(tensors)
    except KeyError as error:
        raise UserError(f"{path} is no Grounding DINO checkpoint: it has no tensor {error}.") from None
    model: Any = GroundingDinoForObjectDetection(GroundingDinoConfig(**sizes))
    _fill(model, tensors, _detector_table(), _DETECTOR_NOT_READ, _DETECTOR_NOT_GIVEN, path)
    return model.eval()


def sam(path: Path) -> Any:
    """Load an original segment-anything checkpoint as `SamModel`. Raises `UserError`: the tensors that do not fit."""
    from transformers import SamConfig, SamModel

    tensors = read(path)
    try:
        sizes = _segmenter_sizes(tensors)
    except KeyError as error:
        raise UserError(f"{path} is no segment-anything checkpoint: it has no tensor {error}.") from None
    model: Any = SamModel(SamConfig(**sizes))
    _fill(model, tensors, _SEGMENTER, _SEGMENTER_NOT_READ, (), path)
    return model.eval()


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` file by name, running no code of it, without the wrappers' prefixes."""
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read as tensors: {str(error).splitlines()[0]}") from None
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path} holds something other than named tensors.")
    return {re.sub(r"^(module|model)\.", "", name): value for name, value in content.items()}


# --- names ------------------------------------------------------------------------------------------------


def _detector_table() -> list[tuple[str, str]]:
    table = list(_DETECTOR)
    for part, rules in _ENCODER_LAYER.items():
        table += [_of_layer(rf"transformer\.encoder\.{part}", "model.encoder.layers", *rule) for rule in rules]
    table += [_of_layer(r"transformer\.decoder\.layers", "model.decoder.layers", *rule) for rule in _DECODER_LAYER]
    return table


def _of_layer(before: str, after: str, pattern: str, target: str) -> tuple[str, str]:
    """Put a rule about one layer under its number, which becomes the first group."""
    later = re.sub(r"\\(\d)", lambda group: rf"\{int(group[1]) + 1}", target)
    return rf"{before}\.(\d+)\.{pattern}", rf"{after}.\1.{later}"


def convert(tensors: Tensors, table: Sequence[tuple[str, str]]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename tensors, cutting packed ones; return them and the names that no rule of `table` covers."""
    converted, unknown = {}, []
    rules = [(re.compile(pattern), target) for pattern, target in table]
    for name, tensor in tensors.items():
        found = next((match.expand(target) for rule, target in rules if (match := rule.fullmatch(name))), None)
        if found is None:
            unknown.append(name)
        elif parts := re.search(r"\[(.+)]", found):
            names = parts[1].split("|")
            for part, piece in zip(names, tensor.chunk(len(names)), strict=True):
                converted[found.replace(parts[0], part)] = piece
        else:
            converted |= dict.fromkeys(found.split(" + "), tensor)
    return converted, unknown


def _fill(
    model: Any,
    tensors: Tensors,
    table: Sequence[tuple[str, str]],
    not_read: Sequence[str],
    not_given: Sequence[str],
    path: Path,
) -> None:
    converted, unknown = convert(tensors, table)
    expected = model.state_dict()
    wrong = [f"unexpected: {name}" for name in unknown if not any(re.fullmatch(p, name) for p in not_read)]
    wrong += [
        f"unexpected: {name} (as {model.config.model_type} calls it)" for name in sorted(converted.keys() - expected)
    ]
    for name, place in expected.items():
        if name not in converted:
            if not any(re.fullmatch(pattern, name) for pattern in not_given):
                wrong.append(f"missing: {name}")
        elif converted[name].shape != place.shape:
            wrong.append(f"shape: {name} is {tuple(converted[name].shape)}, {tuple(place.shape)} expected")
    if not wrong:
        model.load_state_dict(converted, strict=False)
        # Heads that the model shares between layers were written once for each: the last would win unnoticed.
        loaded = model.state_dict()
        wrong = [
            f"shared by the model, differs in the file: {n}" for n, t in converted.items() if not loaded[n].equal(t)
        ]
    if wrong:
        shown = "\n  ".join(wrong[:20] + ([f"… and {len(wrong) - 20} more"] if len(wrong) > 20 else []))
        raise UserError(f"{path}: {len(wrong)} tensors do not fit {type(model).__name__}:\n  {shown}")


# --- sizes ------------------------------------------------------------------------------------------------


def _count(tensors: Tensors, pattern: str) -> int:
    """Return how many numbers the group of `pattern` takes among the names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _detector_sizes(tensors: Tensors) -> dict[str, Any]:
    encoder, decoder = "transformer.encoder.layers.0", "transformer.decoder.layers.0"
    levels, width = tensors["transformer.level_embed"].shape
    heads = len(tensors[f"{encoder}.self_attn.attention_weights.bias"]) // (levels * _POINTS)
    shared = "transformer.decoder.bbox_embed.1.layers.0.weight"
    first = tensors["transformer.decoder.bbox_embed.0.layers.0.weight"]
    return {
        "backbone_config": _swin_sizes(tensors),
        "text_config": _bert_sizes(tensors),
        "d_model": width,
        "num_queries": len(tensors["transformer.tgt_embed.weight"]),
        "num_feature_levels": levels,
        "encoder_layers": _count(tensors, r"transformer\.encoder\.layers\.(\d+)"),
        "decoder_layers": _count(tensors, r"transformer\.decoder\.layers\.(\d+)"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": len(tensors[f"{encoder}.linear1.weight"]),
        "decoder_ffn_dim": len(tensors[f"{decoder}.linear1.weight"]),
        "decoder_bbox_embed_share": shared not in tensors or first.equal(tensors[shared]),
    }


def _swin_sizes(tensors: Tensors) -> dict[str, Any]:
    stages = range(_count(tensors, r"backbone\.0\.layers\.(\d+)"))
    tables = [tensors[f"backbone.0.layers.{n}.blocks.0.attn.relative_position_bias_table"] for n in stages]
    window = (round(len(tables[0]) ** 0.5) + 1) // 2
    return {
        "model_type": "swin",
        "embed_dim": len(tensors["backbone.0.patch_embed.proj.bias"]),
        "depths": [_count(tensors, rf"backbone\.0\.layers\.{n}\.blocks\.(\d+)") for n in stages],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": window,
        "image_size": _WINDOW_PX * window,  # a smaller one would shrink the last stage's window
        "out_indices": [n + 1 for n in stages if f"backbone.0.norm{n}.weight" in tensors],
    }


def _bert_sizes(tensors: Tensors) -> dict[str, Any]:
    words, hidden = tensors["bert.embeddings.word_embeddings.weight"].shape
    return {
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": hidden,
        "max_position_embeddings": len(tensors["bert.embeddings.position_embeddings.weight"]),
        "num_hidden_layers": _count(tensors, r"bert\.encoder\.layer\.(\d+)"),
        "num_attention_heads": hidden // _TEXT_HEAD,
        "intermediate_size": len(tensors["bert.encoder.layer.0.intermediate.dense.bias"]),
    }


def _segmenter_sizes(tensors: Tensors) -> dict[str, Any]:
    patch, image = _patches(tensors)
    hidden = len(tensors["mask_decoder.iou_token.weight"][0])
    attention = "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight"
    return {
        "vision_config": _vision_sizes(tensors, patch, image),
        "prompt_encoder_config": {
            "hidden_size": hidden,
            "image_size": image,
            "patch_size": patch,
            "mask_input_channels": len(tensors["prompt_encoder.mask_downscaling.3.bias"]),
        },
        "mask_decoder_config": {
            "hidden_size": hidden,
            "mlp_dim": len(tensors["mask_decoder.transformer.layers.0.mlp.lin1.bias"]),
            "num_hidden_layers": _count(tensors, r"mask_decoder\.transformer\.layers\.(\d+)"),
            "attention_downsample_rate": hidden // len(tensors[attention]),
            "num_multimask_outputs": len(tensors["mask_decoder.mask_tokens.weight"]) - 1,
            "iou_head_hidden_dim": len(tensors["mask_decoder.iou_prediction_head.layers.0.bias"]),
        },
    }


def _patches(tensors: Tensors) -> tuple[int, int]:
    """Return the sides of a patch and of the image the model takes, px."""
    patch = tensors["image_encoder.patch_embed.proj.weight"].shape[-1]
    return patch, patch * tensors["image_encoder.pos_embed"].shape[1]


def _vision_sizes(tensors: Tensors, patch: int, image: int) -> dict[str, Any]:
    layers = range(_count(tensors, r"image_encoder\.blocks\.(\d+)"))
    reach = [tensors[f"image_encoder.blocks.{n}.attn.rel_pos_h"] for n in layers]
    whole = 2 * (image // patch) - 1  # distances, of attention over the whole image
    windows = [(len(table) + 1) // 2 for table in reach if len(table) != whole]
    hidden = tensors["image_encoder.pos_embed"].shape[-1]
    return {
        "image_size": image,
        "patch_size": patch,
        "hidden_size": hidden,
        "output_channels": len(tensors["image_encoder.neck.0.weight"]),
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // reach[0].shape[1],
        "mlp_dim": len(tensors["image_encoder.blocks.0.mlp.lin1.bias"]),
        "window_size": windows[0] if windows else 0,
        "global_attn_indexes": [n for n in layers if len(reach[n]) == whole],
        "num_pos_feats": tensors["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape[1],
    }
