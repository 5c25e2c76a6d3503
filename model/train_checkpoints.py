"""Checkpoints of a training: a folder of transformers' format that everything loads, and beside it how to go on.

    checkpoints/step-00000500/    config.json, model.safetensors, the vocabulary, wowseg.json
                                  environment.json    what made it
                                  training.pt         optimiser, schedule, random numbers
                                  score.json          step and loss, by which the best is known

A folder has its name only once it is whole and on the disk; one that goes loses its name first. So whatever is killed
at any moment, every step-… folder is a whole checkpoint.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch

from model.wowseg import WowSeg
from pipeline.decoding import decoded
from pipeline.errors import UserError

FOLDER = "checkpoints"
STATE, ENVIRONMENT, _SCORE = "training.pt", "environment.json", "score.json"


class Score(msgspec.Struct, frozen=True):
    """How good a checkpoint is."""

    step: int
    """Updates made."""
    loss: float
    """Mean since the checkpoint before it; lower is better."""


class Checkpoints:
    """The checkpoints of one training, of which the last ones and the best are kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep

    def all(self) -> list[Path]:
        """List the whole checkpoints, the oldest first."""
        return sorted(self._folder.glob("step-*"))

    def latest(self) -> Path | None:
        """Return the one to go on from."""
        return next(reversed(self.all()), None)

    def step(self) -> int:
        """Return how many updates are in it; 0 if there is none."""
        latest = self.latest()
        return read_score(latest).step if latest else 0

    def best(self) -> Path | None:
        """Return the one of the lowest loss."""
        return min(self.all(), key=lambda path: read_score(path).loss, default=None)

    def save(self, model: WowSeg, state: dict[str, Any], environment: dict[str, Any], reached: Score) -> Path:
        """Write a checkpoint, then delete those that need not be kept.

        Raises `UserError` if the disk is full or fails; those before it stay as they are.
        """
        path = self._folder / f"step-{reached.step:08}"
        draft = path.with_name(f".{path.name}.part")
        self._tidy()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            model.save(draft)
            torch.save(state, draft / STATE)
            (draft / ENVIRONMENT).write_bytes(msgspec.json.format(msgspec.json.encode(environment)) + b"\n")
            (draft / _SCORE).write_bytes(msgspec.json.encode(reached))
            _flush(draft)
            draft.replace(path)
        except Exception as error:  # the writers of tensors have errors of their own for a full disk
            self._tidy()
            before = self.latest()
            left = f"{before} is whole: go on from it with the same command" if before else "there is none before it"
            raise UserError(
                f"{path}: the checkpoint cannot be written ({error}). {left}, once there is room."
            ) from error
        self._prune()
        return path

    def _prune(self) -> None:
        kept = {*self.all()[-self._keep :], self.best()}
        for path in self.all():
            if path not in kept:
                path.replace(path.with_name(f".{path.name}.gone"))
        self._tidy()

    def _tidy(self) -> None:
        """Delete what is not whole."""
        for path in (*self._folder.glob(".*.part"), *self._folder.glob(".*.gone")):
            shutil.rmtree(path, ignore_errors=True)


def read_score(path: Path) -> Score:
    """Read how good a checkpoint is. Raises `UserError` if that file is damaged."""
    remedy = f"Delete {path}: the training goes on from the checkpoint before it."
    return decoded((path / _SCORE).read_bytes(), Score, f"{path / _SCORE}", remedy)


def read_state(path: Path) -> dict[str, Any]:
    """Read how to go on from a checkpoint; runs no code of the file. Raises `UserError` if it is damaged."""
    try:
        found: dict[str, Any] = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"{path / STATE} cannot be read ({error}). Delete {path} to go on from the one before it."
        ) from error
    return found


def _flush(folder: Path) -> None:
    """Have everything on the disk, not in a cache."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            number = os.open(path, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
