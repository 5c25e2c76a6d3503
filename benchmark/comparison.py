"""Two models on the same instances: what one is better by, and regions on which they differ.

The regions are those of the paper's qualitative comparison (Figs 15 and 16): small, huge, and rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmark import pictures
from benchmark.bootstrap import Difference, compare
from benchmark.breakdowns import groupings
from benchmark.confusions import column
from benchmark.dataset import load
from benchmark.page import scores
from benchmark.scorecard import Scorecard
from pipeline import gallery
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page
from pipeline.regions import RARE

_NEARER = 0.1
"""Difference of two similarities from which one answer is called nearer: about that of two near synonyms."""
_FAR = 0.5
"""Similarity below which an answer is called far off; "woman" for "person" has 0.64 (wowseg_facts.md A.5)."""

_SECTIONS = {"small": ("size", "tiny"), "huge": ("size", "large"), "rare": ("frequency", RARE)}
"""Heading: breakdown, and the beginning of the name of its group."""

Bools = npt.NDArray[np.bool_]


class Gain(msgspec.Struct, frozen=True):
    """What the first model is better by, in some of the instances."""

    group: str
    instances: int
    measures: dict[str, Difference]


class Comparison(msgspec.Struct, frozen=True):
    """Two models by one protocol."""

    first: str
    second: str
    preset: str
    gains: list[Gain]
    """Of all instances, then by frequency and by size."""


def differ(one: Scorecard, other: Scorecard) -> Comparison:
    """Compare two scorecards. Raises `UsageError` unless benchmark, split and protocol are the same."""
    if one.row.group != other.row.group:
        raise UsageError("two models can be compared on one benchmark, one split and by one protocol only.")
    first, second = names(one, other)
    total = one.result.instances
    everything = [("all", np.ones(total, np.bool_)), *_groups(one)]
    gains = [_gain(group, chosen, one, other) for group, chosen in everything]
    return Comparison(first, second, one.result.preset, [gain for gain in gains if gain.measures])


def names(one: Scorecard, other: Scorecard) -> tuple[str, str]:
    """Return what the two are called: their models, or their files where those are the same or not told."""
    first, second = one.result.model, other.result.model
    if first and second and first != second:
        return first, second
    return f"{first} ({one.predictions.path})".strip(), f"{second} ({other.predictions.path})".strip()


def _groups(card: Scorecard) -> list[tuple[str, Bools]]:
    return [
        (f"{part.name}: {name}", part.codes == code)
        for part in groupings(card.truth.instances, card.truth.categories, None)
        if part.name in ("frequency", "size")
        for code, name in enumerate(part.names)
    ]


def _gain(group: str, chosen: Bools, one: Scorecard, other: Scorecard) -> Gain:
    images = one.result.per_instance["image_id"].to_numpy()[chosen]
    found = {}
    for name in one.result.scores:
        first, second = (column(card.result.per_instance, name)[chosen] for card in (one, other))
        if not np.isnan(first - second).all():
            found[name] = compare(first, second, images)
    return Gain(group, int(chosen.sum()), found)


# --- the gallery ------------------------------------------------------------------------------------------


def html(one: Scorecard, other: Scorecard, each: int = 6) -> str:
    """Return a page of regions on which the two differ most, and on which both are far off; `each` of a kind."""
    first, second = names(one, other)
    groups = (f"{first} is nearer", f"{second} is nearer", "both are far off")
    similarity = np.stack([column(card.result.per_instance, "similarity") for card in (one, other)])
    gain = similarity[0] - similarity[1]
    # (members, what to show first) of each group
    kinds = (
        (gain > _NEARER, -gain),
        (gain < -_NEARER, gain),
        ((similarity < _FAR).all(axis=0), similarity.sum(axis=0)),
    )
    chosen: list[tuple[str, str, int]] = []
    sections = _sections(one)
    for heading, here in sections.items():
        for group, (members, order) in zip(groups, kinds, strict=True):
            places = np.flatnonzero(members & here)
            chosen += [
                (heading, group, int(place)) for place in places[np.argsort(order[places], kind="stable")][:each]
            ]
    counts = {group: int(members.sum()) for group, (members, _) in zip(groups, kinds, strict=True)}
    headings = {heading: int(here.sum()) for heading, here in sections.items()}
    page = Page(
        f"{first} and {second} on {one.truth.name}",
        [
            ("protocol", one.result.preset),
            ("nearer", f"by more than {_NEARER:g} in similarity"),
            ("far off", f"< {_FAR:g}"),
        ],
        counts,
        headings,
        "Regions in all",
        {group: (group,) for group in groups},
        {heading: f"{count:,} regions" for heading, count in headings.items()},
    )
    return gallery.html(page, _cards(one, other, chosen))


def _sections(card: Scorecard) -> dict[str, Bools]:
    known = dict(_groups(card))
    found = {}
    for heading, (part, start) in _SECTIONS.items():
        of_it = [members for name, members in known.items() if name.startswith(f"{part}: {start}")]
        if of_it and of_it[0].any():
            found[heading] = of_it[0]
    return found


def _cards(one: Scorecard, other: Scorecard, chosen: Sequence[tuple[str, str, int]]) -> list[Card]:
    rows = [_rows(card.result.per_instance, [place for _, _, place in chosen]) for card in (one, other)]
    drawn = pictures.draw(load(one.truth.folder), {row["instance_id"]: row["image_id"] for row in rows[0]})
    made = []
    for (heading, group, _), mine, theirs in zip(chosen, *rows, strict=True):
        lines = [("it is", mine["category"])]
        for name, row in zip(names(one, other), (mine, theirs), strict=True):
            told = ", ".join(f"{label} {number}" for label, number in scores(row))
            lines.append((name, f"{row['text'] or row['outcome']} ({told})"))
        picture = drawn[mine["instance_id"]] or "the benchmark only refers to its images: rr7k hydrate adds them"
        made.append(Card(heading, group, picture, [*lines, ("instance", str(mine["instance_id"]))]))
    return made


def _rows(table: pa.Table, places: Sequence[int]) -> list[dict[str, Any]]:
    return list(table.take(pa.array(places, pa.int64())).to_pylist())
