"""Boxes into masks, the same way for each class; on tiny random models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
import torch
from PIL import Image
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from pipeline import masks, segmenters
from pipeline.errors import UsageError
from pipeline.segmenters import open_segmenter

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
BOXES = np.array([[n, n, 40 + 2 * n, 50 + n] for n in range(20)], np.float32)
MAKERS = {"sam": tiny_detectors.sam, "sam2": tiny_detectors.sam2, "sam_hq": tiny_detectors.sam_hq}


@pytest.fixture(scope="module", params=list(MAKERS))
def segmenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_segmenter(str(MAKERS[request.param](tmp_path_factory.mktemp(request.param))), "cpu")


def test_no_boxes(segmenter: Any) -> None:
    assert list(segmenter.segment(PICTURE, np.zeros((0, 4), np.float32))) == []


def test_one_mask_a_box_at_the_size_of_the_image(segmenter: Any) -> None:
    made = list(segmenter.segment(PICTURE, BOXES))
    assert [(mask.shape, mask.dtype) for mask in made] == [((90, 120), np.bool_)] * len(BOXES)
    assert [masks.decode(masks.encode(mask), 90, 120).tolist() for mask in made[:2]] == [m.tolist() for m in made[:2]]
    assert len({mask.tobytes() for mask in made}) > 1


def test_more_boxes_than_at_once_are_what_each_alone_gives(segmenter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    together = list(segmenter.segment(PICTURE, BOXES))
    monkeypatch.setattr(segmenters, "_AT_ONCE", 3)
    by_three = list(segmenter.segment(PICTURE, BOXES))
    alone = {n: next(segmenter.segment(PICTURE, BOXES[n : n + 1])) for n in (0, 7, 19)}
    for first, second in zip(together, by_three, strict=True):
        assert (first != second).mean() < 1e-3  # sums in another order
    assert all((together[n] != mask).mean() < 1e-3 for n, mask in alone.items())


def test_as_transformers_own_processor_does_it(segmenter: Any) -> None:
    processor, model = segmenter._processor, segmenter._model
    inputs = processor(images=PICTURE, input_boxes=[BOXES[:3].tolist()], return_tensors="pt")
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
    inputs["input_boxes"] = inputs["input_boxes"].float()
    with torch.no_grad():
        made = model(**inputs, multimask_output=False).pred_masks
    theirs = processor.post_process_masks(made, *sizes)[0][:, 0].numpy()
    ours = np.stack(list(segmenter.segment(PICTURE, BOXES[:3])))
    assert (theirs != ours).mean() < 1e-3


def test_between_masks_the_caller_is_in_no_inference_mode(segmenter: Any) -> None:
    made = segmenter.segment(PICTURE, BOXES)
    next(made)
    assert not torch.is_inference_mode_enabled()
    made.close()


def test_what_is_no_segmenter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint there"):
        open_segmenter(str(tmp_path), "cpu")
    tiny_detectors.detector(tmp_path)
    with pytest.raises(UsageError, match="a model of type grounding-dino"):
        open_segmenter(str(tmp_path), "cpu")


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(UsageError, match=r"rr7k\[segment-anything\]"):
        open_segmenter(f"segment-anything:{tmp_path}/sam.pth", "cpu")


POINTS = np.array([[10 + 5 * n, 20 + 3 * n] for n in range(20)], np.float32)


def test_points_are_offered_masks_with_marks(segmenter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look = segmenter.look(PICTURE)
    offered = list(look.points(POINTS))
    assert [len(some) for some in offered] == [3] * len(POINTS)
    assert {(one.mask.shape, one.mask.dtype) for some in offered for one in some} == {((90, 120), np.dtype(np.bool_))}
    assert all(0 <= one.stability <= 1 for some in offered for one in some)
    marks = sorted(one.predicted_iou for some in offered for one in some)
    least = (marks[20] + marks[21]) / 2
    monkeypatch.setattr(segmenters, "_AT_ONCE", 3)
    good = list(look.points(POINTS, least))
    assert [len(some) for some in good] == [sum(one.predicted_iou >= least for one in some) for some in offered]
    assert sum(map(len, good)) == 39


def test_a_look_is_one_encoding_for_many_questions(segmenter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = list(segmenter.segment(PICTURE, BOXES[:2]))
    look = segmenter.look(PICTURE)
    monkeypatch.setattr(type(segmenter._model), "get_image_embeddings", None)  # it would raise
    list(look.points(POINTS[:1]))
    assert [mask.tolist() for mask in look.boxes(BOXES[:2])] == [mask.tolist() for mask in alone]


def test_points_as_transformers_own_processor_does_it(segmenter: Any) -> None:
    processor, model = segmenter._processor, segmenter._model
    inputs = processor(images=PICTURE, input_points=[POINTS[:2, None].tolist()], return_tensors="pt")
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
    inputs["input_points"] = inputs["input_points"].float()
    with torch.no_grad():
        made = model(**inputs, input_labels=torch.ones(1, 2, 1, dtype=torch.int64), multimask_output=True)
    theirs = processor.post_process_masks(made.pred_masks, *sizes)[0].numpy()
    ours = list(segmenter.look(PICTURE).points(POINTS[:2]))
    assert (theirs != np.array([[one.mask for one in some] for some in ours])).mean() < 1e-3
    marks = [[one.predicted_iou for one in some] for some in ours]
    assert np.allclose(marks, made.iou_scores[0].numpy(), atol=1e-4)
