"""What a prompt costs is told without the model; the reference is transformers' own code and processor."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import Photograph, Size
from stages.engines.base import EngineConfig
from stages.prompt_tokens import image_tokens, qwen_size, text_tokens
from stages.questions import question as ask
from stages.questions import template
from stages.region_prompts import LayoutName, Prompt, Region, RegionPrompt, Shown, prompts, question
from stages.sample_data import annotation

pytestmark = pytest.mark.filterwarnings("ignore:Passing `min_pixels`:FutureWarning")
LAYOUTS: list[LayoutName] = ["shared+crop", "overlay", "crop", "marks", "cutout"]

# --- Qwen2.5-VL's resize rule -----------------------------------------------------------------------------

sides = st.one_of(st.integers(1, 300), st.integers(1, 20_000))


def smart_resize(size: Size, min_pixels: int, max_pixels: int) -> Size:
    """What transformers makes of (width, height)."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as reference

    height, width = reference(size[1], size[0], factor=28, min_pixels=min_pixels, max_pixels=max_pixels)
    return width, height


@settings(max_examples=300)
@given(st.tuples(sides, sides), st.integers(784, 200_000), st.integers(1, 200))
def test_sizes_equal_those_of_transformers(size: Size, min_pixels: int, times: int) -> None:
    max_pixels = min_pixels * times
    try:
        expected = smart_resize(size, min_pixels, max_pixels)
    except ValueError:
        with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} px is too narrow"):
            qwen_size(size, min_pixels, max_pixels)
    else:
        assert qwen_size(size, min_pixels, max_pixels) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 683), (1036, 672)),
        ((448, 448), (448, 448)),
        ((448, 4), (616, 28)),  # enlarged, until it has 3136 px
        ((1, 1), (56, 56)),
        ((2000, 10), (812, 28)),  # a ratio of 200 is allowed
        ((8000, 6000), (4116, 3080)),  # reduced to 12.8 million px
    ],
)
def test_sizes_with_the_models_own_limits(size: Size, expected: Size) -> None:
    assert qwen_size(size, 3136, 12845056) == smart_resize(size, 3136, 12845056) == expected


@pytest.mark.parametrize("size", [(2001, 10), (10, 2001), (201, 1)])
def test_pictures_too_narrow_for_the_model(size: Size) -> None:
    with pytest.raises(ValueError, match="too narrow"):
        qwen_size(size, 3136, 12845056)
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(size, 3136, 12845056)


# --- whole prompts ----------------------------------------------------------------------------------------


def rendered(prompt: RegionPrompt, regions: int, size: Size = (640, 427), text: str = "") -> list[Prompt]:
    """Prompts about regions of a photograph of noise, by default with naming's own question."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    asked = []
    for number in range(regions):
        mask = np.zeros(size[::-1], np.bool_)
        mask[20 + 5 * number : 90, 10 * number : 60 + 20 * number] = True
        note = annotation(number, mask, 0.9, 0.9)
        asked.append(Region(number, tuple(note["bbox"]), note["segmentation"]["counts"]))
    return list(prompts(Photograph(Image.fromarray(pixels), 1), asked, text or question("name", prompt), prompt))


@cache
def processor(checkpoint: Path, min_pixels: int, max_pixels: int) -> Any:
    from transformers import AutoProcessor

    load: Any = AutoProcessor.from_pretrained
    return load(checkpoint, min_pixels=min_pixels, max_pixels=max_pixels)


def length(checkpoint: Path, prompt: Prompt, engine: EngineConfig) -> int:
    """Tokens that the model's own processor makes of a prompt, in the chat template."""
    model = processor(checkpoint, engine.min_pixels, engine.max_pixels)
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in prompt.parts]
    text = model.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    pictures = [Image.open(io.BytesIO(p)).convert("RGB") for p in prompt.parts if isinstance(p, bytes)]
    return len(model(text=[text], images=[pictures])["input_ids"][0])


def counted(prompt: Prompt, layout: str, engine: EngineConfig) -> int:
    return image_tokens(prompt.sizes, engine) + text_tokens("name", layout, len(prompt.mask_ids), engine)


QWEN = EngineConfig(kind="transformers", model="qwen")
BOUNDED = EngineConfig(kind="transformers", model="qwen", min_pixels=150_000, max_pixels=200_000)
"""Reduces the whole image and enlarges the crop."""


@pytest.mark.parametrize("engine", [QWEN, BOUNDED], ids=["own limits", "bounded"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_counted_tokens_are_those_of_the_processor(tiny_qwen: Path, layout: LayoutName, engine: EngineConfig) -> None:
    made = rendered(RegionPrompt(layout=layout, marks=2, crop_px=300), regions=3)
    assert [counted(prompt, layout, engine) for prompt in made] == [
        length(tiny_qwen, prompt, engine) for prompt in made
    ]


@pytest.mark.parametrize("regions", [1, 9, 10, 12])
def test_numbers_of_regions_are_counted_by_their_digits(tiny_qwen: Path, regions: int) -> None:
    (prompt,) = rendered(RegionPrompt(layout="marks", marks=12), regions)
    assert counted(prompt, "marks", QWEN) == length(tiny_qwen, prompt, QWEN)


@pytest.mark.parametrize("size", [(30, 20), (500, 12), (9, 400)])
def test_small_and_long_photographs_are_counted_as_well(tiny_qwen: Path, size: Size) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    mask = np.ones(size[::-1], np.bool_)
    note = annotation(1, mask, 0.9, 0.9)
    how = RegionPrompt(layout="shared+crop")
    region = Region(1, tuple(note["bbox"]), note["segmentation"]["counts"])
    (prompt,) = prompts(Photograph(Image.fromarray(pixels), 1), [region], question("name", how), how)
    assert counted(prompt, "shared+crop", QWEN) == length(tiny_qwen, prompt, QWEN)


def test_a_known_cost() -> None:
    (outline,) = rendered(RegionPrompt(layout="shared+crop"), regions=1)
    assert outline.sizes[0] == (640, 427)
    assert image_tokens(outline.sizes[:1], QWEN) == 23 * 15
    assert image_tokens([(448, 448), (28, 28)], QWEN) == 16 * 16 + 2 * 2
    assert image_tokens([], QWEN) == 0


def test_a_picture_that_the_model_will_refuse_counts_nothing() -> None:
    assert image_tokens([(1024, 3), (448, 448)], QWEN) == 256


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_embedded_engine_costs_no_tokens(layout: LayoutName) -> None:
    engine = EngineConfig(kind="embedded")
    assert text_tokens("name", layout, 10, engine) == 0
    assert image_tokens([(1024, 683), (448, 448)], engine) == 0


# --- the yes/no question, and InternVL's tiles ------------------------------------------------------------


@pytest.mark.parametrize("layout", ["shared+crop", "overlay", "crop"])
def test_the_tokens_of_a_check_are_those_of_the_processor(tiny_qwen: Path, layout: Shown) -> None:
    how = RegionPrompt(layout=layout)
    asked = ask(template(how), "teapot", "none")
    (prompt,) = rendered(how, regions=1, text=asked)
    expected = image_tokens(prompt.sizes, QWEN) + text_tokens("check", layout, 1, QWEN)
    assert length(tiny_qwen, prompt, QWEN) == expected


@pytest.mark.parametrize(
    ("size", "of_four", "of_twelve"),
    [
        ((640, 480), 256, 3328),
        ((480, 640), 768, 3328),
        ((640, 427), 256, 1792),
        ((427, 640), 768, 1792),
        ((640, 426), 768, 1792),
        ((640, 640), 1280, 1280),
        ((500, 375), 256, 3328),
        ((640, 360), 768, 768),
        ((2048, 1024), 768, 2304),
        ((2250, 1500), 1280, 1792),
        ((448, 448), 256, 256),
        ((1, 1000), 1280, 3328),
    ],
)
def test_internvls_tiles(size: Size, of_four: int, of_twelve: int) -> None:
    """Vectors of reference/wowseg_facts.md C.2, and two of our own."""
    for most, expected in ((4, of_four), (12, of_twelve), (1, 256)):
        engine = EngineConfig(kind="vllm", model="internvl3-78b", tiles=most)
        assert image_tokens([size], engine) == expected
        assert image_tokens([size, size], engine) == 2 * expected
