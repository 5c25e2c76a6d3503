"""Stage 2 as a user runs it, on a Ray of its own: killed and resumed, then calibrated."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checking_server import KNOWN, CheckingServer, belief, write_pairs
from named_shards import write_shard
from sa1b_shards import build, rows
from test_end_to_end import rr7k, served_by, start, wait_for_rows
from test_pipeline_cli import rr7k as in_process

from pipeline.run import Run

IMAGES, MASKS = 12, 50
SAME = ("request_id", "mask_id", "role", "category", "outcome", "p_yes", "p_no", "raw", "fingerprint")


@pytest.fixture
def server() -> Iterator[CheckingServer]:
    running = CheckingServer()
    running.belief = lambda pictures, name: belief(pictures, name) if name in (*KNOWN, "dog") else 0.02
    yield running
    running.stop()


def paired(run: Run) -> Run:
    """Nine of ten masks are dogs, the rest are one emu each."""
    write_pairs(run, {row["mask_id"]: "dog" if row["mask_id"] % 10 else f"emu {row['mask_id']}" for row in rows(run)})
    return run


def checking(server: CheckingServer, run: Run, *more: object) -> tuple[object, ...]:
    return ("stage-2", "--run", run.folder.path, *served_by("verifier", server.url), *more)


def answers(run: Run) -> list[dict[str, Any]]:
    return [{name: row[name] for name in SAME} for row in rows(run, "checks", "request_id")]


def test_a_killed_driver_resumes_and_asks_no_committed_request_again(
    run: Run,
    server: CheckingServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = Run(str(tmp_path / "reference"))
    shard = write_shard(tmp_path, 0, IMAGES, MASKS)
    for target in (run, reference):
        build(target, shard)
        paired(target)
    quoted = rr7k(*checking(server, reference, "--dry-run", "--set", "verifier.tokens_per_second=1000"))
    assert "1 head categories with 540 pairs; 0 answers so far" in " ".join(quoted.stdout.split())
    assert not server.answered
    done = rr7k(*checking(server, reference))
    assert done.returncode == 0, done.stderr
    planned = rows(reference, "requests", "request_id")

    server.delay, answered = 0.3, 0
    for _ in range(2):
        process = start(*checking(server, run))
        wait_for_rows(run, "checks", process, answered)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        committed = {f"{row['raw'].split()[-1]} {row['category']}" for row in rows(run, "checks", "request_id")}
        assert answered < len(committed) < len(planned), "killed too early or too late to prove anything"
        answered = len(committed)
        time.sleep(1)  # what the dead driver had asked is answered
        server.answered.clear()
    server.delay = 0
    done = rr7k(*checking(server, run))
    assert done.returncode == 0, done.stderr
    assert rows(run, "requests", "request_id") == planned
    assert not committed & set(server.answered), "a committed request was asked again"
    assert answers(run) == answers(reference)
    assert [row["kept"] for row in rows(run, "verdicts")] == [row["kept"] for row in rows(reference, "verdicts")]
    server.answered.clear()
    calibrated(run, tmp_path, lambda *arguments: in_process(capsys, monkeypatch, *arguments))
    assert not server.answered, "thresholds need no model"
    screened(run, lambda *arguments: in_process(capsys, monkeypatch, *arguments))


def screened(run: Run, call: Callable[..., tuple[int, str]]) -> None:
    """What is left to people is queued and drawn once; nobody answers, until somebody does."""
    sent = rr7k("stage-3", "--run", run.folder.path)
    assert (sent.returncode, "pages are left" in sent.stdout) == (4, True), sent.stderr
    queued = rows(run, "queue", "page_id")
    assert {row["mask_id"] for row in rows(run, "verdicts") if row["kept"]} <= {row["mask_id"] for row in queued}
    assert all((Path(run.folder.path, "crops") / row["crop"]).is_file() for row in queued)
    (tasks,) = Path(run.folder.path, "tasks").iterdir()
    written = {task["data"]["page_id"] for task in json.loads(tasks.read_text())}
    assert written == {row["page_id"] for row in queued}
    code, text = call("stage-3", "import", "--run", run.folder.path, "--simulate")
    assert (code, "given by nobody" in text) == (0, True)
    assert {row["by"] for row in rows(run, "decisions")} == {"simulated"}


def calibrated(run: Run, tmp_path: Path, call: Callable[..., tuple[int, str]]) -> None:
    """Judgements that agree with the model above 0.7 move the threshold."""
    code, text = call("stage-2", "--explain", "--run", run.folder.path)
    assert (code, "◄ the cut" in text) == (0, True)
    assert Path(run.folder.path, "head-tail.png").stat().st_size > 10_000
    code, text = call("stage-2", "calibrate", "--run", run.folder.path)
    assert (code, "Negative controls bound how often the model says yes" in text) == (0, True)
    verdicts = [row for row in rows(run, "verdicts") if row["score"] is not None]
    judged = pa.table(
        {
            "mask_id": [row["mask_id"] for row in verdicts],
            "right": [row["score"] > 0.7 for row in verdicts],
            "inclusion_probability": [0.5] * len(verdicts),
        }
    )
    pq.write_table(judged, tmp_path / "judged.parquet")
    command = ("stage-2", "calibrate", "--run", run.folder.path, "--judged", tmp_path / "judged.parquet")
    code, text = call(*command)
    assert (code, "at least 9" in text) == (0, True)
    after = [row for row in rows(run, "verdicts") if row["score"] is not None]
    assert {row["threshold"] for row in after} != {0.5}
    kept = [row for row in after if row["kept"]]
    assert sum(row["score"] > 0.7 for row in kept) / len(kept) >= 0.95
    assert "calibrated for precision 0.95" in (Path(run.folder.path) / "verification.html").read_text()
    code, text = call(*command, "--precision", "0.99999")
    assert (code, "more judgements" in text) == (1, True)
    assert call("show", "verdicts", "--run", run.folder.path)[0] == 0
