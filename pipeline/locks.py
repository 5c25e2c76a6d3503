"""One writer per step of a run, on any file system: announce, look, and only then write.

A lock is a file that tells who holds it. Two processes that announce themselves at the same moment see
each other and both stand back, which needs no exclusive create (object stores and pyarrow have none).
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline.decoding import decoded
from pipeline.errors import BusyError, UsageError
from pipeline.files import Folder

_PATIENCE = 30.0
"""Seconds to wait for the workers of a dead driver: they outlive it by seconds (DESIGN.md §4)."""


class Owner(msgspec.Struct, frozen=True):
    """Who holds a lock. `ray_session` is the Ray session whose processes write on the owner's behalf."""

    host: str
    pid: int
    started: float  # creation time of the process, s since the epoch: tells a reused pid
    since: str
    ray_session: str = ""


class Lock:
    """A held lock. Its name is the proof that work done for its owner still counts."""

    def __init__(self, folder: Folder, name: str, owner: Owner) -> None:
        self._folder = folder
        self.name = name
        self._owner = owner
        folder.replace(name, msgspec.json.encode(owner))

    def works_through(self, ray_session: str) -> None:
        """Note the Ray session, so that a successor can wait for its last process to end."""
        self._owner = msgspec.structs.replace(self._owner, ray_session=ray_session)
        self._folder.replace(self.name, msgspec.json.encode(self._owner))

    def release(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            self._folder.delete(self.name)


@contextmanager
def hold(folder: Folder, step: str) -> Iterator[Lock]:
    """Hold the lock of `step` in a run's lock folder.

    Raises `BusyError` naming the other's host and pid, `UsageError` when the folder cannot be written. The
    lock of a dead process on this host is taken over, once no process of its Ray session is left.
    """
    import psutil

    me = Owner(
        socket.gethostname(),
        os.getpid(),
        psutil.Process().create_time(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    name = f"{step}-{secrets.token_hex(4)}.json"
    try:
        lock = Lock(folder, name, me)
    except OSError as error:
        raise UsageError(
            f"{folder.uri}: cannot write there ({error}). Choose another run folder with --run."
        ) from error
    try:
        for other in folder.names(".json"):
            if other != name and other.startswith(f"{step}-"):
                _wait_out(folder, other, step)
        yield lock
    finally:
        lock.release()


def _wait_out(folder: Folder, name: str, step: str) -> None:
    """Remove the lock of a dead owner, or raise `BusyError`."""
    try:
        held = folder.read(name)
    except FileNotFoundError:
        return
    owner = decoded(held, Owner, f"{folder.uri}/{name}", "Delete it if no other run is active.", BusyError)
    whose = f"step {step} of this run is being run by pid {owner.pid} on {owner.host}, since {owner.since}"
    if owner.host != socket.gethostname():
        raise BusyError(f"{whose}. If that process is dead, delete {folder.uri}/{name}.")
    if _alive(owner):
        raise BusyError(f"{whose}. Wait for it, or stop it first.")
    deadline = time.monotonic() + _PATIENCE
    while left := _session_processes(owner.ray_session):
        if time.monotonic() > deadline:
            raise BusyError(f"{whose}; it is dead, but its Ray session still runs pids {left}. Stop them first.")
        time.sleep(0.5)
    with suppress(FileNotFoundError):
        folder.delete(name)


def _alive(owner: Owner) -> bool:
    import psutil

    try:
        process = psutil.Process(owner.pid)
        return bool(abs(process.create_time() - owner.started) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _session_processes(ray_session: str) -> list[int]:
    """List this host's busy workers of a Ray session: they have a worker's log of it open and are not idle.

    Ray's agents have other logs and outlive a killed driver by a minute, but write nothing of ours. Workers on
    other hosts cannot be seen from here; `Run.commit` stops those.
    """
    if not ray_session:
        return []
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            logs = (str(link.readlink()) for link in (entry / "fd").iterdir())
            works = any(f"{ray_session}/logs/worker-" in log for log in logs)
            if works and not (entry / "cmdline").read_bytes().startswith(b"ray::IDLE"):
                found.append(int(entry.name))
    return found
