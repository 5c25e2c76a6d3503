"""Which categories may be one: proposals for people, as a table to decide in and a page to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files, gallery
from pipeline.errors import UsageError
from pipeline.gallery import Card, Page, Picture
from pipeline.run import Run
from pipeline.wordnet import WordNet
from stages import candidates, coarse, sampled_regions
from stages.candidates import Candidate
from stages.pairing import STEP

TABLE, PAGE, GROUPS = "category-candidates.csv", "category-candidates.html", "coarse-groups.csv"
TREE = Path(__file__).parent.parent / "data_manifests" / "coarse_categories.toml"

_SHOWN = 150  # candidates on the page, the likeliest of each kind first
_EACH = 2  # regions of each of the two names


class Review(NamedTuple):
    """What was written."""

    table: str
    page: str
    groups: str
    """Every category's place in the coarse tree, the least sure first."""
    summary: dict[str, Counter[str]]
    """By kind: proposed, or what speaks against."""


def propose(run: Run, wordnet: WordNet | None, threshold: float) -> Review:
    """Write the candidates among the run's categories, and their coarse groups, into the run folder.

    Raises `UsageError` without pairs.
    """
    counts = _counts(run)
    run.folder.replace(GROUPS, coarse.write_csv(coarse.assign(sorted(counts), coarse.load(TREE))))
    found = candidates.propose(counts, wordnet, threshold)
    run.folder.replace(TABLE, candidates.write_csv(found))
    shown = candidates.proposals(found)[:_SHOWN]
    cards = _cards(run, shown)
    run.folder.replace(PAGE, gallery.html(_page(run, counts, cards), cards).encode())
    uri = run.folder.uri
    paths = [files.join(uri, name) for name in (TABLE, PAGE, GROUPS)]
    return Review(paths[0], paths[1], paths[2], candidates.summary(found))


def _counts(run: Run) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in run.dataset("pairs", STEP).to_batches(columns=["category"]):
        for found in batch["category"].value_counts().to_pylist():
            counts[found["values"]] += found["counts"]
    if not counts:
        raise UsageError(f"{run.folder.uri}: no pairs yet. Make them first: rr7k stage-1 pairs")
    return counts


def _page(run: Run, counts: Counter[str], cards: Sequence[Card]) -> Page:
    facts = [
        ("run", files.base_name(run.folder.uri)),
        ("categories", f"{len(counts):,}"),
        ("decide in", f"{TABLE}: copy the first five columns of what is one category into categories.csv"),
    ]
    kinds, headings = Counter(card.group for card in cards), Counter(card.heading for card in cards)
    return Page("Categories that may be one", facts, dict(kinds), dict(headings), "Candidates")


def _heading(candidate: Candidate) -> str:
    return f"{candidate.variant} → {candidate.canonical}"


def _cards(run: Run, shown: Sequence[Candidate]) -> list[Card]:
    examples = _examples(run, {name for c in shown for name in (c.variant, c.canonical)})
    drawn = sampled_regions.pictures(run, [mask for masks in examples.values() for mask in masks])
    cards = []
    for candidate in shown:
        for name, count in (
            (candidate.variant, candidate.variant_count),
            (candidate.canonical, candidate.canonical_count),
        ):
            cards += [_card(candidate, name, count, drawn[mask]) for mask in examples[name]]
    return cards


def _card(candidate: Candidate, name: str, count: int, picture: Picture | str) -> Card:
    lines = [("this one", f"{name} ({count:,})"), ("similarity", f"{candidate.similarity:.2f}")]
    lines += [("WordNet", candidate.wordnet)] if candidate.wordnet else []
    lines += [("several meanings", candidate.homograph)] if candidate.homograph else []
    return Card(_heading(candidate), candidate.kind, picture, lines)


def _examples(run: Run, names: set[str]) -> dict[str, list[int]]:
    """Return a few masks of each category, those with the lowest ids."""
    wanted = pa.array(sorted(names), pa.string())
    found: dict[str, list[int]] = {name: [] for name in names}
    for batch in run.dataset("pairs", STEP).to_batches(columns=["category", "mask_id"]):
        here = batch.filter(pc.is_in(batch["category"], wanted))
        for name, mask_id in zip(here["category"].to_pylist(), here["mask_id"].to_pylist(), strict=True):
            found[name] = sorted([*found[name], mask_id])[:_EACH]
    return found
