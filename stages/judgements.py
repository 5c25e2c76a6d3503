"""What people judged of a sample of pairs, read from their table and joined with the scores of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from pipeline import files
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import head_tail

_KINDS: dict[str, tuple[Callable[[pa.DataType], bool], pa.DataType]] = {
    "mask_id": (pat.is_integer, pa.int64()),
    "right": (pat.is_boolean, pa.bool_()),
    "inclusion_probability": (pat.is_floating, pa.float64()),
}


@dataclass(frozen=True)
class Judged:
    """A table of judgements. Arrays have shape (masks,)."""

    mask_ids: npt.NDArray[np.int64]
    """Distinct."""
    right: npt.NDArray[np.bool_]
    """Whether the mask shows what its pair says."""
    probability: npt.NDArray[np.float64]
    """With which the pair came into the sample, in (0, 1]."""
    source: str
    """The table's path, and the hash of its bytes."""


@dataclass(frozen=True)
class Judgements:
    """Judged pairs that have a score. Arrays have shape (pairs,)."""

    score: npt.NDArray[np.float64]
    """Of the yes/no check, 0 to 1."""
    right: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]
    """1 / inclusion probability: how many pairs each stands for, up to a common factor."""
    pairs: npt.NDArray[np.int64]
    """How many pairs the run has of its category."""
    unscored: int
    """Judged masks that the run has no score of, or that are of the tail; they are not among the above."""
    source: str
    """As in `Judged`."""

    def some(self, chosen: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Return `right` and `weight` of the chosen pairs."""
        return self.right[chosen], self.weight[chosen]


def read_judged(path: Path) -> Judged:
    """Read a Parquet table of judgements, one row per mask.

    Columns: mask_id (integer), right (boolean), and, where pairs had unequal chances, inclusion_probability (float, in
    (0, 1]); without it all are taken as 1. Others are not read. Raises `UsageError` with the column and the first bad
    row, counted from 1.
    """
    try:
        content = path.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a Parquet table that can be read ({error}).") from error
    if "inclusion_probability" not in table.column_names:
        table = table.append_column("inclusion_probability", pa.array(np.ones(table.num_rows)))
    ids, right, probability = (_column(path, table, name) for name in _KINDS)
    _refuse(path, "mask_id", _repeated(ids), "the mask is in an earlier row already; give each mask one judgement")
    outside = ~((probability > 0) & (probability <= 1))
    _refuse(path, "inclusion_probability", outside, "not above 0 and at most 1")
    return Judged(ids, right, probability, f"{path} ({files.sha256(content)[:16]})")


def _column(path: Path, table: pa.Table, name: str) -> np.ndarray:
    if table.column_names.count(name) != 1:
        found = ", ".join(table.column_names)
        raise UsageError(
            f"{path}: column {name} is missing or there twice; found: {found}. Needed: mask_id (integer), right "
            "(boolean); optional: inclusion_probability (float)."
        )
    column, (is_kind, kind) = table[name], _KINDS[name]
    if not is_kind(column.type):
        raise UsageError(f"{path}: column {name} holds {column.type}, not {kind}. Write it as {kind}.")
    _refuse(path, name, column.is_null().to_numpy(), "empty; leave out masks that were not judged")
    try:
        return np.asarray(column.cast(kind).to_numpy())
    except pa.ArrowInvalid as error:  # uint64 beyond int64
        raise UsageError(f"{path}: column {name} does not fit {kind} ({error}).") from error


def _refuse(path: Path, column: str, bad: npt.NDArray[np.bool_], why: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        more = f" ({len(rows) - 1:,} more such rows)" if len(rows) > 1 else ""
        raise UsageError(f"{path}: column {column}, row {rows[0] + 1:,}: {why}{more}.")


def _repeated(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    again = np.ones(len(ids), np.bool_)
    again[np.unique(ids, return_index=True)[1]] = False
    return again


def gather(run: Run, judged: Judged) -> Judgements:
    """Join judgements with the scores of a run's head pairs, sorted by mask.

    The score is that of `verdicts`: of the model's probabilities, or 0 and 1 where there was only text. A pair of the
    tail is kept whatever its score, and one with an unclear answer is not, so neither tells anything about thresholds;
    they are counted as unscored. Raises `UsageError` when no judged mask is left.
    """
    counts = head_tail.of_categories(run)
    usable = pc.field("score").is_valid() & pc.field("category").isin(list(counts))
    found = usable & (pc.field("band") == head_tail.HEAD) & pc.field("mask_id").isin(judged.mask_ids)
    scored = run.dataset("verdicts").to_table(columns=["mask_id", "category", "score"], filter=found).sort_by("mask_id")
    ids = scored["mask_id"].to_numpy()
    if not len(ids):
        raise UsageError(
            f"{judged.source}: none of its {len(judged.mask_ids):,} masks has a score in {run.folder.uri}. Only pairs "
            "of head categories are asked about: judge some of those, and run rr7k stage-2 before."
        )
    order = np.argsort(judged.mask_ids)
    places = order[np.searchsorted(judged.mask_ids, ids, sorter=order)]
    return Judgements(
        score=scored["score"].to_numpy(),
        right=judged.right[places],
        weight=1 / judged.probability[places],
        pairs=np.array([counts[name][0] for name in scored["category"].to_pylist()], np.int64),
        unscored=len(judged.mask_ids) - len(ids),
        source=judged.source,
    )
