"""A line of a table: answers about a data set, scored as by `rr7k score`, `rr7k segmentation`, `rr7k mask-accuracy`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmark import (
    mask_accuracy,
    page,
    predictions,
    presets,
    scorecard,
    segmentation,
    truth,
    vocabularies,
)
from benchmark.by_image import ByImage
from benchmark.evaluation.plan import Line, Task
from benchmark.leaderboard import Limits
from benchmark.predictions import Predictions
from benchmark.segmentation import Named, Sources
from benchmark.similarity import Similarity
from benchmark.truth import Truth
from benchmark.vocabularies import Answers, Vocabulary
from pipeline.embeddings import Vectors
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.regions import RegionSamples


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a line, and what they are about."""

    values: dict[str, Limits]
    """By measure, 0 to 1"""
    instances: int
    counted: int
    """Of them, in the averages: `wowseg` leaves out what has no answer"""
    images: int
    warnings: list[str]
    facts: dict[str, Any]


class Inputs(NamedTuple):
    """What a line is scored on."""

    answers: Path
    folder: Path
    """Of the data set that was answered."""
    semantic: Path | None = None
    """Data set of the semantic truth."""
    synonyms: Path | None = None


def score(task: Task, inputs: Inputs, out: Path, told: Callable[[str, int, int], None]) -> Scored:
    """Score a line; of names, `out` gets what `rr7k score` writes. `told` hears a title, steps done, and of how many.

    Raises `UserError` as the scorers do.
    """
    known, given = truth.load(inputs.folder), predictions.read(inputs.answers)
    if task.measures == "names":
        return _names(task.line, given, known, out)
    read = _compared(task.line, inputs, given, known)
    return _segments(task.line, inputs, read, told) if task.measures == "segments" else _classes(read)


class _Compared(NamedTuple):
    """Answers, and what they mean in a vocabulary."""

    known: Truth
    ids: list[int]
    answers: Answers
    vocabulary: Vocabulary
    facts: dict[str, Any]


def _compared(line: Line, inputs: Inputs, given: Predictions, known: Truth) -> _Compared:
    located = predictions.locate(given, known.everything, known.fingerprint)
    ids = located["instance_id"].to_pylist()
    if len(set(ids)) < len(ids):
        raise UserError(f"{inputs.answers}: an instance has several answers.")
    vocabulary, vectors = vocabularies.load(line.classes, inputs.synonyms), Vectors()
    answers = vocabularies.compare(located["text"].to_pylist(), vocabulary, line.template, vectors)
    synonyms = sha256(inputs.synonyms.read_bytes()) if inputs.synonyms else ""
    facts = {"vocabulary": vocabulary.name, "template": line.template, "synonyms": synonyms}
    facts |= {"embedding_weights": vectors.files.weights}
    return _Compared(known, ids, answers, vocabulary, {**_facts(given, known), **facts})


def _facts(given: Predictions, known: Truth) -> dict[str, Any]:
    return {"benchmark": known.facts, "predictions": given.sha256}


def _names(line: Line, given: Predictions, known: Truth, out: Path) -> Scored:
    card = scorecard.make(given, known, presets.find(line.preset), Similarity())
    scorecard.write(card, out, page.html(card))
    result = card.result
    return Scored(
        values={name: Limits.of(result.scores[name]) for name in ("similarity", "iou")},
        instances=result.instances,
        counted=result.counted,
        images=known.facts["images"],
        warnings=card.warnings,
        facts={**_facts(given, known), **result.facts},
    )


def _segments(line: Line, inputs: Inputs, read: _Compared, told: Callable[[str, int, int], None]) -> Scored:
    semantic = ByImage(RegionSamples(inputs.semantic)) if inputs.semantic else None
    sources = Sources(ByImage(RegionSamples(inputs.folder), read.known.split), None, semantic)
    named, images = Named.of(read.ids, read.answers), len(sources.truth.images)
    found = segmentation.score(
        sources, named, read.vocabulary, over=line.over, told=lambda done: told("segmenting", done, images)
    )
    values = {"PQ": found.quality["all"].pq, "mIoU": found.miou}
    return Scored(
        values={name: _limits(value) for name, value in values.items()},
        instances=found.masks,
        counted=found.masks,
        images=found.images,
        warnings=_nameless(found.nameless, found.masks),
        facts={**read.facts, "uncovered": "first", "over": line.over, "segmentation": msgspec.to_builtins(found)},
    )


def _classes(read: _Compared) -> Scored:
    instances, classes = read.known.instances, read.vocabulary.classes
    true = mask_accuracy.true_classes(instances, read.vocabulary)
    said = dict(zip(read.ids, read.answers.classes.tolist(), strict=True))
    predicted = np.array([said.get(one, -1) for one in instances["instance_id"].to_pylist()], np.int64)
    found = mask_accuracy.mask_accuracy(true, predicted, len(classes))
    return Scored(
        values={"mMaskAcc": _limits(found.mean)},
        instances=len(true),
        counted=len(true),
        images=read.known.facts["images"],
        warnings=_nameless(int((predicted < 0).sum()), len(true)),
        facts={**read.facts, "classes": len(classes), "classes_that_occur": int((found.masks > 0).sum())},
    )


def _nameless(masks: int, every: int) -> list[str]:
    return [f"{masks:,} of {every:,} masks have no name, and count as wrong."] if masks else []


def _limits(value: float) -> Limits:
    return Limits(None if math.isnan(value) else value)
