"""The embedded engine: real weights, real photographs."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from skimage import data

from pipeline import masks
from pipeline.images import Photograph
from stages import region_prompts
from stages.engines.base import ANSWERS, PROMPTS, part
from stages.engines.embedded import Embedded
from stages.region_prompts import Region, RegionPrompt

LAYOUT = RegionPrompt(layout="cutout")
CHECK = "Is the area outlined by the red contour and covered by the red mask in the image {}? Please answer yes or no."


@pytest.fixture(scope="module")
def engine() -> Embedded:
    return Embedded(threads=2)


def parts(pixels: np.ndarray, question: str) -> list[dict[str, object]]:
    """A prompt about the middle of a photograph."""
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    mask[height // 8 : -height // 8, width // 8 : -width // 8] = True
    box = (width // 8, height // 8, width * 3 // 4 - 1, height * 3 // 4 - 1)
    region = Region(1, box, masks.encode(mask))
    prompt = next(region_prompts.prompts(Photograph(Image.fromarray(pixels), 1), [region], question, LAYOUT))
    return [part(piece) for piece in prompt.parts]


def ask(engine: Embedded, *prompts: list[dict[str, object]]) -> list[dict[str, object]]:
    rows = [
        {"prompt_id": k, "image_id": 1, "shard": "s", "subjects": [k], "parts": asked, "image_tokens": 0}
        for k, asked in enumerate(prompts)
    ]
    answered = engine(pa.Table.from_pylist([{"shared_tokens": 0, **row} for row in rows], PROMPTS))
    assert answered.schema.equals(ANSWERS)
    return list(answered.to_pylist())


def test_photographs_get_the_names_their_classifier_knows(engine: Embedded) -> None:
    cat, coffee = ask(engine, parts(data.chelsea(), "Name the region."), parts(data.coffee(), "Name the region."))
    assert cat["text"] in ("Egyptian cat", "tabby", "tiger cat")
    assert coffee["text"] in ("espresso", "cup")
    assert -3 < float(str(cat["logprob"])) < 0
    assert cat["prompt_tokens"] is None


def test_the_mask_matters(engine: Embedded) -> None:
    whole = parts(data.coffee(), "Name the region.")
    corner = [*whole[:1], part(_mask_of_a_corner()), whole[2]]
    first, second = ask(engine, whole, corner)
    assert first["logprob"] != second["logprob"]


def _mask_of_a_corner() -> bytes:
    from pipeline.images import as_png

    mask = np.zeros((288, 288), np.bool_)
    mask[:40, :40] = True
    return as_png(Image.fromarray(mask))


def test_a_true_name_is_more_plausible_than_a_wrong_one(engine: Embedded) -> None:
    def yes(pixels: np.ndarray, name: str) -> float:
        (row,) = ask(engine, parts(pixels, CHECK.format(name)))
        probability = math.exp(float(str(row["logprob"])))
        assert 0.5 <= probability <= 1
        return probability if row["text"] == "yes" else 1 - probability

    assert yes(data.chelsea(), "cat") > 0.9
    assert yes(data.chelsea(), "cat") > yes(data.chelsea(), "airplane")
    assert yes(data.coffee(), "a cup of coffee") > yes(data.coffee(), "elephant")


def test_a_batch_gives_what_each_prompt_gives_alone(engine: Embedded) -> None:
    prompts = [parts(pixels, "Name the region.") for pixels in (data.chelsea(), data.coffee(), data.rocket())]
    together = ask(engine, *prompts)
    alone = [ask(engine, prompt)[0] for prompt in prompts]
    assert [row["text"] for row in together] == [row["text"] for row in alone]
    for one, other in zip(together, alone, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)


def test_rows_with_a_problem_pass_through(engine: Embedded) -> None:
    row = {"prompt_id": 5, "image_id": 1, "shard": "s", "subjects": [5], "parts": [], "problem": "gone", "reason": "r"}
    answered = engine(pa.Table.from_pylist([row], PROMPTS)).to_pylist()
    assert (answered[0]["text"], answered[0]["problem"], answered[0]["reason"]) == (None, "gone", "r")
