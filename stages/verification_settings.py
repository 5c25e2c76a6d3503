"""What decides how a pair is checked: configuration, and the part of it that every answer's fingerprint holds."""

from __future__ import annotations

from typing import Literal

import msgspec
from pydantic import Field

from pipeline import files
from stages import questions, region_prompts
from stages.engines import embedded
from stages.engines.base import Decoding, EngineConfig
from stages.questions import Article
from stages.region_prompts import RegionPrompt

STEP = "checks"

DECODING = Decoding(8, likeliest=20)
"""Eight tokens: a yes or no with quotes and a full stop, and no essay. Twenty alternatives: all that OpenAI and vLLM
tell. No grammar: forced to say yes or no, a model that would say neither could not be told from one that is sure."""


class VerifyConfig(RegionPrompt):
    """Stage 2: what the model that checks is shown and asked."""

    layout: Literal["auto", "shared+crop", "overlay", "crop", "cutout"] = "auto"
    """auto: cutout for the embedded engine, else shared+crop. shared+crop: the clean image, then the marked region
    enlarged; the image's tokens are shared by its pairs. overlay: the whole image, region marked, the paper's literal
    reading. crop: the marked region alone. cutout: crop and mask apart, for the embedded engine."""

    article: Article = "none"
    """none: the paper's wording, "in the image dog?". indefinite: "in the image a dog?", without where none belongs."""

    ask: Literal["head", "all"] = "head"
    """Which pairs are asked about. In the tail the paper does not trust the model: there an answer only orders people's
    work, and drops nothing."""

    control_share: float = Field(0.1, ge=0, le=1)
    """Share of the pairs asked about that are asked about with a wrong name as well, to measure how often that gets a
    yes."""

    tries: int = Field(3, ge=1, le=100)
    """Runs in which a question may fail before it is quarantined."""

    preflight: Literal["refuse", "warn"] = "refuse"
    """What to do with an engine whose answers do not depend on the picture, or that says yes to wrong names."""


class Setting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What makes an answer, apart from the mask and the category; its hash is in every row's fingerprint."""

    model: str
    revision: str
    layout: str
    image_px: int
    crop_px: int
    crop_scale: float
    square: bool
    prompt: str
    """Hash of the question without a category."""
    article: str
    min_pixels: int
    max_pixels: int
    tiles: int
    max_tokens: int
    renderer: int


def settled(config: VerifyConfig, engine: EngineConfig) -> VerifyConfig:
    """Choose the layout where that was left to us. Raises `UsageError` for one that the engine cannot read."""
    return region_prompts.settled(config, engine.kind, "verify", "verifier")


def setting(config: VerifyConfig, engine: EngineConfig) -> Setting:
    """Return what makes an answer under these settings."""
    own = engine.kind == "embedded"
    return Setting(
        model=embedded.LABEL if own else engine.model,
        revision=embedded.revision() if own else engine.pinned_revision,
        **{name: getattr(config, name) for name in ("layout", "image_px", "crop_px", "crop_scale", "square")},
        prompt=files.sha256(questions.template(config).encode())[:16],
        article=config.article,
        min_pixels=engine.min_pixels,
        max_pixels=engine.max_pixels,
        tiles=engine.tiles,
        max_tokens=DECODING.max_tokens,
        renderer=region_prompts.VERSION,
    )
