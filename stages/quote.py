"""What asking will cost, told before anything is spent; and what it has cost, in the same terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from pipeline.images import Size
from pipeline.run import Run
from stages import region_prompts
from stages.engines.base import EngineConfig
from stages.naming_settings import STEP
from stages.prompt_tokens import Question, image_tokens, text_tokens
from stages.region_prompts import RegionPrompt
from stages.rendering import Piece


class Task(NamedTuple):
    """What is asked, as far as its cost goes."""

    step: str
    """Whose commits tell what was spent."""
    question: Question
    generated: int
    """Tokens per answer, while the run has none to measure."""
    most: int
    """Tokens at which an answer is cut off."""


NAMING = Task(STEP, "name", 4, 0)
"""Two tokens of a name, its end, and some longer ones."""


class Quote(msgspec.Struct, frozen=True):
    """Sums over all that is to be asked."""

    masks: int
    prompts: int
    prompt_tokens: int
    """By the model's own rule, text and chat template included."""
    shared_tokens: int
    """Of those, the ones that a prefix cache saves: the whole image, from its second prompt on."""
    generated_tokens: int
    gpus: float
    tokens_per_second: float
    """Not counting shared tokens; 0 when nobody knows."""
    measured: bool
    """Whether that is this run's own rate, rather than a declared one."""

    @property
    def hours(self) -> float | None:
        """Expected hours by the clock."""
        work = self.prompt_tokens - self.shared_tokens + self.generated_tokens
        return work / self.tokens_per_second / 3600 if self.tokens_per_second and work else None

    @property
    def gpu_hours(self) -> float | None:
        """Expected hours of all GPUs together."""
        return None if self.hours is None or not self.gpus else self.hours * self.gpus


class Spent(msgspec.Struct, frozen=True):
    """What a run's answers have cost so far."""

    masks: int
    seconds: float
    gpu_hours: float
    tokens: dict[str, int]

    @property
    def work(self) -> int:
        """Tokens that had to be computed."""
        saved = self.tokens.get("cached") or self.tokens.get("shared", 0)
        return self.tokens.get("prompt", 0) - saved + self.tokens.get("generated", 0)


def spent(run: Run, step: str) -> Spent:
    """Add up what the commits of `step` have recorded."""
    commits = list(run.commits(step).values())
    tokens: Counter[str] = Counter()
    for commit in commits:
        tokens.update(commit.facts["tokens"])
    return Spent(
        sum(commit.facts["masks"] for commit in commits),
        sum(commit.facts["seconds"] for commit in commits),
        sum(commit.facts["gpu_hours"] for commit in commits),
        dict(tokens),
    )


def quote(run: Run, pieces: Sequence[Piece], task: Task, prompt: RegionPrompt, engine: EngineConfig) -> Quote:
    """Count the tokens of every prompt about `pieces`, from the masks' boxes; no picture is read.

    A mask that a piece lists twice is asked about twice.
    """
    return quote_images(run, (one for piece in pieces for one in _images(run, piece)), task, prompt, engine)


def quote_images(
    run: Run,
    images: Iterable[tuple[Size, list[region_prompts.BoundingBox]]],
    task: Task,
    prompt: RegionPrompt,
    engine: EngineConfig,
) -> Quote:
    """Count the tokens of every prompt about images, given as their size and the boxes of their regions."""
    sums: Counter[str] = Counter()
    for size, boxes in images:
        sums.update(_image(size, boxes, task.question, prompt, engine))
    before = spent(run, task.step)
    rate = before.work / before.seconds if before.work and before.seconds else 0.0
    each = before.tokens["generated"] / before.masks if rate else task.generated
    masks = sums["masks"]
    generated = round(min(each, task.most) * masks) if engine.has_tokens else 0
    return Quote(
        masks,
        sums["prompts"],
        sums["prompt_tokens"],
        sums["shared_tokens"],
        generated,
        engine.gpus_used,
        rate or engine.tokens_per_second,
        bool(rate),
    )


_COLUMNS = ("mask_id", "image_id", "width", "height", "bbox_x", "bbox_y", "bbox_w", "bbox_h")


def _images(run: Run, piece: Piece) -> Iterator[tuple[Size, list[region_prompts.BoundingBox]]]:
    table = piece.table(run, _COLUMNS)
    times = Counter(piece.mask_ids)
    rows = zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
    for _, group in groupby(rows, key=lambda row: row[1]):
        of_image = list(group)
        yield of_image[0][2:4], [row[4:] for row in of_image for _ in range(times[row[0]])]


def _image(
    size: Size,
    boxes: list[region_prompts.BoundingBox],
    question: Question,
    prompt: RegionPrompt,
    engine: EngineConfig,
) -> Counter[str]:
    """Count the tokens of the prompts about one image."""
    counts: Counter[str] = Counter(masks=len(boxes))
    for number, asked in enumerate(region_prompts.outlines(size, boxes, prompt)):
        tokens = image_tokens(asked.sizes, engine) + text_tokens(question, prompt.layout, asked.regions, engine)
        shared = image_tokens(asked.sizes[: asked.shared], engine) if number else 0
        counts.update(prompts=1, prompt_tokens=tokens, shared_tokens=shared)
    return counts
