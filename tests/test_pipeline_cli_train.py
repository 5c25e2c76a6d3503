"""`rr7k train` up to the moment when workers start; with them: test_model_train_on_ray.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from training_folders import write
from typer.testing import CliRunner, Result

from model import train_log, train_on_ray
from model.train_config import TrainConfig
from model.train_log import Row
from model.train_outcome import Outcome
from pipeline import cli_train
from pipeline.errors import UsageError, UserError

app = typer.Typer()
app.command()(cli_train.train)


def train(out: Path, *arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--out", str(out), *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "in", (3, 5, 1, 4))


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Callable[[Outcome], list[TrainConfig]]:
    """Has training end in a certain way after two steps; returns what it was told."""

    def end(outcome: Outcome) -> list[TrainConfig]:
        told: list[TrainConfig] = []

        def fit(config: TrainConfig, out: Path, watch: Callable[[list[Row]], None]) -> Outcome:
            told.append(config)
            rows = [Row(step, 0, 2.0, 1e-3, 1.0, 4, 13, 400, 1.0, 5.0) for step in (1, 2)]
            watch(rows)
            return outcome

        monkeypatch.setattr(train_on_ray, "fit", fit)
        return told

    return end


def test_a_dry_run_of_the_paper_needs_nothing(tmp_path: Path) -> None:
    done = train(tmp_path / "out", "--config", "wowseg-1b", "--dry-run")
    assert done.exit_code == 0, done.output
    for text in (
        "models/internvl3-1b",
        "938.2 M: vision 304 M, projector 4.48 M, language 494 M, head 136 M",
        "branches, mask2token, scale 2, at most 30 masks and 4 tiles",
        "32 images: 8 workers × 2 passes × 2",
        "16,516: 2 epochs of 264,247 images",
        "(assumed; with --data, measured)",
        "on 8 H100 at 35% of 989 TFLOP/s (assumed)",
    ):
        assert text in done.output, done.output
    assert not (tmp_path / "out").exists()


def test_a_dry_run_with_data_counts_it(folder: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "mine: 4 images, 13 masks" in done.output
    assert "60: 60 epochs of 4 images" in done.output
    assert "1.0 tiles, 3.2 masks" in done.output


def test_it_trains_and_tells(folder: Path, tmp_path: Path, ended: Any) -> None:
    told = ended(Outcome("finished", 60))
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}", "--set", "training.batch=8")
    assert done.exit_code == 0, done.output
    (config,) = told
    assert config.data.folders == {"mine": str(folder)}
    assert config.training.batch == 8
    assert "mine: 4 images, 13 masks" in done.output
    assert "30 steps; starting workers" in done.output
    assert "step 2, epoch 1: loss 2.000, 17% waiting for data" in done.output
    assert f"{tmp_path / 'out'}: metrics.csv, curve.png, tensorboard" in done.output


def test_data_sets_are_added_to_those_of_the_configuration(folder: Path, tmp_path: Path, ended: Any) -> None:
    told = ended(Outcome("finished", 60))
    file = tmp_path / "my.toml"
    file.write_text(f'[data]\nfolders = {{ mine = "elsewhere", other = "{folder}" }}\n')
    assert train(tmp_path / "out", "--config", file, "--data", f"mine={folder}").exit_code == 0
    assert told[0].data.folders == {"mine": str(folder), "other": str(folder)}


def test_stopped_it_says_so(folder: Path, tmp_path: Path, ended: Any) -> None:
    ended(Outcome("stopped", 2))
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}")
    assert done.exit_code == 143
    assert "stopped and saved; give the same command again to go on" in done.output


def test_a_failure_is_told(folder: Path, tmp_path: Path, ended: Any) -> None:
    ended(Outcome("failed", 2, "step 3: loss nan"))
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}")
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == "step 3: loss nan"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "mine"], "--data mine: write it as NAME=DIR"),
        (["--data", "../a=DIR"], "--data ../a=DIR: write it as NAME=DIR"),
        (["--data", "..=DIR"], "--data ..=DIR: write it as NAME=DIR"),
        ([], "nothing to learn from: --data NAME=DIR"),
        (["--dry-run"], "--dry-run needs data"),
        (["--config", "wowseg-2b"], "wowseg-2b: no such file, nor one of the presets"),
        (["--config", "debug", "--set", "train.epochs=1"], "train: unknown key; did you mean training?"),
        (["--set", "training.epochs=0", "--data", "mine=FOLDER"], "training.epochs: Input should be greater than or"),
        (["--config", "wowseg-1b-clean", "--data", "lvis=FOLDER"], "no folder for lvis-val, paco-val"),
        (["--config", "wowseg-1b", "--data", "lvis=FOLDER"], "do not fit: coco-stuff has no folder, paco has"),
        (["--data", "mine=FOLDER", "--set", "training.workers=3"], "do not divide it"),
        (["--data", "mine=NOWHERE"], "no region samples there"),
        (["--data", "mine=FOLDER", "--set", "model.path=NOWHERE"], "/NOWHERE. Elsewhere: --set model.path=DIR"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_starts(
    arguments: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    done = train(tmp_path / "out", *(text.replace("=FOLDER", f"={folder}") for text in arguments))
    assert isinstance(done.exception, UserError), done.output
    assert message in str(done.exception)
    assert not (tmp_path / "out" / "run.json").exists()


def test_another_training_there_is_refused(folder: Path, tmp_path: Path, ended: Any) -> None:
    ended(Outcome("finished", 60))
    assert train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}").exit_code == 0
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}", "--set", "data.masks=2")
    assert isinstance(done.exception, UsageError)
    assert "holds another training: data.masks is 12 there, 2 here" in str(done.exception)


def test_steps_done_before_are_not_done_again(folder: Path, tmp_path: Path, ended: Any) -> None:
    ended(Outcome("finished", 60))
    saved = tmp_path / "out" / "checkpoints" / "step-00000040"
    saved.mkdir(parents=True)
    (saved / "score.json").write_text('{"step": 40, "loss": 1.5}')
    done = train(tmp_path / "out", "--config", "debug", "--data", f"mine={folder}")
    assert "60 steps, 40 of them done; starting workers" in done.output
    assert f"{saved}: after step 60; the best is {saved}" in done.output
    assert train_log.read(tmp_path / "out") == []
