"""What became of every shard, image and mask of a run, from its commit records and its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.funnel import Level
from pipeline.run import Commit, Run
from stages import answers, decisions, grounded_sam, naming_settings, pairing, requests, verdicts, verification_settings
from stages.manifest import Plan, outstanding
from stages.shard_tasks import INDEX, READ, STEP


def levels(run: Run) -> list[Level]:
    """Return the run's funnel; empty before the manifest has been started.

    Kept masks are counted in the files, not taken from the records, so that a lost file shows as a difference.
    """
    plan = run.plan(STEP, Plan)
    if plan is None:
        return []
    indexed, read = list(run.commits(INDEX).values()), list(run.commits(READ).values())
    found = [_shards(plan, indexed), _images(run, plan, indexed, read), _masks(run, read)]
    steps = run.steps()
    later = {naming_settings.STEP: "names", grounded_sam.STEP: "grounded"}
    found += [_names(run, name, step) for step, name in later.items() if step in steps]
    if pairing.STEP in steps:
        found.append(_pairs(run))
    if verdicts.STEP in steps:
        found.append(_verified(run))
    if decisions.STEP in steps:
        found.append(_screened(run))
    return found


def _shards(plan: Plan, indexed: list[Commit]) -> Level:
    states = Counter("unreadable" if c.facts["state"] == "unreadable" else "kept" for c in indexed)
    bad = {"unreadable": states["unreadable"]} if states["unreadable"] else {}
    return Level("shards", len(plan.shards), states["kept"], quarantined=bad, pending=len(plan.shards) - len(indexed))


def _images(run: Run, plan: Plan, indexed: list[Commit], read: list[Commit]) -> Level:
    left = outstanding(run, plan.settings["seed"])
    wanted = len(left.hashes) if plan.limit is None else int(left.within(plan.limit).sum())
    return Level(
        "images",
        _sum(indexed, "images.found"),
        _sum(read, "images.kept"),
        dropped=_some({"not-sampled": len(left.hashes) - wanted}),
        quarantined=_reasons([*indexed, *read], "images.quarantined."),
        pending=wanted,
    )


def _masks(run: Run, read: list[Commit]) -> Level:
    return Level(
        "masks",
        _sum(read, "masks.found"),
        run.rows_on_disk("masks"),
        dropped=_reasons(read, "masks.dropped."),
        quarantined=_reasons(read, "masks.quarantined."),
    )


def _names(run: Run, name: str, step: str) -> Level:
    """Masks by what their name came to; answers about masks that are no longer in the run are not counted."""
    masks = run.dataset("masks").to_table(columns=["mask_id"])["mask_id"]
    answered = run.dataset("names", step).to_table(columns=["mask_id", "outcome"])
    answered = answered.filter(pc.is_in(answered["mask_id"], masks))
    outcomes = Counter(answered["outcome"].to_pylist())
    refused_ids, reasons = _refused(run, step)
    there = pc.is_in(refused_ids, masks)
    known = pa.chunked_array([*answered["mask_id"].chunks, refused_ids])
    return Level(
        name,
        len(masks),
        outcomes.pop(answers.Outcome.NAMED, 0),
        dropped=_some(outcomes),
        quarantined=_some(Counter(reasons.filter(there).to_pylist())),
        pending=pc.sum(pc.invert(pc.is_in(masks, known))).as_py() or 0,
    )


def _refused(run: Run, step: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """Return the masks or requests that a step quarantined, and why."""
    refused = run.dataset("quarantine", step).to_table(columns=["input", "reason"])
    ids = [int(name.rpartition(":")[2]) for name in refused["input"].to_pylist()]
    return pa.array(ids, pa.int64()), refused["reason"]


def _pairs(run: Run) -> Level:
    """Masks by whether they have a category; all are pending once names have come that the pairs do not know."""
    masks = run.dataset("masks").to_table(columns=["mask_id"])["mask_id"]
    commit = run.commits(pairing.STEP)[pairing.STEP]
    if commit.facts["made_from"] != pairing.made_from(run):
        return Level("pairs", len(masks), 0, pending=len(masks))
    named = pc.is_in(masks, run.dataset("names").to_table(columns=["mask_id"])["mask_id"])
    refused = [_refused(run, step)[0] for step in run.steps() if step.startswith("names-")]
    nameless = masks.filter(pc.invert(named))
    given_up = pc.sum(pc.is_in(nameless, pa.chunked_array(refused, pa.int64()))).as_py() or 0
    return Level(
        "pairs",
        len(masks),
        run.rows_on_disk("pairs"),
        dropped=_reasons([commit], "pairs.dropped."),
        quarantined=_some({"no-name": given_up}),
        pending=len(nameless) - given_up,
    )


def _verified(run: Run) -> Level:
    """Pairs by what the check came to; all are pending once pairs, answers or thresholds have changed."""
    total = run.dataset("pairs", pairing.STEP).count_rows()
    commit = run.commits(verdicts.STEP)[verdicts.STEP]
    if commit.fingerprint != verdicts.made_from(run):
        return Level("verified", total, 0, pending=total)
    rows = run.dataset("verdicts", verdicts.STEP)
    refused_ids, reasons = _refused(run, verification_settings.STEP)
    found = requests.pairs(run)
    head = requests.request_ids(found.mask_ids, found.categories, requests.PAIR)[found.head]
    refused = _some(Counter(reasons.filter(pc.is_in(refused_ids, pa.array(head))).to_pylist()))
    dropped = _reasons([commit], "verdicts.")
    return Level(
        "verified",
        total,
        rows.count_rows(filter=pc.field("kept")),
        dropped={reason: count for reason, count in dropped.items() if reason in verdicts.DROPPED},
        quarantined=refused,
        pending=dropped.get("pending", 0) - sum(refused.values()),
    )


def _screened(run: Run) -> Level:
    """Pairs that go to people, by what they decided; those that only a sample of the dropped held are left out.

    All are pending once pairs, verdicts, queue or answers have changed.
    """
    sent = run.dataset("verdicts", verdicts.STEP).to_table(columns=["mask_id"], filter=pc.field("kept"))["mask_id"]
    if not decisions.current(run):
        return Level("screened", len(sent), 0, pending=len(sent))
    decided = run.dataset("decisions", decisions.STEP).to_table(columns=["mask_id", "decision"])
    outcomes = Counter(decided.filter(pc.is_in(decided["mask_id"], sent))["decision"].to_pylist())
    kept = outcomes.pop(decisions.RELEASE, 0)
    return Level("screened", len(sent), kept, dropped=_some(outcomes), pending=len(sent) - kept - outcomes.total())


def _sum(commits: list[Commit], name: str) -> int:
    return sum(commit.counts.get(name, 0) for commit in commits)


def _reasons(commits: list[Commit], prefix: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for commit in commits:
        total.update({k.removeprefix(prefix): n for k, n in commit.counts.items() if k.startswith(prefix)})
    return _some(total)


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(counts.items()) if count}
