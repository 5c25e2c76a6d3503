"""From rows of `masks` to rows of prompts, on Ray: each image is read and decoded once for all its masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import images
from pipeline.run import Run
from pipeline.shards import MissingBytesError, Range, Shard, open_shard
from stages import region_prompts
from stages.engines.base import PROMPTS, EngineConfig, part
from stages.prompt_tokens import image_tokens
from stages.region_prompts import Prompt, Region, RegionPrompt

SHARD_UNREADABLE = "shard-unreadable"
"""The one problem that may be gone by the next run."""

_ROWS = 16  # prompts handed on together: a few MB of pictures


class Piece(NamedTuple):
    """Masks to ask about that lie in one row group of a part of `masks`, rows of one image adjacent."""

    part: str
    row_group: int
    mask_ids: list[int]

    def table(self, run: Run, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of these masks. Raises `UserError` when the part is damaged."""
        with run.opened("masks", self.part) as file:
            table = file.read_row_group(self.row_group, columns=columns and list(columns))
        return table.filter(pc.is_in(table["mask_id"], pa.array(self.mask_ids, pa.int64())))


@dataclass(frozen=True)
class Renderer:
    """Makes prompts out of pieces; sent to every node."""

    run: str
    """URI of the run."""
    shards: dict[str, Shard]
    prompt: RegionPrompt
    question: str
    engine: EngineConfig

    def __call__(self, pieces: pa.Table) -> Iterator[pa.Table]:
        """Render every piece (rows of part, row_group, mask_ids); yields tables of `PROMPTS`."""
        yield from in_tables(row for piece in pieces.to_pylist() for row in self.rows(Piece(**piece)))

    def rows(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """Yield a row for every prompt about the masks of `piece`."""
        for _, group in groupby(piece.table(Run(self.run)).to_pylist(), key=lambda row: row["image_id"]):
            yield from self._image(list(group))

    def _image(self, group: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            photograph = read_photograph(self.shards[group[0]["shard"]], group[0])
        except MissingBytesError as error:
            yield from _refused(group, "missing-bytes", f"{error}: the shard was changed or cut")
        except images.UnreadableImageError as error:
            yield from _refused(group, "image-unreadable", f"sa_{group[0]['image_id']}.jpg: {error}")
        except OSError as error:
            yield from _refused(group, SHARD_UNREADABLE, f"{self.shards[group[0]['shard']].uri}: {error}")
        else:
            yield from self._prompts(photograph, group)

    def _prompts(self, photograph: images.Photograph, group: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        columns = {name: [row[name] for row in group] for name in group[0]}
        about = {"image_id": group[0]["image_id"], "shard": group[0]["shard"]}
        for row in prompt_rows(photograph, region_prompts.regions(columns), self.question, self.prompt, self.engine):
            yield {**about, **row}


def prompt_rows(
    photograph: images.Photograph, regions: Sequence[Region], question: str, prompt: RegionPrompt, engine: EngineConfig
) -> Iterator[dict[str, Any]]:
    """Yield a row of `PROMPTS`, all but image_id and shard, for every prompt about `regions` of one image."""
    for number, made in enumerate(region_prompts.prompts(photograph, regions, question, prompt)):
        yield _row(made, engine, first=number == 0)


def _row(prompt: Prompt, engine: EngineConfig, *, first: bool) -> dict[str, Any]:
    return {
        "prompt_id": prompt.mask_ids[0],
        "subjects": prompt.mask_ids,
        "parts": [part(piece) for piece in prompt.parts],
        "image_tokens": image_tokens(prompt.sizes, engine),
        "shared_tokens": image_tokens(prompt.sizes[: 0 if first else prompt.shared], engine),
        "problem": None,
        "reason": None,
    }


def in_tables(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    """Hand rows of `PROMPTS` on as tables, a few at a time; an empty one at the end where it comes out even."""
    while few := list(islice(rows, _ROWS)):
        yield pa.Table.from_pylist(few, PROMPTS)
        if len(few) < _ROWS:
            return
    yield pa.Table.from_pylist([], PROMPTS)


def read_photograph(shard: Shard, mask: Mapping[str, Any]) -> images.Photograph:
    """Read and decode the image of a row of `masks`.

    Raises `MissingBytesError`, `UnreadableImageError`, or `OSError` when the shard cannot be read.
    """
    with open_shard(shard) as reader:
        data = reader.read(f"sa_{mask['image_id']}.jpg", Range(mask["jpg_offset"], mask["jpg_bytes"]))
    return images.decode(data, (mask["width"], mask["height"]))


def _refused(group: Sequence[dict[str, Any]], reason: str, problem: str) -> Iterator[dict[str, Any]]:
    for mask in group:
        about = {"image_id": mask["image_id"], "shard": mask["shard"]}
        yield {**about, **refused_row(mask["mask_id"], reason, problem)}


def refused_row(subject: int, reason: str, problem: str) -> dict[str, Any]:
    """Return the row of `PROMPTS`, all but image_id and shard, of what cannot be asked about."""
    nothing = {"parts": [], "image_tokens": 0, "shared_tokens": 0}
    return {"prompt_id": subject, "subjects": [subject], **nothing, "problem": problem, "reason": reason}
