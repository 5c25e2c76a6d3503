"""Which samples a step is made of: a pure function of seed and step, so that its number is all that resuming needs.

Nothing is drawn at random and forgotten:

- A data set of weight w is seen w times an epoch. Of a fraction every image gets its turn: an image in place u (0 to 1)
  of a seeded order is used floor((e + 1) w + u) − floor(e w + u) times in epoch e, so that after any number of epochs
  all images of a data set were used equally often, give or take one. (InternVL's `repeat_time` below 1 uses the head of
  a list and never the rest.)
- Of an image with more masks than a sample holds, visit v shows the v-th stretch of a seeded circle of them: after any
  number of visits all were shown equally often, give or take one.
- Epochs follow each other in one stream, cut into steps of `batch` samples; only the last step of all may be smaller.
  Stretches of `grouped` steps are sorted by work and cut again, so that the samples of a step are alike (as by
  `group_by_length`, which the authors used), and these steps are then shuffled.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.train_config import TrainingConfig
from pipeline.errors import UserError

Ints = npt.NDArray[np.int64]

_ORDER, _TURN, _STEPS, _MASKS = range(4)
"""What a seed is for; each has its own numbers."""


class Visit(NamedTuple):
    """An image, seen for the `visit`-th time, from 0."""

    data_set: str
    image: int
    """Its place in the data set."""
    visit: int


class Step(NamedTuple):
    """What one update learns from."""

    epoch: int
    """Of its first sample as the stream has them, from 0."""
    visits: list[Visit]


def chosen(masks: int, most: int, visit: int, seed: int, data_set: str, image_id: int) -> Ints:
    """Return the places of the masks, of `masks`, that a visit shows: `most` of them, or all."""
    if masks <= most:
        return np.arange(masks)
    circle = _generator(seed, _MASKS, zlib.crc32(data_set.encode()), image_id % (1 << 64)).permutation(masks)
    found: Ints = circle[(visit * most + np.arange(most)) % masks]
    return found


def deal(work: Sequence[float], workers: int) -> list[list[int]]:
    """Share samples out so that each worker has as many, give or take one, and about the same work.

    Return the places of each worker's samples, most work first: heaviest first, each goes to the worker that has least
    of those with room.
    """
    room, extra = divmod(len(work), workers)
    hands: list[list[int]] = [[] for _ in range(workers)]
    held = [0.0] * workers
    for place in sorted(range(len(work)), key=lambda place: (-work[place], place)):
        more = sum(len(hand) > room for hand in hands) < extra
        free = [worker for worker, hand in enumerate(hands) if len(hand) < room + more]
        least = min(free, key=lambda worker: (held[worker], worker))
        hands[least].append(place)
        held[least] += work[place]
    return hands


class Plan:
    """The steps of a training."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        training: TrainingConfig,
        *,
        grouped: int = 1,
        work: Callable[[Visit], float] = lambda _: 0.0,
    ) -> None:
        """Plan for data sets of `sizes` images with `weights` above 0; `work` is what a sample costs.

        Raises `UserError` if there is not a single sample.
        """
        self.sizes, self.weights, self.work = dict(sizes), dict(weights), work
        self.epochs, self.batch, self.seed = training.epochs, training.batch, training.seed
        lengths = [sum(int(self._uses(name, epoch)[0].sum()) for name in sizes) for epoch in range(self.epochs)]
        if not any(lengths):
            raise UserError(f"data.weights are so small that in {self.epochs} epochs no image has its turn.")
        self._ends = np.cumsum(lengths)
        self.grouped = max(1, min(grouped, lengths[0] // self.batch))  # not over epochs, where these are short
        self._kept: tuple[int, list[Step]] = (-1, [])
        self._kept_epoch: tuple[int, list[Visit]] = (-1, [])

    @property
    def samples(self) -> int:
        """Of the whole training."""
        return int(self._ends[-1])

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return math.ceil(self.samples / self.batch)

    def step(self, number: int) -> Step:
        """Return a step's samples, from step 0 on."""
        stretch, place = divmod(number, self.grouped)
        if self._kept[0] != stretch:
            self._kept = (stretch, self._sorted(stretch))
        return self._kept[1][place]

    def epoch(self, number: int) -> list[Visit]:
        """Return an epoch's samples in the order of the stream."""
        if self._kept_epoch[0] == number:
            return self._kept_epoch[1]
        found = []
        for name in self.sizes:
            uses, before = self._uses(name, number)
            images = np.repeat(np.arange(len(uses)), uses)
            again = np.arange(len(images)) - np.repeat(np.cumsum(uses) - uses, uses)
            pairs = zip(images.tolist(), (before[images] + again).tolist(), strict=True)
            found += [Visit(name, image, visit) for image, visit in pairs]
        order = _generator(self.seed, _ORDER, number).permutation(len(found))
        self._kept_epoch = (number, [found[place] for place in order])
        return self._kept_epoch[1]

    def _uses(self, name: str, epoch: int) -> tuple[Ints, Ints]:
        """Return how often each image is used in an epoch, and how often before."""
        size, weight = self.sizes[name], self.weights[name]
        turn = _generator(self.seed, _TURN, zlib.crc32(name.encode())).permutation(size)
        places = (turn + 0.5) / size
        before, after = (np.floor(number * weight + places).astype(np.int64) for number in (epoch, epoch + 1))
        return after - before, before

    def _sorted(self, stretch: int) -> list[Step]:
        """Return the steps of a stretch of the stream."""
        length = self.grouped * self.batch
        visits, epochs = self._stream(stretch * length, min(self.samples, (stretch + 1) * length))
        order = np.arange(len(visits))
        if self.grouped > 1:
            order = np.argsort([self.work(visit) for visit in visits], kind="stable")
        places = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        steps = [Step(min(epochs[place] for place in some), [visits[place] for place in some]) for some in places]
        whole = len(visits) // self.batch  # what is not whole stays last
        turns = _generator(self.seed, _STEPS, stretch).permutation(whole)
        return [*(steps[place] for place in turns), *steps[whole:]]

    def _stream(self, start: int, stop: int) -> tuple[list[Visit], list[int]]:
        """Return a part of the stream, and the epoch of each of its samples."""
        visits: list[Visit] = []
        numbers: list[int] = []
        for epoch in range(int(np.searchsorted(self._ends, start, "right")), self.epochs):
            begins = int(self._ends[epoch - 1]) if epoch else 0
            if begins >= stop:
                break
            part = self.epoch(epoch)[max(0, start - begins) : stop - begins]
            visits += part
            numbers += [epoch] * len(part)
        return visits, numbers


def _generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
