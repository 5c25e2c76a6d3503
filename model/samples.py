"""The data loader: from a step's number to the samples of one worker, ready for the model.

What a sample costs is known before any pixel is: image patches that the vision encoder reads (for every tile, and for
every mask its window), and tokens of the sequence. By that the samples of a step are shared out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from model import mixing, tiling
from model.branches import NOTHING, Layout
from model.inputs import Preparer, Sample
from model.mixing import Plan, Visit
from model.train_config import DataConfig
from model.training_data import Shown, TrainingData
from pipeline.errors import UserError

_PREFIX, _AROUND_REGION = 87, 7
"""Tokens beside those of images, regions and labels (wowseg_facts.md C.5)."""
_BYTES_A_TOKEN = 4
"""Of a label, about; the truth is the vocabulary's, and little depends on it."""
_PATCHES = 4
"""Of the vision encoder, for each of its tokens that the language model may see: they are joined two by two."""


class Portion(NamedTuple):
    """What one worker learns from in one step."""

    batches: list[list[Sample]]
    """Passes with their images; at least one, so that all workers meet at the end of it."""
    names: list[list[str]]
    """What to call these images in a message."""
    epoch: int
    spare: bool
    """There were fewer samples than workers: this one repeats another's, and counts nothing."""
    failed: str
    """Why there is nothing, or empty."""

    def targets(self) -> int:
        """Count the tokens that are learnt."""
        return self._sum(int((sample.row.targets != NOTHING).sum()) for batch in self.batches for sample in batch)

    def tokens(self) -> int:
        """Count the tokens of the sequences."""
        return self._sum(len(sample.row.tokens) for batch in self.batches for sample in batch)

    def masks(self) -> int:
        """Count the masks."""
        return self._sum(len(sample.rescued) for batch in self.batches for sample in batch)

    def _sum(self, counts: Iterator[int]) -> int:
        return 0 if self.spare else sum(counts)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work that a sample makes, as the number of tokens that both networks read."""

    data: Mapping[str, TrainingData]
    config: DataConfig
    seed: int
    scale: float
    every_cell: bool
    """Regions keep all tokens of their window, as in Fore2Token and Blur2Token."""
    side: int = tiling.SIDE
    grid: int = 16

    def __call__(self, visit: Visit) -> float:
        """Return the tokens of a sample, estimated from sizes alone; half a percent off in sum."""
        shown = self.data[visit.data_set].shown(visit.image)
        places = choose(shown, visit, self.config.masks, self.seed)
        columns, rows = _grid(shown.size, self.config.tiles, self.side)
        tiles = columns * rows + (columns * rows > 1)
        cells = self.cells(shown, places, (columns * self.side, rows * self.side))
        labels = sum(len(shown.regions[place].label.encode()) // _BYTES_A_TOKEN + 2 for place in places)
        sequence = _PREFIX + self.grid**2 * tiles + cells + labels + _AROUND_REGION * len(places)
        return sequence + _PATCHES * self.grid**2 * (tiles + len(places))

    def cells(self, shown: Shown, places: Any, resized: tuple[int, int]) -> int:
        """Return about how many tokens masks have: the share of their window that they cover."""
        if self.every_cell:
            return self.grid**2 * len(places)
        regions = [shown.regions[place] for place in places]
        stretch = np.array(resized) / np.array(shown.size)
        longest = (np.array([region.size for region in regions]) * stretch).max(1) * self.scale
        window = np.minimum(longest, resized[0]) * np.minimum(longest, resized[1])
        covered = np.array([region.area for region in regions]) * stretch.prod() / window
        return int(np.clip(np.rint(covered * self.grid**2), 1, self.grid**2).sum())


@lru_cache(1 << 12)
def _grid(size: tuple[int, int], most: int, side: int) -> tuple[int, int]:
    return tiling.grid(size, most, side)


def choose(shown: Shown, visit: Visit, most: int, seed: int) -> Any:
    """Return the places of the masks that a visit shows."""
    return mixing.chosen(len(shown.regions), most, visit.visit, seed, visit.data_set, shown.image_id)


class Portions(Dataset[Portion]):
    """The portions of one worker, by step."""

    def __init__(
        self, plan: Plan, work: Work, preparer: Preparer, layout: Layout, micro_batch: int, worker: int, workers: int
    ) -> None:
        self.plan, self._work, self._preparer, self._layout = plan, work, preparer, layout
        self._micro_batch, self._worker, self._workers = micro_batch, worker, workers

    def __getitem__(self, step: int) -> Portion:
        """Prepare a step's samples for this worker. What is wrong with them is told in the portion."""
        epoch, visits = self.plan.step(step)
        hands = mixing.deal([self._work(visit) for visit in visits], self._workers)
        mine = [visits[place] for place in hands[self._worker]]
        spare, mine = not mine, mine or visits[:1]
        passes = [mine[start : start + self._micro_batch] for start in range(0, len(mine), self._micro_batch)]
        names = [[self.name(visit) for visit in some] for some in passes]
        try:
            return Portion([[self.sample(visit) for visit in some] for some in passes], names, epoch, spare, "")
        except UserError as error:
            return Portion([], names, epoch, spare, str(error))

    def sample(self, visit: Visit) -> Sample:
        """Prepare one sample. Raises `UserError` that names the image."""
        data = self._work.data[visit.data_set]
        shown = data.shown(visit.image)
        regions = [shown.regions[place] for place in choose(shown, visit, self._work.config.masks, self._work.seed)]
        size = [shown.size[1], shown.size[0]]
        counts = [{"size": size, "counts": region.counts} for region in regions]
        labels = [region.label for region in regions]
        try:
            return self._preparer.sample(data.picture(visit.image), counts, labels, self._layout)
        except UserError as error:
            raise UserError(f"{self.name(visit)}: {error}") from None

    def name(self, visit: Visit) -> str:
        """Return what to call an image in a message."""
        return f"{visit.data_set} image {self._work.data[visit.data_set].image_ids()[visit.image]}"


def load(portions: Portions, first: int, steps: int, loaders: int) -> Iterator[Portion]:
    """Yield the portions of steps `first` to `steps`, prepared ahead by so many processes."""
    return iter(
        DataLoader(
            portions,
            batch_size=None,
            sampler=range(first, steps),
            num_workers=loaders,
            collate_fn=_as_it_is,
            # Not forked off a process that has threads of Ray and CUDA.
            multiprocessing_context="forkserver" if loaders else None,
            prefetch_factor=2 if loaders else None,
        )
    )


def _as_it_is(portion: Any) -> Any:
    return portion
