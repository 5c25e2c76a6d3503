"""The verdicts of a run as a page to look at: by category, dropped and kept pairs side by side, and controls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from pipeline import files, gallery
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from stages import asked_regions, sampled_regions, verdicts, verification_counts, verification_settings
from stages.asked_regions import Row
from stages.name_gallery import Written
from stages.verification_counts import CategoryCounts, Counts, Lowest

FILE = "verdicts.html"

_CONTROLS = {"yes": "control: said yes", "unclear": "control: unclear", "no": "control: said no"}
"""Outcome to group."""
_COLUMNS = {
    "dropped: nearly kept first": ("dropped",),
    "kept: nearly dropped first": ("kept",),
    "wrong category asked": tuple(_CONTROLS.values()),
}
_SHARES = {"dropped": 3, "kept": 3, **dict.fromkeys(_CONTROLS.values(), 1)}
"""Parts of a category's place on the page by group, so that rare ones are seen."""
_PARTS = 8  # unclear controls left out: there are hardly any
_OF_CATEGORY = 16  # regions; fewer are no comparison

_Asked = tuple[str, int]
"""Category and mask."""


def write(run: Run, samples: int, seed: int) -> Written:
    """Write `verdicts.html` into the run folder: about `samples` regions asked about, eight at least.

    The worst categories come first. A third of them has the highest drop rates, a third the highest false-yes rates, a
    third is chosen by hash; in each, every group gets a share, chosen by the hash of the masks. A region that cannot be
    drawn has the reason in place of a picture. Raises `UsageError` when there are no verdicts.
    """
    counts = verification_counts.count(run)
    every = counts.by_category()
    shown = _categories(every, max(1, samples // _OF_CATEGORY), seed)
    each = max(1, samples // (_PARTS * max(1, len(shown))))
    cards = _cards(run, counts, [found.category for found in shown], each, seed)
    page = _page(run, counts, every, shown, _told(len(cards), every, len(shown), each, seed))
    run.folder.replace(FILE, gallery.html(page, cards).encode())
    return Written(files.join(run.folder.uri, FILE), len(cards), _asked(every))


# --- the sample -------------------------------------------------------------------------------------------


def _categories(every: Sequence[CategoryCounts], most: int, seed: int) -> list[CategoryCounts]:
    """Choose in turn the highest drop rate, the highest false-yes rate and the lowest hash; return them worst first."""
    rankings = (
        every,
        sorted(every, key=lambda found: -found.false_yes.lower),
        sorted(every, key=lambda found: files.sha256(f"{seed} {found.category}".encode())),
    )
    turns = dict.fromkeys(found.category for found in chain.from_iterable(zip(*rankings, strict=True)))
    chosen = set(list(turns)[:most])
    return [found for found in every if found.category in chosen]


def _sample(run: Run, categories: Sequence[str], each: int, seed: int) -> dict[str, list[_Asked]]:
    """Choose regions of these categories by group."""
    lowest = {group: Lowest(each * parts, seed) for group, parts in _SHARES.items()}
    of_these = pads.field("category").isin(pa.array(categories, pa.string()))
    pairs, checks = run.dataset("verdicts", verdicts.STEP), run.dataset("checks", verification_settings.STEP)
    for batch in pairs.to_batches(columns=["mask_id", "category", "kept", "reason"], filter=of_these):
        asked = pc.not_equal(batch["reason"], "tail")
        lowest["kept"].add(batch.filter(pc.and_(asked, batch["kept"])))
        lowest["dropped"].add(batch.filter(pc.invert(batch["kept"])))
    for batch in checks.to_batches(columns=["mask_id", "category", "role", "outcome"], filter=of_these):
        wrong = verification_counts.controls(batch)
        for outcome, group in _CONTROLS.items():
            lowest[group].add(wrong.filter(pc.equal(wrong["outcome"], outcome)))
    return {group: rows.best() for group, rows in lowest.items()}


# --- the page ---------------------------------------------------------------------------------------------


def _cards(run: Run, counts: Counts, categories: Sequence[str], each: int, seed: int) -> list[Card]:
    """Make the cards: by category in the order given, by group, the least sure of each group first."""
    sample = _sample(run, categories, each, seed)
    pairs = asked_regions.pairs(run, [mask_id for group in ("dropped", "kept") for _, mask_id in sample[group]])
    controls = asked_regions.controls(run, [asked for group in _CONTROLS.values() for asked in sample[group]])
    rows = [*pairs.values(), *controls.values()]
    drawn = sampled_regions.pictures(run, sorted({row["mask_id"] for row in rows}))
    place, order = {name: rank for rank, name in enumerate(categories)}, list(_SHARES)

    def rank(row: Row) -> tuple[int, int, float, int]:
        group, score = _group(row), -1.0 if row["score"] is None else row["score"]
        return place[row["category"]], order.index(group), score if group == "kept" else -score, row["mask_id"]

    return [_card(row, counts, drawn[row["mask_id"]]) for row in sorted(rows, key=rank)]


def _group(row: Row) -> str:
    return _CONTROLS[row["outcome"]] if "kind" in row else "kept" if row["kept"] else "dropped"


def _card(row: Row, counts: Counts, picture: Picture | str) -> Card:
    group, threshold = _group(row), counts.thresholds.get(row["category"])
    warning = {_CONTROLS["yes"]: "control: a false yes"}.get(group, "control" if "kind" in row else "")
    badge = asked_regions.badge(row, warning)
    lines = [("asked", row["category"]), *asked_regions.lines(row, threshold)]
    return Card(row["category"], group, picture, lines, badge)


def _page(
    run: Run, counts: Counts, every: Sequence[CategoryCounts], shown: Sequence[CategoryCounts], told: str
) -> Page:
    name, outcomes = files.base_name(run.folder.uri), counts.outcomes()
    dropped, asked = (sum(getattr(found.dropped, part) for found in every) for part in ("count", "total"))
    facts = [
        ("run", name),
        ("model", ", ".join(counts.made_by["model"])),
        ("layout", ", ".join(counts.made_by["layout"])),
        ("threshold", ", ".join(f"{value:.3f}" for value in sorted(set(counts.thresholds.values())))),
        ("kept in the tail, whatever was said", f"{counts.tail:,}"),
        ("in brackets", "95 % confidence limits"),
        ("sample", told),
    ]
    groups = {"dropped": dropped, "kept": asked - dropped}
    groups |= {group: outcomes[outcome] for outcome, group in _CONTROLS.items() if outcomes[outcome]}
    headings = {found.category: found.dropped.count for found in shown}
    notes = {found.category: _note(found) for found in shown}
    return Page(f"Verdicts of {name}", facts, groups, headings, "Pairs dropped, worst rate first", _COLUMNS, notes)


def _told(cards: int, every: Sequence[CategoryCounts], shown: int, each: int, seed: int) -> str:
    text = f"{cards:,} of {_asked(every):,} answers, chosen by hash (seed {seed})"
    if shown < len(every):
        text += (
            f"; from {shown:,} of {len(every):,} categories, in turn one of the highest drop rate, one of the highest "
            "false-yes rate, and one by hash"
        )
    most = " and ".join(f"{_SHARES[group] * each} {group}" for group in ("dropped", "kept"))
    text += f"; of each at most {most} and {each} controls of each answer"
    return f"{text}, so rare ones are shown more often than they occur"


def _note(found: CategoryCounts) -> str:
    controls = found.false_yes
    text = f"dropped: {found.dropped.told()}"
    return f"{text} · false yes: {controls.told()}" if controls.total else text


def _asked(counted: Iterable[CategoryCounts]) -> int:
    return sum(found.dropped.total + found.false_yes.total for found in counted)
