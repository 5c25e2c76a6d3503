"""How far annotators can be relied on: right on tiles whose answer is known, of one mind with others, not too fast.

Unsure and private are neither keep nor delete: they are counted, and left out of what compares the two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.proportions import Estimate, counted
from pipeline.run import Run
from stages.decisions import AUDIT, SCREENING, SIMULATED, among, latest, screened, votes

Ints = npt.NDArray[np.int64]

_VALUES = ("keep", "delete")


class Accuracy(NamedTuple):
    """An annotator on control tiles; every page on which a tile is shown counts. Shares in 0 to 1, limits of 95 %."""

    annotator: str
    tiles: int
    unsure: int
    """Of those, answered unsure or private: neither found nor missed."""
    precision: Estimate
    """Of the tiles the annotator deleted, the share that are wrong."""
    recall: Estimate
    """Of the wrong tiles, the share that the annotator deleted."""
    false_keep: Estimate
    """Of the wrong tiles, the share kept."""
    false_delete: Estimate
    """Of the right tiles, the share deleted."""


class Pairwise(NamedTuple):
    """Two annotators on the pairs that both judged."""

    one: str
    other: str
    pairs: int
    same: float
    """Share on which they say the same, 0 to 1."""
    kappa: float
    """Cohen's, at most 1; NaN where both said the same of everything."""


class Alpha(NamedTuple):
    """All annotators together."""

    value: float
    """Krippendorff's, nominal, at most 1; NaN where everybody said the same of everything."""
    pairs: int
    """Judged by two or more."""
    votes: int
    """About these."""


class FastPage(NamedTuple):
    """A page on which less time was spent than its tiles need."""

    annotator: str
    page_id: str
    tiles: int
    seconds_per_tile: float


class Hours(NamedTuple):
    """An annotator's time."""

    annotator: str
    pages: int
    timed: int
    """Pages of which the time is known."""
    hours: float
    """Spent on these."""


# --- controls ---


def on_controls(run: Run) -> list[Accuracy]:
    """Return every annotator's accuracy on control tiles of all rounds, by name. Raises `UserError` as `screened`."""
    said = screened(run)
    said = latest(said.filter(said["gold"].is_valid()), ("annotator", "page_id", "mask_id"))
    names = sorted(set(said["annotator"].to_pylist()))
    return [_accuracy(name, said.filter(pa.array(among(said, "annotator", [name])))) for name in names]


def _accuracy(name: str, said: pa.Table) -> Accuracy:
    wrong = among(said, "gold", ["delete"])
    deleted, kept = (among(said, "verdict", [verdict]) for verdict in ("delete", "keep"))

    def share(found: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> Estimate:
        return counted(int((found & of).sum()), int(of.sum()))

    return Accuracy(
        annotator=name,
        tiles=len(said),
        unsure=int((~deleted & ~kept).sum()),
        precision=share(wrong, deleted),
        recall=share(deleted, wrong),
        false_keep=share(kept, wrong),
        false_delete=share(deleted, ~wrong),
    )


def right_answers(run: Run, round_name: str) -> defaultdict[str, Estimate]:
    """Return, by annotator, the share of right answers to the control tiles of a round; unsure and private are none.

    Those who gave none have a share of nothing. Raises `UserError` as `screened`.
    """
    said = screened(run)
    said = said.filter(pa.array(said["gold"].is_valid().to_numpy() & among(said, "round", [round_name])))
    said = latest(said, ("annotator", "page_id", "mask_id")).select(["annotator", "verdict", "gold"])
    counts: defaultdict[str, list[bool]] = defaultdict(list)
    for row in said.to_pylist():
        counts[row["annotator"]].append(row["verdict"] == row["gold"])
    found = {name: counted(sum(right), len(right)) for name, right in counts.items()}
    return defaultdict(lambda: counted(0, 0), found)


# --- of one mind ---


def pairwise(run: Run) -> list[Pairwise]:
    """Return how far every two people agree who judged the same pairs blind, by name; those without are left out.

    Blind: in the screening round or the audit. What is known to be in conflict is shown again because people differ,
    and control tiles are easier than most. Raises `UserError` as `screened`.
    """
    table = _blind(run)
    people = sorted(set(table["annotator"].to_pylist()))
    by_name = {name: _codes(table.filter(pa.array(among(table, "annotator", [name])))) for name in people}
    found = (_pairwise(one, other, *by_name[one], *by_name[other]) for one, other in combinations(people, 2))
    return [two for two in found if two.pairs]


def _pairwise(one: str, other: str, masks: Ints, said: Ints, other_masks: Ints, other_said: Ints) -> Pairwise:
    _, here, there = np.intersect1d(masks, other_masks, assume_unique=True, return_indices=True)
    a, b = said[here], other_said[there]
    return Pairwise(one, other, len(a), float((a == b).mean()) if len(a) else math.nan, cohen_kappa(a, b))


def alpha(run: Run) -> Alpha:
    """Return how far all people agree on the pairs that two or more judged blind, as in `pairwise`."""
    masks, said = _codes(_blind(run))
    units, place = np.unique(masks, return_inverse=True)
    counts = np.bincount(place * len(_VALUES) + said, minlength=len(units) * len(_VALUES))
    counts = counts.reshape(len(units), len(_VALUES))
    several = counts.sum(1) > 1
    return Alpha(krippendorff_alpha(counts), int(several.sum()), int(counts[several].sum()))


def _blind(run: Run) -> pa.Table:
    """Return what each person said of each pair, keep or delete: the latest of the blind rounds."""
    said = latest(votes(run, (SCREENING, AUDIT)), ("mask_id", "annotator"))
    return said.filter(pa.array(among(said, "verdict", _VALUES) & ~among(said, "annotator", [SIMULATED])))


def _codes(table: pa.Table) -> tuple[Ints, Ints]:
    """Return mask ids and the places of the verdicts in `_VALUES`, both of shape (votes,)."""
    return table["mask_id"].to_numpy(), among(table, "verdict", _VALUES[1:]).astype(np.int64)


def cohen_kappa(one: Sequence[int] | Ints, other: Sequence[int] | Ints) -> float:
    """Return Cohen's kappa of two observers who gave each unit a value 0 or more; both have shape (units,).

    (p - e) / (1 - e) for the share p of units on which they agree and the share e expected if each kept their own
    shares of values (Cohen, Educational and Psychological Measurement 20, 1960). At most 1; NaN without units, and
    where both gave all units one value. Raises `UsageError` for other shapes or values.
    """
    a, b = np.asarray(one, np.int64), np.asarray(other, np.int64)
    if a.ndim != 1 or a.shape != b.shape or min(a.min(initial=0), b.min(initial=0)) < 0:
        raise UsageError(f"values of shapes {a.shape} and {b.shape} are not (units,) twice, 0 or more")
    if not len(a):
        return math.nan
    values = max(a.max(), b.max()) + 1
    shares, other_shares = (np.bincount(x, minlength=values) / len(a) for x in (a, b))
    expected = float(shares @ other_shares)
    return (float((a == b).mean()) - expected) / (1 - expected) if expected < 1 else math.nan


def krippendorff_alpha(counts: Ints) -> float:
    """Return Krippendorff's alpha for nominal values, with observers missing; `counts` has shape (units, values).

    It says how many observers gave a unit a value, 0 or more. 1 - D / E, from pairs of values within units and in all
    (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, part C). Units with a single value tell nothing.
    At most 1; NaN where there is only one value, or nothing to compare. Raises `UsageError` for another shape or
    counts below 0.
    """
    if counts.ndim != 2 or (counts < 0).any():
        raise UsageError(f"counts of shape {counts.shape} are not (units, values), 0 or more")
    counts = counts[counts.sum(1) > 1]
    sizes, totals = counts.sum(1), counts.sum(0)
    number = int(sizes.sum())
    unlike = float(number**2 - (totals**2).sum())
    if not unlike:
        return math.nan
    observed = float(((sizes**2 - (counts**2).sum(1)) / (sizes - 1)).sum())
    return 1 - (number - 1) * observed / unlike


# --- time ---


def too_fast(run: Run, floor_seconds_per_tile: float) -> list[FastPage]:
    """Return the pages answered in less than so many seconds, above 0, per tile, by annotator, the fastest first.

    Pages without a time are not among them. Raises `UsageError` for another floor, `UserError` as `screened`.
    """
    if not 0 < floor_seconds_per_tile < math.inf:
        raise UsageError(f"floor {floor_seconds_per_tile} must be above 0 seconds and finite")
    timed = [row for row in _pages(run).to_pylist() if row["page_seconds_max"] is not None]
    pages = (FastPage(row["annotator"], row["page_id"], row["mask_id_count"], _speed(row)) for row in timed)
    fast = (page for page in pages if page.seconds_per_tile < floor_seconds_per_tile)
    return sorted(fast, key=lambda page: (page.annotator, page.seconds_per_tile, page.page_id))


def _speed(row: dict[str, float]) -> float:
    return row["page_seconds_max"] / row["mask_id_count"]


def hours(run: Run) -> list[Hours]:
    """Return the time of every annotator, control tiles and all rounds included, by name.

    Raises `UserError` as `screened`.
    """
    pages = _pages(run).group_by("annotator").aggregate([
        ("page_id", "count"),
        ("page_seconds_max", "count"),
        ("page_seconds_max", "sum"),
    ])  # fmt: skip
    columns = pages.sort_by("annotator").select(
        ["annotator", "page_id_count", "page_seconds_max_count", "page_seconds_max_sum"]
    )
    return [
        Hours(name, count, timed, (spent or 0.0) / 3600)
        for name, count, timed, spent in zip(*columns.to_pydict().values(), strict=True)
    ]


def _pages(run: Run) -> pa.Table:
    """Return one row per annotation, with its number of tiles and its time when it was last changed."""
    annotation = ["server", "annotation_id", "annotator", "page_id"]
    said = latest(screened(run), (*annotation, "mask_id"))
    return said.group_by(annotation).aggregate([("mask_id", "count"), ("page_seconds", "max")])
