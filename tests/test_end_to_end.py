"""The command line on a real Ray: from nothing to a table, killed at any moment, and resumed exactly.

Every run of the command starts its own Ray, about ten seconds each, so there are few of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from sa1b_shards import build, rows, write_shard

from pipeline.run import Run
from stages.shard_tasks import INDEX, READ

SHARDS, IMAGES = 20, 150
WATCHDOG = 120  # seconds: a resumed run that hangs is a failure, not a long test


def _hear_interrupts() -> None:
    """Undo what a shell does to all that it starts in the background, tests and their children included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `rr7k` as a user would, in a session of its own so that signals hit it alone."""
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )


def rr7k(*arguments: object) -> subprocess.CompletedProcess[str]:
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=WATCHDOG)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, err)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty shards."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        write_shard(folder, number, images=IMAGES)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a run without interruption makes; in this process, so that it also shows Ray to change nothing."""
    run = Run(str(tmp_path_factory.mktemp("reference")))
    build(run, shards)
    return rows(run)


def commits(run: Run) -> dict[str, bytes]:
    return {
        f"{step}/{path.name}": path.read_bytes()
        for step in (INDEX, READ)
        for path in Path(run.folder.path, "commits", step).glob("[!.]*.json")
    }


def wait_for_commits(run: Run, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WATCHDOG
    while len(commits(run)) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def wait_for_rows(run: Run, table: str, process: subprocess.Popen[str], more_than: int) -> None:
    """Wait until a table has more rows, or the process has ended."""
    deadline = time.monotonic() + WATCHDOG
    while run.dataset(table).count_rows() <= more_than and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def served_by(section: str, url: str) -> list[str]:
    """Options that have an engine ask the server at `url`."""
    settings = ("kind=openai", "model=m", f'urls=["{url}"]', "slots=16", "tries=6")
    return [word for setting in settings for word in ("--set", f"{section}.{setting}")]


def assert_complete(run: Run, uninterrupted: list[dict[str, Any]]) -> None:
    assert rows(run) == uninterrupted
    shown = rr7k("status", "--run", run.folder.path, "--json")
    assert shown.returncode == 0, shown.stderr
    for level in json.loads(shown.stdout)["levels"]:
        assert (level["difference"], level["pending"], level["quarantined"]) == (0, 0, {})


def test_the_driver_killed_at_random_moments_and_resumed(run: Run, shards: Path, uninterrupted: list[Any]) -> None:
    moments = random.Random(7)
    before: dict[str, bytes] = {}
    for least in (1, 12, 24):
        process = start("stage-1", "manifest", "--run", run.folder.path, "--shards", shards)
        wait_for_commits(run, least + moments.randrange(8), process)
        process.kill()
        process.communicate()
        after = commits(run)
        assert before.items() <= after.items()  # a finished shard is never read again
        assert len(after) < 2 * SHARDS, "killed too late to show anything"
        before = after
    done = rr7k("stage-1", "manifest", "--run", run.folder.path)
    assert done.returncode == 0, done.stderr
    assert before.items() <= commits(run).items()
    assert_complete(run, uninterrupted)


def test_workers_killed_are_replaced(run: Run, shards: Path, uninterrupted: list[Any]) -> None:
    process = start("stage-1", "manifest", "--run", run.folder.path, "--shards", shards)
    wait_for_commits(run, 1, process)
    killed = 0
    deadline = time.monotonic() + WATCHDOG
    while killed < 2 and process.poll() is None and time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if killed < 2 and child.name() in ("ray::index", "ray::read"):
                    child.kill()
                    killed += 1
                    time.sleep(0.2)
    out, err = process.communicate(timeout=WATCHDOG)
    assert killed == 2, "no worker was seen"
    assert process.returncode == 0, out + err
    assert_complete(run, uninterrupted)


def test_interrupted_by_hand(run: Run, shards: Path, uninterrupted: list[Any]) -> None:
    for attempt in range(8):  # where other work keeps this test from its turn, the run may have ended by itself
        run = Run(f"{run.folder.path}-{attempt}")
        process = start("stage-1", "manifest", "--run", run.folder.path, "--shards", shards, "--workers", 1)
        wait_for_commits(run, 1, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WATCHDOG)
        if process.returncode != 0:
            break
    assert process.returncode == 130
    assert "stopped. What was finished is kept" in err
    assert "Traceback" not in err
    assert 1 <= len(commits(run)) < 2 * SHARDS
    assert run.folder.sub("locks").names() == []
    assert rr7k("stage-1", "manifest", "--run", run.folder.path).returncode == 0
    assert_complete(run, uninterrupted)


def test_a_second_run_of_the_same_step_is_refused(run: Run, shards: Path) -> None:
    with run.lock("manifest"):
        refused = rr7k("stage-1", "manifest", "--run", run.folder.path, "--shards", shards)
    assert refused.returncode == 3
    assert f"pid {os.getpid()}" in " ".join(refused.stderr.split())
    assert socket.gethostname() in refused.stderr


def test_the_demo_from_sample_data_to_the_picture(tmp_path: Path) -> None:
    assert rr7k("sample-data", tmp_path / "sample").returncode == 0
    run = tmp_path / "run"
    done = rr7k("stage-1", "manifest", "--run", run, "--shards", tmp_path / "sample", "--images", 4)
    assert done.returncode == 0, done.stderr
    assert "not-sampled" in done.stdout
    explained = rr7k("stage-1", "manifest", "--explain", "--run", run)
    assert "◄ the cut" in explained.stdout
    assert (run / "mask-sizes.png").exists()
