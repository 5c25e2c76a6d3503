"""`rr7k score` and its neighbours: what is asked for, what is printed and written, and what is not even loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from small_benchmarks import RIGHT, Known, predict, write
from typer.testing import CliRunner

from pipeline import cli_predict, cli_score
from pipeline.errors import UsageError, UserError

ROOT = Path(__file__).parent.parent

app = typer.Typer()
app.command("score")(cli_score.score)
app.command("compare")(cli_score.compare)
app.command("submit")(cli_score.submit)
app.command("predict")(cli_predict.predict)
app.add_typer(cli_score.leaderboard_app, name="leaderboard")


@pytest.fixture(autouse=True)
def known_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.similarity.Similarity", Known)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(write(tmp_path / "benchmark"))


@pytest.fixture
def predictions(tmp_path: Path) -> str:
    return str(predict(tmp_path / "p.parquet", {**RIGHT, 1000: "cat"}, model="[bold]m"))


def said(*words: str) -> str:
    """Standard output of a command, its white space made single. Raises what the command raises."""
    return re.sub(r"\s+", " ", CliRunner().invoke(app, words, catch_exceptions=False).output)


def test_score(folder: str, predictions: str, tmp_path: Path) -> None:
    told = said("score", predictions, "--benchmark", folder)
    assert "[bold]m on benchmark, protocol rr7k-1" in told
    assert re.search(r"iou 83\.3 66\.7 – 100\.0 83\.3", told)
    assert "6 of 6 counted; 6 answered" in told
    assert sorted(path.name for path in (tmp_path / "p.parquet.scores").iterdir()) == [
        *("instances.parquet", "leaderboard.jsonl", "results.json", "scores.html")
    ]
    assert "protocol wowseg" in said("score", predictions, "--benchmark", folder, "--preset", "wowseg")
    first = str(predict(tmp_path / "q.parquet", {1000: "dog"}))
    assert "3 of 3 counted; 1 answered, 2 missing" in said("score", first, "--benchmark", folder, "--split", "mini")


def test_mistakes_are_said_before_any_work(folder: str, predictions: str) -> None:
    with pytest.raises(UsageError, match=r"no preset 'wowsge'\. Did you mean wowseg"):
        said("score", predictions, "--benchmark", folder, "--preset", "wowsge")
    with pytest.raises(UsageError, match="no format 'x'"):
        said("score", predictions, "--benchmark", folder, "--form", "x")
    with pytest.raises(UserError, match="no region samples there"):
        said("score", predictions, "--benchmark", str(Path(folder).parent))
    with pytest.raises(UsageError, match="has no true names"):
        said("score", predictions)
    with pytest.raises(UsageError, match="--fact 7B: write it as NAME=TEXT"):
        said("submit", predictions, "--benchmark", folder, "--out", "s.zip", "--fact", "7B")
    with pytest.raises(UsageError, match=r"board\.txt: name it \.html or \.md"):
        said("leaderboard", predictions, "--out", "board.txt")


def test_compare(folder: str, predictions: str, tmp_path: Path) -> None:
    other, page = str(predict(tmp_path / "b.parquet", RIGHT)), tmp_path / "c.html"
    told = said("compare", predictions, other, "--benchmark", folder, "--models", "[bold]m", "best", "--out", str(page))
    assert "[bold]m − best, protocol rr7k-1" in told
    assert re.search(r"all 6 -8\.3 \[-16\.7, \+0\.0\] p 0\.\d+ -16\.7 \[-33\.3, \+0\.0\]", told)
    assert "best is nearer" in page.read_text()


def test_leaderboard(folder: str, predictions: str, tmp_path: Path) -> None:
    rows = []
    for preset in ("rr7k-1", "osprey"):
        said("score", predictions, "--benchmark", folder, "--preset", preset, "--out", str(tmp_path / preset))
        rows.append(str(tmp_path / preset / "leaderboard.jsonl"))
    board = tmp_path / "board.md"
    told = said("leaderboard", *rows, "--out", str(board))
    assert "benchmark, protocol osprey" in told
    assert "board.md: 2 tables" in told
    assert said("leaderboard", "--out", str(board), *rows) == told
    assert board.read_text().count("## ") == 2
    assert "FILES... | COMMAND" in said("leaderboard", "--help")


def test_submit_and_validate(folder: str, predictions: str, tmp_path: Path) -> None:
    path, rows = str(tmp_path / "s.zip"), tmp_path / "rows.jsonl"
    told = said("submit", predictions, "--benchmark", folder, "--fact", "params=7B", "--out", path)
    assert "s.zip: [bold]m, scored by rr7k-1, wowseg, osprey, vpmllm" in told
    told = said("leaderboard", "validate", path, "--benchmark", folder, "--out", str(rows))
    assert "scored from scratch by rr7k-1, wowseg, osprey, vpmllm: as claimed" in told
    assert [json.loads(line)["preset"] for line in rows.read_text().splitlines()] == [
        *("rr7k-1", "wowseg", "osprey", "vpmllm")
    ]
    assert "protocol wowseg" in said("leaderboard", str(rows))


def test_predict_says_what_it_would_cost(folder: str, tmp_path: Path) -> None:
    told = said("predict", "--engine", "embedded", "--benchmark", folder, "--run", str(tmp_path / "r"), "--dry-run")
    assert "6 regions in 6 prompts; nothing was asked" in told


SCORING = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
import benchmark.similarity
from small_benchmarks import Known
benchmark.similarity.Similarity = Known
import typer
from pipeline import cli_score
app = typer.Typer()
app.command("score")(cli_score.score)
app.command("submit")(cli_score.submit)
app(sys.argv[1:], standalone_mode=False)
print("LOADED", *{name.split(".")[0] for name in sys.modules})
"""


def test_the_scorer_imports_no_model_no_ray_no_label_studio(folder: str, predictions: str) -> None:
    words = ["score", predictions, "--benchmark", folder]
    done = subprocess.run([sys.executable, "-c", SCORING, *words], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "benchmark" in loaded
    assert not loaded & {"ray", "model", "stages", "annotation_ui", "label_studio_sdk", "label_studio", "torch"}
