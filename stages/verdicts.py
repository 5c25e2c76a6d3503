"""Stage 2, last step: answers and thresholds in, a verdict about every pair out. Asks no model; takes seconds.

A pair in the tail is kept whatever was answered: there the paper does not trust the model. Derived and rewritten whole,
in one commit, whenever what it is made of has changed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files, tables
from pipeline.run import Run
from stages import head_tail, pairing, requests, verification_settings
from stages.calibration import Thresholds, thresholds
from stages.requests import Bools, Pairs
from stages.sampling import stable_hash

STEP = "verdicts"
VERSION = 1
"""Raised when the same answers and thresholds would give other rows."""

KEPT = ("yes", "tail")
DROPPED = ("no", "unclear")


class Made(NamedTuple):
    """What the step came to."""

    reasons: Counter[str]
    """Pairs by reason."""
    pending: int
    """Head pairs that have no answer yet, or none that ever came."""
    rewritten: bool


def build(run: Run) -> Made:
    """Bring `verdicts` up to the run's pairs, answers and thresholds. Raises `UserError`."""
    limits = thresholds(run)
    made_of = made_from(run)
    with run.lock(STEP):
        before = run.commits(STEP).get(STEP)
        if before is None or before.fingerprint != made_of:
            run.sweep(STEP, ["verdicts"])
            before = _write(run, limits, made_of)
            rewritten = True
        else:
            rewritten = False
    prefix = "verdicts."
    reasons = Counter({n.removeprefix(prefix): c for n, c in before.counts.items() if n.startswith(prefix)})
    return Made(reasons, reasons.pop("pending", 0), rewritten)


def made_from(run: Run) -> str:
    """Return the hash of all that the verdicts depend on, as it is now."""
    parts = [
        run.parts("pairs", pairing.STEP),
        run.parts("bands", head_tail.STEP),
        run.parts("checks", verification_settings.STEP),
    ]
    return files.sha256(msgspec.json.encode([VERSION, parts, thresholds(run)]))[:16]


def _write(run: Run, limits: Thresholds, made_of: str) -> Any:
    found = requests.pairs(run)
    table = _table(run, found, limits, made_of)
    with run.part(STEP, "verdicts", STEP) as part:
        part.write(table)
    counts = Counter(table["reason"].to_pylist())
    counts["pending"] = len(found.mask_ids) - table.num_rows
    facts = {"thresholds": msgspec.to_builtins(limits)}
    numbers = {f"verdicts.{reason}": count for reason, count in sorted(counts.items())}
    return run.commit(STEP, STEP, {"verdicts": part}, fingerprint=made_of, counts=numbers, facts=facts)


def _table(run: Run, found: Pairs, limits: Thresholds, made_of: str) -> pa.Table:
    columns = ["request_id", "outcome", "evidence", "p_yes", "p_no", "leftover", "engine", "fingerprint"]
    checks = run.dataset("checks", verification_settings.STEP).to_table(columns=columns).sort_by("request_id")
    asked = checks["request_id"].to_numpy()
    own = requests.request_ids(found.mask_ids, found.categories, requests.PAIR)
    at = np.searchsorted(asked, own)
    there = at < len(asked)
    there[there] = asked[at[there]] == own[there]
    rows = np.flatnonzero(there | ~found.head)
    answers = checks.take(pa.array(np.where(there, at, 0)[rows], mask=~there[rows]))
    score = scores(answers)
    threshold = _thresholds(run, found, limits)[rows]
    reason = _reasons(found.head[rows], score, threshold)
    return pa.table(
        {
            "mask_id": found.mask_ids[rows],
            "image_id": found.image_ids[rows],
            "category": found.categories.take(pa.array(rows)).cast(pa.string()),
            "band": np.where(found.head[rows], head_tail.HEAD, head_tail.TAIL),
            "score": pa.array(score, mask=np.isnan(score)),
            **{name: answers[name] for name in ("p_yes", "p_no", "leftover")},
            "evidence": pc.fill_null(answers["evidence"].cast(pa.string()), "none"),
            "threshold": pa.array(threshold, mask=~found.head[rows]),
            "kept": np.isin(reason, KEPT),
            "reason": reason,
            "engine": pc.fill_null(answers["engine"].cast(pa.string()), ""),
            "fingerprint": _prints(found.mask_ids[rows], answers, threshold, made_of),
        }
    ).cast(tables.SCHEMAS["verdicts"])


def scores(checks: pa.Table) -> npt.NDArray[np.float64]:
    """Return p_yes / (p_yes + p_no) of each answer, 0 to 1; of text 1 or 0; NaN where neither was said."""
    p_yes, p_no = (checks[name].to_numpy() for name in ("p_yes", "p_no"))
    said = {"yes": 1.0, "no": 0.0}
    words = np.array([said.get(outcome, np.nan) for outcome in checks["outcome"].to_pylist()], np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(np.isnan(p_yes), words, p_yes / (p_yes + p_no)), np.float64)


def _thresholds(run: Run, found: Pairs, limits: Thresholds) -> npt.NDArray[np.float64]:
    pairs = head_tail.of_categories(run)
    known = [limits.of(pairs[name][0]) for name in found.categories.dictionary.to_pylist()]
    return np.asarray(np.array(known, np.float64)[found.categories.indices.to_numpy()], np.float64)


def _reasons(head: Bools, score: npt.NDArray[np.float64], threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    verdict = np.where(np.isnan(score), "unclear", np.where(score > threshold, "yes", "no"))
    return np.asarray(np.where(head, verdict, "tail"), np.str_)


def _prints(
    mask_ids: npt.NDArray[np.int64], answers: pa.Table, threshold: npt.NDArray[np.float64], made_of: str
) -> npt.NDArray[np.int64]:
    salt = np.int64(int(made_of[:15], 16))
    answered = pc.fill_null(answers["fingerprint"], 0).to_numpy()
    return stable_hash(mask_ids ^ answered ^ threshold.view(np.int64) ^ salt, 0).view(np.int64)
