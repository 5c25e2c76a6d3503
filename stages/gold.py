"""Tiles whose answer is known, to test those who answer: refused wrong names, and what experts or several people said.

Nothing of this is ever sent: every annotator can read all of a task's data (label_studio.md §3).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.run import Run
from stages import decisions, pairing, requests, verification_settings
from stages.paging import DELETE, KEEP, keys

_AGREED = 2
"""People, and none against, after whom a kept pair may test others."""

_COLUMNS = ["mask_id", "image_id", "category"]


def known(run: Run) -> pa.Table:
    """Return what is known: mask_id, image_id, category and gold (keep or delete), of masks that the run has.

    Wrong: a control of stage 2, chosen as wrong by tables, WordNet and embeddings, and answered "no"; and what an
    expert deleted. Right: what an expert kept, or two people or more with none against.
    """
    wrong, right = (
        table.append_column("gold", pa.array([said] * table.num_rows, pa.string()))
        for table, said in ((pa.concat_tables([_refused(run), _deleted(run)]), DELETE), (_kept(run), KEEP))
    )
    table = pa.concat_tables([wrong, right])
    masks = run.dataset("masks").to_table(columns=["mask_id"])["mask_id"]
    return table.filter(pc.is_in(table["mask_id"], masks)).combine_chunks()


def _refused(run: Run) -> pa.Table:
    """Return the controls that the model refused; but a name may have become the mask's own since."""
    role, outcome = (pc.field(name).cast(pa.string()) for name in ("role", "outcome"))
    checks = run.dataset("checks", verification_settings.STEP)
    wrong = checks.to_table(columns=_COLUMNS, filter=(role == requests.CONTROL) & (outcome == "no"))
    pairs = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "category"])
    return wrong.filter(pa.array(~np.isin(keys(wrong), keys(pairs))))


def _deleted(run: Run) -> pa.Table:
    return _decided(run, decisions.DELETE, pc.field("by").cast(pa.string()) == decisions.EXPERT)


def _kept(run: Run) -> pa.Table:
    by = pc.field("by").cast(pa.string())
    against = pc.field("delete") + pc.field("private") + pc.field("unsure")
    agreed = (by == decisions.PEOPLE) & (pc.field("keep") >= _AGREED) & (against == 0)
    return _decided(run, decisions.RELEASE, (by == decisions.EXPERT) | agreed)


def _decided(run: Run, decision: str, chosen: pc.Expression) -> pa.Table:
    decided = pc.field("decision").cast(pa.string()) == decision
    return run.dataset("decisions", decisions.STEP).to_table(columns=_COLUMNS, filter=decided & chosen)
