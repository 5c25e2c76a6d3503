"""A predictions file scored against a benchmark, with everything that the numbers depend on, as files.

OUT/results.json         scores, breakdowns, published numbers beside them, provenance
OUT/instances.parquet    every instance with its prediction and its scores
OUT/leaderboard.jsonl    a row for a leaderboard
OUT/scores.html          to look at (benchmark/page.py)
"""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmark import leaderboard, published
from benchmark.leaderboard import Limits
from benchmark.predictions import Predictions, locate, own_truth
from benchmark.presets import Preset
from benchmark.published import Row
from benchmark.score import Result, score
from benchmark.similarity import Similarity
from benchmark.truth import Truth
from pipeline.embeddings import MODEL, model_files
from pipeline.errors import UsageError
from pipeline.files import Folder
from pipeline.wordnet import WordNet, open_wordnet

RESULTS, INSTANCES, LEADERBOARD, PAGE = "results.json", "instances.parquet", "leaderboard.jsonl", "scores.html"

_PACKAGES = ("numpy", "pyarrow", "sentence-transformers", "torch", "transformers")
"""Besides rr7k, what a number can depend on."""


class Scorecard(NamedTuple):
    """A score with all that belongs to it."""

    truth: Truth
    predictions: Predictions
    result: Result
    published: list[Row]
    """The same measures of the same data set, by name."""
    warnings: list[str]
    """The result's, and what keeps it from being comparable."""

    @property
    def all_warnings(self) -> list[str]:
        """Those, and which published rows were measured otherwise."""
        return [*self.warnings, *published.warnings(self.published, self.result.preset)]

    @property
    def row(self) -> leaderboard.Row:
        """The row for a leaderboard."""
        result = self.result
        return leaderboard.Row(
            model=result.model,
            preset=result.preset,
            benchmark=self.truth.name,
            data_set=self.truth.data_set,
            split=self.truth.split,
            fingerprint=self.truth.fingerprint,
            instances=result.instances,
            counted=result.counted,
            outcomes=result.outcomes,
            scores={name: Limits.of(found) for name, found in result.scores.items()},
            macro={name: Limits.of(found) for name, found in result.macro.items()},
            predictions=self.predictions.sha256,
            embedding_weights=result.facts["embedding_weights_sha256"],
            made_by=result.facts["made_by"],
            warnings=self.warnings,
        )


def make(predictions: Predictions, truth: Truth, preset: Preset, similarity: Similarity) -> Scorecard:
    """Score predictions against a benchmark; those about other splits of it are left aside, and counted.

    Raises `UserError` as `locate` and `score` do.
    """
    located = locate(predictions, truth.everything, truth.fingerprint)
    here = pc.is_in(located["instance_id"], truth.instances["instance_id"].combine_chunks())
    return _card(predictions, truth, located.filter(here), preset, similarity)


def make_by_itself(predictions: Predictions, preset: Preset, similarity: Similarity) -> Scorecard:
    """Score a file by the true names in it, as its project's own script does. Raises `UsageError`: it has none."""
    instances, located = own_truth(predictions)
    truth = Truth(predictions.path, f"true names of {predictions.path.name}", "", "", "", instances, None, instances)
    return _card(predictions, truth, located, preset, similarity)


def environment() -> dict[str, str]:
    """Return the versions that numbers can depend on; nothing is imported for it."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("rr7k", *_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(card: Scorecard, folder: Path, page: str) -> None:
    """Write everything; the folder is made, files of an earlier score in it are replaced, each whole.

    Raises `UsageError` when it cannot be written.
    """
    table = pa.BufferOutputStream()
    pq.write_table(card.result.per_instance, table, compression="zstd")
    made = {
        INSTANCES: table.getvalue().to_pybytes(),
        LEADERBOARD: msgspec.json.encode(card.row) + b"\n",
        PAGE: page.encode(),
        RESULTS: msgspec.json.format(msgspec.json.encode(as_dict(card))),
    }
    try:
        for name, data in made.items():
            Folder(str(folder)).replace(name, data)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}).") from error


def as_dict(card: Scorecard) -> dict[str, Any]:
    """Return the content of `results.json`."""
    result, predictions = card.result, card.predictions
    fields = {name: value for name, value in vars(result).items() if name != "per_instance"}
    return {
        **fields,
        "warnings": card.all_warnings,
        "benchmark": card.truth.facts,
        "predictions": {
            "file": predictions.path.name,
            "form": predictions.form,
            "sha256": predictions.sha256,
            "rows": len(predictions.regions),
            "cut": predictions.cut,
        },
        "published": [row._asdict() for row in card.published],
        "environment": environment(),
    }


def _card(
    predictions: Predictions, truth: Truth, located: pa.Table, preset: Preset, similarity: Similarity
) -> Scorecard:
    result = score(
        truth.instances,
        located,
        preset,
        categories=truth.categories,
        similarity=similarity,
        wordnet=_wordnet(),
        model=predictions.model,
    )
    rows = published.beside(truth.data_set) if truth.data_set else []
    warnings = [*result.warnings, *_own(predictions, len(located), similarity), *truth.warnings]
    return Scorecard(truth, predictions, result, rows, warnings)


@cache
def _wordnet() -> WordNet | None:
    """Read its files once, however many protocols are scored."""
    return open_wordnet()


def _own(predictions: Predictions, located: int, similarity: Similarity) -> list[str]:
    told = []
    if aside := predictions.regions["predicted"].to_numpy().sum() - located:
        told.append(f"{aside:,} predictions are about other splits of this benchmark and left aside.")
    if predictions.cut:
        told.append(f"{predictions.cut:,} predictions beyond the true names of their record are left out.")
    if similarity.files.weights != model_files().weights:
        told.append(f"Similarity is not by {MODEL}, as published numbers are, but by other weights.")
    return told
