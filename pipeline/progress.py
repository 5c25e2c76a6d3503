"""Progress on a terminal as a bar, elsewhere as a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 10.0  # seconds, where there is no terminal


class Meter:
    """Shows bytes and items done, their rates, and the time left."""

    def __init__(self, console: Console, bar: Progress | None) -> None:
        self._console = console
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None, visible=False)
        self.start("", 0)

    def start(self, title: str, total_bytes: int) -> None:
        """Begin a new pass over `total_bytes`."""
        self._title, self._total = title, total_bytes
        self._bytes, self._items = 0, {"images": 0, "masks": 0}
        self._began = self._told = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, description=title, total=total_bytes, visible=bool(title))

    def advance(self, done_bytes: int, images: int, masks: int) -> None:
        """Add what was done since the last call."""
        self._bytes += done_bytes
        self._items["images"] += images
        self._items["masks"] += masks
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._bytes, rates=self._rates())
        elif time.monotonic() - self._told >= _LINE_EVERY:
            self._told = time.monotonic()
            self._console.print(
                f"{self._title}: {self._share()}, {self._rates()}, {self._time_left()}", highlight=False
            )

    def _share(self) -> str:
        return f"{self._bytes / max(self._total, 1):.0%} of {self._total / 1e6:,.0f} MB"

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-3)
        items = [f"{count:,} {name} ({count / seconds:,.0f}/s)" for name, count in self._items.items() if count]
        return ", ".join([*items, f"{self._bytes / 1e6 / seconds:,.0f} MB/s"])

    def _time_left(self) -> str:
        seconds = (self._total - self._bytes) * (time.monotonic() - self._began) / max(self._bytes, 1)
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
