"""Asking an engine many prompts on Ray Data: streamed, watched, and told about.

Answers come to the driver as they are made, which alone writes and commits them: they are a few hundred bytes
each, and one writer makes "asked once" simple. Pictures never come here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from stages import engines
from stages.engines.base import Decoding, EngineConfig

_START, LOADING = 120.0, 3600.0
"""Seconds to the first answer about the data: for Ray to start its actors, and for an engine that loads weights first,
of which a 72B model takes a quarter of an hour."""

_BLOCK = 1 << 19  # bytes of prompts handed on together: few enough that answers come in small portions
_MEMORY = 256 << 20
"""Bytes to render an image. Stated because Ray Data fuses steps that need the same: pictures would be made one after
another inside the engine's process, and sixteen pieces at a time handed on as one."""

_END = object()


def stream(
    pieces: Sequence[Any],
    first: pa.Table,
    render: Callable[[pa.Table], Iterator[pa.Table]],
    engine: EngineConfig,
    decoding: Decoding,
) -> Iterator[pa.Table]:
    """Ask the prompts of `first` (rows of `PROMPTS`), then those rendered from `pieces`; yield tables of `ANSWERS`.

    A piece is a named tuple such as `Piece`; `render` gets each as a table of one row.

    Needs a running Ray. Raises `UserError` when a task fails, or when no answer comes for `engine.patience` seconds.
    """
    import ray

    quiet()
    asked = ray.data.from_arrow([pa.Table.from_pylist([piece._asdict()]) for piece in pieces])
    prompts = asked.map_batches(render, batch_size=1, batch_format="pyarrow", num_cpus=1, memory=_MEMORY)
    if first.num_rows:
        prompts = ray.data.from_arrow(first).union(prompts)
    answers = engines.answers(prompts, engine, decoding)
    start = max(engine.patience, LOADING if engine.kind in ("vllm", "transformers", "wowseg") else _START)
    tables = answers.iter_batches(batch_size=None, batch_format="pyarrow")
    yield from watched(tables, start, engine.patience, warm_up=first.num_rows)


def quiet() -> None:
    """Have Ray Data work in small blocks and keep its progress to itself.

    And its errors to its log file: they come as exceptions, and its threads complain of a session ended by Ctrl-C.
    """
    from ray.data import DataContext

    log = logging.getLogger("ray.data")
    log.setLevel(logging.ERROR)
    for handler in log.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = _BLOCK


def watched(tables: Any, start: float, patience: float, warm_up: int = 0) -> Iterator[pa.Table]:
    """Pass tables on. Raises `UserError` when they fail or stop coming: for `start` seconds, later for `patience`.

    It is later once more than `warm_up` rows came: those were at hand, what follows has first to be rendered.

    Closed early, it has Ray Data close the job behind the tables, unless that hangs; then the session's end does.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=4)
    stop = threading.Event()
    threading.Thread(target=_pull, args=(tables, ready, stop), daemon=True).start()
    rows = 0
    try:
        while True:
            item = _next(ready, patience if rows > warm_up else start)
            if item is _END:
                return
            rows += item.num_rows
            yield item
    finally:
        stop.set()
        while not ready.empty():  # let a puller that waits for room see it
            ready.get_nowait()


def _pull(tables: Any, ready: queue.Queue[Any], stop: threading.Event) -> None:
    try:
        source = iter(tables)
        for table in source:
            ready.put(table)
            if stop.is_set():
                source.close()  # a generator: this ends the job
                return
        ready.put(_END)
    except BaseException as error:  # handed to the consumer, which is in another thread
        ready.put(error)


def _next(ready: queue.Queue[Any], wait: float) -> Any:
    try:
        item = ready.get(timeout=wait)
    except queue.Empty:
        raise UserError(
            f"no answer has come for {wait:,.0f} s: the engine is taken for hung. What was answered is kept; run "
            "the same command again."
        ) from None
    if isinstance(item, BaseException):
        raise UserError(f"{_cause(item)}\nWhat was answered is kept; run the same command again.") from item
    return item


def _cause(error: BaseException) -> str:
    cause: BaseException = getattr(error, "cause", None) or error.__cause__ or error
    text = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"the engine's task failed: {type(cause).__name__}: {text[-1]}"
