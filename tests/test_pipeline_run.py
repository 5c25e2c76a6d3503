"""Commits, parts and plans; and one writer per step."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from pipeline import locks, tables
from pipeline.errors import BusyError, UsageError, UserError
from pipeline.files import Folder
from pipeline.run import Run

ROW = {"step": "s", "input": "image:1", "shard": "a", "image_id": 1, "place": "p", "reason": "r", "error": "e"}


def commit(run: Run, key: str, inputs: list[str]) -> None:
    with run.part("s", "quarantine", key) as part:
        part.write(tables.from_rows("quarantine", [{**ROW, "input": i} for i in inputs]))
    run.commit("s", key, {"quarantine": part}, fingerprint="f", counts={"n": len(inputs)}, facts={"x": [1]})


def inputs(run: Run) -> list[str]:
    return sorted(run.dataset("quarantine").to_table()["input"].to_pylist())


def test_only_committed_parts_are_read(run: Run) -> None:
    assert inputs(run) == []
    with run.part("s", "quarantine", "k") as part:
        part.write(tables.from_rows("quarantine", [ROW]))
    assert inputs(run) == []
    commit(run, "a", ["1", "2"])
    commit(run, "b", [])
    assert inputs(run) == ["1", "2"]
    assert run.rows_on_disk("quarantine") == 2
    assert run.steps() == ["s"]


def test_a_commit_tells_what_was_made(run: Run) -> None:
    commit(run, "a", ["1"])
    record = run.commits("s")["a"]
    assert (record.fingerprint, record.counts, record.facts, record.rows) == (
        "f",
        {"n": 1},
        {"x": [1]},
        {"quarantine": 1},
    )
    assert record.made_by.startswith("rr7k ")


def test_committing_a_key_again_replaces_it(run: Run) -> None:
    commit(run, "a", ["1"])
    commit(run, "a", ["2", "3"])
    assert inputs(run) == ["2", "3"]
    run.sweep("s", ["quarantine"])
    assert len(list(Path(run.folder.path, "quarantine").iterdir())) == 1
    run.forget("s", "a")
    assert inputs(run) == []
    assert run.steps() == []


def test_wrong_columns_are_refused_on_write(run: Run) -> None:
    import pyarrow as pa

    with pytest.raises((pa.ArrowInvalid, ValueError)), run.part("s", "quarantine", "k") as part:
        part.write(pa.table({"step": ["s"]}))


def test_a_table_from_a_newer_rr7k_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "VERSION", 99)
    commit(run, "a", ["1"])
    monkeypatch.undo()
    with pytest.raises(UserError, match="version 99"):
        run.dataset("quarantine")


def test_another_table_in_its_place_is_refused(run: Run) -> None:
    commit(run, "a", ["1"])
    with pytest.raises(UserError, match="missing mask_id"):
        tables.check(run.dataset("quarantine").schema, "masks", "here")


@pytest.mark.parametrize("content", [b"{", b'{"step": "\xff"}', b"[" * 100_000])
def test_a_damaged_record_says_where(run: Run, content: bytes) -> None:
    commit(run, "a", ["1"])
    run.folder.sub("commits", "s").replace("a.json", content)
    with pytest.raises(UserError, match=r"a\.json: damaged"):
        run.commits("s")


# --- one writer ---


def owner(run: Run, **fields: object) -> None:
    """Leave a lock of another process."""
    given = {"host": socket.gethostname(), "pid": os.getpid(), "started": 0.0, "since": "then", **fields}
    run.folder.sub("locks").replace("s-other.json", msgspec.json.encode(given))


def test_a_second_writer_is_refused_and_told_of_the_first(run: Run) -> None:
    me = f"pid {os.getpid()} on {socket.gethostname()}"
    with run.lock("s"):
        with pytest.raises(BusyError, match=me), run.lock("s"):
            pass
        with run.lock("another step"):
            pass
    with run.lock("s"):
        pass
    assert run.folder.sub("locks").names() == []


def test_the_lock_of_a_dead_process_is_taken_over(run: Run) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(gone.pid).create_time()
    gone.wait()
    owner(run, pid=gone.pid, started=started)
    with run.lock("s"):
        assert len(run.folder.sub("locks").names()) == 1


def test_a_reused_pid_is_not_taken_for_the_owner(run: Run) -> None:
    owner(run, started=time.time() - 10_000)
    with run.lock("s"):
        pass


def test_the_lock_of_another_host_is_respected(run: Run) -> None:
    owner(run, host="elsewhere")
    with pytest.raises(BusyError, match=r"on elsewhere.*delete"), run.lock("s"):
        pass
    assert run.folder.sub("locks").names() == ["s-other.json"]


def leftover_worker(log: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A process with a log file of a Ray session open, as Ray's workers have."""
    log.parent.mkdir(parents=True)
    with log.open("w") as file:
        return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"], stdout=file)


def test_a_dead_owners_workers_are_waited_for(run: Run, tmp_path: Path) -> None:
    worker = leftover_worker(tmp_path / "session_42" / "logs" / "worker-1.out", 1.5)
    owner(run, pid=2**22 + 1, ray_session="session_42")
    with run.lock("s"):
        assert not locks._session_processes("session_42")
    worker.wait()


def test_workers_that_do_not_end_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE", 0.2)
    worker = leftover_worker(tmp_path / "session_43" / "logs" / "worker-1.out", 60)
    owner(run, pid=2**22 + 1, ray_session="session_43")
    try:
        with pytest.raises(BusyError, match=str(worker.pid)), run.lock("s"):
            pass
    finally:
        worker.kill()
        worker.wait()


def test_an_orphaned_worker_cannot_commit(run: Run) -> None:
    with run.lock("s") as lock:
        orphan = Run(run.folder.uri, lock.name)
        commit(orphan, "a", ["1"])
    with pytest.raises(BusyError, match="has ended"):
        commit(orphan, "b", ["2"])
    assert inputs(run) == ["1"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(UsageError, match="cannot write there"), Run(str(path)).lock("s"):
            pass


# --- files ---


def test_replacing_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path / "f"))
    folder.replace("a", b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        folder.replace("a", b"new")
    assert folder.read("a") == b"old"


def test_listing_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert Folder(str(tmp_path / "none")).names() == []
