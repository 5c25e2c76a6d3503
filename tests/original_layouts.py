"""Random tensors under the names of the original checkpoints, at tiny sizes.

The names were compared once with those that the packages groundingdino-py 0.4.0 (Swin-T) and segment-anything 1.0
(ViT-B) save; here they are made from the layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

Shapes = Iterator[tuple[str, tuple[int, ...]]]
WIDTH = 64


def _linear(name: str, out: int, into: int, *kernel: int) -> Shapes:
    yield f"{name}.weight", (out, into, *kernel)
    yield f"{name}.bias", (out,)


def _norm(name: str, size: int) -> Shapes:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _packed(name: str, width: int) -> Shapes:
    yield f"{name}.in_proj_weight", (3 * width, width)
    yield f"{name}.in_proj_bias", (3 * width,)
    yield from _linear(f"{name}.out_proj", width, width)


def _mlp(name: str, *sizes: int) -> Shapes:
    for n, (into, out) in enumerate(pairwise(sizes)):
        yield from _linear(f"{name}.layers.{n}", out, into)


def _swin(depths: tuple[int, ...]) -> Shapes:
    yield from _linear("backbone.0.patch_embed.proj", 32, 3, 4, 4)
    yield from _norm("backbone.0.patch_embed.norm", 32)
    for stage, depth in enumerate(depths):
        size, place = 32 << stage, f"backbone.0.layers.{stage}"
        for n in range(depth):
            block = f"{place}.blocks.{n}"
            yield from _norm(f"{block}.norm1", size)
            yield f"{block}.attn.relative_position_bias_table", (169, 1 << stage)
            yield f"{block}.attn.relative_position_index", (49, 49)
            yield from _linear(f"{block}.attn.qkv", 3 * size, size)
            yield from _linear(f"{block}.attn.proj", size, size)
            yield from _norm(f"{block}.norm2", size)
            yield from _linear(f"{block}.mlp.fc1", 4 * size, size)
            yield from _linear(f"{block}.mlp.fc2", size, 4 * size)
        if stage < len(depths) - 1:
            yield f"{place}.downsample.reduction.weight", (2 * size, 4 * size)
            yield from _norm(f"{place}.downsample.norm", 4 * size)
        if stage:
            yield from _norm(f"backbone.0.norm{stage}", size)


def _bert(layers: int) -> Shapes:
    yield "bert.embeddings.position_ids", (1, 512)
    yield "bert.embeddings.word_embeddings.weight", (1100, WIDTH)
    yield "bert.embeddings.position_embeddings.weight", (512, WIDTH)
    yield "bert.embeddings.token_type_embeddings.weight", (2, WIDTH)
    yield from _norm("bert.embeddings.LayerNorm", WIDTH)
    for n in range(layers):
        layer = f"bert.encoder.layer.{n}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _linear(f"{layer}.attention.{part}", WIDTH, WIDTH)
        yield from _norm(f"{layer}.attention.output.LayerNorm", WIDTH)
        yield from _linear(f"{layer}.intermediate.dense", WIDTH, WIDTH)
        yield from _linear(f"{layer}.output.dense", WIDTH, WIDTH)
        yield from _norm(f"{layer}.output.LayerNorm", WIDTH)
    yield from _linear("bert.pooler.dense", WIDTH, WIDTH)


def _deformable(name: str) -> Shapes:
    yield from _linear(f"{name}.sampling_offsets", 2 * 4 * 4 * 2, WIDTH)  # heads × levels × points × 2
    yield from _linear(f"{name}.attention_weights", 2 * 4 * 4, WIDTH)
    yield from _linear(f"{name}.value_proj", WIDTH, WIDTH)
    yield from _linear(f"{name}.output_proj", WIDTH, WIDTH)


def _feed_forward(layer: str, hidden: int, norms: tuple[str, ...]) -> Shapes:
    yield from _linear(f"{layer}.linear1", hidden, WIDTH)
    yield from _linear(f"{layer}.linear2", WIDTH, hidden)
    for name in norms:
        yield from _norm(f"{layer}.{name}", WIDTH)


def _encoder(layers: int) -> Shapes:
    for n in range(layers):
        layer = f"transformer.encoder.layers.{n}"
        yield from _deformable(f"{layer}.self_attn")
        yield from _feed_forward(layer, WIDTH, ("norm1", "norm2"))
        text = f"transformer.encoder.text_layers.{n}"
        yield from _packed(f"{text}.self_attn", WIDTH)
        yield from _feed_forward(text, WIDTH // 2, ("norm1", "norm2"))
        fusion = f"transformer.encoder.fusion_layers.{n}"
        yield f"{fusion}.gamma_v", (WIDTH,)
        yield f"{fusion}.gamma_l", (WIDTH,)
        for side in "vl":
            yield from _norm(f"{fusion}.layer_norm_{side}", WIDTH)
            yield from _linear(f"{fusion}.attn.{side}_proj", WIDTH // 2, WIDTH)
            yield from _linear(f"{fusion}.attn.values_{side}_proj", WIDTH // 2, WIDTH)
            yield from _linear(f"{fusion}.attn.out_{side}_proj", WIDTH, WIDTH // 2)


def _decoder(layers: int) -> Shapes:
    for n in range(layers):
        layer = f"transformer.decoder.layers.{n}"
        yield from _deformable(f"{layer}.cross_attn")
        yield from _packed(f"{layer}.ca_text", WIDTH)
        yield from _packed(f"{layer}.self_attn", WIDTH)
        yield from _feed_forward(layer, WIDTH, ("norm1", "norm2", "norm3", "catext_norm"))
        yield from _mlp(f"bbox_embed.{n}", WIDTH, WIDTH, WIDTH, 4)
        yield from _mlp(f"transformer.decoder.bbox_embed.{n}", WIDTH, WIDTH, WIDTH, 4)
    yield from _norm("transformer.decoder.norm", WIDTH)
    yield from _mlp("transformer.decoder.ref_point_head", 2 * WIDTH, WIDTH, WIDTH)


def grounding_dino_shapes(depths: tuple[int, ...] = (2, 1, 1, 1), layers: int = 2) -> Shapes:
    yield from _swin(depths)
    yield from _bert(layers)
    for level, size in enumerate((64, 128, 256, 256)):
        yield from _linear(f"input_proj.{level}.0", WIDTH, size, *((1, 1) if level < 3 else (3, 3)))
        yield from _norm(f"input_proj.{level}.1", WIDTH)
    yield from _encoder(layers)
    yield from _decoder(layers)
    yield "transformer.level_embed", (4, WIDTH)
    yield "transformer.tgt_embed.weight", (20, WIDTH)
    yield from _linear("transformer.enc_output", WIDTH, WIDTH)
    yield from _norm("transformer.enc_output_norm", WIDTH)
    yield from _mlp("transformer.enc_out_bbox_embed", WIDTH, WIDTH, WIDTH, 4)
    yield from _linear("feat_map", WIDTH, WIDTH)
    yield "label_enc.weight", (3, WIDTH)


def _attention(name: str, inner: int) -> Shapes:
    for part in ("q_proj", "k_proj", "v_proj"):
        yield from _linear(f"{name}.{part}", inner, WIDTH)
    yield from _linear(f"{name}.out_proj", WIDTH, inner)


def _image_encoder(grid: int, whole: tuple[bool, ...]) -> Shapes:
    yield "image_encoder.pos_embed", (1, grid, grid, 32)
    yield from _linear("image_encoder.patch_embed.proj", 32, 3, 16, 16)
    for n, everywhere in enumerate(whole):
        block, reach = f"image_encoder.blocks.{n}", 2 * grid - 1 if everywhere else 3
        yield from _norm(f"{block}.norm1", 32)
        yield f"{block}.attn.rel_pos_h", (reach, 16)
        yield f"{block}.attn.rel_pos_w", (reach, 16)
        yield from _linear(f"{block}.attn.qkv", 96, 32)
        yield from _linear(f"{block}.attn.proj", 32, 32)
        yield from _norm(f"{block}.norm2", 32)
        yield from _linear(f"{block}.mlp.lin1", 128, 32)
        yield from _linear(f"{block}.mlp.lin2", 32, 128)
    yield "image_encoder.neck.0.weight", (WIDTH, 32, 1, 1)
    yield from _norm("image_encoder.neck.1", WIDTH)
    yield "image_encoder.neck.2.weight", (WIDTH, WIDTH, 3, 3)
    yield from _norm("image_encoder.neck.3", WIDTH)


def _prompt_encoder() -> Shapes:
    yield "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, WIDTH // 2)
    for name in (*(f"point_embeddings.{n}" for n in range(4)), "not_a_point_embed", "no_mask_embed"):
        yield f"prompt_encoder.{name}.weight", (1, WIDTH)
    for n, (out, into, side) in {0: (4, 1, 2), 3: (16, 4, 2), 6: (WIDTH, 16, 1)}.items():
        yield from _linear(f"prompt_encoder.mask_downscaling.{n}", out, into, side, side)
    yield from _norm("prompt_encoder.mask_downscaling.1", 4)
    yield from _norm("prompt_encoder.mask_downscaling.4", 16)


def _mask_decoder() -> Shapes:
    decoder = "mask_decoder.transformer"
    for n in range(2):
        layer = f"{decoder}.layers.{n}"
        yield from _attention(f"{layer}.self_attn", WIDTH)
        yield from _attention(f"{layer}.cross_attn_token_to_image", WIDTH // 2)
        yield from _attention(f"{layer}.cross_attn_image_to_token", WIDTH // 2)
        for norm in range(1, 5):
            yield from _norm(f"{layer}.norm{norm}", WIDTH)
        yield from _linear(f"{layer}.mlp.lin1", 128, WIDTH)
        yield from _linear(f"{layer}.mlp.lin2", WIDTH, 128)
    yield from _attention(f"{decoder}.final_attn_token_to_image", WIDTH // 2)
    yield from _norm(f"{decoder}.norm_final_attn", WIDTH)
    yield "mask_decoder.iou_token.weight", (1, WIDTH)
    yield "mask_decoder.mask_tokens.weight", (4, WIDTH)
    for n, (into, out) in {0: (WIDTH, WIDTH // 4), 3: (WIDTH // 4, WIDTH // 8)}.items():
        yield f"mask_decoder.output_upscaling.{n}.weight", (into, out, 2, 2)
        yield f"mask_decoder.output_upscaling.{n}.bias", (out,)
    yield from _norm("mask_decoder.output_upscaling.1", WIDTH // 4)
    for n in range(4):
        yield from _mlp(f"mask_decoder.output_hypernetworks_mlps.{n}", WIDTH, WIDTH, WIDTH, WIDTH // 8)
    yield from _mlp("mask_decoder.iou_prediction_head", WIDTH, 32, 32, 4)


def sam_shapes(grid: int = 4, whole: tuple[bool, ...] = (False, True)) -> Shapes:
    yield from _image_encoder(grid, whole)
    yield from _prompt_encoder()
    yield from _mask_decoder()


def filled(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Random tensors; the heads that the decoder's layers share are the same for each."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes}
    for name in tensors:
        if "bbox_embed" in name and "enc_out" not in name:
            head = name.removeprefix("transformer.decoder.").split(".", 2)[2]
            tensors[name] = tensors[f"bbox_embed.0.{head}"]
    return tensors
