"""Training as a user runs it: two workers of a Ray of its own, which die, and a driver that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.multiprocessing.spawn import spawn
from training_folders import config, prepared, write
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from model import train_log, train_on_ray
from model.train_checkpoints import Checkpoints
from model.train_config import TrainConfig
from model.train_log import Row
from model.training import Training
from model.wowseg import WowSeg
from pipeline.errors import UsageError, UserError

ROOT = Path(__file__).parent.parent
PROGRAM = "import typer; from pipeline.cli_train import train; typer.run(train)"
PATIENCE = 240.0  # seconds, for anything
CHOSEN: dict[str, Any] = {"epochs": 40, "batch": 2, "micro_batch": 1, "workers": 2, "checkpoint_every": 7}
"""80 steps, two for each sight of four images"""


def settings(folder: Path) -> TrainConfig:
    return config({"a": folder}, **CHOSEN)


def be_one(number: int, folder: Path, out: Path) -> None:
    """Be one of two workers that nobody disturbs."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    torch.distributed.init_process_group("gloo", f"file://{out}/meeting", rank=number, world_size=2)
    chosen = settings(folder)
    data = prepared(chosen, out / str(number))
    Training(config=chosen, out=out, data=data, device=torch.device("cpu")).run()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("in"), (3, 5, 1, 4))


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by two workers without Ray."""
    out = tmp_path_factory.mktemp("undisturbed")
    spawn(be_one, (folder, out), nprocs=2)  # type: ignore[no-untyped-call]
    return out


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """Give the command, in a process group of its own."""
    given = [f"--set=training.{name}={value}" for name, value in CHOSEN.items()]
    given += ["--set=model.prompt=demo", "--set=model.tiles=1", "--set=data.tiles=1", "--set=data.loaders=0"]
    command = [sys.executable, "-c", PROGRAM, "--out", str(out), "--data", f"a={folder}", *given]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, stdout=pipe, stderr=subprocess.STDOUT)


def wait(process: subprocess.Popen[str], out: Path, step: int) -> int:
    """Return the step that the training has reached, once it is at least `step`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        reached = max((row.step for row in train_log.latest(out)), default=0)
        if reached >= step:
            return reached
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise TimeoutError(f"step {step} is not reached")


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if "TrainWorker" in " ".join(one.cmdline())]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_two_workers_learn_what_one_does(undisturbed: Path, folder: Path, tmp_path: Path) -> None:
    chosen = config({"a": folder}, **{**CHOSEN, "workers": 1, "epochs": 4})
    chosen = chosen.model_copy(update={"optimisation": chosen.optimisation.model_copy(update={"warmup": 0.3})})
    Training(config=chosen, out=tmp_path, data=prepared(chosen, tmp_path), device=torch.device("cpu")).run()
    alone, together = train_log.read(tmp_path)[:4], train_log.read(undisturbed)[:4]
    assert [row.learning_rate for row in alone] == [row.learning_rate for row in together]  # the same warm-up
    assert [row.loss for row in alone] == pytest.approx([row.loss for row in together], rel=1e-4)
    assert [row[:2] + row[5:8] for row in alone] == [row[:2] + row[5:8] for row in together]


def test_killed_it_is_the_same_to_the_last_bit(
    undisturbed: Path, folder: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    out = tmp_path / "out"
    started.append(start(folder, out))
    reached = wait(started[0], out, 10)
    victims = workers(started[0])
    assert len(victims) == 2
    victims[1].kill()
    latest = wait(started[0], out, reached + 10)
    os.killpg(started[0].pid, signal.SIGKILL)  # the driver
    assert latest < 70, "killed too late to prove anything"

    started.append(start(folder, out))
    told, _ = started[1].communicate(timeout=PATIENCE)
    assert started[1].returncode == 0, told
    assert "of them done" in told
    rows, expected = train_log.read(out), train_log.read(undisturbed)
    assert [row[:8] for row in rows] == [row[:8] for row in expected]
    assert len(rows) == 80
    made, wanted = (
        WowSeg.from_pretrained(Checkpoints(path / "checkpoints", 2).all()[-1]).network.state_dict()
        for path in (out, undisturbed)
    )
    assert all(torch.equal(weight, wanted[name]) for name, weight in made.items())
    assert {path.name for path in out.iterdir()} >= {"run.json", "outcome.json", "metrics.csv", "curve.png"}
    assert not (out / ".ray").exists()


# --- without Ray ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_a_mark_for_the_workers(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    with train_on_ray._saving_when_told_to_stop(tmp_path / "stop"):
        assert not (tmp_path / "stop").exists()
        os.kill(os.getpid(), number)
        assert (tmp_path / "stop").exists()
        assert signal.getsignal(number) == before  # a second one is not held up
    assert not (tmp_path / "stop").exists()
    assert signal.getsignal(number) == before


def test_new_rows_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_on_ray, "_LOOK_EVERY", 0.01)
    seen: list[int] = []
    log = train_log.Log(tmp_path, 0)
    row = Row(1, 0, 1.0, 1e-3, 1.0, 1, 1, 1, 0.1, 0.1)
    log.write(row)
    with train_on_ray._following(tmp_path, lambda rows: seen.extend(one.step for one in rows)):
        for step in range(2, 6):
            time.sleep(0.02)
            log.write(row._replace(step=step))
    log.close()
    assert seen == [2, 3, 4, 5]
    assert (tmp_path / "curve.png").is_file()


def test_another_training_in_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    train_on_ray.prepare(settings(folder), tmp_path)
    train_on_ray.prepare(config({"a": folder}, **{**CHOSEN, "workers": 1}), tmp_path)  # this may change
    with pytest.raises(UsageError, match=r"holds another training: training\.epochs is 40 there, 41 here"):
        train_on_ray.prepare(config({"a": folder}, **{**CHOSEN, "epochs": 41}), tmp_path)
    other = write(tmp_path / "other", (1, 1))
    with pytest.raises(UsageError, match=r"holds another training: fingerprints\.a is '\w{64}' there"):
        train_on_ray.prepare(config({"a": other}, **CHOSEN), tmp_path)


def test_workers_must_divide_the_batch(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"3 workers × 1 images .* = 3 do not divide it"):
        train_on_ray.prepare(config({"a": folder}, **{**CHOSEN, "workers": 3}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_steps_are_those_of_the_training(folder: Path, tmp_path: Path) -> None:
    chosen = settings(folder)
    assert train_on_ray.steps(chosen, train_on_ray.prepare(chosen, tmp_path)) == 80


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"CPU": 4.0}, r"training\.workers = 5, but the cluster has 4 CPUs"),
        ({"CPU": 64.0, "GPU": 2.0}, r"training\.workers = 5, but the cluster has 2 GPUs"),
    ],
)
def test_workers_that_would_wait_for_ever_are_refused(
    found: dict[str, float], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: found)
    with pytest.raises(UserError, match=message):
        train_on_ray._gpus(config({"a": folder}, workers=5, batch=10))
    assert train_on_ray._gpus(config({"a": folder}, workers=2, batch=10)) == ("GPU" in found)


def test_errors_of_the_other_thread_are_raised() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        train_on_ray._apart(lambda: int("one"))
