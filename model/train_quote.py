"""What a training would take, said before anything is started: no GPU, no weights, and if need be no data.

Parameters and operations are counted exactly, on meta tensors. Memory is an estimate, and hours are operations over a
stated share of what the hardware can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from model import debug, flops, samples, tiling
from model.flops import Lengths
from model.mixing import Plan, Visit
from model.train_config import TrainConfig
from model.training_data import TrainingData

H100 = 989e12
"""Operations a second in bfloat16, dense: NVIDIA's data sheet of the H100 SXM."""
UTILISATION = 0.35
"""Of that, in training; an assumption, in the range that others report for models of this size."""

_SAMPLES = 2000  # looked at for the means, evenly spread
_ASSUMED = (1.5, 12.0, 27.0)
"""Without data: tiles of an image (COCO: 640×480 is one, 480×640 three), its masks (LVIS: 1.27 M in 100,170 images),
tokens of a mask (LVIS's mean: paper, App. D.1)."""
_BYTES_A_WEIGHT = 16  # float32: itself, its gradient, AdamW's two averages
_KEPT = 34  # bytes per token, layer and unit of width, in a pass without checkpointing (Korthikanti et al. 2022, §4.1)


class Quote(msgspec.Struct, frozen=True):
    """What it takes; per step and in all."""

    parameters: dict[str, int]
    """By part of the model."""
    images: int
    """Of an epoch, with the weights of the mixture."""
    steps: int
    passes: int
    """Of a worker, for a step."""
    tiles: float
    """Of an image, its thumbnail included; the mean, as the next two."""
    masks: float
    region: float
    """Tokens of a mask."""
    assumed: bool
    """These means are not the data's."""
    state_gb: float
    """Of a GPU: weights, gradients, averages."""
    activations_gb: float
    """At most, estimated: all images of a pass with the most tiles and masks."""
    step_tflop: float
    total_eflop: float

    def hours(self, gpus: int, peak: float = H100, utilisation: float = UTILISATION) -> float:
        """Return the hours on so many GPUs of `peak` operations a second."""
        return self.total_eflop * 1e18 / (gpus * peak * utilisation) / 3600


def quote(config: TrainConfig, data: Sequence[TrainingData]) -> Quote:
    """Return what a training takes; without `data`, by the sizes that the configuration states.

    Raises `UsageError` if the workers do not divide the batch.
    """
    network = flops.on_meta(_architecture(config))
    training = config.training
    sizes = {one.report.name: len(one) for one in data} or config.data.images
    plan = Plan(sizes, {name: config.data.weights.get(name, 1.0) for name in sizes}, training)
    tiles, masks, region = _means(config, data, network) if data else _ASSUMED
    masks = min(masks, config.data.masks)
    each = _operations(network, tiles, masks, region) * (4 if training.gradient_checkpointing else 3)
    return Quote(
        parameters=_parameters(network),
        images=plan.samples // training.epochs,
        steps=plan.steps,
        passes=config.accumulated(),
        tiles=tiles,
        masks=masks,
        region=region,
        assumed=not data,
        state_gb=_BYTES_A_WEIGHT * sum(weight.numel() for weight in network.parameters()) / 1e9,
        activations_gb=_activations(config, network) / 1e9,
        step_tflop=training.batch * each / 1e12,
        total_eflop=plan.samples * each / 1e18,
    )


def _architecture(config: TrainConfig) -> Any:
    """Return the shape of the model: the debug size, or InternVL3-1B's, whatever the checkpoint is.

    InternVL2-1B and 2.5-1B differ from it in a few rows of the vocabulary.
    """
    return flops.internvl3_1b() if config.model.path else debug.config(debug.tokenizer())


def _parameters(network: Any) -> dict[str, int]:
    parts = {
        "vision": network.model.vision_tower,
        "projector": network.model.multi_modal_projector,
        "language": network.model.language_model,
        "head": network.lm_head,
    }
    return {name: sum(weight.numel() for weight in part.parameters()) for name, part in parts.items()}


def _means(config: TrainConfig, data: Sequence[TrainingData], network: Any) -> tuple[float, float, float]:
    """Return tiles of an image, masks of an image, tokens of a mask, over a spread of the images."""
    side, grid = network.config.vision_config.image_size[0], int(network.config.image_seq_length**0.5)
    work = samples.Work(
        data={one.report.name: one for one in data},
        config=config.data,
        seed=config.training.seed,
        scale=config.model.scale,
        every_cell=config.model.encoder != "mask2token",
        side=side,
        grid=grid,
    )
    every = [Visit(one.report.name, place, 0) for one in data for place in range(len(one))]
    found = []
    for visit in every[:: max(1, len(every) // _SAMPLES)]:
        shown = work.data[visit.data_set].shown(visit.image)
        places = samples.choose(shown, visit, config.data.masks, config.training.seed)
        columns, rows = tiling.grid(shown.size, config.data.tiles, side)
        cells = work.cells(shown, places, (columns * side, rows * side))
        found.append((columns * rows + (columns * rows > 1), len(places), cells))
    tiles, masks, cells = np.mean(found, axis=0).tolist()
    return tiles, masks, cells / masks


def _operations(network: Any, tiles: float, masks: float, region: float) -> float:
    """Return the operations of a forward pass on a mean image."""
    near = max(1, round(tiles)), max(1, round(masks))
    counted = flops.count(network, *near, Lengths(region=round(region)))
    return counted.vision * (tiles + masks) / sum(near) + counted.language + counted.head


def _activations(config: TrainConfig, network: Any) -> float:
    """Return bytes, at most about: what the backward pass needs of the forward pass, and one layer's of its own."""
    vision, text = network.config.vision_config, network.config.text_config
    side, lengths = vision.image_size[0] // vision.patch_size[0], Lengths()
    tiles = config.data.tiles + (config.data.tiles > 1)
    patches = (tiles + config.data.masks) * (side**2 + 1)
    masks = config.data.masks * (lengths.branch + lengths.region + lengths.label)
    tokens = lengths.prefix + network.config.image_seq_length * tiles + masks
    layers = (
        (patches, vision.hidden_size, vision.num_hidden_layers),
        (tokens, text.hidden_size, text.num_hidden_layers),
    )
    if config.training.gradient_checkpointing:
        kept = sum(4 * count * width * depth for count, width, depth in layers)
        kept += max(_KEPT * count * width for count, width, _ in layers)
    else:
        kept = sum(_KEPT * count * width * depth for count, width, depth in layers)
    logits = config.data.masks * lengths.label * text.vocab_size * 4 * 3  # they, their softmax, their gradient
    return float(config.training.micro_batch * (kept + logits + 6 * tokens**2))  # the mask, float32 and bfloat16
