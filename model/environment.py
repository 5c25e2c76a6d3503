"""What made a checkpoint: machine, packages, configuration, data."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import distributions
from typing import Any

import msgspec
import torch

from model.train_config import TrainConfig
from model.training_data import Report
from model.workers import Workers


def describe(config: TrainConfig, data: Sequence[Report], workers: Workers) -> dict[str, Any]:
    """Return it as what JSON can hold; every worker has to call this."""
    gpu = torch.cuda.get_device_name(workers.device) if workers.device.type == "cuda" else None
    mine = {"host": platform.node(), "gpu": gpu, "processors": os.cpu_count(), "threads": torch.get_num_threads()}
    return {
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cuda": torch.version.cuda},
        "workers": workers.gather(mine),
        "packages": _packages(),
        "seed": config.training.seed,
        "data": [msgspec.to_builtins(report) for report in data],
        "configuration": config.model_dump(mode="json"),
    }


@cache
def _packages() -> dict[str, str]:
    return dict(sorted((one.name, one.version) for one in distributions()))
