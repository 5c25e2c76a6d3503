"""Phrases keep their own boxes: spans, groups, thresholds, overlap; on tiny random models of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
import torch
from PIL import Image
from tiny_detectors import PHRASES
from torchvision.ops import box_iou

from pipeline.detectors import CLS, DOT, QUESTION, SEP, Detection, GroundingDino
from pipeline.errors import UsageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
MANY = [f"w{n}" for n in range(500)]
ALL = {"box_threshold": 0.0, "text_threshold": 0.0, "nms_iou": 1.0}


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def detector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GroundingDino:
    folder = tmp_path_factory.mktemp(request.param)
    return GroundingDino(str(tiny_detectors.detector(folder, request.param)), "cpu")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> GroundingDino:
    return GroundingDino(str(tiny_detectors.detector(tmp_path_factory.mktemp("one"))), "cpu")


def logits(detector: GroundingDino, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = detector._images(images=PICTURE, return_tensors="pt")
    with torch.no_grad():
        made = detector._model(**inputs, input_ids=torch.tensor([tokens]))
    return made.logits[0], made.pred_boxes[0]


def test_a_caption_and_its_spans(one: GroundingDino) -> None:
    (caption,), unusable = one.captions(["car", "caravan", "red mug"])
    assert caption.tokens == [CLS, 200, DOT, 202, 203, DOT, 204, 205, DOT, SEP]
    assert caption.spans == [(0, 1, 2), (1, 3, 5), (2, 6, 8)]
    assert unusable == []


@pytest.mark.parametrize(
    ("phrase", "tokens"),
    [
        ("", None),
        ("  ., ?", None),  # nothing but what parts captions
        ("самокат", None),  # a script that the vocabulary lacks: [UNK] alone
        ("самокат car", [100, 200]),  # a known word makes it usable
        ("猫", [214]),  # one that it has
        ("St. Bernard", [208, 207]),
        ("car, red", [200, 204]),
        ("car. taxi?", [200, 201]),
        ("car [SEP] taxi [CLS]", [200, 201]),  # special tokens, written out
        ("1,000", [209, 210]),
        ("T-shirt", [211, 212, 213]),
        ("car " * 253, [200] * 253),  # fills a caption of 256
        ("car " * 254, None),  # does not fit
    ],
)
def test_phrases_with_separators_and_in_other_scripts(
    phrase: str, tokens: list[int] | None, one: GroundingDino
) -> None:
    captions, unusable = one.captions(["taxi", phrase])
    if tokens is None:
        assert unusable == [1]
        return
    place, first, last = captions[-1].spans[-1]
    assert (place, captions[-1].tokens[first:last]) == (1, tokens)
    parts = [n for n, token in enumerate(captions[-1].tokens) if token in (CLS, SEP, DOT, QUESTION)]
    assert last in parts
    assert all(first > n or n >= last for n in parts)


def test_no_usable_phrase_and_no_phrase(one: GroundingDino) -> None:
    assert one.detect(PICTURE, [], **ALL) == []
    assert one.detect(PICTURE, ["", "самокат"], **ALL) == []


def test_an_image_without_proposals(detector: GroundingDino) -> None:
    assert detector.detect(PICTURE, PHRASES, box_threshold=1.0, text_threshold=0.0, nms_iou=0.8) == []
    assert detector.detect(PICTURE, PHRASES, box_threshold=0.0, text_threshold=1.0, nms_iou=0.8) == []


def test_a_box_has_the_score_of_its_own_phrase_only(detector: GroundingDino) -> None:
    phrases = ["car", "taxi", "caravan", "red mug"]
    found = detector.detect(PICTURE, phrases, **ALL)
    words, boxes = logits(detector, [CLS, 200, DOT, 201, DOT, 202, 203, DOT, 204, 205, DOT, SEP])
    words = words.sigmoid()
    by_hand = torch.stack([words[:, 1], words[:, 3], words[:, 5:7].mean(1), words[:, 8:10].mean(1)], 1)
    best = by_hand.max(1)
    order = best.values.sort(descending=True, stable=True).indices
    assert [d.phrase for d in found] == best.indices[order].tolist()
    assert [d.score for d in found] == pytest.approx(best.values[order].tolist())
    centre = (boxes[order, :2] * torch.tensor([120, 90])).tolist()
    for (x, y), (_, (left, top, right, bottom), _) in zip(centre, found, strict=True):
        assert 0 <= left <= x <= right <= 120
        assert 0 <= top <= y <= bottom <= 90


def test_thresholds_are_of_the_best_token_and_of_the_mean(one: GroundingDino) -> None:
    words, _ = logits(one, [CLS, 202, 203, DOT, 204, 205, DOT, SEP])
    spans = torch.stack([words.sigmoid()[:, 1:3], words.sigmoid()[:, 4:6]], 1)
    scores, owner = spans.mean(2).max(1)
    peaks = spans.amax(2).gather(1, owner[:, None])[:, 0]
    middle, high = scores.median().item(), peaks.median().item()
    for box, text in ((high, 0.0), (0.0, middle), (high, middle)):
        found = one.detect(PICTURE, ["caravan", "red mug"], box_threshold=box, text_threshold=text, nms_iou=1)
        assert len(found) == int(((peaks > box) & (scores > text)).sum())


def test_the_text_of_one_phrase_does_not_read_the_others(detector: GroundingDino) -> None:
    read: list[torch.Tensor] = []
    hook = detector._model.model.text_projection.register_forward_hook(lambda _, __, made: read.append(made[0]))
    logits(detector, [CLS, 200, DOT, 202, 203, DOT, SEP])
    logits(detector, [CLS, 206, DOT, 202, 203, DOT, SEP])
    logits(detector, [CLS, 204, 205, 201, DOT, 202, 203, DOT, SEP])  # at another place, too
    hook.remove()
    first, second, third = read
    assert not first[1].equal(second[1])
    torch.testing.assert_close(first[3:6], second[3:6])
    torch.testing.assert_close(first[3:6], third[5:8])


def test_phrases_that_read_the_same_are_one(one: GroundingDino) -> None:
    twice = one.detect(PICTURE, ["car", "Car", "car.", "taxi"], **ALL)
    assert {d.phrase for d in twice} <= {0, 3}
    renamed = [d._replace(phrase={0: 0, 3: 1}[d.phrase]) for d in twice]
    assert renamed == one.detect(PICTURE, ["car", "taxi"], **ALL)


def test_500_phrases_are_what_each_group_alone_gives(detector: GroundingDino) -> None:
    captions, unusable = detector.captions(MANY)
    assert unusable == []
    assert [span[0] for caption in captions for span in caption.spans] == list(range(500))
    assert all(len(caption.tokens) <= 256 for caption in captions)
    assert len(captions) == 4
    alone: list[Detection] = []
    for caption in captions:
        places = [place for place, _, _ in caption.spans]
        part = detector.detect(PICTURE, [MANY[place] for place in places], **ALL)
        alone += [d._replace(phrase=places[d.phrase]) for d in part]
    together = detector.detect(PICTURE, MANY, **ALL)
    assert sorted(together) == sorted(alone)


def test_of_overlapping_boxes_the_best_stays_whatever_its_phrase(detector: GroundingDino) -> None:
    phrases = MANY[:200]  # two captions
    every = detector.detect(PICTURE, phrases, **ALL)
    kept = detector.detect(PICTURE, phrases, box_threshold=0, text_threshold=0, nms_iou=0.3)
    assert 0 < len(kept) < len(every)
    boxes = torch.tensor([d.box_xyxy for d in kept])
    assert (box_iou(boxes, boxes).triu(1) <= 0.3).all()
    for gone in set(every) - set(kept):
        overlap = box_iou(torch.tensor([gone.box_xyxy]), boxes)[0]
        assert any(o > 0.3 and d.score >= gone.score for o, d in zip(overlap.tolist(), kept, strict=True))


def test_a_shorter_text_limit_makes_more_groups(tmp_path: Path) -> None:
    detector = GroundingDino(str(tiny_detectors.detector(tmp_path, text_limit=8)), "cpu")
    captions, unusable = detector.captions([*PHRASES, "car taxi dog mug car"])
    assert [len(caption.tokens) for caption in captions] == [6, 8, 4, 8]
    assert unusable == []
    assert detector.captions(["car taxi dog mug car red"])[1] == [0]
    assert detector.detect(PICTURE, PHRASES, **ALL)


@pytest.mark.parametrize("make", [tiny_detectors.sam, None])
def test_what_is_no_detector_is_refused(make: Any, tmp_path: Path) -> None:
    if make:
        make(tmp_path)
    with pytest.raises(UsageError, match="detector = "):
        GroundingDino(str(tmp_path), "cpu")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    tiny_detectors.detector(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", "."]))
    (tmp_path / "tokenizer.json").unlink()
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="bert-base-uncased"):
        GroundingDino(str(tmp_path), "cpu")
