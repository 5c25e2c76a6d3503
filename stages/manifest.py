"""Stage 1, first step: SA-1B shards in, the table of candidate masks out.

Two passes on Ray, one task per shard each. The first reads headers only and writes `images`; from it the
driver decides, knowing all shards, which images are sampled and which shard a repeated image is read from.
The second reads the annotation files of those images by byte range and writes `masks`. No image payload
is read, no mask is decoded.

Both passes can grow: more shards, or a larger sample, add rows and touch none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.cluster import Session
from pipeline.errors import UsageError, UserError
from pipeline.run import Commit, Run
from pipeline.shards import Shard, find_shards, shard_key
from stages.mask_rules import MaskRules
from stages.sampling import EVERYTHING, sample_limit, stable_hash, within
from stages.shard_tasks import (
    INDEX,
    READ,
    REPEATED_IMAGE,
    STEP,
    VERSION,
    IndexJob,
    Progress,
    ReadJob,
    fingerprint,
    index,
    read,
)

_READERS = 16  # threads that look at shards; on an object store each look is a round trip
_RULES = tuple(MaskRules.model_fields)
_REPEATED = f"images.quarantined.{REPEATED_IMAGE}"  # not damage: the image is read from another shard
_TABLES = {INDEX: ["images", "quarantine"], READ: ["masks", "quarantine"]}


class ManifestConfig(MaskRules):
    """Stage 1 manifest: which shards, which images, which masks."""

    shards: list[str] = Field(default_factory=list)
    """Tars, globs, folders of tars or unpacked folders; local, s3:// or gs://. Added to those the run already knows."""

    images: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    """Sample so many images, by a hash of their ids; or "all"."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the sample."""

    max_pixels: int = Field(100_000_000, ge=1, le=2**31)
    """Refuse images that declare more pixels, as a JPEG's header can claim anything. SA-1B's are below 20 million."""

    max_quarantined: float = Field(0.05, ge=0, le=1)
    """End with an error when more than this share of the images read had to be quarantined. What was made is kept."""

    @model_validator(mode="after")
    def _possible(self) -> ManifestConfig:
        if self.min_pixels > self.max_pixels:
            raise ValueError(
                f"manifest.min_pixels = {self.min_pixels} exceeds manifest.max_pixels = {self.max_pixels}: "
                "no mask could pass"
            )
        return self

    @property
    def rules(self) -> MaskRules:
        """The part that decides about masks."""
        return MaskRules(**{name: getattr(self, name) for name in _RULES})


class Plan(msgspec.Struct, frozen=True):
    """What the run was last asked for: what a later command does not name stays as it is here."""

    shards: list[Shard]
    settings: dict[str, Any]
    limit: int | None = None
    """Highest hash of a sampled image; unknown until every shard is indexed."""


@dataclass(frozen=True)
class Watcher:
    """Told of the work as it goes on; `start(title, bytes)` begins a pass."""

    start: Callable[[str, int], None]
    advance: Callable[[Progress], None]


# --- the step ---------------------------------------------------------------------------------------------


def build(
    run: Run, config: ManifestConfig, session: Callable[[], Any], watcher: Watcher, *, redo: bool = False
) -> None:
    """Bring the run's `images`, `masks`, `shards` and `quarantine` up to `config`.

    Does only what is missing. Settings that `config` does not name stay as the run has them. `session` opens
    a Ray session (a context manager), called only when there is work. With `redo`, rows made under other
    settings or from changed shards are made again; without it they are refused. Raises `UserError`.
    """
    with run.lock(STEP) as lock:
        plan, config = _plan(run, config)
        _settle_changes(run, plan, config, redo)
        for step, names in _TABLES.items():
            run.sweep(step, names)
        plan = _with_limit(run, plan, config)
        run.save_plan(STEP, plan)
        unindexed, reads = _unindexed(run, plan, config, lock.name), _unread(run, plan, config, lock.name)
        if unindexed or reads:
            with session() as ray_session:
                lock.works_through(ray_session.name)
                failures = _pass(ray_session, watcher, "indexing shards", index, unindexed)
                if unindexed:
                    plan = _with_limit(run, plan, config)
                    run.save_plan(STEP, plan)
                    reads = _unread(run, plan, config, lock.name)
                failures += _pass(ray_session, watcher, "reading masks", read, reads)
            run.replace_table("shards", _shard_rows(run))
            _report(failures)
            _check_ids_across_shards(run)
        _check_quarantine(run, config)


def _plan(run: Run, config: ManifestConfig) -> tuple[Plan, ManifestConfig]:
    before = run.plan(STEP, Plan) or Plan([], {})
    named = {name: getattr(config, name) for name in config.model_fields_set}
    config = ManifestConfig.model_validate({**before.settings, **named})
    found = {shard.name: shard for shard in find_shards(config.shards)}
    with ThreadPoolExecutor(_READERS) as pool:
        known = pool.map(_as_it_is_now, [shard for shard in before.shards if shard.name not in found])
    found.update({shard.name: shard for shard in known})
    if not found:
        raise UsageError(
            "no shards: name them with --shards PATH (a tar, a folder of tars, a glob, an unpacked folder)."
        )
    settings = config.model_dump(exclude={"shards"})
    return Plan([found[name] for name in sorted(found)], settings), config


def _as_it_is_now(shard: Shard) -> Shard:
    """Look again at a shard the run knows; one that is gone stays as it was, its rows are still good."""
    try:
        return find_shards([shard.uri])[0]
    except (UsageError, OSError):
        return shard


def _pass(session: Session, watcher: Watcher, title: str, task: Callable[..., Any], jobs: Sequence[Any]) -> list[str]:
    """Run a pass, largest jobs first so that no long one is left for the end; return the failures."""
    if not jobs:
        return []
    jobs = sorted(jobs, key=lambda job: -job.bytes)
    watcher.start(title, sum(job.bytes for job in jobs))
    failures = []
    for progress in session.stream(task, jobs):
        watcher.advance(progress)
        if progress.failure:
            failures.append(progress.failure)
    return failures


def _report(failures: list[str]) -> None:
    if failures:
        raise UserError(
            "\n".join(
                [
                    "some shards could not be read now:",
                    *(f"  {f}" for f in failures),
                    "Everything else is done; run the same command again for these.",
                ]
            )
        )


def _check_quarantine(run: Run, config: ManifestConfig) -> None:
    counts = [c.counts for step in (INDEX, READ) for c in run.commits(step).values()]
    bad = sum(
        n for c in counts for name, n in c.items() if name.startswith("images.quarantined.") and name != _REPEATED
    )
    good = sum(c.get("images.kept", 0) for c in counts)
    if bad > config.max_quarantined * (good + bad):
        raise UserError(
            f"{bad} of {good + bad} images had to be quarantined, more than manifest.max_quarantined = "
            f"{config.max_quarantined:g}. What was made is kept; see `rr7k status` for the reasons, and raise "
            "that setting to accept them."
        )


# --- what is missing --------------------------------------------------------------------------------------


def _unindexed(run: Run, plan: Plan, config: ManifestConfig, lease: str) -> list[IndexJob]:
    done = run.commits(INDEX)
    return [IndexJob(run.folder.uri, lease, shard, config.max_pixels) for shard in plan.shards if shard.key not in done]


def _with_limit(run: Run, plan: Plan, config: ManifestConfig) -> Plan:
    """Fix the sample, once every shard is indexed."""
    if not {shard.key for shard in plan.shards} <= set(run.commits(INDEX)):
        return plan
    if config.images == "all":
        return msgspec.structs.replace(plan, limit=EVERYTHING)
    ids = run.dataset("images").to_table(columns=["image_id"])["image_id"].to_numpy()
    return msgspec.structs.replace(plan, limit=sample_limit(ids, config.images, config.seed))


def _covered(run: Run) -> dict[str, int]:
    """Return up to which hash each shard (by key) has been read; -1 is never stored, absent means not at all."""
    covered: dict[str, int] = {}
    for commit in run.commits(READ).values():
        key = _shard(commit).key
        covered[key] = max(covered.get(key, -1), commit.facts["upto"])
    return covered


def _unread(run: Run, plan: Plan, config: ManifestConfig, lease: str) -> list[ReadJob]:
    """List the readings that the sample still asks for: per shard, the images above what it has been read to."""
    if plan.limit is None:
        return []
    covered = _covered(run)
    pending = [shard for shard in plan.shards if covered.get(shard.key, -1) < plan.limit]
    if not pending:
        return []
    indexed, given_up, sizes = run.commits(INDEX), _given_up(run), _json_bytes(run, plan.limit, config.seed)
    return [
        ReadJob(
            run.folder.uri,
            lease,
            shard,
            sizes.get(shard.name, 0),
            indexed[shard.key].parts["images"],
            covered.get(shard.key, -1),
            plan.limit,
            config.seed,
            config.rules,
            given_up.get(shard.name, {}),
        )
        for shard in pending
    ]


class Outstanding(NamedTuple):
    """Indexed images that have not been read, whether sampled or not."""

    shard_names: list[str]
    shard: npt.NDArray[np.int64]  # index into shard_names
    hashes: npt.NDArray[np.uint64]
    json_bytes: npt.NDArray[np.int64]

    def within(self, limit: int) -> npt.NDArray[np.bool_]:
        """Return which of them a sample up to the hash `limit` asks for."""
        return within(self.hashes, -1, limit)


def outstanding(run: Run, seed: int) -> Outstanding:
    """List the images that no committed reading covers."""
    table = run.dataset("images").to_table(columns=["image_id", "shard", "json_bytes"])
    names, shard = np.unique(_shard_names(table).astype(str), return_inverse=True)
    hashes = stable_hash(table["image_id"].to_numpy(), seed)
    reached = _covered(run)
    started = np.array([shard_key(name) in reached for name in names], np.bool_)
    upto = np.array([reached.get(shard_key(name), 0) for name in names], np.uint64)
    unread = ~started[shard] | (hashes > upto[shard])
    return Outstanding(names.tolist(), shard[unread], hashes[unread], table["json_bytes"].to_numpy()[unread])


def _json_bytes(run: Run, limit: int, seed: int) -> dict[str, int]:
    """Return, per shard name, the bytes of annotation that are sampled and not read yet."""
    left = outstanding(run, seed)
    wanted = left.within(limit)
    sums = np.bincount(left.shard[wanted], left.json_bytes[wanted], len(left.shard_names))
    return {name: int(total) for name, total in zip(left.shard_names, sums, strict=True)}


def _shard_names(table: pa.Table) -> npt.NDArray[np.object_]:
    return np.asarray(table["shard"].cast(pa.string()).to_numpy(), np.object_)


def _given_up(run: Run) -> dict[str, dict[int, str]]:
    """Decide which shard a repeated image is read from; return, per other shard, the image and that shard.

    The shard it was already read from keeps it, so that growth redoes nothing; else the first by name.
    """
    table = run.dataset("images").to_table(columns=["image_id", "shard"])
    ids, shards = table["image_id"].to_numpy(), _shard_names(table)
    unique, count = np.unique(ids, return_counts=True)
    repeated = np.isin(ids, unique[count > 1])
    if not repeated.any():
        return {}
    reads = list(run.commits(READ).values())
    holders: dict[int, list[str]] = {}
    for image_id, shard in zip(ids[repeated].tolist(), shards[repeated].tolist(), strict=True):
        holders.setdefault(image_id, []).append(shard)
    given_up: dict[str, dict[int, str]] = {}
    for image_id, names in holders.items():
        holder = min(names, key=lambda name: (not _was_read(reads, name, image_id), name))
        for name in set(names) - {holder}:
            given_up.setdefault(name, {})[image_id] = holder
    return given_up


def _was_read(reads: list[Commit], shard: str, image_id: int) -> bool:
    for commit in reads:
        facts = commit.facts
        value = int(stable_hash(np.array([image_id]), facts["settings"]["seed"])[0])
        if facts["shard"]["name"] == shard and facts["above"] < value <= facts["upto"]:
            return image_id not in facts["given_up"]
    return False


# --- what has changed -------------------------------------------------------------------------------------


def _settle_changes(run: Run, plan: Plan, config: ManifestConfig, redo: bool) -> None:
    """Refuse to mix rows made under other settings or from changed shards; with `redo`, forget those rows.

    A shard that was damaged and has changed was repaired: its rows are made again without asking.
    """
    now = {shard.key: shard for shard in plan.shards}
    repaired = {
        key
        for key, commit in run.commits(INDEX).items()
        if commit.facts["state"] != "whole" and _shard(commit).identity != now[key].identity
    }
    stale: list[tuple[str, str]] = []
    reasons: dict[str, None] = {}
    for step in (INDEX, READ):
        for commit in run.commits(step).values():
            current = now[_shard(commit).key]
            why = [] if current.key in repaired else _differences(step, commit, current, config)
            if why or current.key in repaired:
                stale.append((step, commit.key))
                reasons.update(dict.fromkeys(why))
    if reasons and not redo:
        lines = ["this run holds rows made differently:", *(f"  {reason}" for reason in reasons)]
        advice = "Use a new run folder, restore the setting, or make those rows again with --redo."
        raise UserError("\n".join([*lines, advice]))
    for step, key in stale:
        run.forget(step, key)


def _shard(commit: Commit) -> Shard:
    return msgspec.convert(commit.facts["shard"], Shard)


def _differences(step: str, commit: Commit, current: Shard, config: ManifestConfig) -> list[str]:
    """Tell what would make other rows now than when the commit was made."""
    made_with = commit.facts["settings"]
    settings = (
        {"max_pixels": config.max_pixels} if step == INDEX else {**config.rules.model_dump(), "seed": config.seed}
    )
    why = [
        f"manifest.{key}: {made_with.get(key)} → {value}"
        for key, value in settings.items()
        if made_with.get(key) != value
    ]
    if _shard(commit).identity != current.identity:
        why.append(f"shard {current.name}: its content has changed ({_shard(commit).bytes} → {current.bytes} bytes)")
    if not why and commit.fingerprint != _expected(step, current, config):
        why.append("rr7k itself: this version makes other rows")
    return why


def _expected(step: str, shard: Shard, config: ManifestConfig) -> str:
    if step == INDEX:
        return fingerprint(shard.identity, config.max_pixels, VERSION)
    return fingerprint(shard.identity, config.rules.model_dump(), config.seed, VERSION)


# --- at the end -------------------------------------------------------------------------------------------


def _shard_rows(run: Run) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for commit in run.commits(INDEX).values():
        facts = commit.facts
        rows.append(
            {
                **facts["shard"],
                "shard": facts["shard"]["name"],
                "sha256": facts["sha256"],
                "state": facts["state"],
                "images": commit.counts["images.found"],
                "other_members": facts["other_members"],
            }
        )
    return [{k: v for k, v in row.items() if k != "name"} for row in rows]


_IDS_AT_ONCE = 50_000_000  # 400 MB


def _check_ids_across_shards(run: Run) -> None:
    """Raise `UserError` if a mask id appears twice in the table; a pass over the id column per 50 million rows."""
    dataset = run.dataset("masks")
    passes = dataset.count_rows() // _IDS_AT_ONCE + 1
    for number in range(passes):
        slices = [
            ids[ids % passes == number]
            for batch in dataset.to_batches(columns=["mask_id"])
            for ids in [batch["mask_id"].to_numpy()]
        ]
        unique, count = np.unique(np.concatenate(slices or [np.empty(0, np.int64)]), return_counts=True)
        if (count > 1).any():
            examples = ", ".join(map(str, unique[count > 1][:5]))
            raise UserError(
                f"{int((count > 1).sum())} mask ids appear in more than one shard, such as {examples}. Ids must be "
                "unique in a run: start a run without one of the shards that hold them."
            )
