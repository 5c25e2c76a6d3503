"""The loop: what is learnt, that it can be interrupted at any moment, and how it ends."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import qwen
from training_folders import config, instance, photograph, prepared, write, write_rows
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from model import train_log, training
from model.train_config import TrainConfig
from model.train_outcome import Outcome
from model.training import Training
from model.workers import Workers
from model.wowseg import WowSeg
from pipeline.errors import UserError

QUICK: dict[str, Any] = {"epochs": 4, "checkpoint_every": 3}
"""Nine steps of the six images below."""
RATE: dict[str, Any] = {"learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("in"), (3, 5, 1, 4, 2, 3, 2, 6, 1))


def made(chosen: TrainConfig, out: Path) -> Training:
    return Training(config=chosen, out=out, data=prepared(chosen, out), device=torch.device("cpu"))


def course(out: Path) -> list[tuple[float, ...]]:
    """All that does not depend on the clock."""
    return [row[:8] for row in train_log.read(out)]


def losses(out: Path) -> list[float]:
    return [row.loss for row in train_log.read(out)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return WowSeg.from_pretrained(sorted((out / "checkpoints").glob("step-*"))[-1]).state_dict()


def same_weights(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class KilledError(Exception):
    """As far as files are concerned."""


def at(step: int, kill: bool) -> Callable[[], bool]:
    """Asked before each step, stop before the `step`-th from here on."""
    asked = iter(range(1, 1000))

    def stop() -> bool:
        if next(asked) < step:
            return False
        if kill:
            raise KilledError
        return True

    return stop


# --- learning ---


def test_it_learns_by_heart(folder: Path, tmp_path: Path) -> None:
    chosen = config({"a": folder}, data={"masks": 3, "grouped": 1}, epochs=16, checkpoint_every=100)
    chosen = chosen.model_copy(update={"optimisation": chosen.optimisation.model_copy(update=RATE)})
    assert made(chosen, tmp_path).run() == Outcome("finished", 36)
    rows = train_log.read(tmp_path)
    assert [row.step for row in rows] == list(range(1, 37))
    assert [row.epoch for row in rows] == sorted(row.epoch for row in rows)
    assert rows[0].learning_rate == 0.0
    assert rows[2].learning_rate == 1e-2
    assert np.mean(losses(tmp_path)[-5:]) < 0.4 * losses(tmp_path)[0]
    assert sum(row.images for row in rows) == 9 * 16
    assert all(row.waiting > 0 and row.computing > 0 for row in rows)
    assert [path.name for path in made(chosen, tmp_path).checkpoints().all()] == ["step-00000036"]


@pytest.mark.parametrize("loss", ["tokens", "instances"])
def test_passes_do_not_change_what_is_learnt(loss: str, folder: Path, tmp_path: Path) -> None:
    found = []
    for passes in (1, 4):
        out = tmp_path / str(passes)
        made(config({"a": folder}, micro_batch=passes, loss=loss, epochs=1), out).run()
        found.append(losses(out))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_loss_is_the_mean_over_tokens_or_masks(folder: Path, tmp_path: Path) -> None:
    output = {}
    for loss in ("tokens", "instances"):
        chosen = config({"a": folder}, micro_batch=4, loss=loss, epochs=1)
        made(chosen, tmp_path / loss).run()
        model = training.start(chosen, None, torch.device("cpu"))
        loop = training._Loop(made(chosen, tmp_path / f"{loss}-again"), Workers(torch.device("cpu")))
        output[loss] = model(loop.portions[0].batches[0])
        loop.close()
    assert losses(tmp_path / "tokens")[0] == pytest.approx(output["tokens"].over_tokens().item(), rel=1e-6)
    assert losses(tmp_path / "instances")[0] == pytest.approx(output["instances"].over_instances().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "chosen", "tolerance"),
    [
        ({}, {"gradient_checkpointing": True}, 1e-6),
        ({}, {"precision": "bf16"}, 0.02),
        ({"attention": "eager"}, {}, 1e-5),
    ],
    ids=str,
)
def test_ways_to_compute_the_same(
    model: dict[str, Any], chosen: dict[str, Any], tolerance: float, folder: Path, tmp_path: Path
) -> None:
    made(config({"a": folder}, epochs=1), tmp_path / "a").run()
    made(config({"a": folder}, model=model, epochs=1, **chosen), tmp_path / "b").run()
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=tolerance)
    assert {weight.dtype for weight in weights(tmp_path / "b").values()} == {torch.float32}


@pytest.mark.parametrize(
    ("model", "data"),
    [({"layout": "packed"}, {}), ({"encoder": "blur2token"}, {"masks": 1}), ({"scale": 1.5, "tiles": 3}, {"tiles": 2})],
    ids=str,
)
def test_ways_to_learn_something_else(
    model: dict[str, Any], data: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    chosen = config({"a": folder}, model=model, data=data, epochs=1)
    assert made(chosen, tmp_path).run().state == "finished"
    assert all(map(math.isfinite, losses(tmp_path)))
    kept = json.loads((tmp_path / "checkpoints" / "step-00000003" / "wowseg.json").read_text())
    expected = {"encoder": "mask2token", "scale": 2.0, "tiles": 1, "prompt": "demo"}
    assert kept.items() >= (expected | {name: model[name] for name in model if name != "layout"}).items()


def test_it_starts_from_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    made(config({"a": folder}, epochs=1), tmp_path / "a").run()
    latest = tmp_path / "a" / "checkpoints" / "step-00000003"
    chosen = config({"a": folder}, model={"path": str(latest), "scale": 1.5}, epochs=1)
    model = training.start(chosen, None, torch.device("cpu"))
    assert model.training
    assert model.settings.scale == 1.5
    assert torch.equal(model.head.weight, weights(tmp_path / "a")["network.lm_head.weight"])


def test_a_checkpoint_of_another_architecture_is_refused(folder: Path, tmp_path: Path) -> None:
    chosen = config({"a": folder}, model={"path": str(qwen(tmp_path / "qwen"))})
    with pytest.raises(UserError, match=r"config\.json"):
        made(chosen, tmp_path / "out").run()


# --- interruptions ---


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training without any."""
    out = tmp_path_factory.mktemp("whole")
    assert made(config({"a": folder}, **QUICK), out).run() == Outcome("finished", 9)
    return out


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
@pytest.mark.parametrize("step", [5, 9])
def test_interrupted_it_is_the_same_to_the_last_bit(
    step: int, kill: bool, whole: Path, folder: Path, tmp_path: Path
) -> None:
    chosen = config({"a": folder}, **QUICK)
    if kill:
        with pytest.raises(KilledError):
            made(chosen, tmp_path).run(at(step, kill))
    else:
        assert made(chosen, tmp_path).run(at(step, kill)) == Outcome("stopped", step - 1)
        saved = [path.name for path in made(chosen, tmp_path).checkpoints().all()]
        assert saved[-1] == f"step-{step - 1:08}"
    assert made(chosen, tmp_path).run() == Outcome("finished", 9)
    assert course(tmp_path) == course(whole)
    assert same_weights(tmp_path, whole)


def test_what_has_ended_stays_as_it_is(whole: Path, folder: Path) -> None:
    before = course(whole)
    assert made(config({"a": folder}, **QUICK), whole).run() == Outcome("finished", 9)
    assert course(whole) == before


def test_random_numbers_go_on(folder: Path, tmp_path: Path) -> None:
    """As they would if a model had dropout."""
    chosen = config({"a": folder}, **QUICK)
    loop = training._Loop(made(chosen, tmp_path), Workers(torch.device("cpu")))
    loop.run(at(4, kill=False))
    drawn = torch.rand(3)
    again = training._Loop(made(chosen, tmp_path), Workers(torch.device("cpu")))
    assert torch.equal(torch.rand(3), drawn)
    loop.close()
    again.close()


def test_a_checkpoint_says_what_made_it(whole: Path) -> None:
    found = json.loads((whole / "checkpoints" / "step-00000009" / "environment.json").read_text())
    assert found["seed"] == 42
    assert found["packages"]["torch"] == torch.__version__.split("+")[0]
    assert found["workers"][0]["threads"] == 1
    assert found["configuration"]["training"]["epochs"] == 4
    (data,) = found["data"]
    assert (data["name"], data["images"], data["instances"]) == ("a", 9, 27)
    assert len(data["fingerprint"]) == 64


# --- failures ---


def test_what_is_not_finite_stops_with_the_images_names(folder: Path, tmp_path: Path) -> None:
    chosen = config({"a": folder}, **QUICK)
    wild = chosen.optimisation.model_copy(update={"learning_rate": 1e30})
    ended = made(chosen.model_copy(update={"optimisation": wild}), tmp_path).run()
    assert (ended.state, ended.step) == ("failed", 2)
    assert ended.message.startswith("step 3: loss nan, gradient of length nan: not finite. In it: a image ")
    assert ended.message.count("a image ") == 4
    assert "Nothing was learnt from this step. Look at these, or lower optimisation.learning_rate" in ended.message
    assert len(losses(tmp_path)) == 2
    assert all(map(math.isfinite, losses(tmp_path)))


def test_a_picture_that_cannot_be_decoded_stops_with_its_name(tmp_path: Path) -> None:
    broken = photograph(2, 1, image={"bytes": b"no picture", "path": "2.jpg"})
    rows = write_rows(tmp_path / "in", [instance(n, 0) for n in (1, 2)], [photograph(1, 1), broken])
    ended = made(config({"a": rows}), tmp_path / "out").run()
    assert (ended.state, ended.step) == ("failed", 0)
    assert ended.message.startswith("a image 2: ")


def test_a_full_disk_stops_after_the_last_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = WowSeg.save

    def full(model: WowSeg, path: str | Path) -> None:
        if "00000006" in str(path):
            raise OSError(28, "No space left on device")
        written(model, path)

    chosen = config({"a": folder}, **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(WowSeg, "save", full)
        ended = made(chosen, tmp_path).run()
    assert (ended.state, ended.step) == ("failed", 6)
    assert "No space left on device" in ended.message
    assert "step-00000003 is whole: go on from it with the same command, once there is room" in ended.message
    assert made(chosen, tmp_path).run() == Outcome("finished", 9)
    assert [row.step for row in train_log.read(tmp_path)] == list(range(1, 10))


def test_weights_that_leave_no_image_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights are so small"):
        made(config({"a": folder}, data={"weights": {"a": 0.001}}), tmp_path).run()
