"""`make bench`: how long the command line takes to say what it can do. Files are read once before timing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, Goal, goals, hand_over

TIMES = 7
HELP = Goal(2, "rr7k --help, the best of several", "s", at_most=0.5)
console = Console(width=110)


def best(command: Sequence[str]) -> float:
    """Seconds of a command, the least of several times; the first is not timed."""
    seconds = []
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> list[Figure]:
    """Print the figures."""
    floor, ours = best([sys.executable, "-c", ""]), best([str(Path(sys.executable).with_name("rr7k")), "--help"])
    table = Table("", "seconds", box=None)
    table.add_row("floor: Python, starting and doing nothing", f"{floor:.2f}")
    table.add_row("rr7k --help", f"{ours:.2f}")
    console.print(table)
    found = [HELP.reached(ours)]
    console.print(goals(found))
    return found


if __name__ == "__main__":
    hand_over(main())
