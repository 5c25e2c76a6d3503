"""How a training went: a row for each step in a CSV file and in TensorBoard, and the curve as a picture.

The CSV file is what the rest is made from. A training that goes on from a checkpoint first cuts it off there, so that
it has each step once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.plots import board, png

FILE, CURVE, EVENTS = "metrics.csv", "curve.png", "tensorboard"


class Row(NamedTuple):
    """One update; sums and means over all workers."""

    step: int
    """Updates made, this one included."""
    epoch: int
    """From 0."""
    loss: float
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    images: int
    masks: int
    tokens: int
    """Of the sequences."""
    waiting: float
    """Seconds in which samples were waited for."""
    computing: float
    """Seconds from then to the update's end."""

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.waiting + self.computing


class Log:
    """Writes the rows of a training that goes on after `step` updates."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        cut(folder, step)
        self._file = (folder / FILE).open("a", newline="")
        self._writer = csv.writer(self._file)
        self._events: Any = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def write(self, row: Row) -> None:
        """Append a row."""
        self._writer.writerow(row)
        self._file.flush()
        per_second = {"tokens": row.tokens / row.seconds, "masks": row.masks / row.seconds}
        for name, value in {
            "loss": row.loss,
            "learning_rate": row.learning_rate,
            "gradient_norm": row.gradient_norm,
            "seconds/waiting": row.waiting,
            "seconds/computing": row.computing,
            **{f"per_second/{name}": value for name, value in per_second.items()},
        }.items():
            self._events.add_scalar(name, value, row.step)

    def close(self) -> None:
        """Have everything in the files."""
        self._file.close()
        self._events.close()


def cut(folder: Path, step: int) -> None:
    """Leave the rows up to `step` alone, which are those of a checkpoint; what came after it will be done again."""
    path = folder / FILE
    rows = [row for row in read(folder) if row.step <= step]
    draft = path.with_suffix(".part")
    with draft.open("w", newline="") as file:
        csv.writer(file).writerows([Row._fields, *rows])
    draft.replace(path)


def read(folder: Path) -> list[Row]:
    """Return the rows so far; none if there is no file. A last line that is not whole is left out."""
    path = folder / FILE
    return list(_rows(path.read_text())) if path.is_file() else []


def latest(folder: Path) -> list[Row]:
    """Return the last rows, some hundreds; for whoever looks every second."""
    path = folder / FILE
    if not path.is_file():
        return []
    with path.open("rb") as file:
        skipped = max(0, path.stat().st_size - _TAIL)
        file.seek(skipped)
        text = file.read().decode()
    return list(_rows(text[text.find("\n") + 1 :] if skipped else text))


def _rows(text: str) -> Iterator[Row]:
    """Yield the whole rows of the file's text, with or without its header."""
    for line in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
        if line[0] != Row._fields[0]:
            cells = zip(Row._fields, line, strict=True)
            yield Row._make(int(value) if name in _WHOLE else float(value) for name, value in cells)


_TAIL = 1 << 16  # bytes
_WHOLE = ("step", "epoch", "images", "masks", "tokens")


def draw(folder: Path) -> Path:
    """Draw loss and learning rate over the steps, and where the time went; return the picture's path."""
    found = read(folder)
    steps = [row.step for row in found]
    canvas = board(8, 6)
    upper, lower = canvas.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.plot(steps, [row.loss for row in found], color="0.8", linewidth=1, label="loss of a step")
    upper.plot(steps, smoothed([row.loss for row in found]), color="C0", label="its running mean")
    upper.set(ylabel="loss", ylim=(0, None))
    rate = upper.twinx()
    rate.plot(steps, [row.learning_rate for row in found], color="C1", linewidth=1, label="learning rate (right)")
    rate.set(ylim=(0, None))
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 3, "frameon": False}
    upper.legend(handles=[*upper.lines, *rate.lines], **above)
    waiting = [100 * row.waiting / row.seconds for row in found]
    lower.plot(steps, waiting, color="0.8", linewidth=1)
    lower.plot(steps, smoothed(waiting), color="C2")
    lower.set(xlabel="step", ylabel="waiting\nfor data, %", ylim=(0, 100))
    path = folder / CURVE
    draft = path.with_suffix(".part.png")
    draft.write_bytes(png(canvas))
    draft.replace(path)
    return path


def smoothed(values: Sequence[float]) -> list[float]:
    """Return running means over a twentieth of all values, each over what came before it."""
    reach = max(1, len(values) // 20)
    return [sum(some) / len(some) for end in range(1, len(values) + 1) if (some := values[max(0, end - reach) : end])]
