"""Tiny randomly initialised detectors and segmenters of the classes that are used for real, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PHRASES = ("car", "taxi", "caravan", "red mug", "dog")
_WORDS = ("car", "taxi", "cara", "##van", "red", "mug", "dog", "bernard", "st", "1", "000", "t", "-", "shirt", "猫")
_SIDE = 64  # px of what the segmenters see


def bert_vocabulary() -> list[str]:
    """BERT's layout: the tokens that part captions have the numbers that Grounding DINO's code has."""
    names = [f"[unused{n}]" for n in range(1100)]
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1010: ",", 1012: ".", 1029: "?"}
    for number, name in (places | dict(enumerate(_WORDS, 200))).items():
        names[number] = name
    for number in range(500):
        names[300 + number] = f"w{number}"
    return names


def write_vocabulary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(bert_vocabulary()))


def detector_sizes(text_limit: int) -> dict[str, Any]:
    return {
        "backbone_config": {
            "model_type": "swin", "embed_dim": 32, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8],
            "window_size": 7, "image_size": 224, "out_indices": [2, 3, 4],
        },
        "text_config": {
            "model_type": "bert", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 64, "vocab_size": 1100,
        },
        "d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_queries": 30, "max_text_len": text_limit,
    }  # fmt: skip


def _shaken(model: Any) -> Any:
    """Give weights that start as zeros or ones other values: every box and score would be the same."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape, generator=generator) * 0.1
    return model.eval()


def detector(folder: Path, kind: str = "grounding-dino", text_limit: int = 256) -> Path:
    """A Grounding DINO or MM Grounding DINO with tokenizer and image processor."""
    import torch
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, BertTokenizer, GroundingDinoImageProcessor

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **detector_sizes(text_limit))
    _shaken(AutoModelForZeroShotObjectDetection.from_config(config)).save_pretrained(folder)
    write_vocabulary(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def _vision(**more: int) -> dict[str, Any]:
    return {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": _SIDE, "patch_size": 16,
        "output_channels": 32, "num_pos_feats": 16, "mlp_dim": 64, "global_attn_indexes": [1], "window_size": 2, **more,
    }  # fmt: skip


def _prompts() -> dict[str, Any]:
    return {"hidden_size": 32, "image_size": _SIDE, "patch_size": 16}


def _decoder(**more: int) -> dict[str, Any]:
    return {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 8, "iou_head_hidden_dim": 32, **more}


def sam(folder: Path) -> Path:
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    from pipeline.segmenters import sized

    torch.manual_seed(0)
    config = SamConfig(
        vision_config=_vision(), prompt_encoder_config=_prompts(), mask_decoder_config=_decoder(num_hidden_layers=2)
    )
    model = _shaken(SamModel(config))
    model.save_pretrained(folder)
    SamProcessor(sized(SamImageProcessor, model)).save_pretrained(folder)
    return folder


def sam_hq(folder: Path) -> Path:
    import torch
    from transformers import SamHQConfig, SamHQModel, SamHQProcessor, SamImageProcessor

    from pipeline.segmenters import sized

    torch.manual_seed(0)
    config = SamHQConfig(
        vision_config=_vision(), prompt_encoder_config=_prompts(), mask_decoder_config=_decoder(vit_dim=32)
    )
    model = _shaken(SamHQModel(config))
    model.save_pretrained(folder)
    SamHQProcessor(sized(SamImageProcessor, model)).save_pretrained(folder)
    return folder


def sam2(folder: Path) -> Path:
    import torch
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    torch.manual_seed(0)
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1,
                "image_size": [128, 128], "blocks_per_stage": [1, 1, 1, 1], "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [], "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [128, 64, 32, 16], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16},
        mask_decoder_config=_decoder(),
    )  # fmt: skip
    _shaken(Sam2Model(config)).save_pretrained(folder)
    images = Sam2ImageProcessor(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32})
    Sam2Processor(images).save_pretrained(folder)
    return folder
