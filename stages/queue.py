"""Stage 3, first step: what people look at, in which order, on which pages.

The queue only grows. A pair that is in it is never queued again in that round, and no page is ever changed or taken
back, since people may have it on their screens: more data, or a wider selection, adds pages about what is new. A pair
whose category has changed is another pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import embeddings, files, tables
from pipeline.config import Section
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import category_review, coarse, crops, gold, head_tail, pairing, verdicts
from stages.decisions import SCREENING
from stages.paging import Sheet, keys, paged
from stages.remembering import inherited, remember
from stages.sampling import stable_hash, within

STEP = "queue"

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
Floats = npt.NDArray[np.float64]

_DISAGREEMENT = {"same": 0.0, "synonym": 0.0, "only-one": 0.25, "related": 0.5, "different": 1.0}
"""How far the namers differ; a mask that one alone has named lies between those who agree and those who do not."""


class QueueConfig(Section):
    """Stage 3 queue: what people are shown, and how much of it tests them."""

    tiles: int = Field(24, ge=1, le=24)
    """Regions on a page. 24 are as many as the screen has keys for."""

    dropped_share: float = Field(0.02, ge=0, le=1)
    """Share of the pairs dropped in stage 2 that people see, to learn how many were dropped wrongly."""

    gold_share: float = Field(0.05, ge=0, le=0.5)
    """Share of the tiles whose answer is known: about one a page."""

    seed: int = 0
    """Of the draws."""


class Made(NamedTuple):
    """What a call of `build` added."""

    pages: int
    rows: Counter[str]
    """By why they are shown."""


# --- growing ----------------------------------------------------------------------------------------------


def build(run: Run, config: QueueConfig, embed: Embed = embeddings.embed) -> Made:
    """Queue what the run's verdicts ask for and the round `screening` does not have yet.

    `embed` returns (N, D) unit vectors of texts, for the categories that the coarse tree does not list. Pairs that
    stage 2 has no verdict about wait. Raises `UsageError` when there are no verdicts.
    """
    config = inherited(run, STEP, config)
    wanted = selected(run, config)  # before the lock, which would make a folder of a path that was mistyped
    with run.lock(STEP):
        remember(run, STEP, config)
        found = new(run, wanted, SCREENING)
        if not found.num_rows:
            return Made(0, Counter())
        sheet = Sheet(SCREENING, "page", config.tiles, config.gold_share, config.seed)
        tail = {name for name, (_, band) in head_tail.of_categories(run).items() if band == head_tail.TAIL}
        return append(run, paged(ordered(found, embed), gold.known(run), tail, sheet))


def selected(run: Run, config: QueueConfig) -> pa.Table:
    """Return all pairs that people are to see: a table of mask_id, image_id, category, band and what `queue` says.

    They are the pairs kept in the head, all of the tail, all that the namers' rules flagged, whatever the model said of
    them, and of the other dropped ones those whose hash lies within `dropped_share`: a larger share contains a smaller,
    and growing data leaves what was drawn. `stratum` of these is the reason they were dropped for.
    """
    table = _judged(run)
    kept, flagged = (np.asarray(table[name].to_numpy(zero_copy_only=False), np.bool_) for name in ("kept", "flagged"))
    hashes = stable_hash(table["mask_id"].to_numpy(), config.seed)
    sampled = ~kept & ~flagged
    drawn = within(hashes, -1, int(config.dropped_share * (2**64 - 2**11))) & (config.dropped_share > 0)
    band, reason = (np.array(table[name].to_pylist(), np.str_) for name in ("band", "reason"))
    columns = {
        "why": np.where(flagged, "flagged", np.where(kept, band, "dropped")),
        "error": errors(table["score"].to_numpy(), table["agreement"].to_pylist(), flagged),
        "inclusion_probability": np.where(sampled, config.dropped_share, 1.0),
        "stratum": np.where(sampled, reason, ""),
    }
    about = {name: table[name] for name in ("mask_id", "image_id", "category", "band")}
    return pa.table({**about, **columns}).filter(pa.array(~sampled | drawn))


def errors(score: Floats, agreement: Sequence[str], flagged: npt.NDArray[np.bool_]) -> Floats:
    """Return how likely pairs are wrong, 0 to 1, to put the worst first; an order, not a calibrated chance.

    error = 0.5 · flagged + 0.45 · (1 − score) + 0.05 · disagreement

    Flagged pairs are all at 0.5 or above and all others at 0.5 or below: there two models contradict each other, and
    the rules want people to see them first. Next counts the checking model, whose answer is about this very name;
    without a score (NaN: the tail, or no answer) the pair stands in the middle, at 0.5. The namers' disagreement
    decides between like scores: it weighs as much as a ninth of the score, since one of them may just be less exact.
    """
    doubt = np.where(np.isnan(score), 0.5, 1 - score)
    differ = np.array([_DISAGREEMENT[name] for name in agreement], np.float64)
    return np.asarray(0.5 * flagged + 0.45 * doubt + 0.05 * differ, np.float64)


def _judged(run: Run) -> pa.Table:
    """Return the verdicts that are about the pairs as they are, with what the pairs say, by mask."""
    columns = ["mask_id", "image_id", "category", "band", "score", "kept", "reason"]
    said = run.dataset("verdicts", verdicts.STEP).to_table(columns=columns)
    if not said.num_rows:
        raise UsageError(f"{run.folder.uri}: no verdicts yet. Make them first: rr7k stage-2")
    pairs = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "category", "agreement", "flagged"])
    found = _plain(said).join(_plain(pairs), ["mask_id", "category"], join_type="inner")
    return found.sort_by("mask_id").combine_chunks()


def _plain(table: pa.Table) -> pa.Table:
    """Return a table whose labels are text: joins do not take dictionaries."""
    fields = [pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))


def new(run: Run, found: pa.Table, round_name: str) -> pa.Table:
    """Return the pairs that a round does not have, of masks that the run has: of others nothing could be shown."""
    asked = (pc.field("round").cast(pa.string()) == round_name) & pc.field("gold").is_null()
    queued = run.dataset("queue", STEP).to_table(columns=["mask_id", "category"], filter=asked)
    masks = run.dataset("masks").to_table(columns=["mask_id"])["mask_id"]
    unseen = pa.array(~np.isin(keys(found), keys(queued)))
    return found.filter(pc.and_(pc.is_in(found["mask_id"], masks), unseen))


def append(run: Run, rows: pa.Table) -> Made:
    """Add pages, as `paging.paged` makes them, to the queue; for the holder of its lock."""
    if not rows.num_rows:
        return Made(0, Counter())
    names = _pictures(run, rows)
    for column in crops.Names._fields:
        rows = rows.append_column(column, pa.array([getattr(name, column) for name in names], pa.string()))
    run.sweep(STEP, ["queue"])
    key = run.next_key(STEP)
    with run.part(STEP, "queue", key) as part:
        part.write(rows.select([field.name for field in tables.SCHEMAS["queue"]]))
    pages, why = pc.count_distinct(rows["page_id"]).as_py(), Counter(rows["why"].to_pylist())
    counts = {"queue.pages": pages, **{f"queue.{name}": count for name, count in sorted(why.items())}}
    made = files.sha256(keys(rows).tobytes())[:16]
    run.commit(STEP, key, {"queue": part}, fingerprint=made, counts=counts, facts={})
    return Made(pages, why)


def _pictures(run: Run, rows: pa.Table) -> list[crops.Names]:
    """Return the files of each row's mask in its view; all masks are in the run."""
    ids, views = rows["mask_id"].to_numpy(), rows["view"].to_pylist()
    of = {view: crops.names(run, ids, view) for view in sorted(set(views))}
    return [name for place, view in enumerate(views) if (name := of[view][place]) is not None]


def adopt(run: Run, rows: Sequence[Mapping[str, Any]]) -> Made:
    """Make a lost queue again from what a server knows of it: page_id, view, round, place, mask_id and category.

    Why a tile was shown, and whether its answer was known, is lost with the queue: none of them tests anybody any more.
    Raises `UsageError` when the run has a queue, or lacks some of the masks: its shards have to be read first.
    """
    with run.lock(STEP):
        if run.parts("queue"):
            raise UsageError(f"{run.folder.uri}: has a queue; only one that is lost is made again.")
        masks = run.dataset("masks").to_table(columns=["mask_id", "image_id"])
        images = dict(zip(masks["mask_id"].to_pylist(), masks["image_id"].to_pylist(), strict=True))
        if lost := {row["mask_id"] for row in rows} - images.keys():
            raise UsageError(f"{run.folder.uri}: lacks {len(lost):,} of the masks that were shown. Read their shards.")
        return append(run, _adopted(rows, images))


def _adopted(rows: Sequence[Mapping[str, Any]], images: Mapping[int, int]) -> pa.Table:
    same = {"why": "recovered", "error": None, "inclusion_probability": 1.0, "stratum": "", "gold": None}
    whole = [{**row, "image_id": images[row["mask_id"]], **same} for row in rows]
    fields = [field for field in tables.SCHEMAS["queue"] if field.name not in crops.Names._fields]
    kinds = [(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in fields]
    return pa.Table.from_pylist(whole, schema=pa.schema(kinds))


def ordered(found: pa.Table, embed: Embed) -> pa.Table:
    """Sort by band, place in the coarse tree and category, so that like follows like; within a category worst first."""
    tree = coarse.load(category_review.TREE)
    order = {group: place for place, group in enumerate(tree.groups)}
    names = sorted(set(found["category"].to_pylist()))
    groups = {a.name: order[coarse.Group(a.primary, a.secondary)] for a in coarse.assign(names, tree, embed)}
    ranked = {name: place for place, name in enumerate(sorted(names, key=lambda name: (groups[name], name)))}
    rank = np.array([ranked[name] for name in found["category"].to_pylist()])
    tail = np.array(found["band"].to_pylist(), np.str_) == head_tail.TAIL
    worst = np.lexsort((found["mask_id"].to_numpy(), -found["error"].to_numpy(), rank, tail))
    return found.take(pa.array(worst))


# --- pages ------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A tile. Whether it is gold is not here: nobody who is shown it may know."""

    mask_id: int
    category: str
    crop: str
    raw: str


class Page(NamedTuple):
    """What is shown at once."""

    page_id: str
    view: str
    tiles: list[Shown]
    """In their places."""


def pages(run: Run) -> list[Page]:
    """Return the pages of all rounds in the order in which they were queued."""
    columns = ["page_id", "view", "place", *Shown._fields]
    table = run.dataset("queue").to_table(columns=columns, use_threads=False)
    found: dict[str, Page] = {}
    for row in table.to_pylist():
        page = found.setdefault(row["page_id"], Page(row["page_id"], row["view"], []))
        page.tiles.append(Shown(*(row[name] for name in Shown._fields)))
    return list(found.values())
