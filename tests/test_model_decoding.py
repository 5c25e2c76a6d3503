"""Decoding all masks together is decoding each alone, and as slow whole passes would do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from wowseg_models import HEIGHT, WIDTH, one_thread, picture, rectangles, wowseg  # noqa: F401 (a fixture)

from model import attention
from model.attention import Keys, Queries
from model.wowseg import Named, WowSeg
from pipeline.errors import UserError

MASKS = rectangles(7)
MOST = 12


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return wowseg(seed=2)


@pytest.fixture(scope="module")
def alone(model: WowSeg) -> list[Named]:
    return [model.name(picture(), [mask], most_tokens=MOST)[0] for mask in MASKS]


def same(found: list[Named], expected: list[Named]) -> None:
    assert [one._replace(logprob=0) for one in found] == [one._replace(logprob=0) for one in expected]
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected], abs=1e-4)


def slow(model: WowSeg, mask: Any) -> tuple[list[int], float]:
    """One mask, no cache: the whole sequence again for every token."""
    row_of = model.preparer.sample(picture(), [mask])
    features = model.features(torch.from_numpy(row_of.pixels), torch.from_numpy(row_of.cells))
    row = row_of.row
    tokens, slots = torch.from_numpy(row.tokens)[None], torch.from_numpy(row.slots)[None]
    made: list[int] = []
    total = 0.0
    while len(made) < MOST and made[-1:] != [model.preparer.text.stop]:
        everything = torch.cat([tokens, torch.tensor([made], dtype=torch.int64)], 1)
        places = torch.arange(everything.shape[1])[None]
        whole = torch.zeros_like(places)
        mask_4d = attention.additive(Queries(whole, places), Keys(whole, places), torch.float64)
        filled = torch.cat([slots, torch.zeros(1, len(made), dtype=torch.bool)], 1)
        states = model.read(model.embed(everything, filled, features), places, mask_4d)
        best = model.head(states[0, -1]).float().log_softmax(-1).max(-1)
        made.append(int(best.indices))
        total += float(best.values)
    return made, total


def test_together_is_alone(model: WowSeg, alone: list[Named]) -> None:
    same(model.name(picture(), MASKS, most_tokens=MOST), alone)
    # A test of equality is worth something only if answers differ, and end at different times.
    assert len({one.label for one in alone}) == len(MASKS)
    assert len({one.tokens for one in alone}) >= 3
    assert {one.finished for one in alone} == {True, False}


def test_order_is_irrelevant(model: WowSeg, alone: list[Named]) -> None:
    same(model.name(picture(), MASKS[::-1], most_tokens=MOST)[::-1], alone)


@pytest.mark.parametrize("together", [1, 2, 3])
def test_groups_change_nothing(model: WowSeg, alone: list[Named], together: int) -> None:
    same(model.name(picture(), MASKS, most_tokens=MOST, together=together), alone)


@torch.inference_mode()
def test_cached_is_uncached(model: WowSeg, alone: list[Named]) -> None:
    for mask, named in zip(MASKS, alone, strict=True):
        tokens, logprob = slow(model, mask)
        assert named.tokens == len(tokens)
        assert named.finished == (tokens[-1] == model.preparer.text.stop)
        assert named.label == model.preparer.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert named.logprob == pytest.approx(logprob, abs=1e-4)


def test_sdpa_and_eager_decode_the_same(model: WowSeg, alone: list[Named]) -> None:
    same(wowseg(seed=2, attention="eager").name(picture(), MASKS, most_tokens=MOST), alone)


def test_finished_branches_leave_and_the_prefix_is_read_once(
    model: WowSeg, alone: list[Named], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = WowSeg.read

    def counted(self: WowSeg, embedded: Any, *others: Any) -> Any:
        read.append(embedded.shape[1])
        return original(self, embedded, *others)

    monkeypatch.setattr(WowSeg, "read", counted)
    model.name(picture(), MASKS, most_tokens=MOST)
    sample = model.preparer.sample(picture(), MASKS)
    assert read[:2] == [sample.row.prefix, len(sample.row.tokens) - sample.row.prefix]
    lengths = [one.tokens for one in alone]
    assert read[2:] == [sum(length > step for length in lengths) for step in range(1, max(lengths))]


def test_three_hundred_masks(model: WowSeg) -> None:
    masks = rectangles(300, seed=5)
    found = model.name(picture(), masks, most_tokens=2)
    assert len(found) == 300
    for number in (0, 63, 64, 299):
        same(found[number : number + 1], model.name(picture(), [masks[number]], most_tokens=2))


@pytest.mark.parametrize(("together", "images_together"), [(64, 8), (64, 2), (4, 3), (2, 8)])
def test_several_images_are_each_alone(model: WowSeg, together: int, images_together: int) -> None:
    sizes, counts = [(150, 110), (60, 200), (110, 110), (40, 40), (150, 110)], [3, 1, 0, 5, 2]
    images = [
        (picture(seed, *size), rectangles(count, seed, *size))
        for seed, (size, count) in enumerate(zip(sizes, counts, strict=True))
    ]
    prefixes = {model.preparer.sample(image, masks).row.prefix for image, masks in images if masks}
    assert len(prefixes) > 1  # of different lengths
    found = list(model.name_all(images, most_tokens=MOST, together=together, images_together=images_together))
    assert [len(named) for named in found] == counts
    for named, (image, masks) in zip(found, images, strict=True):
        same(named, model.name(image, masks, most_tokens=MOST))


def test_several_images_come_as_they_are_named_and_a_fault_says_in_which_image(model: WowSeg) -> None:
    asked: list[int] = []

    def images() -> Iterator[tuple[Image.Image, list[Any]]]:
        for number in range(3):
            asked.append(number)
            yield picture(number), [MASKS[number] & (number < 2)]

    found = model.name_all(images(), most_tokens=1, images_together=1)
    next(found)
    assert asked == [0, 1]
    with pytest.raises(UserError, match=r"image 2: mask 0 is empty"):
        list(found)
    assert list(model.name_all([])) == []


def test_no_masks_no_names(model: WowSeg) -> None:
    assert model.name(picture(), []) == []


def test_a_mask_that_was_given_a_token_is_marked(model: WowSeg) -> None:
    line = np.zeros((HEIGHT, WIDTH), np.bool_)
    line[51, 3:147] = True  # the window is the whole image, of which rows 0, 28, 56 and 84 of 112 are looked at
    assert [named.rescued for named in model.name(picture(), [line, ~line], most_tokens=1)] == [True, False]


@given(st.integers(0, 2**16), st.integers(1, 4))
@settings(max_examples=8)
def test_any_masks(model: WowSeg, seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    masks = [random.random((HEIGHT, WIDTH)) < random.choice([1e-4, 0.01, 0.5, 1]) for _ in range(count)]
    for mask in masks:
        mask[random.integers(HEIGHT), random.integers(WIDTH)] = True
    alone = [model.name(picture(), [mask], most_tokens=3)[0] for mask in masks]
    same(model.name(picture(), masks, most_tokens=3), alone)
