"""`make bench`: every bench as a process of its own, one after the other; then one table of all figures.

`python -m tests.bench scoring model` runs those. What a bench prints is seen as it runs; one that breaks is a line of
the table, and the others go on. The figures are saved after every bench, as runs/bench.json; of some benches, under
their names, beside it. The exit code is 1 when a bench broke, and 0 when goals were merely missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from . import figures

ROOT = Path(__file__).parents[2]
LIMIT = 1200  # seconds: what all together may take (issue 11); one that takes as long alone hangs
console = Console(width=118)


class Bench(NamedTuple):
    """A bench: its name, and how Python is called to run it."""

    name: str
    arguments: tuple[str, ...]


def _module(name: str, *arguments: str) -> Bench:
    return Bench(name, ("-m", f"tests.bench.{name}", *arguments))


BENCHES = (
    _module("start"),
    _module("manifest"),
    _module("names"),
    _module("checks"),
    _module("http_engine"),
    _module("grounded_sam"),
    _module("screening"),
    _module("importing"),
    _module("release"),
    _module("scoring"),
    _module("segmentation"),
    _module("model", "--middle", "--figure", "runs/flops.png"),
    _module("training"),
)


def run(bench: Bench, limit: float = LIMIT) -> figures.Outcome:
    """Run one; whatever it does, this returns what became of it."""
    load, began = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rr7k-bench-") as name:
        handed, errors = Path(name) / "figures.json", Path(name) / "errors"
        broke = _process(bench, handed, errors, limit)
        found = figures.taken_over(handed)
    return figures.Outcome(
        bench=bench.name,
        seconds=time.perf_counter() - began,
        load=load,
        figures=found,
        broke=broke if broke or found else "it handed no figures over",
    )


def _process(bench: Bench, handed: Path, errors: Path, limit: float) -> str | None:
    """Run it to its end, or to that of its time; return what went wrong."""
    paths = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, figures.FILE: str(handed)}
    command = [sys.executable, *bench.arguments]
    with errors.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file, start_new_session=True)
    code: int | None = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        try:
            code = process.wait(limit)
        finally:
            _end(process)
    told = errors.read_text(errors="replace")
    sys.stderr.write(told)
    if code is None:
        return f"it had not ended after {limit:g} s"
    last = ([line.strip() for line in told.splitlines() if line.strip()] or ["no word"])[-1]
    return f"{f'exit code {code}' if code > 0 else f'signal {-code}'}: {last}" if code else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what it has left running: workers and servers are of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_all(benches: Sequence[Bench], file: Path) -> int:
    """Run them, print and save the figures; return the exit code."""
    where, began, outcomes = figures.machine(), datetime.now(UTC).isoformat(timespec="seconds"), []
    for bench in benches:
        console.rule(bench.name)
        outcomes.append(run(bench))
        figures.save(file, where, began, outcomes)
    console.rule()
    console.print(str(where), highlight=False)
    console.print(figures.table(outcomes))
    console.print(f"{figures.summary(outcomes)}; saved as {file}", highlight=False)
    return int(any(outcome.broke is not None for outcome in outcomes))


def chosen(names: Sequence[str]) -> tuple[list[Bench], Path]:
    """Return the benches of these names, or all, and where their figures go; exit where there is no such bench."""
    known = {bench.name: bench for bench in BENCHES}
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__, formatter_class=described)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, where none is given: {', '.join(known)}")
    names = parser.parse_args(names).names
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"There is no bench {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names or known], ROOT / "runs" / f"{'-'.join(['bench', *names])}.json"


if __name__ == "__main__":
    raise SystemExit(run_all(*chosen(sys.argv[1:])))
