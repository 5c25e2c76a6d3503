"""`rr7k evaluate`, from data as others publish it to a table, by a model of random weights."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import evaluation_data
import msgspec
import pyarrow.parquet as pq
import pytest
import small_benchmarks
import typer
from PIL import Image
from typer.testing import CliRunner, Result
from wowseg_models import one_thread, wowseg

from benchmark.evaluation.run import Evaluation
from model.wowseg import WowSeg
from pipeline import cluster
from pipeline.cli_evaluate import evaluate
from pipeline.errors import UsageError
from pipeline.regions import RegionSamples

__all__ = ["one_thread"]


def ran(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_the_check_says_what_there_is_and_fails_where_there_is_nothing(tmp_path: Path) -> None:
    nothing = ran("--data", tmp_path, "--check")
    assert isinstance(nothing.exception, UsageError)
    assert "osprey/lvis_val_1k_category.json is not there" in nothing.output
    small_benchmarks.write(tmp_path / "rr7k")
    found = ran("--data", tmp_path, "--check", "--tables", "1")
    assert found.exit_code == 0
    assert "lacks lvis-list, coco" in found.output
    assert isinstance(ran("--data", tmp_path, "--check", "--tables", "3").exception, UsageError)
    assert "--model CHECKPOINT" in str(ran("--data", tmp_path).exception)


def test_a_checkpoint_is_measured_and_nothing_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out, checkpoint = tmp_path / "data", tmp_path / "out", tmp_path / "checkpoint"
    evaluation_data.coco(data)
    (data / "osprey/paco_val_1k_category.json").unlink()
    wowseg(double=False).save(checkpoint)
    command = ("--model", checkpoint, "--data", data, "--out", out, "--tables", 1, "--workers", 1)
    first = ran(*command)
    assert first.exit_code == 0, first.output
    assert "PACO, wowseg: blank: osprey/paco_val_1k_category.json is not there" in first.output
    found = msgspec.json.decode((out / "evaluation.json").read_bytes(), type=Evaluation)
    assert [(one.data_set, one.how) for one in found.outcomes if one.scored] == [("LVIS", "wowseg")]
    model = WowSeg.from_pretrained(checkpoint)
    said = pq.read_table(out / "answers/lvis/predictions.parquet").to_pylist()
    assert {row["instance_id"]: row["text"] for row in said} == answers(model, out / "data/lvis")
    shutil.rmtree(out / "data/lvis")  # is read again, and found to be the same
    monkeypatch.setattr(cluster, "session", None)
    again = ran(*command)
    assert again.exit_code == 0, again.output
    assert msgspec.json.decode((out / "evaluation.json").read_bytes(), type=Evaluation) == found


def answers(model: WowSeg, folder: Path) -> dict[int, str]:
    """What the model says of every region, asked directly."""
    samples, found = RegionSamples(folder), dict[int, str]()
    regions = samples.read("instances", ["instance_id", "image_id", "segmentation"]).sort_by("instance_id").to_pylist()
    for row in samples.read("images", ["image_id", "image"]).to_pylist():
        own = [one for one in regions if one["image_id"] == row["image_id"]]
        named = model.name(Image.open(io.BytesIO(row["image"]["bytes"])), [one["segmentation"] for one in own])
        found |= {one["instance_id"]: name.label for one, name in zip(own, named, strict=True)}
    return found
