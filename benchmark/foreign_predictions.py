"""Prediction files as other projects write them (wowseg_facts.md H), read into rows that say which region is meant.

They name regions by an image's path and their order in it. Some hold the true names as well, and can then be scored
by themselves, as those projects' own scripts do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmark.records import Record
from pipeline.errors import UserError

Reader = Callable[[Sequence[Record]], Iterator["Region"]]

_REGION = re.compile(r"<Region \d+>:\s*")
_NO_TEXT = object()

NOWHERE = -1
"""Place of a prediction beyond the true names of its record."""


class Region(NamedTuple):
    """What a file says of one region."""

    number: int
    """Of the record in the file."""
    image: str = ""
    """Path, file name or id of the image."""
    place: int = 0
    """Among the regions of its record or image, from 0."""
    truth: str | None = None
    """The true name, where the file has it."""
    predicted: bool = True
    """There is a prediction, even if it is no text."""
    text: Any = None
    instance_id: Any = None


def wowseg(records: Sequence[Record]) -> Iterator[Region]:
    """Read WOW-Seg's subset_*.json: {image: [path], pred_labels: [text], gt_labels: [name], …}.

    Its scorer walks both lists together and cuts the longer (A.2); here true names without a prediction are kept, and
    predictions without a true name are `NOWHERE`.
    """
    for number, item in records:
        truths, texts = _of(number, item, "gt_labels", list), _of(number, item, "pred_labels", list)
        image = item.get("image", [""])  # a list of one, as batches leave it
        image = image[0] if isinstance(image, list) and image else image
        for place, truth in enumerate(truths):
            predicted = place < len(texts)
            yield Region(number, str(image), place, str(truth), predicted, texts[place] if predicted else None)
        yield from (Region(number, str(image), NOWHERE, text=text) for text in texts[len(truths) :])


def vpmllm(records: Sequence[Record]) -> Iterator[Region]:
    """Read VP-MLLM's {dataset}_results.json: {image_name, prediction, answer}, both texts lines "Region 1: label".

    Its scorer (ROC_eval.py) counts labels, not region numbers: a line without ": " does not exist, so that those after
    it move up, and what follows a second ": " is lost. More predictions than true names stop it.
    """
    for number, item in records:
        truths, texts = (_labels(_of(number, item, name, str)) for name in ("answer", "prediction"))
        if len(texts) > len(truths):
            raise UserError(f"item {number}: {len(texts)} predicted labels for {len(truths)} regions")
        for place, truth in enumerate(truths):
            predicted = place < len(texts)
            text = texts[place] if predicted else None
            yield Region(number, str(item.get("image_name", "")), place, truth, predicted, text)


def _labels(text: str) -> list[str]:
    return [line.split(": ")[1] for line in text.strip().split("\n") if ": " in line]


def osprey(records: Sequence[Record]) -> Iterator[Region]:
    """Read answers as Osprey's and VP-MLLM's description benchmarks have them: {question_id, image, text}.

    Each is about one region; those of one image are in its order. A leading "<Region 1>: " is the file's, not the
    model's.
    """
    seen: Counter[str] = Counter()
    for number, item in records:
        if "annotation" in item:
            raise UserError(f"item {number}: this is the list of questions, with regions; give the answers to it")
        text = item.get("text")
        text = _REGION.sub("", text, count=1) if isinstance(text, str) and _REGION.match(text) else text
        image = str(_of(number, item, "image", str))
        yield Region(number, image, seen[image], text=text)
        seen[image] += 1


def videorefer(records: Sequence[Record]) -> Iterator[Region]:
    """Read VideoRefer's and PixelRefer's lines: {image, Answer, pred, region_num}; regions of an image in order."""
    seen: Counter[str] = Counter()
    for number, item in records:
        image = str(_of(number, item, "image", str))
        yield Region(number, image, seen[image], str(item["Answer"]), text=item["pred"])
        seen[image] += 1


def dam(records: Sequence[Record]) -> Iterator[Region]:
    """Read DAM's JSON object {annotation id: text}; beside the ids it can hold the question, as `query`."""
    for number, item in records:
        yield from (Region(number, instance_id=key, text=text) for key, text in item.items() if key != "query")


def pam(records: Sequence[Record]) -> Iterator[Region]:
    """Read PAM's records {type, image_root, annotations: [{event_id, gt, pred}]}: events of a video, not masks."""
    for number, item in records:
        for place, event in enumerate(_of(number, item, "annotations", list)):
            text = event.get("pred", _NO_TEXT)
            if text is _NO_TEXT:
                raise UserError(f"item {number}, event {place + 1}: no pred; is this PAM's input, not its output?")
            yield Region(number, str(item.get("image_root", "")), place, str(event["gt"]), text=text)


READERS: dict[str, Reader] = {
    "wowseg": wowseg,
    "vpmllm": vpmllm,
    "osprey": osprey,
    "videorefer": videorefer,
    "dam": dam,
    "pam": pam,
}
_KEYS = {
    "wowseg": {"pred_labels", "gt_labels"},
    "vpmllm": {"prediction", "answer"},
    "videorefer": {"pred", "Answer", "image"},
    "pam": {"annotations", "image_root"},
    "osprey": {"question_id", "image", "text"},
}


def recognise(item: Any) -> str:
    """Return the name of the format that a file's first record is of; empty if none."""
    if not isinstance(item, dict):
        return ""
    for name, keys in _KEYS.items():
        if keys <= item.keys():
            return name
    ids = item.keys() - {"query"}
    return "dam" if ids and all(key.isdecimal() for key in ids) else ""


def _of(number: int, item: Any, name: str, kind: type) -> Any:
    """Return a field of a record. Raises `UserError` when it is not there or not of its kind."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"item {number}: {name} is not a {'list' if kind is list else 'text'}")
    return value
