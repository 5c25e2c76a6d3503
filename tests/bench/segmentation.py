"""`make bench`: what panoptic quality and mean IoU cost an image, beside torchmetrics, whose numbers ours equal.

Simulated: maps of 1024 × 512 px, a quarter of Cityscapes', 60 segments of 19 classes each; predictions are the truth
with shifted borders and some other classes. The truth has void; it has no crowds and the predictions no void, because
torchmetrics treats these otherwise (benchmark/panoptic.py). Both are given the maps; what it costs ours to make them of
masks is told apart, and so is the way that panopticapi counts pixels, which is most of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.detection import PanopticQuality

from bench.figures import Figure, Goal, goals, hand_over
from benchmark import panoptic, run_lengths
from benchmark.panoptic import Segments
from pipeline import masks

FASTER = {name: Goal(8, f"{name}, beside torchmetrics", at_least=1) for name in ("PQ, SQ, RQ", "mean IoU")}
WIDTH, HEIGHT, CLASSES, IMAGES, ROUNDS = 1024, 512, 19, 2, 3
THINGS = np.arange(CLASSES) >= 11
console = Console(width=110)


def pairs() -> Iterator[tuple[Segments, Segments]]:
    """Truth and prediction of each image; a class that is stuff has one segment at most."""
    random = np.random.default_rng(0)
    for _ in range(IMAGES):
        cells = random.integers(1, 61, (16, 32)).astype(np.int32)
        classes = np.concatenate([np.arange(11), random.integers(11, CLASSES, 49)])
        cells[random.random(cells.shape) < 0.05] = 0
        places = np.kron(cells, np.ones((HEIGHT // 16, WIDTH // 32), np.int32))
        wrong = classes.copy()
        wrong[11::5] = random.integers(11, CLASSES, len(wrong[11::5]))
        none = np.zeros(60, np.bool_)
        shifted = np.maximum(np.roll(places, (9, 13), (0, 1)), 1)
        yield Segments(places, classes, none), Segments(shifted, wrong, none)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds of the shortest of some tries; of one that takes long, of the only one."""
    tries: list[float] = []
    while len(tries) < ROUNDS and sum(tries) < 3:
        start = time.perf_counter()
        returned = work()
        tries.append(time.perf_counter() - start)
    return returned, min(tries)


def coloured(segments: Segments) -> torch.Tensor:
    """As torchmetrics takes them: (1, height, width, 2) of class and number; a class of its own is void."""
    classes = np.append(CLASSES, segments.classes)[segments.places]
    return torch.from_numpy(np.stack([classes, segments.places], axis=-1))[None]


def ours(maps: list[tuple[Segments, Segments]]) -> tuple[float, float, float]:
    """PQ, SQ, RQ."""
    counts = panoptic.no_matches(CLASSES)
    for truth, predicted in maps:
        counts = counts.plus(panoptic.match(truth, predicted, CLASSES))
    return panoptic.quality(counts, np.ones(CLASSES, np.bool_))[:3]


def our_iou(maps: list[tuple[Segments, Segments]]) -> float:
    """Mean IoU."""
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    for truth, predicted in maps:
        true, said = (np.append(-1, one.classes).astype(np.int32)[one.places] for one in (truth, predicted))
        matrix += panoptic.confusion(true, said, CLASSES)
    return panoptic.mean_iou(matrix)


def their_iou(maps: list[tuple[Any, Any]]) -> float:
    """Mean IoU from torchmetrics' confusion matrix, which leaves void out; its own mean IoU cannot."""
    metric = MulticlassConfusionMatrix(CLASSES + 1)
    for truth, predicted in maps:
        metric.update(predicted[..., 0], truth[..., 0])
    matrix = metric.compute().numpy()[:-1]
    right = np.diagonal(matrix)
    return float((right / (matrix.sum(1) + matrix[:, :-1].sum(0) - right)).mean())


def theirs(maps: list[tuple[Any, Any]]) -> tuple[float, ...]:
    """PQ, SQ, RQ by torchmetrics."""
    things, stuffs = (set(np.flatnonzero(chosen).tolist()) for chosen in (THINGS, ~THINGS))
    metric = PanopticQuality(things, stuffs, allow_unknown_preds_category=True, return_sq_and_rq=True)
    for truth, predicted in maps:
        metric.update(predicted, truth)
    return tuple(metric.compute().tolist())


def from_masks(truth: Segments) -> float:
    """Seconds to decode and overlay the masks of an image."""
    rles = [masks.encode(truth.places == number) for number in range(1, len(truth.classes) + 1)]

    def read() -> None:
        panoptic.overlay((run_lengths.pixels(counts, HEIGHT * WIDTH) for counts in rles), HEIGHT * WIDTH)

    return timed(read)[1]


def counted_by_sorting(truth: Segments, predicted: Segments) -> None:
    """Count pixels by pairs of segments as panopticapi does."""
    np.unique(truth.places.astype(np.uint64) << 24 | predicted.places.astype(np.uint64), return_counts=True)
    np.unique(predicted.places, return_counts=True)


def main() -> list[Figure]:
    """Print the figures; return those that were asked for."""
    maps = list(pairs())
    tensors = [(coloured(truth), coloured(predicted)) for truth, predicted in maps]
    console.print(f"{IMAGES} images of {WIDTH}×{HEIGHT} px, 60 segments each, {CLASSES} classes ([bold]simulated[/])")
    table = Table("ms an image", "torchmetrics", "ours", "×", "largest difference", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    found = []
    for name, slow, fast in (("PQ, SQ, RQ", theirs, ours), ("mean IoU", their_iou, our_iou)):
        (said, long), (ours_said, short) = timed(lambda: slow(tensors)), timed(lambda: fast(maps))  # noqa: B023
        off, faster = np.abs(np.subtract(said, ours_said)).max(), long / short
        each = [f"{1000 * one / IMAGES:,.0f}" for one in (long, short)]
        table.add_row(name, *each, f"{faster:.1f}", f"{off:.0e}")
        found.append(FASTER[name].reached(faster))
    console.print(table)
    sorting = 1000 * timed(lambda: counted_by_sorting(*maps[0]))[1]
    console.print(f"panopticapi's way of counting alone: {sorting:,.0f} ms an image")
    console.print(f"decoding and laying out 60 masks: {1000 * from_masks(maps[0][0]):,.0f} ms an image")
    console.print(goals(found))
    return found


if __name__ == "__main__":
    hand_over(main())
