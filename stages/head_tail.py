"""Stage 2, first step: which categories are frequent enough for a model to check, and which go to people unchecked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline import files
from pipeline.config import Section
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import pairing
from stages.remembering import inherited, remember

STEP = "bands"
HEAD, TAIL = "head", "tail"

CUTS = (2, 11, 31, 101, 301, 1001)
"""Where `--explain` tries the cut: LVIS's bounds of common and frequent, and steps of about three around them."""


class HeadTailConfig(Section):
    """Stage 2 head and tail: which categories are frequent."""

    head_min_count: int = Field(101, ge=1)
    """Pairs from which a category is head. The paper checks "frequent" categories and gives no number; LVIS calls
    frequent what more than 100 images show (Gupta et al. 2019), the only bound of that name in common use. Here a pair
    counts, not an image: what a run has found is all that is known of a category."""


class Split(msgspec.Struct, frozen=True):
    """What a cut leaves on either side."""

    cut: int
    """Pairs from which a category is head."""
    head_categories: int
    head_pairs: int
    tail_categories: int
    tail_pairs: int


def split(counts: Mapping[str, int], cut: int) -> Split:
    """Say how many categories and pairs are head and tail when `cut` pairs make a category head."""
    numbers = np.fromiter(counts.values(), np.int64, len(counts))
    head = numbers >= cut
    sums = int(numbers[head].sum()), int(numbers[~head].sum())
    return Split(cut, int(head.sum()), sums[0], int((~head).sum()), sums[1])


def splits(counts: Mapping[str, int], cut: int) -> list[Split]:
    """Return the splits at `CUTS` and at `cut`, ascending."""
    return [split(counts, at) for at in sorted({*CUTS, cut})]


def build(run: Run, config: HeadTailConfig) -> Split:
    """Bring the table `bands` up to the run's pairs. Raises `UsageError` when there are none."""
    config = inherited(run, STEP, config)
    if not count(run):  # before the lock, which would make a folder of a path that was mistyped
        raise UsageError(f"{run.folder.uri}: no pairs to check. Make them first: rr7k stage-1")
    with run.lock(STEP):
        counts = count(run)
        made_of = _fingerprint(run, config)
        before = run.commits(STEP).get(STEP)
        if before is None or before.fingerprint != made_of:
            run.sweep(STEP, ["bands"])
            remember(run, STEP, config)
            _write(run, counts, config.head_min_count, made_of)
    return split(counts, config.head_min_count)


def count(run: Run) -> Counter[str]:
    """Count the pairs of every category."""
    counts: Counter[str] = Counter()
    for batch in run.dataset("pairs", pairing.STEP).to_batches(columns=["category"]):
        for found in batch["category"].value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
    return counts


def of_categories(run: Run) -> dict[str, tuple[int, str]]:
    """Return pairs and band of every category."""
    table = run.dataset("bands", STEP).to_table()
    columns = (table[name].cast(kind).to_pylist() for name, kind in (("category", "string"), ("band", "string")))
    categories, bands = columns
    return dict(zip(categories, zip(table["pairs"].to_pylist(), bands, strict=True), strict=True))


def _fingerprint(run: Run, config: HeadTailConfig) -> str:
    made_of = [run.parts("pairs", pairing.STEP), config.head_min_count]
    return files.sha256(msgspec.json.encode(made_of))[:16]


def _write(run: Run, counts: Mapping[str, int], cut: int, made_of: str) -> None:
    numbers: npt.NDArray[np.int64] = np.fromiter(counts.values(), np.int64, len(counts))
    bands = np.where(numbers >= cut, HEAD, TAIL)
    table = pa.table({"category": list(counts), "pairs": numbers, "band": pa.array(bands).dictionary_encode()})
    with run.part(STEP, "bands", STEP) as part:
        part.write(table)
    found = split(counts, cut)
    numbers_of = msgspec.structs.asdict(found)
    totals = {f"bands.{name}": numbers_of[name] for name in numbers_of if name != "cut"}
    run.commit(STEP, STEP, {"bands": part}, fingerprint=made_of, counts=totals, facts={"head_min_count": cut})
