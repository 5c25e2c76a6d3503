"""Stage 1, second step: masks in, their names out, one row per mask.

The masks that no committed row answers are asked, in their order on disk, so that those of one image follow each
other. The driver commits answers every few seconds; killed at any moment, the step loses what was not committed
and asks no committed mask again. Failed prompts are recorded apart (`failures`) and asked again by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from pipeline.run import Run
from pipeline.shards import Shard
from stages import asking, manifest, region_prompts
from stages.engines.base import EngineConfig
from stages.naming_ledger import TABLES, Ledger, Watcher
from stages.naming_settings import STEP, NamesConfig, decoding, setting, settled
from stages.naming_todo import Todo, limited, plan
from stages.preflight import Preflight
from stages.rendering import Piece, Renderer
from stages.shard_tasks import STEP as MANIFEST


class Bounds(NamedTuple):
    """When to stop before all is done."""

    limit: int | None = None
    """Masks to ask in this run."""
    gpu_hours: float | None = None
    """GPU-hours to spend in this run."""


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
    config = settled(config, engine)
    with run.lock(STEP) as lock:
        todo = plan(run, setting(config, engine), redo=redo)
        run.sweep(STEP, TABLES)
        pieces = limited(todo.pieces, bounds.limit)
        if not pieces:
            return
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in pieces))
            _ask(run, todo, pieces, config, engine, watcher, bounds)
        run.save_plan(STEP, todo.setting)


def _ask(
    run: Run,
    todo: Todo,
    pieces: list[Piece],
    config: NamesConfig,
    engine: EngineConfig,
    watcher: Watcher,
    bounds: Bounds,
) -> None:
    question = region_prompts.question("name", config)
    render = renderer(run, config, engine, question)
    test = Preflight(question, config.shown, engine)
    ledger = Ledger(run, todo, config, engine, watcher)
    began = time.monotonic()
    try:
        for table in asking.stream(pieces, test.prompts, render.__call__, engine, decoding(config)):
            ledger.add(test.take_own(table))
            if test.complete:
                test.judge(config.preflight, watcher.say)
                ledger.commit_now_and_then()
            hours = engine.gpus_used * (time.monotonic() - began) / 3600
            if bounds.gpu_hours is not None and hours >= bounds.gpu_hours:
                watcher.say(f"stopped: {hours:.3g} of {bounds.gpu_hours:g} GPU-hours are used")
                break
    finally:
        if test.passed:
            ledger.commit()


def renderer(run: Run, config: NamesConfig, engine: EngineConfig, question: str) -> Renderer:
    """Return what turns the run's masks into prompts."""
    known = run.plan(MANIFEST, manifest.Plan)
    shards: dict[str, Shard] = {shard.name: shard for shard in known.shards} if known else {}
    return Renderer(run.folder.sub("masks").uri, shards, config.shown, question, engine)
