"""`rr7k release` and its neighbours: what is asked for, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from released_runs import make, small
from typer.testing import CliRunner

from pipeline import cli_release
from pipeline.errors import UsageError
from pipeline.run import Run

app = typer.Typer()
app.add_typer(cli_release.app, name="release")
app.command("export")(cli_release.export)


def said(*words: str) -> str:
    """Standard output of a command. Raises what the command raises."""
    return CliRunner().invoke(app, words, catch_exceptions=False).output


def test_the_choice_about_images_is_never_made_silently(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="whether its licence lets you pass them on was not verified by rr7k"):
        said("release", "--run", "r", "--out", str(tmp_path / "out"), "--version", "1.0.0")


def test_what_is_needed_is_said() -> None:
    with pytest.raises(UsageError, match="needed: rr7k release --run RUN --out DIR --version"):
        said("release", "--images", "embed")


def test_diff_and_export(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards", images=1)
    out = str(tmp_path / "out")
    make(run, tmp_path / "out")
    assert said("release", "diff", out, out).splitlines()[0] == "added: 0"
    assert json.loads(said("release", "diff", out, out, "--json"))["score_relevant"] == []
    path = tmp_path / "coco.json"
    assert said("export", out, "--format", "coco", "--out", str(path)) == f"{path}: 3 instances\n"
    assert len(json.loads(path.read_text())["annotations"]) == 3
