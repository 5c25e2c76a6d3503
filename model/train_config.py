"""What training is told: the model to start from, the data and their mixture, and how the steps are made.

The defaults are the authors' settings where they are known (reference/wowseg_facts.md C.8); presets with sources:
model/presets/wowseg-1b.toml and its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import Field

from model.attention import Implementation
from model.branches import Layout
from model.inputs import Settings
from model.mask2token import SCALE, Encoder
from model.optimisation import OptimisationConfig
from model.tiling import TEST, TRAIN
from pipeline import config
from pipeline.config import ClusterConfig, Section
from pipeline.errors import UsageError

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""Of a data set; files are called by it."""


class ModelConfig(Section):
    """Where training starts from, and what the trained model is to be used with."""

    path: str | None = None
    """Checkpoint folder, transformers' InternVL, InternVL's own or WOW-Seg's; unset: the debug size, random weights."""

    prompt: str = "training"
    """A file in data_manifests/prompts/wowseg."""

    encoder: Encoder = "mask2token"
    """How a region is shown: mask2token, fore2token or blur2token."""

    scale: float = Field(SCALE, gt=0)
    """Sides of the window around a mask over sides of the mask."""

    tiles: int = Field(TEST, ge=1)
    """The most tiles of an image when the trained model is used; data.tiles are those in training."""

    layout: Literal["branches", "packed"] = "branches"
    """How masks share a sequence: ours, or the authors', to which the next three belong (model/branches.py)."""

    region_rule: bool = True
    """packed: regions do not see each other."""

    output_rule: bool = True
    """packed: labels see neither foreign regions nor foreign labels."""

    separator_owner: Literal["previous", "next"] = "previous"
    """packed: to which label a separator belongs."""

    attention: Implementation = "sdpa"
    """sdpa, eager, or on CUDA flex_attention."""

    def settings(self) -> Settings:
        """Return what is kept beside the weights, but for the conversation template, which they bring along."""
        return Settings(prompt=self.prompt, encoder=self.encoder, scale=self.scale, tiles=self.tiles)

    def sequence(self) -> Layout:
        """Return how masks share a sequence."""
        return Layout(
            kind=self.layout,
            region_rule=self.region_rule,
            output_rule=self.output_rule,
            separator_owner=self.separator_owner,
        )


class DataConfig(Section):
    """What is learnt from, and in which proportion."""

    folders: dict[Name, str] = Field(default_factory=dict)
    """Region samples by name, as rr7k import and rr7k release write them; --data NAME=DIR adds to these."""

    splits: dict[str, str] = Field(default_factory=dict)
    """The split that is learnt from, of a data set that has several, as a release has: { mine = "train" }. Not given:
    all rows; test is refused either way."""

    weights: dict[str, Weight] = Field(default_factory=dict)
    """How often an image of each data set is seen in an epoch: 2 is twice, 0.5 in every other epoch. None given: once
    each. If some are given, they must name exactly the data sets that are learnt from."""

    images: dict[str, int] = Field(default_factory=dict)
    """How many images data sets have; for --dry-run where their folders are not there."""

    labels: Literal["raw", "normal", "wowseg"] = "raw"
    """What is learnt of category_raw: itself, its normal form (pipeline/labels.py), or what the authors' converter
    makes of it."""

    longest_label: int = Field(99, ge=1)
    """Bytes in UTF-8; regions with a longer label are left out and counted. A token is a byte at least, and decoding
    ends after 100 tokens."""

    masks: int = Field(30, ge=1)
    """The most of one image in a sample; the others follow when the image is seen again. 1 is training by single
    masks."""

    tiles: int = Field(TRAIN, ge=1)
    """The most tiles of an image in training."""

    evaluated_on: list[str] = Field(default_factory=list)
    """Names of data sets that are for evaluation only: how many images they share with the others is told."""

    leave_out_evaluated: bool = False
    """Leave those shared images out."""

    grouped: int = Field(50, ge=1)
    """Steps whose samples are sorted by length together, so that a step's are alike. 1: samples as chance has them."""

    loaders: int = Field(2, ge=0)
    """Processes that prepare samples for each worker; 0: the worker itself."""


class TrainingConfig(Section):
    """How long, how wide, and what is kept."""

    epochs: int = Field(1, ge=1)
    """Times that the mixture is gone through."""

    batch: int = Field(32, ge=1)
    """Images of one update, over all workers and accumulated passes."""

    micro_batch: int = Field(2, ge=1)
    """Images of one pass of one worker."""

    workers: int = Field(1, ge=1)
    """GPUs; on machines without, processes."""

    loss: Literal["tokens", "instances"] = "tokens"
    """Mean over all tokens of labels, the authors'; or over masks, of the mean over their tokens."""

    precision: Literal["bf16", "fp32"] = "fp32"
    """Of matrix products; weights, gradients and the optimiser's averages are float32 either way."""

    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping what they made: a third more work, less memory."""

    seed: int = Field(42, ge=0)
    """Of the order, of the choice of masks, and of random weights."""

    checkpoint_every: int = Field(500, ge=1)
    """Steps."""

    keep: int = Field(2, ge=1)
    """Checkpoints: the last ones, and besides them the best."""

    restarts: int = Field(3, ge=0)
    """How often workers that died are started again, from the last checkpoint."""


class TrainConfig(Section):
    """Everything that `rr7k train` is told."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimisation: OptimisationConfig = OptimisationConfig()
    training: TrainingConfig = TrainingConfig()
    cluster: ClusterConfig = ClusterConfig()

    def learnt_from(self) -> dict[str, float]:
        """Return the weight of each data set that is learnt from, in the order of their names.

        Raises `UsageError` where there is none, or weights and data sets do not fit together.
        """
        data = self.data
        unknown = sorted(set(data.evaluated_on) - data.folders.keys()) if data.leave_out_evaluated else []
        if unknown:
            raise UsageError(f"data.leave_out_evaluated: no folder for {', '.join(unknown)}: --data {unknown[0]}=DIR.")
        names = sorted(name for name in data.folders if name not in data.evaluated_on)
        if not names:
            raise UsageError("nothing to learn from: --data NAME=DIR, a folder made by rr7k import or rr7k release.")
        if strange := sorted(data.splits.keys() - data.folders.keys()):
            raise UsageError(f"data.splits: {strange[0]} is no data set; there are {', '.join(sorted(data.folders))}.")
        if data.weights and (wrong := sorted(data.weights.keys() ^ set(names))):
            lacking = ", ".join(f"{name} has no {'weight' if name in names else 'folder'}" for name in wrong)
            raise UsageError(f"data.weights and the data sets do not fit: {lacking}.")
        return {name: data.weights.get(name, 1.0) for name in names}

    def accumulated(self) -> int:
        """Return how many passes each worker makes for an update. Raises `UsageError` if they do not come out even."""
        training = self.training
        each = training.workers * training.micro_batch
        if training.batch % each:
            raise UsageError(
                f"training.batch = {training.batch} cannot be shared out: {training.workers} workers × "
                f"{training.micro_batch} images (training.micro_batch) = {each} do not divide it."
            )
        return training.batch // each

    def identity(self) -> dict[str, Any]:
        """Return what makes a training this one and no other: with anything else changed it may go on."""
        chosen = self.model_dump(mode="json", exclude={"cluster"})
        for name in ("workers", "micro_batch", "gradient_checkpointing", "checkpoint_every", "keep", "restarts"):
            del chosen["training"][name]
        for name in ("folders", "images", "loaders"):
            del chosen["data"][name]
        return chosen


def load(config_file: str | None, overrides: Iterable[str]) -> TrainConfig:
    """Read a TOML file or one of `model/presets`, changed by `overrides`. Raises `UsageError`."""
    return config.load(TrainConfig, config_file, overrides, files("model") / "presets")
