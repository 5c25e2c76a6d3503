"""Ablations: the made-up world. Scenes are the same everywhere, masks are the pixels they say, the ground decides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ablation import evaluation, scenes, world
from model.ablation.rougher import rougher
from model.ablation.scenes import SIDE, Region, Scene
from pipeline import masks as rle

SCENES = [scenes.scene(5, number) for number in range(120)]
KNOWN_LABELS = ["dotted wheel", "dotted cross", "cross: hatch", "white float", "float: hatch", "golden ball"]
KNOWN_AREAS = [448, 359, 48, 486, 67, 519]
REGIONS = [region for scene in SCENES for region in scene.regions]


def colours(scene: Scene, region: Region) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.asarray(scene.image)[region.pixels]


# --- names ---


def test_names() -> None:
    found = world.names()
    assert len(found) == len(set(found)) == 8 * 12 + 12 * 2
    assert {"striped boat", "striped log", "red box", "boat: lamp"} <= set(found)


def test_shares_follow_zipf() -> None:
    kinds, shares = world.kinds()
    assert len(set(kinds)) == 64
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[[1, 3, 63]] == pytest.approx([2, 4, 64])


def test_the_ground_decides_the_name_of_half_of_all_shapes() -> None:
    assert [shape for shape in world.SHAPES if world.depends(shape)] == ["disc", "bar", "triangle", "ring"]
    assert (world.noun("bar", False), world.noun("bar", True)) == ("log", "boat")
    assert world.noun("star", False) == world.noun("star", True) == "star"


def test_a_name_says_material_and_noun_or_noun_and_part() -> None:
    for region in REGIONS:
        noun = world.noun(region.shape, region.water)
        parts, things = {f"{noun}: {part}" for part in world.PARTS}, {f"{one} {noun}" for one in world.MATERIALS}
        assert region.label in (parts if region.part else things)


def test_common_names_are_common_and_rare_ones_are_there() -> None:
    counts = Counter(region.label for region in REGIONS if not region.part)
    ranked = [count for _, count in counts.most_common()]
    assert ranked[0] > 20
    assert ranked.count(1) > 5


# --- scenes ---


def equal(one: Scene, other: Scene) -> bool:
    same = np.array_equal(np.asarray(one.image), np.asarray(other.image))
    return same and one.labels() == other.labels() and one.masks() == other.masks()


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_two_numbers_make_a_scene(seed: int, number: int) -> None:
    made = scenes.scene(seed, number)
    assert equal(made, scenes.scene(seed, number))
    assert not equal(made, scenes.scene(seed, number + 1))
    assert not equal(made, scenes.scene(seed + 1, number))
    assert made.image.size == (SIDE, SIDE)
    assert made.regions
    assert all(region.pixels.any() for region in made.regions)


def test_a_scene_is_known_to_the_last_pixel() -> None:
    made = scenes.scene(0, 0)
    assert made.labels() == KNOWN_LABELS
    assert [int(region.pixels.sum()) for region in made.regions] == KNOWN_AREAS


def test_masks_are_their_pixels() -> None:
    for scene in SCENES[:10]:
        for region, mask in zip(scene.regions, scene.masks(), strict=True):
            assert np.array_equal(rle.decode(mask["counts"], SIDE, SIDE), region.pixels)


def test_things_are_apart_and_parts_within_theirs() -> None:
    for scene in SCENES:
        things = [region.pixels for region in scene.regions if not region.part]
        assert np.sum(things, axis=0).max() == 1
        for region in scene.regions:
            if region.part:
                assert any((region.pixels <= thing).all() for thing in things)


def test_plain_things_have_the_colour_of_their_material() -> None:
    for scene in SCENES:
        covered = np.sum([region.pixels & region.part for region in scene.regions], axis=0) > 0
        for region in scene.regions:
            material = world.MATERIALS.get(region.label.split()[0])
            if region.part or material is None or material.pattern != "plain":
                continue
            own = np.asarray(scene.image)[region.pixels & ~covered].mean(0)
            assert np.abs(own - material.colour).max() < 50  # jitter has a deviation of 12, values end at 255


def test_a_thing_lies_on_the_ground_that_its_name_says() -> None:
    for scene in SCENES:
        for region in scene.regions:
            if region.part:
                continue
            around = rougher(rougher(region.pixels, "dilated"), "dilated") & ~rougher(region.pixels, "dilated")
            others = np.any([other.pixels for other in scene.regions], axis=0)
            red, _, blue = np.median(np.asarray(scene.image)[around & ~others].astype(int), axis=0)
            assert (blue > red) == region.water  # of the four grounds those of water have more blue than red


def test_neighbours_crowd_into_windows() -> None:
    crowded = 0
    for scene in SCENES:
        for region in scene.regions:
            y, x = np.nonzero(region.pixels)
            side = int(max(np.ptp(y), np.ptp(x)) / 2) + 1
            rows, columns = (slice(max(0, places.min() - side), places.max() + side) for places in (y, x))
            others = [one.pixels[rows, columns] for one in scene.regions if not (one.pixels & region.pixels).any()]
            crowded += any(other.any() for other in others)
    assert crowded > len(REGIONS) / 3


# --- rougher masks ---


def test_rougher_masks_of_a_block() -> None:
    block = np.zeros((30, 30), np.bool_)
    block[10:20, 8:18] = True
    assert np.array_equal(rougher(block, "true"), block)
    assert np.array_equal(rougher(block, "rotated box"), block)
    assert rougher(block, "eroded").sum() == 8 * 8
    assert rougher(block, "dilated").sum() == 10 * 10 + 4 * 2 * 10 + 4  # two pixels each side, one in each corner
    drawn = rougher(block, "ellipse")
    assert (drawn & block).sum() / (drawn | block).sum() > 0.75


def test_a_mask_is_never_eroded_away() -> None:
    dot = np.zeros((9, 9), np.bool_)
    dot[4, 4] = True
    assert np.array_equal(rougher(dot, "eroded"), dot)
    assert np.array_equal(rougher(dot, "ellipse"), dot)  # by the rotated box: too few points for an ellipse


# --- the measure ---


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        ("", "red ball", 0),
        ("red ball", "red ball", 1),
        ("Red Ball", "red ball", 1),
        ("red log", "red ball", 1 / 3),
        ("ball", "red ball", 1 / 2),
        ("ball: lamp", "boat: lamp", 1 / 3),
        ("red ball", "ball: lamp", 1 / 3),  # a colon is no word
        ("red red ball", "red ball", 1),
        ("", "", 0),
    ],
)
def test_overlap_of_words(answer: str, label: str, expected: float) -> None:
    assert evaluation.overlap(answer, label) == pytest.approx(expected)


def test_a_summary_of_answers() -> None:
    empty = np.zeros((2, 2), np.bool_)
    common = world.kinds()[0][0]
    ball = Region(empty, f"{common.material} {world.noun(common.shape, False)}", False, common.shape, False)
    rare = Region(empty, "white star", False, "star", True)
    lamp = Region(empty, "star: lamp", True, "star", True)
    found = evaluation.summary([[(ball, ball.label), (rare, "white box")], [(lamp, "lamp"), (ball, "")]])
    assert found.masks == [2, 2]
    assert found.overlap == pytest.approx([1 + 1 / 3, 1 / 2])
    assert found.exact == [1, 0]
    assert found.macro == pytest.approx((1 / 2 + 0 + 0) / 3)
    decides = "ground decides" if world.depends(common.shape) else "ground does not"
    assert found.groups["common names"] == (1, 2)
    assert found.groups["rare names"] == (0, 1)
    assert found.groups["parts"] == (0, 1)
    assert found.groups[decides] == (1, 2)
