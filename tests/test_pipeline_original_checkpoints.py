"""Original `.pth` files into transformers' classes: nothing lost, nothing left over, nothing mixed up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import original_layouts
import pytest
import tiny_detectors
import torch
from PIL import Image

from pipeline import original_checkpoints
from pipeline.detectors import GroundingDino
from pipeline.errors import UsageError, UserError
from pipeline.segmenters import open_segmenter

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
LOAD = {"dino": original_checkpoints.grounding_dino, "sam": original_checkpoints.sam}


def tensors_of(kind: str) -> dict[str, torch.Tensor]:
    shapes = original_layouts.grounding_dino_shapes() if kind == "dino" else original_layouts.sam_shapes()
    return original_layouts.filled(shapes)


def test_a_detector_is_loaded_whatever_wraps_its_tensors(tmp_path: Path) -> None:
    tensors = tensors_of("dino")
    torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "wrapped.pth")
    torch.save(tensors, tmp_path / "plain.pth")
    wrapped, plain = (LOAD["dino"](tmp_path / f"{name}.pth").state_dict() for name in ("wrapped", "plain"))
    assert all(plain[name].equal(tensor) for name, tensor in wrapped.items() if "swin.layernorm" not in name)
    block = "model.backbone.conv_encoder.model.swin.encoder.layers.0.blocks.1.attention"
    packed = tensors["backbone.0.layers.0.blocks.1.attn.qkv.weight"]
    assert plain[f"{block}.q_proj.weight"].equal(packed[:32])
    assert plain[f"{block}.v_proj.weight"].equal(packed[64:])
    packed = tensors["transformer.decoder.layers.1.ca_text.in_proj_bias"]
    assert plain["model.decoder.layers.1.encoder_attn_text.key.bias"].equal(packed[64:128])


@pytest.mark.parametrize("kind", ["dino", "sam"])
def test_every_value_of_the_file_is_in_the_model_once(kind: str, tmp_path: Path) -> None:
    tensors = tensors_of(kind)
    torch.save(tensors, tmp_path / "original.pth")
    model = LOAD[kind](tmp_path / "original.pth")
    unread = ("relative_position_index", "position_ids", "pooler", "label_enc")
    shared = {
        name for name in tensors if "bbox_embed" in name and not name.startswith(("bbox_embed.0", "transformer.enc"))
    }
    ours = sum(
        tensor.double().sum().item()
        for name, tensor in tensors.items()
        if not any(word in name for word in unread) and name not in shared
    )
    theirs = sum(
        weight.double().sum().item() for name, weight in model.named_parameters() if "swin.layernorm" not in name
    )
    theirs += sum(
        buffer.double().sum().item() for name, buffer in model.named_buffers() if "prompt_encoder.shared" in name
    )
    assert theirs == pytest.approx(ours)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("dino", lambda t: t.pop("feat_map.bias"), "missing: model.text_projection.bias"),
        ("dino", lambda t: t.update({"bert.lm_head": torch.zeros(1)}), "unexpected: model.text_backbone.lm_head"),
        ("dino", lambda t: t.update({"extra": torch.zeros(1)}), "unexpected: extra"),
        ("dino", lambda t: t.update({"feat_map.bias": torch.zeros(3)}), r"is \(3,\), \(64,\) expected"),
        ("dino", lambda t: t.update({"bbox_embed.1.layers.0.bias": torch.ones(64)}), "shared by the model, differs"),
        ("dino", lambda t: t.pop("transformer.level_embed"), "no Grounding DINO checkpoint"),
        ("sam", lambda t: t.pop("image_encoder.blocks.0.attn.proj.bias"), "missing: vision_encoder.layers.0.attn.proj"),
        ("sam", lambda t: t.pop("image_encoder.pos_embed"), "no segment-anything checkpoint"),
        ("sam", lambda t: t.update({"model_ema": torch.zeros(1)}), "unexpected: model_ema"),
    ],
)
def test_a_tensor_too_many_or_too_few_is_named(kind: str, change: Any, said: str, tmp_path: Path) -> None:
    tensors = tensors_of(kind)
    change(tensors)
    torch.save(tensors, tmp_path / "original.pth")
    with pytest.raises(UserError, match=said):
        LOAD[kind](tmp_path / "original.pth")


class Code:
    """What runs on unpickling."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("content", [Code(), {"state": 1}, [torch.zeros(1)]])
def test_anything_but_tensors_is_refused_and_no_code_runs(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth"):
        LOAD["sam"](tmp_path / "bad.pth")


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"<html>")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        LOAD["dino"](tmp_path / "bad.pth")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        LOAD["dino"](tmp_path / "absent.pth")


def test_original_files_detect_and_segment(tmp_path: Path) -> None:
    torch.save(tensors_of("dino"), tmp_path / "dino.pth")
    with pytest.raises(UsageError, match=r"vocab\.txt of bert-base-uncased"):
        GroundingDino(str(tmp_path / "dino.pth"), "cpu")
    tiny_detectors.write_vocabulary(tmp_path)
    detector = GroundingDino(str(tmp_path / "dino.pth"), "cpu")
    detector._images.size = {"shortest_edge": 64, "longest_edge": 96}
    found = detector.detect(PICTURE, tiny_detectors.PHRASES, box_threshold=0, text_threshold=0, nms_iou=1)
    assert found
    torch.save(tensors_of("sam"), tmp_path / "sam.pth")
    segmenter = open_segmenter(str(tmp_path / "sam.pth"), "cpu")
    made = list(segmenter.segment(PICTURE, np.array([found[0].box_xyxy], np.float32)))
    assert [mask.shape for mask in made] == [(90, 120)]
