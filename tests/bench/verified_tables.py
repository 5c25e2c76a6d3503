"""A run after stage 2 at its real size, as tables alone: masks, pairs, bands, verdicts, controls. All simulated.

Categories are as frequent as words are: few are head. What no step of stage 3 reads is blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import tables
from pipeline.run import Run
from stages import verification_settings

CATEGORIES = 7700  # as many as the paper's benchmark has
HEAD = 101  # pairs, the default of stage 2
_ROWS = 20_000  # masks in a part
_BLANK: dict[pa.DataType, Any] = {pa.int64(): 1, pa.int32(): 1, pa.float64(): 0.5, pa.bool_(): False}


def fill(run: Run, pairs: int, seed: int = 0) -> None:
    """Write the tables of a run with so many pairs."""
    random = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, CATEGORIES + 1) ** 0.8
    code = random.choice(CATEGORIES, pairs, p=frequency / frequency.sum())
    names = pa.array([f"thing {number}" for number in range(CATEGORIES)])
    ids = np.arange(pairs, dtype=np.int64) + 10**6
    known = {"mask_id": ids, "image_id": ids // 20, "category": names.take(pa.array(code))}
    _masks(run, known, random)
    agreement = random.choice(["same", "synonym", "only-one", "related", "different"], pairs)
    put(run, "pairs", "pairs", {**known, "agreement": agreement, "flagged": random.random(pairs) < 0.02})
    counts = np.bincount(code, minlength=CATEGORIES)
    band = np.where(counts >= HEAD, "head", "tail")
    put(run, "bands", "bands", {"category": names, "pairs": counts, "band": band})
    head, score = band[code] == "head", random.random(pairs)
    kept = ~head | (score > 0.6)
    said = {"band": band[code], "score": pa.array(score, mask=~head), "kept": kept}
    put(run, "verdicts", "verdicts", {**known, **said, "reason": np.where(head, np.where(kept, "yes", "no"), "tail")})
    _controls(run, ids[head][::10], names.filter(pa.array(band == "head")), random)


def _masks(run: Run, known: dict[str, Any], random: np.random.Generator) -> None:
    for start in range(0, len(known["mask_id"]), _ROWS):
        part = {name: column[start : start + _ROWS] for name, column in known.items() if name != "category"}
        put(run, "masks", "masks", {**part, "area": random.integers(100, 10**5, len(part["mask_id"]))})


def _controls(run: Run, ids: npt.NDArray[np.int64], names: pa.Array, random: np.random.Generator) -> None:
    """A tenth of the head is asked with a wrong name, and refused."""
    wrong = names.take(pa.array(random.integers(0, len(names), len(ids))))
    said = {"role": ["control"] * len(ids), "outcome": ["no"] * len(ids), "category": wrong}
    put(run, verification_settings.STEP, "checks", {"request_id": ids, "mask_id": ids, "image_id": ids // 20, **said})


def put(run: Run, step: str, table: str, columns: dict[str, Any]) -> None:
    """Commit a part of a table; columns that are not given are blank. Steps that are derived have their own key."""
    count = len(next(iter(columns.values())))
    made = [_column(field, columns.get(field.name), count) for field in tables.SCHEMAS[table]]
    key = step if step in ("pairs", "bands", "verdicts") else run.next_key(step)
    with run.part(step, table, key) as part:
        part.write(pa.table(made, tables.SCHEMAS[table].names))
    run.commit(step, key, {table: part}, fingerprint="simulated", counts={}, facts={})


def _column(field: pa.Field, given: Any, count: int) -> pa.Array:
    if given is not None:
        return given if isinstance(given, pa.Array | pa.ChunkedArray) else pa.array(given)
    if field.nullable:
        return pa.nulls(count, field.type)
    if pa.types.is_list(field.type):
        return pa.array([[]] * count, field.type)
    return pa.array([_BLANK.get(field.type, "")] * count)


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A unit vector for each text, of no meaning: the model's own seconds are not the tables'."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((len(texts), 384))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
