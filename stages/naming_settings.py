"""What decides how a mask is named: configuration, and the part of it that every row's fingerprint holds."""

from __future__ import annotations

from typing import Literal

import msgspec
from pydantic import Field

from pipeline import files
from stages import region_prompts
from stages.engines import embedded, wowseg
from stages.engines.base import Decoding, EngineConfig
from stages.region_prompts import LayoutName, RegionPrompt

NAMER = "vlm"
STEP = f"names-{NAMER}"

_TOKENS_PER_NAME = 24
"""Enough for every name that is accepted (60 characters at most), too few for an essay."""


class NamesConfig(RegionPrompt):
    """Stage 1 names: what the vision-language model is shown and asked."""

    layout: LayoutName = "auto"
    """auto: cutout for the embedded engine, masks for wowseg, else shared+crop. shared+crop: the clean image, then the
    marked region enlarged; the image's tokens are shared by its masks. overlay: the whole image, region marked. crop:
    the marked region alone. marks: several numbered regions of one image in one question, by far the cheapest. cutout:
    crop and mask apart, for the embedded engine. masks: the image with all its masks, for wowseg."""

    tries: int = Field(3, ge=1, le=100)
    """Runs in which a mask may fail before it is quarantined."""

    preflight: Literal["refuse", "warn"] = "refuse"
    """What to do with an engine whose answers do not depend on the picture."""


class Setting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What makes an answer, apart from the mask; its hash is in every row's fingerprint."""

    model: str
    revision: str
    layout: str
    image_px: int
    crop_px: int
    crop_scale: float
    marks: int
    prompt: str
    """Hash of the question."""
    min_pixels: int
    max_pixels: int
    max_tokens: int
    renderer: int
    square: bool = False
    tiles: int = 0
    """These came later: left out at their defaults, so that the fingerprints of earlier runs stay."""


def settled(config: NamesConfig, engine: EngineConfig) -> NamesConfig:
    """Choose the layout where that was left to us. Raises `UsageError` for one that the engine cannot read."""
    return region_prompts.settled(config, engine.kind, "names", "namer")


def setting(config: NamesConfig, engine: EngineConfig) -> Setting:
    """Return what makes an answer under these settings."""
    model, revision = _identity(engine)
    return Setting(
        model=model,
        revision=revision,
        **{name: getattr(config, name) for name in ("layout", "image_px", "crop_px", "crop_scale", "marks", "square")},
        prompt=files.sha256(region_prompts.question("name", config).encode())[:16],
        min_pixels=engine.min_pixels,
        max_pixels=engine.max_pixels,
        max_tokens=decoding(config).max_tokens,
        renderer=region_prompts.VERSION,
        tiles=engine.tiles,
    )


def _identity(engine: EngineConfig) -> tuple[str, str]:
    """Return model and revision."""
    if engine.kind == "embedded":
        return embedded.LABEL, embedded.revision()
    if engine.kind == "wowseg":
        return wowseg.checkpoint(engine).name, wowseg.revision(engine)
    return engine.model, engine.pinned_revision


def decoding(config: NamesConfig) -> Decoding:
    """Return how names are generated in a layout."""
    if config.layout != "marks":
        return Decoding(_TOKENS_PER_NAME)
    schema = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 60}}
    return Decoding(_TOKENS_PER_NAME * config.marks, schema)
