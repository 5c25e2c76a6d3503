"""The Ray session: one of our own on this machine by default, a running cluster when an address is given."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import ClusterConfig
from pipeline.errors import UserError

Job = TypeVar("Job")
Sign = TypeVar("Sign")

_SILENCE = 600.0
"""Seconds without a sign of life from any task after which a run is taken for hung. Tasks report every few seconds."""

_RETRIES = 3  # of a task whose worker died; a task that raises is not retried


@dataclass(frozen=True)
class Session:
    """A connection to Ray."""

    name: str
    """Ray's session name; every process of the session has a log file in a folder of that name."""
    workers: int
    """Tasks at a time."""

    def stream(self, task: Callable[[Job], Iterator[Sign]], jobs: Iterable[Job]) -> Iterator[Sign]:
        """Run a generator function once per job; yield what the tasks yield, as it comes.

        A task whose worker dies is started again, so it must be safe to repeat. Raises `UserError` when a task
        raised, kept dying, or nothing was heard for ten minutes; the remaining tasks are then abandoned.
        """
        import ray

        remote = ray.remote(num_returns="streaming", num_cpus=1, max_retries=_RETRIES)(task)
        waiting = deque(jobs)
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < self.workers:
                running.append(remote.remote(waiting.popleft()))
            ready, _ = ray.wait(running, num_returns=1, timeout=_SILENCE)
            if not ready:
                raise UserError(
                    f"no task has reported for {_SILENCE:.0f} s: taken for hung. What was finished is kept; run the "
                    "same command again."
                )
            try:
                yield ray.get(next(ready[0]))
            except StopIteration:
                running.remove(ready[0])
            except ray.exceptions.RayError as error:
                raise UserError(f"{_cause(error)}\nWhat was finished is kept; run the same command again.") from error


@contextmanager
def session(config: ClusterConfig) -> Iterator[Session]:
    """Start Ray, or connect to the cluster of `config.address` or RAY_ADDRESS, and leave it cleanly.

    Raises `UserError` when the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # or a left-over thread of Ray Data starts another Ray
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # every actor pool logs a harmless error line
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray

    address = config.address or os.environ.get("RAY_ADDRESS")
    try:
        with _quiet():
            ray.init(
                logging_level=logging.ERROR, log_to_driver=False, **(_joining(address) if address else _of_our_own())
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"cannot reach Ray at {address}: {error}\nIf the cluster uses token authentication, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here as on its nodes."
        ) from error
    try:
        cpus = int(ray.cluster_resources().get("CPU", 1)) if address else os.cpu_count() or 1
        yield Session(ray.get_runtime_context().get_session_name(), config.workers or cpus)
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's C++ part from writing on the terminal that it read RAY_BACKEND_LOG_LEVEL; errors are exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _of_our_own() -> dict[str, Any]:
    # More logical CPUs than cores: with 2, Ray Data and Ray Train were seen to wait for ever (DESIGN.md §4).
    return {"address": "local", "include_dashboard": False, "num_cpus": max(4, (os.cpu_count() or 1) + 2)}


def _joining(address: str) -> dict[str, Any]:
    root = Path(__file__).parent.parent
    if not (root / "pyproject.toml").exists():  # an installed wheel: the nodes have it installed as well
        return {"address": address}
    excludes = [".git", ".venv", "runs", "sample-data", "tests", "*.egg-info", "**/__pycache__"]
    return {"address": address, "runtime_env": {"working_dir": str(root), "excludes": excludes}}


def _cause(error: Any) -> str:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, OSError):
        return f"reading or writing failed: {cause}"
    return f"a task failed: {type(cause).__name__}: {cause}"
