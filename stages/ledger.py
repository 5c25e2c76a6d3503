"""Answers become rows of a table, of `failures` and `quarantine`, and are committed every few seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from pipeline import files, tables
from pipeline.errors import UserError
from pipeline.run import Run
from stages.rendering import SHARD_UNREADABLE
from stages.todo import Todo

_TOKENS = ("prompt", "cached", "generated", "image", "shared")
_COMMIT_EVERY = (2.0, 60.0)
"""Seconds between commits, least and most; in between, 1 % of the time so far. So a killed run has lost at most a
hundredth of its work, and a run of a day makes a few thousand commits, not tens of thousands."""
_IN_A_ROW = 200  # failures without one answer between them: the engine is gone


class Progress(NamedTuple):
    """What came in since the last time."""

    masks: int
    """Or other subjects."""
    outcomes: Counter[str]
    """Subjects by outcome of the answer, `error`, or `quarantined`."""
    tokens: Counter[str]
    """prompt, cached, generated; image and shared by the model's rule."""


@dataclass(frozen=True)
class Watcher:
    """Told of the work as it goes on."""

    start: Callable[[int], None]
    """Given the number of subjects to be asked about."""
    advance: Callable[[Progress], None]
    say: Callable[[str], None]
    """Given a line for people."""


Answer = Mapping[str, Any]
"""A row of what was answered: prompt_id, image_id, shard, subjects (ids), problem, reason, error, and more."""


@dataclass(frozen=True)
class Asker:
    """A step that asks about masks and keeps the answers."""

    step: str
    name: str
    """Column `namer`."""
    table: str
    """Where answers go: `names`, one row a mask, `phrases`, one row an image, or `checks`, one row a request."""
    rows: Callable[[Answer], list[dict[str, Any]]]
    """Makes rows of the table out of an answer, of each subject in turn or of the image, all but the fingerprint."""
    tries: int
    """Runs in which an answer may fail to come before the subject is given up."""
    gpus: float = 0
    subject: str = "mask"
    """What is asked about, as quarantine calls it."""

    @property
    def tables(self) -> list[str]:
        """What the step writes."""
        return [self.table, "failures", "quarantine"]


class Ledger:
    """Turns answers into rows and commits them."""

    def __init__(self, run: Run, todo: Todo, asker: Asker) -> None:
        self._run, self._todo, self._asker = run, todo, asker
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in asker.tables}
        self._number = int(run.next_key(asker.step))
        self._told = self._began = time.monotonic()
        self._tokens: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._failures_in_a_row = 0

    def add(self, table: pa.Table) -> Progress:
        """Take in rows of `ANSWERS`; return what they came to. Raises `UserError` when everything fails."""
        outcomes: Counter[str] = Counter()
        before = self._tokens.copy()
        for answer in table.to_pylist():
            if answer["prompt_id"] not in self._seen:  # Ray repeats a task whose worker died
                self._seen.add(answer["prompt_id"])
                outcomes.update(self._take(answer))
        self._alarm()
        return Progress(outcomes.total(), outcomes, self._tokens - before)

    def _alarm(self) -> None:
        if self._failures_in_a_row >= _IN_A_ROW:
            error = self._rows["failures"][-1]["error"] if self._rows["failures"] else "see the table failures"
            self.commit()
            raise UserError(
                f"{_IN_A_ROW} prompts in a row have failed, the last with: {error}\nWhat was answered is kept; run "
                "the same command again when the engine is well."
            )

    def _take(self, answer: dict[str, Any]) -> list[str]:
        """Record an answer; return what became of each subject."""
        subjects = answer["subjects"]
        if answer["reason"] and answer["reason"] != SHARD_UNREADABLE:
            for subject in subjects:
                self._refuse(subject, answer, answer["reason"], answer["problem"])
            return ["quarantined"] * len(subjects)
        if error := answer["error"] or answer["problem"]:
            self._failures_in_a_row += 1
            self._fail(answer, error)
            return ["error"] * len(subjects)
        self._failures_in_a_row = 0
        self._tokens.update({name: answer.get(f"{name}_tokens") or 0 for name in _TOKENS})
        rows = self._asker.rows(answer)
        self._rows[self._asker.table] += [
            {**row, "fingerprint": self._todo.prints[subject]} for row, subject in zip(rows, subjects, strict=True)
        ]
        return [row["outcome"] for row in rows]

    def _fail(self, answer: dict[str, Any], error: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for subject in answer["subjects"]:
            about = {"mask_id": self._todo.mask_of(subject), "fingerprint": self._todo.prints[subject]}
            self._rows["failures"].append({**about, "namer": self._asker.name, "error": error, "made_at": now})
            tries = self._todo.tries.get(subject, 0) + 1
            if tries >= self._asker.tries:
                self._refuse(subject, answer, "failed", f"failed in {tries} runs: {error}")

    def _refuse(self, subject: int, answer: dict[str, Any], reason: str, error: str) -> None:
        self._rows["quarantine"].append(
            {
                "step": self._asker.step,
                "input": f"{self._asker.subject}:{subject}",
                "shard": answer["shard"],
                "image_id": answer["image_id"],
                "place": f"sa_{answer['image_id']}.jpg",
                "reason": reason,
                "error": error,
            }
        )

    def commit_now_and_then(self) -> None:
        """Commit when the last commit is long enough ago."""
        now, (least, most) = time.monotonic(), _COMMIT_EVERY
        if now - self._told >= min(max(least, (now - self._began) / 100), most):
            self.commit()

    def commit(self) -> None:
        """Make everything taken in so far count."""
        if not any(self._rows.values()):
            return
        key = f"{self._number:08d}"
        parts = {}
        for name, rows in self._rows.items():
            if rows:
                with self._run.part(self._asker.step, name, key) as part:
                    part.write(tables.from_rows(name, rows))
                parts[name] = part
        now = time.monotonic()
        hours = self._asker.gpus * (now - self._told) / 3600
        self._run.commit(
            self._asker.step,
            key,
            parts,
            fingerprint=files.sha256(msgspec.json.encode(self._todo.setting))[:16],
            counts=self._counts(),
            facts={
                "setting": msgspec.to_builtins(self._todo.setting),
                "masks": len(self._rows[self._asker.table]),
                "seconds": round(now - self._told, 3),
                "gpu_hours": round(hours, 6),
                "tokens": dict(self._tokens),
            },
        )
        self._rows = {name: [] for name in self._asker.tables}
        self._tokens.clear()
        self._number, self._told = self._number + 1, now

    def _counts(self) -> dict[str, int]:
        table = self._asker.table
        outcomes = Counter(f"{table}.{row['outcome']}" for row in self._rows[table])
        refused = Counter(f"{table}.quarantined.{row['reason']}" for row in self._rows["quarantine"])
        return {**outcomes, **refused, f"{table}.failures": len(self._rows["failures"])}
