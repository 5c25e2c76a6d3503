"""Checkpoints of a training: whole or not there, the last and the best, for everybody to load."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from wowseg_models import one_thread, picture, rectangles  # noqa: F401 (a fixture)

from model import debug, train_checkpoints
from model.train_checkpoints import Checkpoints, Score
from model.wowseg import WowSeg
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return debug.debug(prompt="demo", tiles=1)


def save(checkpoints: Checkpoints, model: WowSeg, step: int, loss: float = 1.0, **state: Any) -> Path:
    return checkpoints.save(model, {"step": step, **state}, {"seed": 42}, Score(step, loss))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writes beyond fail with an error of the system, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_is_a_model_and_how_to_go_on(model: WowSeg, tmp_path: Path) -> None:
    path = save(Checkpoints(tmp_path / "c", 2), model, 7, 0.5, optimiser={"a": torch.arange(3)})
    assert path.name == "step-00000007"
    assert {"config.json", "model.safetensors", "tokenizer.json", "wowseg.json", "training.pt"} < set(names(path))
    assert json.loads((path / "environment.json").read_text()) == {"seed": 42}
    assert train_checkpoints.read_score(path) == Score(7, 0.5)
    state = train_checkpoints.read_state(path)
    assert (state["step"], state["optimiser"]["a"].tolist()) == (7, [0, 1, 2])


def test_everybody_loads_it(model: WowSeg, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    path = save(Checkpoints(tmp_path / "c", 2), model, 1)
    network: Any = AutoModelForImageTextToText.from_pretrained(path)
    for name, weight in model.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], weight), name
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    assert tokenizer("a dog").input_ids == model.preparer.tokenizer("a dog").input_ids
    masks = rectangles(2)
    assert WowSeg.from_pretrained(path).name(picture(), masks, most_tokens=3) == model.name(
        picture(), masks, most_tokens=3
    )


def test_the_last_and_the_best_are_kept(model: WowSeg, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", 2)
    assert (checkpoints.latest(), checkpoints.best(), checkpoints.all(), checkpoints.step()) == (None, None, [], 0)
    for step, loss in enumerate([3.0, 1.0, 2.0, 4.0, 2.5], 1):
        save(checkpoints, model, step, loss)
    assert names(tmp_path / "c") == [f"step-{step:08}" for step in (2, 4, 5)]
    assert checkpoints.latest() == tmp_path / "c" / "step-00000005"
    assert checkpoints.best() == tmp_path / "c" / "step-00000002"
    assert checkpoints.step() == 5
    save(checkpoints, model, 6, 0.5)
    assert names(tmp_path / "c") == [f"step-{step:08}" for step in (5, 6)]


@pytest.mark.parametrize("size", [1 << 10, 1 << 19], ids=["at once", "in the midst of the weights"])
def test_a_full_disk_leaves_the_one_before(size: int, model: WowSeg, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", 1)
    first = save(checkpoints, model, 1)
    with files_of_at_most(size), pytest.raises(UserError, match=f"cannot be written .*{first} is whole: go on from it"):
        save(checkpoints, model, 2)
    assert names(tmp_path / "c") == ["step-00000001"]
    WowSeg.from_pretrained(first)
    assert save(checkpoints, model, 2) == checkpoints.latest()  # once there is room


def test_a_disk_that_is_full_at_first(model: WowSeg, tmp_path: Path) -> None:
    with files_of_at_most(100), pytest.raises(UserError, match=r"cannot be written .*there is none before it"):
        save(Checkpoints(tmp_path / "c", 1), model, 1)
    assert names(tmp_path / "c") == []


def test_what_a_killed_writer_left_is_no_checkpoint(model: WowSeg, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", 2)
    first = save(checkpoints, model, 1)
    for name in (".step-00000002.part", ".step-00000000.gone"):
        shutil.copytree(first, tmp_path / "c" / name)
    assert checkpoints.all() == [first]
    save(checkpoints, model, 2)
    assert names(tmp_path / "c") == ["step-00000001", "step-00000002"]


def test_a_damaged_state_is_told(model: WowSeg, tmp_path: Path) -> None:
    path = save(Checkpoints(tmp_path / "c", 2), model, 1)
    (path / "training.pt").write_bytes((path / "training.pt").read_bytes()[:100])
    with pytest.raises(UserError, match=r"training.pt cannot be read .* Delete .* to go on from the one before it"):
        train_checkpoints.read_state(path)
