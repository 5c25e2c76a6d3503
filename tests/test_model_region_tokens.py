"""How many tokens a mask has is known without its photograph."""

from __future__ import annotations

import pytest
from wowseg_models import HEIGHT, WIDTH, one_thread, picture, rectangles, wowseg

from model import region_tokens
from pipeline import masks

__all__ = ["one_thread"]


@pytest.mark.parametrize("encoder", ["mask2token", "fore2token"])
def test_as_many_as_the_model_is_shown(encoder: str) -> None:
    preparer = wowseg(encoder=encoder, tiles=3).preparer
    shown = rectangles(6)
    cells = preparer.sample(picture(), shown).cells[-6:].sum(axis=1)
    counts = [masks.encode(mask) for mask in shown]
    assert region_tokens.count(preparer, (WIDTH, HEIGHT), counts) == cells.tolist()
