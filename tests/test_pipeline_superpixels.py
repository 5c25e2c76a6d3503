"""Regions of even colour as a segmenter."""

import numpy as np
import pytest
from PIL import Image

from pipeline.superpixels import Superpixels


@pytest.mark.parametrize("enlarged", [1, 5])  # beyond 512 px the picture is looked at smaller
def test_a_thing_of_one_colour_is_found_by_point_and_box(enlarged: int) -> None:
    pixels = np.full((120, 200, 3), 240, np.uint8)
    pixels[30:90, 40:120] = (200, 30, 30)
    pixels = pixels.repeat(enlarged, 0).repeat(enlarged, 1)
    thing = pixels[..., 1] == 30
    look = Superpixels().look(Image.fromarray(pixels))
    (offered,) = look.points(np.array([[80, 60]], np.float32) * enlarged)
    assert [((one.mask & thing).sum() / (one.mask | thing).sum()) > 0.8 for one in offered] == [True] * 3
    (made,) = look.boxes(np.array([[35, 25, 125, 95]], np.float32) * enlarged)
    assert (made & thing).sum() / (made | thing).sum() > 0.8


def test_a_box_in_which_nothing_lies_is_the_mask_itself() -> None:
    image = Image.new("RGB", (50, 40))
    (made,) = Superpixels().segment(image, np.array([[10, 5, 20, 15]], np.float32))
    assert np.argwhere(made).min(0).tolist() == [5, 10]
    assert made.sum() == 100


def test_one_pixel() -> None:
    (offered,) = Superpixels().look(Image.new("RGB", (1, 1))).points(np.zeros((1, 2), np.float32))
    assert [one.mask.tolist() for one in offered] == [[[True]]] * 3
