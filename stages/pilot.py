"""Which layout to choose: the same sampled masks shown in every layout, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from pipeline.errors import UsageError
from pipeline.labels import normalise
from pipeline.run import Run
from stages import naming
from stages.answers import Parsed
from stages.engines.base import EngineConfig
from stages.naming import parse
from stages.naming_settings import NamesConfig, setting, settled
from stages.region_prompts import layouts
from stages.rendering import Piece
from stages.sampling import sample_limit, stable_hash, within
from stages.todo import every_piece, fingerprints


class Trial(msgspec.Struct, frozen=True):
    """What one layout made of the sample. Shares are of all its masks, in 0 to 1."""

    layout: str
    masks: int
    named: float
    failed: float
    agreement: float
    """Share of masks given the same name as in the first layout; 1 for the first."""
    prompt_tokens: float
    """Per mask, by the engine's own count; 0 where it tells none."""
    new_tokens: float
    """Per mask, without those that the image's other prompts share."""
    seconds: float
    """Per mask by the clock, start of the engine left out."""
    accuracy: float | None
    """Share of masks whose normalised name is the true one, where those are known."""
    similarity: float | None
    """Mean cosine of the embeddings of name and true name; no name counts 0."""


def true_names(path: Path) -> dict[int, str]:
    """Read a table of mask_id and category, as `rr7k sample-data --coco` writes it. Raises `UsageError`."""
    try:
        table = pq.read_table(path, columns=["mask_id", "category"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path}: not a Parquet table with the columns mask_id and category ({error}).") from error
    return dict(zip(table["mask_id"].to_pylist(), table["category"].to_pylist(), strict=True))


def run_trials(
    run: Run,
    count: int,
    config: NamesConfig,
    engine: EngineConfig,
    truth: Mapping[int, str],
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """Ask about a sample of `count` masks in every layout; nothing goes into the run's tables. Needs a running Ray.

    Where true names are given, only masks that have one are sampled.
    """
    pieces = sample(run, count, config, engine, truth)
    first: dict[int, str | None] = {}
    for layout in layouts(engine.kind):
        chosen = settled(config.model_copy(update={"layout": layout}), engine)
        say(f"layout {layout}")
        rows, seconds = _asked(run, pieces, chosen, engine, say)
        names = {mask: result.category for row in rows for mask, result in _parsed(row, chosen)}
        first = first or names
        yield _trial(layout, pieces, rows, names, first, truth, seconds)


def sample(run: Run, count: int, config: NamesConfig, engine: EngineConfig, truth: Mapping[int, str]) -> list[Piece]:
    """Choose images by a hash until they hold `count` masks: prompts of one image share tokens, as in the real run."""
    masks = fingerprints(run, setting(settled(config, engine), engine))
    eligible = np.isin(masks.ids, np.fromiter(truth, np.int64)) if truth else np.ones(len(masks.ids), np.bool_)
    if not eligible.any():
        raise UsageError("no mask to try: make some with rr7k stage-1 manifest, or see that the true names are theirs.")
    images, sizes = np.unique(masks.image_ids[eligible], return_counts=True)
    order = np.argsort(stable_hash(images, 0))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1
    chosen = eligible & np.isin(masks.image_ids, images[order[:enough]])
    limit = sample_limit(masks.ids[chosen], count, 0)
    return every_piece(masks, chosen & within(stable_hash(masks.ids, 0), -1, limit))


def _asked(
    run: Run, pieces: Sequence[Piece], config: NamesConfig, engine: EngineConfig, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], float]:
    """Return the answers, and the seconds from the first to the last of them."""
    rows: list[dict[str, Any]] = []
    began = None
    for table in naming.answers(run, pieces, config, engine, say):
        began = began or time.monotonic()
        rows += table.to_pylist()
    return rows, time.monotonic() - (began or time.monotonic())


def _parsed(row: Mapping[str, Any], config: NamesConfig) -> Iterator[tuple[int, Parsed]]:
    if not row["error"] and not row["problem"]:
        yield from zip(row["subjects"], parse(row, config), strict=True)


def _trial(
    layout: str,
    pieces: Sequence[Piece],
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[int, str | None],
    first: Mapping[int, str | None],
    truth: Mapping[int, str],
    seconds: float,
) -> Trial:
    masks = [mask for piece in pieces for mask in piece.mask_ids]
    given = [names.get(mask) for mask in masks]
    tokens = sum(row["prompt_tokens"] or 0 for row in rows)
    accuracy, similarity = _against(given, [truth[mask] for mask in masks]) if truth else (None, None)
    return Trial(
        layout,
        len(masks),
        named=sum(name is not None for name in given) / len(masks),
        failed=sum(mask not in names for mask in masks) / len(masks),
        agreement=sum(name == first.get(mask) for mask, name in zip(masks, given, strict=True)) / len(masks),
        prompt_tokens=tokens / len(masks),
        new_tokens=(tokens - sum(row["shared_tokens"] or 0 for row in rows if row["prompt_tokens"])) / len(masks),
        seconds=seconds / len(masks),
        accuracy=accuracy,
        similarity=similarity,
    )


def _against(given: Sequence[str | None], true: Sequence[str]) -> tuple[float, float]:
    from pipeline.embeddings import embed

    right = [name == normalise(truth) for name, truth in zip(given, true, strict=True)]
    cosines = (embed([name or "" for name in given]) * embed([normalise(name) for name in true])).sum(1)
    return float(np.mean(right)), float(np.mean(np.where([name is not None for name in given], cosines, 0)))
