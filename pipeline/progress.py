"""Progress on a terminal as a bar, elsewhere as a line every ten seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 10.0  # seconds, where there is no terminal


class Meter:
    """Shows how much is done, what came of it, the rates, and the time left."""

    def __init__(self, console: Console, bar: Progress | None) -> None:
        self._console = console
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None, visible=False)
        self.start("", 0)

    def start(self, title: str, total: float, unit: str = "MB") -> None:
        """Begin a new pass over `total` of `unit`."""
        self._title, self._total, self._unit = title, total, unit
        self._done = 0.0
        self._items: Counter[str] = Counter()
        self._shares: Counter[str] = Counter()
        self._began = self._told = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, description=title, total=total, visible=bool(title))

    def advance(self, done: float, items: Mapping[str, int], shares: Mapping[str, int] | None = None) -> None:
        """Add what was done since the last call: `items` are shown as rates, `shares` in percent of what is done."""
        self._done += done
        self._items.update(items)
        self._shares.update(shares or {})
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, rates=self._rates())
        elif self._done and time.monotonic() - self._told >= _LINE_EVERY:
            self._told = time.monotonic()
            self._console.print(
                f"{self._title}: {self._share()}, {self._rates()}, {self._time_left()}",
                highlight=False,
                soft_wrap=True,
            )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        (self._bar.console if self._bar else self._console).print(line, highlight=False, markup=False, soft_wrap=True)

    def _share(self) -> str:
        return f"{self._done / max(self._total, 1e-9):.0%} of {self._total:,.0f} {self._unit}"

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        items = [f"{count:,} {name} ({count / seconds:,.0f}/s)" for name, count in self._items.items() if count]
        shares = [f"{count / max(self._done, 1):.1%} {name}" for name, count in self._shares.items()]
        return ", ".join([*items, *shares, f"{self._done / seconds:,.1f} {self._unit}/s"])

    def _time_left(self) -> str:
        seconds = (self._total - self._done) * (time.monotonic() - self._began) / max(self._done, 1e-9)
        return f"about {seconds:,.0f} s left"


@contextmanager
def meter(console: Console) -> Iterator[Meter]:
    """Show progress on `console` until the block ends."""
    if not console.is_terminal:
        yield Meter(console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(console, bar)
