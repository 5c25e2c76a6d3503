"""A score as files: what they hold, and which predictions are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_benchmarks import RIGHT, Known, predict, write

from benchmark import leaderboard, scorecard, truth
from benchmark.predictions import read
from benchmark.presets import OSPREY, RR7K_1, WOWSEG
from benchmark.truth import Truth
from pipeline.errors import UsageError, UserError

SIMILARITY = Known()


@pytest.fixture
def known(tmp_path: Path) -> Truth:
    return truth.load(write(tmp_path / "benchmark"))


def test_what_is_written(known: Truth, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", {**RIGHT, 1000: "cat"}, model="Qwen-x", benchmark=known.fingerprint)
    card = scorecard.make(read(path), known, RR7K_1, SIMILARITY)
    scorecard.write(card, tmp_path / "out", "<p>page</p>")
    names = ["instances.parquet", "leaderboard.jsonl", "results.json", "scores.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (told["model"], told["preset"], told["scores"]["iou"]["value"]) == ("Qwen-x", "rr7k-1", 5 / 6)
    assert told["benchmark"] == {
        **{"name": "benchmark", "data_set": "", "split": "test", "fingerprint": known.fingerprint},
        **{"instances": 6, "images": 2},
    }
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["predictions"] == {"file": "p.parquet", "form": "table", "sha256": digest, "rows": 6, "cut": 0}
    assert told["facts"]["embedding_weights_sha256"] == SIMILARITY.files.weights
    assert told["facts"]["bootstrap"] == {"draws": 1000, "seed": 0, "resampled": "images"}
    assert told["environment"].keys() >= {"python", "machine", "rr7k", "numpy", "torch"}
    assert told["published"] == told["warnings"] == []
    rows = pq.read_table(tmp_path / "out" / "instances.parquet").to_pylist()
    assert [row["iou"] for row in sorted(rows, key=lambda row: row["instance_id"])] == [0, 1, 1, 1, 1, 1]
    assert leaderboard.read([tmp_path / "out" / "leaderboard.jsonl"]) == [card.row]


def test_the_same_score_gives_the_same_bytes(known: Truth, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", RIGHT, model="m")
    for name in "ab":
        scorecard.write(scorecard.make(read(path), known, RR7K_1, SIMILARITY), tmp_path / name, "")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_answers_to_another_version_are_refused(known: Truth, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", RIGHT, model="m", benchmark="0" * 64)
    with pytest.raises(UserError, match=r"another version of the benchmark.*the checksums disagree"):
        scorecard.make(read(path), known, RR7K_1, SIMILARITY)


def test_answers_to_other_splits_are_left_aside(known: Truth, tmp_path: Path) -> None:
    predictions = read(predict(tmp_path / "p.parquet", RIGHT, model="m"))
    card = scorecard.make(predictions, truth.load(known.folder, "mini"), RR7K_1, SIMILARITY)
    assert (card.result.instances, card.result.scores["iou"].value) == (3, 1)
    assert card.warnings == ["3 predictions are about other splits of this benchmark and left aside."]
    stranger = read(predict(tmp_path / "q.parquet", {**RIGHT, 7: "x"}, model="m"))
    with pytest.raises(UserError, match="1 of 7 predictions are about nothing in this benchmark, first instance_id 7"):
        scorecard.make(stranger, known, RR7K_1, SIMILARITY)


def test_a_file_with_true_names_is_scored_by_itself(tmp_path: Path) -> None:
    item = {"id": 1, "image": ["1.jpg"], "gt_labels": ["dog", "traffic light"], "pred_labels": ["dog", "light", "x"]}
    path = tmp_path / "subset_0.json"
    path.write_text(json.dumps([item]))
    card = scorecard.make_by_itself(read(path), WOWSEG, SIMILARITY)
    assert card.result.scores["iou"].value == (1 + 1 / 2) / 2
    assert "1 predictions beyond the true names of their record are left out." in card.warnings
    (tmp_path / "dam.json").write_text('{"1": "a dog"}')
    with pytest.raises(UsageError, match="has no true names"):
        scorecard.make_by_itself(read(tmp_path / "dam.json"), OSPREY, SIMILARITY)


def test_other_weights_are_told(known: Truth, tmp_path: Path) -> None:
    other = Known()
    other.files = other.files._replace(weights="x")
    card = scorecard.make(read(predict(tmp_path / "p.parquet", RIGHT, model="m")), known, RR7K_1, other)
    assert card.warnings == ["Similarity is not by all-MiniLM-L6-v2, as published numbers are, but by other weights."]


def test_a_folder_that_cannot_be_written_is_said(known: Truth, tmp_path: Path) -> None:
    card = scorecard.make(read(predict(tmp_path / "p.parquet", RIGHT)), known, RR7K_1, SIMILARITY)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        scorecard.write(card, tmp_path / "file", "")
