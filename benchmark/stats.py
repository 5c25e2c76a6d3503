"""The numbers of a release, counted from its files: what `stats.json` holds and the data card prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark import selection
from benchmark.image_files import Mode
from pipeline import regions
from pipeline.decoding import decoded
from pipeline.errors import UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run, version

FILE = "stats.json"
_AUDIT = "screening.json"
"""In the run folder: what stage 3 measured of its own verdicts."""

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a release."""

    version: str
    date: str
    """ISO 8601; as the card states it. Nothing else in a release depends on the day."""
    images: Mode
    unscreened: bool = False


class Size(msgspec.Struct, frozen=True):
    """How much of everything."""

    instances: int
    images: int
    categories: int


class Share(msgspec.Struct, frozen=True):
    """A share with its 95 % confidence limits, 0 to 1."""

    share: float | None
    """None: nothing was judged yet."""
    lower: float
    upper: float
    observations: int


class Audit(msgspec.Struct, frozen=True):
    """What the blind second look of a run found (RUN/screening.json)."""

    overall: Share
    """Strata weighted by the pairs that they hold."""
    strata: dict[str, Share]
    """By why people were shown the pair: head, tail, flagged, dropped (stages/audit.py)."""
    waiting: int
    """Pairs drawn that nobody has judged yet."""
    unresolved: int
    """Pairs judged, but unsure, private, or as often right as wrong; they are in no share."""
    simulated: int
    """Judgements among it that no person gave."""


class Moves(msgspec.Struct, frozen=True):
    """What became of an earlier release's splits (benchmark/previous.py)."""

    since: str
    """Its name."""
    images: dict[str, int]
    """Its images, by what became of them."""
    new: int
    """Images that it did not have."""
    mini_kept: int
    mini_left: int
    mini_new: int
    """Images of the small subset."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What `stats.json` holds."""

    name: str
    version: str
    date: str
    made_by: str
    format_version: int
    images: Mode
    unscreened: bool
    simulated: bool
    runs: list[str]
    total: Size
    splits: dict[str, Size]
    """By split, and `mini` within `test`."""
    pairs: int
    """Of all runs: the sum of the outcomes."""
    outcomes: dict[str, int]
    conflicts: dict[str, int]
    frequency: dict[str, int]
    """Categories by band."""
    instances_per_category: dict[str, float]
    """By quantile."""
    area_ratio: dict[str, float]
    """By quantile."""
    coarse: dict[str, dict[str, int]]
    """Instances by primary and secondary group."""
    outside_the_tree: list[str]
    """Categories that have no coarse group."""
    screened_by: dict[str, int]
    agreement: dict[str, int]
    namer_engines: dict[str, int]
    """Instances by kind of engine among their namers."""
    namer_models: dict[str, int]
    verifier_models: dict[str, int]
    audited: int
    audit: dict[str, Audit | None]
    """By run: the share of released pairs that the blind audit found right; null: not measured."""
    near_duplicates_checked: bool
    moves: Moves | None = None
    """Of the splits of an earlier release; null: none was given."""


def is_version(text: str) -> bool:
    """Say whether `text` is a semantic version, as in 1.0.0 or 1.0.0-beta.1."""
    return re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", text) is not None


def is_date(text: str) -> bool:
    """Say whether `text` is a day, as in 2026-11-24."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def gather(
    samples: RegionSamples,
    runs: Sequence[Run],
    outcomes: Mapping[str, int],
    conflicts: pa.Table,
    options: Options,
    moves: Moves | None,
) -> Stats:
    """Count a release. Raises `UserError` when the outcomes do not add up to the instances written."""
    columns = ["image_id", "category", "split", "mini", "area_ratio", "screened_by", "agreement", "audited"]
    found = samples.read("instances", [*columns, "namer_engines", "namer_models", "verifier_model"])
    if outcomes[selection.RELEASED] != len(found):
        raise UserError(
            f"{outcomes[selection.RELEASED]:,} pairs were chosen, but {len(found):,} instances are written."
        )
    kinds = samples.read("categories")
    by = _counts(found["screened_by"])
    simulated = selection.SIMULATED in by
    return Stats(
        name=_name(options.version, unscreened=options.unscreened, simulated=simulated),
        version=options.version,
        date=options.date,
        made_by=version(),
        format_version=regions.VERSION,
        images=options.images,
        unscreened=options.unscreened,
        simulated=simulated,
        runs=[selection.name_of(run) for run in runs],
        total=_size(found),
        splits=_splits(found),
        pairs=sum(outcomes.values()),
        outcomes=dict(sorted(outcomes.items())),
        conflicts=_counts(conflicts["kind"]),
        frequency=_counts(kinds["frequency"]),
        instances_per_category=_quantiles(kinds["instances"]),
        area_ratio=_quantiles(found["area_ratio"]),
        coarse=_coarse(kinds),
        outside_the_tree=kinds.filter(pc.is_null(kinds["coarse_primary"]))["category"].to_pylist(),
        screened_by=by,
        agreement=_counts(found["agreement"]),
        namer_engines=_counts(pc.list_flatten(found["namer_engines"])),
        namer_models=_counts(pc.list_flatten(found["namer_models"])),
        verifier_models=_counts(found["verifier_model"].drop_null()),
        audited=pc.sum(found["audited"]).as_py() or 0,
        audit={selection.name_of(run): _audit(run) for run in runs},
        near_duplicates_checked=samples.read("images", ["dhash"])["dhash"].null_count == 0,
        moves=moves,
    )


def as_json(stats: Stats) -> str:
    """Return the content of `stats.json`, readable."""
    return msgspec.json.format(msgspec.json.encode(stats), indent=1).decode() + "\n"


def load(folder: Path) -> Stats:
    """Read the statistics of a release. Raises `UserError` where there are none, or they are damaged."""
    try:
        data = (folder / FILE).read_bytes()
    except OSError as error:
        raise UserError(f"{folder / FILE}: cannot be read: {error}") from error
    return decoded(data, Stats, f"{folder / FILE}", "Copy or make the release again.")


def _name(number: str, *, unscreened: bool, simulated: bool) -> str:
    """Return the release's name; it says when people have not screened all of it."""
    marks = [mark for mark, holds in (("unscreened", unscreened), ("simulated", simulated)) if holds]
    return "-".join(["rr7k", *marks, number])


def _size(rows: pa.Table) -> Size:
    return Size(len(rows), len(rows["image_id"].unique()), len(rows["category"].unique()))


def _splits(found: pa.Table) -> dict[str, Size]:
    parts = {name: found.filter(pc.equal(found["split"], name)) for name in sorted(found["split"].unique().to_pylist())}
    mini = found.filter(found["mini"])
    return {name: _size(rows) for name, rows in {**parts, **({"mini": mini} if len(mini) else {})}.items()}


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values.to_pylist()).items()))


def _quantiles(values: pa.ChunkedArray) -> dict[str, float]:
    found = np.quantile(values.to_numpy(), _QUANTILES)
    return {f"{quantile:g}": float(value) for quantile, value in zip(_QUANTILES, found, strict=True)}


def _coarse(kinds: pa.Table) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    names = ["coarse_primary", "coarse_secondary"]
    summed = kinds.drop_null().group_by(names).aggregate([("instances", "sum")])
    for row in summed.sort_by([(name, "ascending") for name in names]).to_pylist():
        found.setdefault(row["coarse_primary"], {})[row["coarse_secondary"]] = row["instances_sum"]
    return found


class _Screening(msgspec.Struct):
    audit: Audit | None


def _audit(run: Run) -> Audit | None:
    """Return what the blind audit found, None where there was none. Raises `UserError` for a damaged file."""
    if not run.folder.exists(_AUDIT):
        return None
    where = f"{run.folder.uri}/{_AUDIT}"
    return decoded(run.folder.read(_AUDIT), _Screening, where, "Make it again: rr7k stage-3 import").audit
