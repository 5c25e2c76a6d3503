"""Which masks each rule drops, with the numbers worked out by hand."""

from typing import Any

import pytest
from pydantic import ValidationError
from sa1b_shards import HEIGHT, WIDTH, square

from pipeline.shards import IndexedImage, Range
from stages.annotations import Batch, ImageMasks, LooseAnnotation
from stages.mask_rules import MaskRules, apply, area_ratio


def masks_of(image_id: int, annotations: list[dict[str, Any]]) -> ImageMasks:
    import msgspec

    image = IndexedImage(image_id, f"sa_{image_id}.jpg", Range(0, 1), Range(1, 1), WIDTH, HEIGHT)
    entries = [msgspec.convert(entry, LooseAnnotation) for entry in annotations]
    return ImageMasks(image, entries, range(len(entries)))


def gather(images: list[ImageMasks]) -> Batch:
    batch = Batch()
    for masks in images:
        batch.add(masks)
    return batch


def kept(images: list[ImageMasks], **settings: Any) -> tuple[list[int], dict[str, int]]:
    batch = gather(images)
    table = batch.columns()
    keep, dropped = apply(MaskRules(**{"min_area_ratio": 0.0, **settings}), batch.images, table)
    return table.mask_id[keep].tolist(), {reason: n for reason, n in dropped.items() if n}


BATCH = [masks_of(1, [square(10, 2), square(11, 8), square(12, 20)]), masks_of(2, [square(20, 4)])]  # 4, 64, 400; 16 px
PIXELS = WIDTH * HEIGHT  # 3072


def test_no_rule_drops_nothing() -> None:
    assert kept(BATCH) == ([10, 11, 12, 20], {})


def test_tiny_is_a_share_of_the_image() -> None:
    assert kept(BATCH, min_area_ratio=0.01) == ([11, 12], {"tiny": 2})  # below 30.72 px
    assert area_ratio([item.image for item in BATCH], gather(BATCH).columns()).tolist() == [
        4 / PIXELS,
        64 / PIXELS,
        400 / PIXELS,
        16 / PIXELS,
    ]


def test_a_mask_exactly_at_the_cut_stays() -> None:
    assert kept(BATCH, min_area_ratio=64 / PIXELS) == ([11, 12], {"tiny": 2})


def test_each_drop_counts_for_the_first_rule_that_applies() -> None:
    assert kept(BATCH, min_area_ratio=0.002, min_pixels=65) == ([12], {"tiny": 1, "min-pixels": 2})


def test_scores() -> None:
    # predicted_iou is 0.9 + side / 1000, stability_score 0.97 throughout
    assert kept(BATCH, min_predicted_iou=0.905) == ([11, 12], {"predicted-iou": 2})
    assert kept(BATCH, min_stability_score=0.98) == ([], {"stability": 4})


def test_near_duplicates_keep_the_better_one_per_image() -> None:
    twins = [square(1, 10), square(2, 11), square(3, 10, left=30)]  # IoU of 1 and 2: 100 / 121
    batch = [masks_of(1, twins), masks_of(2, [square(4, 10)])]
    assert kept(batch, max_overlap_iou=0.8) == ([2, 3, 4], {"near-duplicate": 1})
    assert kept(batch, max_overlap_iou=0.9) == ([1, 2, 3, 4], {})


def test_near_duplicates_with_equal_scores_keep_the_lower_id() -> None:
    batch = [masks_of(1, [square(8, 10), square(7, 10)])]
    assert kept(batch, max_overlap_iou=0.9) == ([7], {"near-duplicate": 1})


def test_the_limit_holds_per_image_and_does_not_depend_on_the_order() -> None:
    squares = [square(k, 5 + k % 3) for k in range(100, 110)]
    forward, drops = kept([masks_of(1, squares), masks_of(2, [square(1)])], max_masks_per_image=4)
    backward, _ = kept([masks_of(1, squares[::-1]), masks_of(2, [square(1)])], max_masks_per_image=4)
    assert sorted(forward) == sorted(backward)
    assert len(forward) == 5
    assert 1 in forward
    assert drops == {"over-limit": 6}


@pytest.mark.parametrize(
    "wrong", [{"min_area_ratio": 1.0}, {"min_area_ratio": -0.1}, {"max_overlap_iou": 0}, {"min_pixels": -1}]
)
def test_ranges(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MaskRules(**wrong)
