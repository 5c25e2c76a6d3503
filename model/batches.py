"""Samples side by side, as tensors: what training and decoding run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.attention import PADDING
from model.branches import NOTHING, Row
from model.inputs import Sample
from pipeline.errors import UserError


class Batch(NamedTuple):
    """Samples side by side, filled up at the end; B samples of at most L tokens, N pictures."""

    pixels: Tensor
    """(N, side, side, 3), uint8"""
    cells: Tensor
    """(N, grid × grid), bool: used tokens, in the order of `slots`"""
    tokens: Tensor
    """(B, L), as all that follow"""
    branch: Tensor
    reads: Tensor
    positions: Tensor
    slots: Tensor
    targets: Tensor
    instances: Tensor
    """Masks counted over the whole batch."""


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Put samples side by side on a device. Raises `UserError` if there are none."""
    if not samples:
        raise UserError("an empty batch: there is nothing to learn from.")
    length = max(len(sample.row.tokens) for sample in samples)
    offsets = np.cumsum([0, *(len(sample.rescued) for sample in samples)])
    rows = [_filled(sample.row, length, int(offset)) for sample, offset in zip(samples, offsets[:-1], strict=True)]
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    pictures = [np.concatenate([sample[place] for sample in samples]) for place in (0, 1)]
    return Batch(*(torch.from_numpy(part).to(device) for part in (*pictures, *columns)))


def _filled(row: Row, length: int, offset: int) -> list[np.ndarray[Any, Any]]:
    """Fill a row up; what is added is later than everything, so that nobody sees it."""
    missing = length - len(row.tokens)
    instances = np.where(row.instances == NOTHING, NOTHING, row.instances + offset)
    columns = (row.tokens, row.branch, row.reads, row.positions, row.slots, row.targets, instances)
    fills = (0, PADDING, PADDING, length, False, NOTHING, NOTHING)
    return [np.pad(column, (0, missing), constant_values=fill) for column, fill in zip(columns, fills, strict=True)]
