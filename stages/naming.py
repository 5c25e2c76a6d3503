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
from stages import answers as read_answers
from stages import asking, manifest, preflight, region_prompts
from stages.engines.base import EngineConfig
from stages.ledger import Answer, Asker, Ledger, Watcher
from stages.naming_settings import NAMER, STEP, NamesConfig, decoding, setting, settled
from stages.quote import NAMING, Quote, Task, quote
from stages.remembering import over, over_engine
from stages.rendering import Piece, Renderer
from stages.shard_tasks import STEP as MANIFEST
from stages.todo import Todo, limited, plan


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
    kept = over_engine(before.namer, engine) if before else None
    return (over(before.names, config), kept) if before and kept else (config, engine)


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
        todo = plan(run, STEP, setting(config, engine), redo=redo)
        asker = asker_of(STEP, config, engine)
        run.sweep(STEP, asker.tables)
        pieces = limited(todo.pieces, bounds.limit)
        if not pieces:
            return
        run.save_plan(
            STEP,
            Plan(config.model_dump(), engine.model_dump(), quote(run, pieces, _task(config), config.shown, engine)),
        )
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in pieces))
            record(answers(run, pieces, config, engine, watcher.say), run, todo, asker, watcher, bounds)


def _task(config: NamesConfig) -> Task:
    return NAMING._replace(most=decoding(config).max_tokens)


def preview(run: Run, config: NamesConfig, engine: EngineConfig, bounds: Bounds) -> Quote:
    """Return what `build` would cost; writes nothing. Raises `UserError` where `build` would refuse."""
    config, engine = inherited(run, config, engine)
    config = settled(config, engine)
    todo = plan(run, STEP, setting(config, engine), redo=False)
    return quote(run, limited(todo.pieces, bounds.limit), _task(config), config.shown, engine)


def record(tables: Iterator[pa.Table], run: Run, todo: Todo, asker: Asker, watcher: Watcher, bounds: Bounds) -> None:
    """Keep what is answered in `tables` about the masks of `todo`, and commit it every few seconds."""
    ledger, metrics = Ledger(run, todo, asker), StepMetrics(asker.step)
    left = min(len(todo.prints), len(todo.prints) if bounds.limit is None else bounds.limit)
    began = time.monotonic()
    try:
        for table in tables:
            done = ledger.add(table)
            left -= done.masks
            watcher.advance(done)
            metrics.add(done.outcomes, done.tokens, left)
            ledger.commit_now_and_then()
            hours = asker.gpus * (time.monotonic() - began) / 3600
            if bounds.gpu_hours is not None and hours >= bounds.gpu_hours:
                watcher.say(f"stopped: {hours:.3g} of {bounds.gpu_hours:g} GPU-hours are used")
                break
    finally:
        ledger.commit()


def _said(answer: Answer, config: NamesConfig) -> list[dict[str, Any]]:
    """Return what was said of each subject of a row of `ANSWERS`, as columns of `names`."""
    share = len(answer["subjects"])
    if config.layout == "masks":
        each = msgspec.json.decode(answer["text"])
    else:
        numbers = {name: answer[name] for name in ("prompt_tokens", "cached_tokens", "generated_tokens")}
        shares = {name: None if value is None else value // share for name, value in numbers.items()}
        each = [{"raw": answer["text"], "logprob": answer["logprob"], **shares}] * share
    found = zip(each, parse(answer, config), strict=True)
    return [{**one, "outcome": str(parsed.outcome), "category": parsed.category} for one, parsed in found]


def parse(answer: Answer, config: NamesConfig) -> list[read_answers.Parsed]:
    """Read the names of its regions out of a row of `ANSWERS`, in the order they were asked about."""
    if config.layout == "marks":
        return read_answers.parse_numbered(answer["text"], len(answer["subjects"]))
    if config.layout == "masks":
        return [read_answers.parse(one["raw"]) for one in msgspec.json.decode(answer["text"])]
    return [read_answers.parse(answer["text"])]


def asker_of(step: str, config: NamesConfig, engine: EngineConfig) -> Asker:
    """Return how answers become rows of `names`, when `step` asks for the names of regions."""
    made = setting(config, engine)

    def rows(answer: Answer) -> list[dict[str, Any]]:
        seconds = answer["seconds"]
        every = {
            "image_id": answer["image_id"],
            "namer": NAMER,
            "seconds": None if seconds is None else seconds / len(answer["subjects"]),
            "engine": engine.kind,
            "model": made.model,
            "revision": made.revision,
            "layout": made.layout,
            "prompt": made.prompt,
        }
        found = zip(answer["subjects"], _said(answer, config), strict=True)
        return [{**every, **said, "mask_id": mask_id} for mask_id, said in found]

    return Asker(step, NAMER, "names", rows, config.tries, engine.gpus_used)


def answers(
    run: Run, pieces: Sequence[Piece], config: NamesConfig, engine: EngineConfig, say: Callable[[str], None]
) -> Iterator[pa.Table]:
    """Yield tables of `ANSWERS` about the masks of `pieces`; the rest as in `asked`."""
    question = region_prompts.question("name", config)
    render = Renderer(run.folder.uri, shards(run), config.shown, question, engine)
    yield from asked(pieces, render.__call__, config, engine, say)


def asked(
    pieces: Sequence[Any],
    render: Callable[[pa.Table], Iterator[pa.Table]],
    config: NamesConfig,
    engine: EngineConfig,
    say: Callable[[str], None],
) -> Iterator[pa.Table]:
    """Yield tables of `ANSWERS` to the prompts that `render` makes of `pieces`, once the engine passed its preflight.

    Needs a running Ray. Raises `UserError` for an engine that does not work or, unless told to warn, ignores
    pictures.
    """
    test = preflight.of_names(region_prompts.question("name", config), config.shown, engine)
    yield from test.passed_on(
        asking.stream(pieces, test.prompts, render, engine, decoding(config)), config.preflight, say
    )


def shards(run: Run) -> dict[str, Shard]:
    """Return the shards that the run's masks lie in, by name."""
    known = run.plan(MANIFEST, manifest.Plan)
    return {shard.name: shard for shard in known.shards} if known else {}
