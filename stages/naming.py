"""Stage 1, second step: masks in, their names out, one row per mask.

The masks that no committed row answers are asked, in their order on disk, so that those of one image follow each
other. The driver commits answers every few seconds; killed at any moment, the step loses what was not committed
and asks no committed mask again. Failed prompts are recorded apart (`failures`) and asked again by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.metrics import StepMetrics
from pipeline.run import Run
from pipeline.shards import Shard
from stages import asking, manifest, region_prompts
from stages.engines.base import EngineConfig
from stages.naming_ledger import TABLES, Ledger, Watcher
from stages.naming_settings import STEP, NamesConfig, decoding, setting, settled
from stages.naming_todo import Todo, limited, plan
from stages.preflight import Preflight
from stages.quote import Quote, quote
from stages.rendering import Piece, Renderer
from stages.shard_tasks import STEP as MANIFEST


class Bounds(NamedTuple):
    """When to stop before all is done."""

    limit: int | None = None
    """Masks to ask in this run."""
    gpu_hours: float | None = None
    """GPU-hours to spend in this run."""


class Plan(msgspec.Struct, frozen=True):
    """What the run was last asked for: what a later command does not name stays as it is here."""

    names: dict[str, Any]
    namer: dict[str, Any]
    quote: Quote


def inherited(run: Run, config: NamesConfig, engine: EngineConfig) -> tuple[NamesConfig, EngineConfig]:
    """Fill in what a command does not name with what the run has; another kind of engine inherits nothing."""
    before = run.plan(STEP, Plan)
    if before is None:
        return config, engine
    named = {name: getattr(engine, name) for name in engine.model_fields_set}
    if named.get("kind", before.namer["kind"]) != before.namer["kind"]:
        return config, engine
    asked = {name: getattr(config, name) for name in config.model_fields_set}
    return NamesConfig(**{**before.names, **asked}), EngineConfig(**{**before.namer, **named})


def build(
    run: Run,
    config: NamesConfig,
    engine: EngineConfig,
    session: Callable[[], AbstractContextManager[Any]],
    watcher: Watcher,
    *,
    bounds: Bounds,
    redo: bool = False,
) -> None:
    """Name every mask of the run that has no name yet.

    `session` opens a Ray session, called only when there is work. With `redo`, rows made under other settings and
    quarantined masks are asked again; without it, rows made otherwise are refused. Raises `UserError`.
    """
    config, engine = inherited(run, config, engine)
    config = settled(config, engine)
    if bounds.gpu_hours is not None and not engine.gpus_used:
        raise UsageError("--budget-gpu-hours needs to know how many GPUs answer: set namer.gpus.")
    with run.lock(STEP) as lock:
        todo = plan(run, setting(config, engine), redo=redo)
        run.sweep(STEP, TABLES)
        pieces = limited(todo.pieces, bounds.limit)
        if not pieces:
            return
        run.save_plan(STEP, Plan(config.model_dump(), engine.model_dump(), quote(run, pieces, config, engine)))
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in pieces))
            _record(run, todo, pieces, config, engine, watcher, bounds)


def preview(run: Run, config: NamesConfig, engine: EngineConfig, bounds: Bounds) -> Quote:
    """Return what `build` would cost; writes nothing. Raises `UserError` where `build` would refuse."""
    config, engine = inherited(run, config, engine)
    config = settled(config, engine)
    todo = plan(run, setting(config, engine), redo=False)
    return quote(run, limited(todo.pieces, bounds.limit), config, engine)


def _record(
    run: Run,
    todo: Todo,
    pieces: list[Piece],
    config: NamesConfig,
    engine: EngineConfig,
    watcher: Watcher,
    bounds: Bounds,
) -> None:
    ledger, metrics = Ledger(run, todo, config, engine), StepMetrics(STEP)
    left = sum(len(piece.mask_ids) for piece in pieces)
    began = time.monotonic()
    try:
        for table in answers(run, pieces, config, engine, watcher.say):
            done = ledger.add(table)
            left -= done.masks
            watcher.advance(done)
            metrics.add(done.outcomes, done.tokens, left)
            ledger.commit_now_and_then()
            hours = engine.gpus_used * (time.monotonic() - began) / 3600
            if bounds.gpu_hours is not None and hours >= bounds.gpu_hours:
                watcher.say(f"stopped: {hours:.3g} of {bounds.gpu_hours:g} GPU-hours are used")
                break
    finally:
        ledger.commit()


def answers(
    run: Run, pieces: Sequence[Piece], config: NamesConfig, engine: EngineConfig, say: Callable[[str], None]
) -> Iterator[pa.Table]:
    """Yield tables of `ANSWERS` about the masks of `pieces`, once the engine has passed its preflight.

    Needs a running Ray. Raises `UserError` for an engine that does not work or, unless told to warn, ignores
    pictures.
    """
    question = region_prompts.question("name", config)
    test = Preflight(question, config.shown, engine)
    render = Renderer(run.folder.sub("masks").uri, _shards(run), config.shown, question, engine)
    early: list[pa.Table] = []
    for table in asking.stream(pieces, test.prompts, render.__call__, engine, decoding(config)):
        early.append(test.take_own(table))
        if test.complete:
            test.judge(config.preflight, say)
            yield from early
            early = []


def _shards(run: Run) -> dict[str, Shard]:
    known = run.plan(MANIFEST, manifest.Plan)
    return {shard.name: shard for shard in known.shards} if known else {}
