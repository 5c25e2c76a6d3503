"""All cells that are not done yet, by processes of one thread each; killed at any time, it goes on where it was."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

from model.ablation import cells, training
from model.ablation.cells import Cell
from model.ablation.plan import Form, Learning
from pipeline import locks
from pipeline.errors import UserError
from pipeline.files import Folder

_LOOK = 0.5  # seconds between looks at how far the processes are


class Watcher(NamedTuple):
    """Told of the work as it goes on."""

    start: Callable[[int], None]
    """Given the steps of all cells that are missing."""
    advance: Callable[[int], None]
    """Given how many more are made."""


def run(out: Path, form: Form, learning: Learning, workers: int, watcher: Watcher) -> None:
    """Make the missing cells of a form in `out`.

    Raises `BusyError` if another process does so in the same folder, `UserError` if a process of ours dies.
    """
    with locks.hold(Folder(str(out / "locks")), "ablation"):
        where = cells.folder(out, form, learning)
        done = cells.results(where, form)
        missing = [cell for cell in cells.cells(form) if cell not in done]
        watcher.start(len(missing) * form.steps)
        _watch(_Work(where, missing, form, learning), min(workers, len(missing)), watcher.advance)


class _Work:
    """What the processes share: which cell is next, and how many steps were made."""

    def __init__(self, where: Folder, missing: Sequence[Cell], form: Form, learning: Learning) -> None:
        context = multiprocessing.get_context("spawn")
        self.where, self.missing, self.form, self.learning = where, missing, form, learning
        self.parent = os.getpid()
        self.next: Synchronized[int] = context.Value("q", 0)
        self.steps: Synchronized[int] = context.Value("q", 0)

    def take(self) -> Cell | None:
        """Return a cell that nobody else has taken; None if none is left."""
        with self.next.get_lock():
            place = self.next.value
            self.next.value += 1
        return self.missing[place] if place < len(self.missing) else None

    def stepped(self) -> None:
        """Count a step; end here if the process that started us has died."""
        if os.getppid() != self.parent:
            os._exit(1)
        with self.steps.get_lock():
            self.steps.value += 1


def _worker(work: _Work) -> None:
    training.quiet()
    while cell := work.take():
        cells.make(work.where, cell, work.form, work.learning, work.stepped)


def _watch(work: _Work, workers: int, advance: Callable[[int], None]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_worker, args=(work,), daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        told = 0
        while _alive(processes):
            time.sleep(_LOOK)
            made = work.steps.value
            advance(made - told)
            told = made
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _alive(processes: Sequence[SpawnProcess]) -> bool:
    """Say whether any still works. Raises `UserError` if one has died."""
    alive = any(process.is_alive() for process in processes)
    if died := [process.exitcode for process in processes if process.exitcode]:
        raise UserError(
            f"a process that trained ended with code {died[0]} (-9 is often too little memory). "
            "What was finished is kept; give the same command again to go on."
        )
    return alive
