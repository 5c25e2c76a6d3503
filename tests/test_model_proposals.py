"""Everything in an image: which masks stay, and the same as transformers' own generator finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
from PIL import Image
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from model.proposals import Rules, everything, grid
from pipeline import masks
from pipeline.segmenters import Bools, Floats, Proposal, open_segmenter

SIZE = (40, 20)


def square(left: int, top: int, side: int) -> Bools:
    mask = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


class Offering:
    """A look that offers these, for the first point."""

    def __init__(self, *proposals: Proposal) -> None:
        self.proposals = list(proposals)

    def boxes(self, boxes_xyxy: Floats) -> Iterator[Bools]:
        raise NotImplementedError

    def points(self, points_xy: Floats, least_iou: float = float("-inf")) -> Iterator[list[Proposal]]:
        yield [one for one in self.proposals if one.predicted_iou >= least_iou]
        yield from ([] for _ in points_xy[1:])


def found(*proposals: Proposal, **rules: Any) -> list[Bools]:
    kept = everything(Offering(*proposals), SIZE, Rules(points=2, **rules))
    return [masks.decode(counts, SIZE[1], SIZE[0]) for counts in kept]


def test_the_grid_is_even_and_keeps_off_the_edge() -> None:
    assert grid(SIZE, 2).tolist() == [[10, 5], [30, 5], [10, 15], [30, 15]]


@pytest.mark.parametrize(
    ("predicted_iou", "stability", "kept"),
    [(0.88, 0.95, 1), (0.87, 0.95, 0), (0.88, 0.94, 0), (1.1, 1.0, 1)],
)
def test_thresholds(predicted_iou: float, stability: float, kept: int) -> None:
    assert len(found(Proposal(square(3, 3, 5), predicted_iou, stability))) == kept


def test_empty_masks_are_none() -> None:
    assert found(Proposal(square(0, 0, 0), 1, 1)) == []
    assert found() == []


def test_doubles_go_the_better_one_stays_and_the_largest_comes_first() -> None:
    small, better, worse = square(25, 2, 4), square(2, 2, 10), square(2, 3, 10)  # of the last two, boxes at IoU 72/90
    kept = found(Proposal(worse, 0.9, 1), Proposal(small, 0.95, 1), Proposal(better, 0.91, 1))
    assert [mask.tolist() for mask in kept] == [better.tolist(), small.tolist()]
    assert len(found(Proposal(worse, 0.9, 1), Proposal(better, 0.91, 1), overlap=0.85)) == 2


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    everything(Offering(), SIZE, Rules(points=2), lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("overlap", [0.7, 1.0])  # of random weights all boxes are the whole image: 1 keeps them
@pytest.mark.parametrize("maker", [tiny_detectors.sam, tiny_detectors.sam2, tiny_detectors.sam_hq])
def test_it_is_what_transformers_own_generator_finds(maker: Any, overlap: float, tmp_path: Path) -> None:
    import torch
    from transformers import MaskGenerationPipeline

    kind: Any = MaskGenerationPipeline
    segmenter: Any = open_segmenter(str(maker(tmp_path)), "cpu")
    with torch.no_grad():  # scores far from 0, so that some masks are stable
        for name, weight in segmenter._model.named_parameters():
            if "mlp" in name and "proj_out" in name and "mask_decoder" in name:
                weight *= 300
    # Square: for SAM 2, which stretches an image, the generator places the points as if it did not.
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    look = segmenter.look(picture)
    offered = [one for some in look.points(grid(picture.size, 4)) for one in some]
    least = [sorted(marks)[24] for marks in zip(*(one[1:] for one in offered), strict=True)]
    rules = Rules(points=4, predicted_iou=least[0] + 1e-3, stability=least[1] + 1e-3, overlap=overlap)
    ours = [masks.decode(counts, 90, 90) for counts in everything(look, picture.size, rules)]
    generator = kind(model=segmenter._model, image_processor=segmenter._processor.image_processor)
    found = generator(
        picture, points_per_crop=4, pred_iou_thresh=rules.predicted_iou, stability_score_thresh=rules.stability,
        crops_nms_thresh=overlap,
    )["masks"]  # fmt: skip
    theirs = sorted((np.asarray(mask) for mask in found), key=lambda mask: -mask.sum())
    assert (1 <= len(ours) <= 2) if overlap < 1 else (5 < len(ours) < 24)
    assert len(ours) == len(theirs)
    assert max((one != other).mean() for one, other in zip(ours, theirs, strict=True)) < 2e-3
