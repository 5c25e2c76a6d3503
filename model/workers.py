"""The workers of one training: what each has, brought together. With one worker nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed


class Workers:
    """The process that we are, among those that train together; torch's process group if there is one."""

    def __init__(self, device: torch.device) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.device = device
        self.count = distributed.get_world_size() if together else 1
        self.number = distributed.get_rank() if together else 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.number == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all workers; all get the same."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        found: list[float] = tensor.tolist()
        return found

    def gather(self, value: Any) -> list[Any]:
        """Return what every worker gave, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found
