"""Proposals about a run's own categories, with their regions to look at."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from sa1b_shards import build as build_masks
from sa1b_shards import write_shard
from test_pipeline_cli import rr7k
from test_stages_pairing import name_rows

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import category_review, pairing
from stages.pairing import PairsConfig

NAMES = ("seed pod", "seed pod", "seedpod", "<b>gull</b>", "dog", "dog")


@pytest.fixture
def paired(run: Run, tmp_path: Path) -> Run:
    table = tmp_path / "categories.csv"
    table.write_text("variant,canonical,reason,reviewed_by,reviewed_on\n")
    build_masks(run, write_shard(tmp_path, 0, 2))
    ids = (100, 101, 102, 200, 201, 202)
    name_rows(run, "names-vlm", {i: (name, None, None) for i, name in zip(ids, NAMES, strict=True)})
    pairing.build(run, PairsConfig(table=str(table)), lambda _: None)
    return run


def test_a_run_without_pairs_says_what_to_do(run: Run) -> None:
    with pytest.raises(UsageError, match="rr7k stage-1 pairs"):
        category_review.propose(run, None, 0.9)


def test_the_table_and_the_page(paired: Run) -> None:
    review = category_review.propose(paired, None, 0.9)
    assert review.summary["spelling"]["proposed"] == 1
    with Path(review.table).open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["kind"] == "spelling"]
    assert (row["variant"], row["canonical"], row["variant_count"], row["decision"]) == ("seedpod", "seed pod", "1", "")
    with Path(review.groups).open(newline="") as file:
        groups = {row["name"]: (row["primary"], row["labelled"]) for row in csv.DictReader(file)}
    assert groups["dog"] == ("Animals", "yes")
    assert set(groups) == set(NAMES)
    page = Path(review.page).read_text()
    assert page.count("seedpod → seed pod</bdi></h2>") == 3  # one region of the rarer, two of the other
    assert "<b>gull" not in page


def test_what_was_decided_is_applied_without_any_model(
    paired: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decided = tmp_path / "decided.csv"
    decided.write_text("variant,canonical,reason,reviewed_by,reviewed_on\nseedpod,seed pod,spelling,me,2026-11-24\n")
    code, said = rr7k(capsys, monkeypatch, "categories", "apply", "--run", paired.folder.path, "--table", decided)
    assert (code, "6 pairs" in said) == (0, True)
    rows = paired.dataset("pairs").to_table(columns=["category"])["category"].to_pylist()
    assert sorted(rows) == ["<b>gull</b>", "dog", "dog", "seed pod", "seed pod", "seed pod"]
