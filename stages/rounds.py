"""Stage 3, the rounds beside the screening: conflicts, the blind audit, and the qualification of annotators.

Each adds pages to the queue and never changes one, as `stages.queue` does. Conflicts and the audit show regions singly
and large: there a keep has to be said, and is not what is left over.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import audit, decisions, gold, queue
from stages.audit import AuditConfig
from stages.decisions import AUDIT, CONFLICT, QUALIFICATION, ScreeningConfig
from stages.paging import DELETE, GOLD, KEEP, Sheet, page_id, paged
from stages.queue import Made
from stages.remembering import inherited, remember
from stages.sampling import stable_hash

PAGES = 10
"""Of the qualification round."""

_RIGHT, _WRONG = 18, 6
"""Tiles of a page of the qualification round: more wrong ones than a page has otherwise, so that ten pages tell."""

_SEED = 5  # of the choice of known tiles


def conflicts(run: Run, config: ScreeningConfig) -> Made:
    """Queue the pairs that votes leave open, one a page. Raises `UserError` as `decisions.build` does."""
    with run.lock(queue.STEP):
        found = queue.new(run, decisions.conflicts(run, config), CONFLICT)
        return queue.append(run, _single(found, CONFLICT, why=CONFLICT, inclusion_probability=1.0, stratum=""))


def audited(run: Run, config: AuditConfig) -> Made:
    """Draw the sample of the released pairs, and queue what the audit does not have yet, one pair a page.

    Raises `UsageError` when nothing is to be released yet, or as `audit.draw` does.
    """
    config = inherited(run, audit.SETTINGS, config)
    mask_ids, strata = audit.released(run)
    if not len(mask_ids):
        raise UsageError(
            f"{run.folder.uri}: nothing to audit: no pair is kept by people yet. First: rr7k stage-3 import"
        )
    drawn = audit.draw(mask_ids, strata, config.size, seed=config.seed, before=audit.load(run))
    with run.lock(queue.STEP):
        remember(run, audit.SETTINGS, config)
        audit.save(run, drawn.plan)
        return queue.append(run, _single(queue.new(run, _rows(run, drawn), AUDIT), AUDIT, why="kept"))


def _rows(run: Run, drawn: audit.Draw) -> pa.Table:
    chosen = pc.field("mask_id").isin(pa.array(drawn.mask_ids))
    pairs = run.dataset("decisions", decisions.STEP).to_table(
        columns=["mask_id", "image_id", "category"], filter=chosen
    )
    of = {"inclusion_probability": pa.array(drawn.probability), "stratum": pa.array(drawn.strata.tolist())}
    return pa.table({**dict(zip(pairs.column_names, pairs.sort_by("mask_id").columns, strict=True)), **of})


def _single(found: pa.Table, round_name: str, **same: object) -> pa.Table:
    """Return pages of one region each, in an order that says nothing about them."""
    found = found.take(pa.array(np.argsort(stable_hash(found["mask_id"].to_numpy(), _SEED), kind="stable")))
    for name, value in {**same, "band": "", "error": None}.items():
        kind = pa.float64() if name == "error" else pa.scalar(value).type
        found = found.append_column(name, pa.array([value] * found.num_rows, kind))
    nothing = pa.table({name: pa.array([], kind) for name, kind in _GOLDS.items()})
    return paged(found, nothing, set(), Sheet(round_name, "single", 1, 0.0, _SEED))


_GOLDS = {"mask_id": pa.int64(), "image_id": pa.int64(), "category": pa.string(), "gold": pa.string()}


# --- qualification ----------------------------------------------------------------------------------------


def qualification(run: Run) -> Made:
    """Queue up to ten pages of which every answer is known, for new annotators; once made, they stay as they are.

    Raises `UsageError` while too little is known for a page.
    """
    asked = pc.field("round").cast(pa.string()) == QUALIFICATION
    if run.dataset("queue", queue.STEP).count_rows(filter=asked):
        return Made(0, Counter())
    table = gold.known(run)
    right, wrong = (_chosen(table, kind) for kind in (KEEP, DELETE))
    pages = min(PAGES, len(right) // _RIGHT, len(wrong) // _WRONG)
    if not pages:
        raise UsageError(
            f"{run.folder.uri}: {len(right)} right and {len(wrong)} wrong answers are known; a page of the "
            f"qualification round takes {_RIGHT} and {_WRONG}. Have an expert screen some pages (screening.experts "
            "names them), then: rr7k stage-3 import"
        )
    parts = [np.concatenate([right[i::pages][:_RIGHT], wrong[i::pages][:_WRONG]]) for i in range(pages)]
    with run.lock(queue.STEP):
        return queue.append(run, pa.concat_tables([_known_page(table.take(pa.array(part))) for part in parts]))


def _chosen(table: pa.Table, kind: str) -> npt.NDArray[np.int64]:
    """Return the places of one kind, in the order of their hashes, a mask once."""
    places = np.flatnonzero(np.array(table["gold"].to_pylist(), np.str_) == kind)
    masks = table["mask_id"].to_numpy()[places]
    _, first = np.unique(masks, return_index=True)
    order = np.argsort(stable_hash(masks[first], _SEED), kind="stable")
    return np.asarray(places[first[order]], np.int64)


def _known_page(tiles: pa.Table) -> pa.Table:
    """Return the rows of a page, right and wrong ones in no order."""
    tiles = tiles.take(pa.array(np.argsort(stable_hash(tiles["mask_id"].to_numpy(), _SEED + 1), kind="stable")))
    count = tiles.num_rows
    page = page_id(QUALIFICATION, list(zip(tiles["mask_id"].to_pylist(), tiles["category"].to_pylist(), strict=True)))
    same = {"page_id": page, "view": "page", "round": QUALIFICATION, "why": GOLD, "stratum": ""}
    columns = {name: pa.array([text] * count, pa.string()) for name, text in same.items()}
    numbers = {"place": pa.array(range(count), pa.int32()), "inclusion_probability": pa.array([1.0] * count)}
    about = dict(zip(tiles.column_names, tiles.columns, strict=True))
    return pa.table({**about, **columns, **numbers, "error": pa.nulls(count, pa.float64())})
