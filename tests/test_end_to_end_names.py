"""Naming as a user runs it, on a Ray of its own, killed and resumed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_detectors
from named_shards import write_shard
from naming_server import NamingServer, name_of
from sa1b_shards import build, rows
from test_end_to_end import rr7k, served_by, start, wait_for_rows

from pipeline.run import Run

IMAGES, MASKS = 12, 50
SAME = ("mask_id", "image_id", "category", "raw", "logprob", "outcome", "prompt_tokens", "fingerprint", "model")


@pytest.fixture
def server() -> Iterator[NamingServer]:
    running = NamingServer()
    yield running
    running.hangs_after = sys.maxsize
    running.stop()


@pytest.fixture
def masks(run: Run, tmp_path: Path) -> Run:
    """A run with its masks made and nothing named."""
    build(run, write_shard(tmp_path, 0, IMAGES, MASKS))
    return run


def asking(server: NamingServer, run: Run, *more: object) -> tuple[object, ...]:
    """The command that names a run's masks."""
    return ("stage-1", "names", "--run", run.folder.path, *served_by("namer", server.url), *more)


def answers(run: Run) -> list[dict[str, Any]]:
    return [{name: row[name] for name in SAME} for row in rows(run, "names")]


def test_a_killed_driver_resumes_and_asks_no_committed_mask_again(
    masks: Run, server: NamingServer, tmp_path: Path
) -> None:
    reference = Run(str(tmp_path / "reference"))
    build(reference, tmp_path / "sa_000000.tar")
    assert rr7k(*asking(server, reference)).returncode == 0
    assert len(answers(reference)) == IMAGES * MASKS

    server.delay, named = 0.3, 0
    for _ in range(2):
        process = start(*asking(server, masks))
        wait_for_rows(masks, "names", process, named)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        committed = {row["category"] for row in rows(masks, "names")}
        assert named < len(committed) < IMAGES * MASKS, "killed too early or too late to prove anything"
        named = len(committed)
        time.sleep(1)  # what the dead driver had asked is answered
        server.answered.clear()
    server.delay = 0
    done = rr7k(*asking(server, masks))
    assert done.returncode == 0, done.stderr
    assert not committed & set(server.answered), "a committed mask was asked again"
    assert answers(masks) == answers(reference)
    assert len(pq.read_table(reference.folder.sub("names").path)) == IMAGES * MASKS


def test_a_killed_grounding_resumes_and_does_no_image_again(run: Run, server: NamingServer, tmp_path: Path) -> None:
    images, of_each = 64, 4
    build(run, write_shard(tmp_path, 0, images, of_each))
    server.name = lambda pictures: f"w{sum(name_of(pictures).encode()) % 500}"  # a word that the tiny detector knows
    folders = tiny_detectors.detector(tmp_path / "dino"), tiny_detectors.sam(tmp_path / "sam")
    loose = ("box_threshold=0", "text_threshold=0", "match_iou=0.001", "nms_iou=0.9", f"detector={folders[0]}")
    words = [word for s in (*loose, f"segmenter={folders[1]}") for word in ("--set", f"ground.{s}")]
    assert rr7k(*asking(server, run)).returncode == 0
    stage_1, _, *settings = asking(server, run)
    ground = (stage_1, "ground", *settings, *words)
    process = start(*ground)
    wait_for_rows(run, "names", process, images * of_each)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    committed = [row for row in rows(run, "names") if row["namer"] == "grounded-sam"]
    done = rr7k(*ground)
    assert done.returncode == 0, done.stderr
    grounded = [row for row in rows(run, "names") if row["namer"] == "grounded-sam"]
    assert len({row["mask_id"] for row in grounded}) == len(grounded) == images * of_each
    assert all(row in grounded for row in committed)
    assert 0 < len(committed) < len(grounded), "killed too early or too late to prove anything"


def test_from_photographs_to_names_with_the_embedded_engine(tmp_path: Path) -> None:
    shard, run = tmp_path / "sample", tmp_path / "run"
    assert rr7k("sample-data", shard).returncode == 0
    made = rr7k("stage-1", "--run", run, "--shards", shard, "--images", 1, "--limit", 20)
    assert made.returncode == 0, made.stderr
    assert "ground: left out, the names are embedded" in " ".join(made.stdout.split())
    named = rows(Run(str(run)), "names")
    assert {(row["engine"], row["model"], row["layout"]) for row in named} == {("embedded", "embedded", "cutout")}
    assert "efficientnet-lite2" in named[0]["revision"]
    quoted = rr7k("stage-1", "names", "--run", run, "--dry-run")
    assert "20 masks answered" in quoted.stdout
    shown = rr7k("show", "names", "--run", run)
    assert "20 of 20 names" in shown.stdout
    assert "embedded (not a VLM)" in (run / "names.html").read_text()
    pairs = rows(Run(str(run)), "pairs")
    assert [row["mask_id"] for row in pairs] == [row["mask_id"] for row in named]
    assert {(row["agreement"], *row["engines"]) for row in pairs} == {("only-one", "embedded")}
    assert "20 of 20 pairs" in rr7k("show", "pairs", "--run", run).stdout
    assert "embedded (not a VLM)" in (run / "pairs.html").read_text()
    checked = rr7k("stage-2", "--run", run, "--set", "head_tail.head_min_count=2", "--set", "verify.control_share=1.0")
    assert checked.returncode == 0, checked.stderr
    answers = rows(Run(str(run)), "checks", "request_id")
    assert {row["engine"] for row in answers} == {"embedded"}
    assert {row["role"] for row in answers} == {"pair", "control"}
    assert "embedded (not a VLM)" in (run / "verification.html").read_text()
