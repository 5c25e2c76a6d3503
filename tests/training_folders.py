"""Small data sets to train on, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small_benchmarks

from model import training_data
from model.train_config import DataConfig, ModelConfig, TrainConfig, TrainingConfig
from model.training_data import TrainingData
from pipeline import regions

LABELS = ("dog", "cup", "car")


def write(folder: Path, masks: Sequence[int] = (3, 5, 1, 4, 2, 3), *, first: int = 1, **changes: Any) -> Path:
    """Images `first`, …, with so many masks each, in Parquet files of two images; all of the split train."""
    rows = [instance(first + i, k) for i, count in enumerate(masks) for k in range(count)]
    files = [photograph(first + i, count) for i, count in enumerate(masks)]
    return write_rows(folder, [{**row, **changes} for row in rows], files)


def instance(image: int, place: int, **changes: Any) -> dict[str, Any]:
    """Instance image * 1000 + place."""
    return small_benchmarks.instance(image, place, LABELS[place % 3], **{"split": "train", **changes})


def photograph(number: int, masks: int, **changes: Any) -> dict[str, Any]:
    """An image of noise, called as COCO calls its own."""
    made = small_benchmarks.image(number, masks, small_benchmarks.photograph(number), "train")
    return {**made, "file_name": f"train2017/{number:012}.jpg", **changes}


def write_rows(folder: Path, instances: Sequence[dict[str, Any]], images: Sequence[dict[str, Any]]) -> Path:
    """A data set of these rows, whatever is wrong with them; row groups and files of a few."""
    parts: tuple[tuple[regions.Table, Sequence[dict[str, Any]]], ...] = (("instances", instances), ("images", images))
    for name, rows in parts:
        table, half = regions.from_rows(name, rows), -(-len(rows) // 2)
        for number, part in enumerate((table[:half], table[half:])):
            path = folder / "data" / f"{name}-{number:05}-of-00002.parquet"
            with regions.FileWriter(path, name, images=name == "images") as writer:
                for start in range(0, len(part), 2):
                    writer.write(part[start : start + 2])
    return folder


def config(
    folders: dict[str, Path], model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **training: Any
) -> TrainConfig:
    """A training by the debug model in this process."""
    named = {name: str(folder) for name, folder in folders.items()}
    usual = {"epochs": 2, "batch": 4, "micro_batch": 2, "checkpoint_every": 2}
    return TrainConfig(
        model=ModelConfig(**{"prompt": "demo", "tiles": 1, **(model or {})}),
        data=DataConfig(**{"folders": named, "tiles": 1, "loaders": 0, **(data or {})}),
        training=TrainingConfig(**{**usual, **training}),
    )


def prepared(chosen: TrainConfig, out: Path) -> list[TrainingData]:
    """Its data sets."""
    return [training_data.prepare(name, chosen.data, out / "data") for name in chosen.learnt_from()]
