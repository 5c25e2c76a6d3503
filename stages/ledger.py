"""Answers become rows of `names`, `failures` and `quarantine`, and are committed every few seconds."""

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
from stages import answers
from stages.engines.base import EngineConfig
from stages.naming_settings import NAMER, STEP, NamesConfig
from stages.naming_todo import Todo
from stages.rendering import SHARD_UNREADABLE

_TOKENS = ("prompt", "cached", "generated", "image", "shared")
TABLES = ["names", "failures", "quarantine"]
_COMMIT_EVERY = (2.0, 60.0)
"""Seconds between commits, least and most; in between, 1 % of the time so far. So a killed run has lost at most a
hundredth of its work, and a run of a day makes a few thousand commits, not tens of thousands."""
_IN_A_ROW = 200  # failures without one answer between them: the engine is gone


class Progress(NamedTuple):
    """What came in since the last time."""

    masks: int
    outcomes: Counter[str]
    """Masks by outcome of the answer, `error`, or `quarantined`."""
    tokens: Counter[str]
    """prompt, cached, generated; image and shared by the model's rule."""


@dataclass(frozen=True)
class Watcher:
    """Told of the work as it goes on."""

    start: Callable[[int], None]
    """Given the masks to be asked about."""
    advance: Callable[[Progress], None]
    say: Callable[[str], None]
    """Given a line for people."""


def parse(answer: Mapping[str, Any], config: NamesConfig) -> list[answers.Parsed]:
    """Read the names of its regions out of a row of `ANSWERS`, in the order they were asked about."""
    if config.layout == "marks":
        return answers.parse_numbered(answer["text"], len(answer["subjects"]))
    return [answers.parse(answer["text"])]


class Ledger:
    """Turns answers into rows and commits them."""

    def __init__(self, run: Run, todo: Todo, config: NamesConfig, engine: EngineConfig) -> None:
        self._run, self._todo, self._config, self._engine = run, todo, config, engine
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._number = max((int(key) for key in run.commits(STEP)), default=-1) + 1
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
        """Record an answer; return what became of each mask it is about."""
        subjects = answer["subjects"]
        if answer["reason"] and answer["reason"] != SHARD_UNREADABLE:
            self._refuse(answer["subjects"][0], answer, answer["reason"], answer["problem"])
            return ["quarantined"]
        if error := answer["error"] or answer["problem"]:
            self._failures_in_a_row += 1
            self._fail(answer, error)
            return ["error"] * len(subjects)
        self._failures_in_a_row = 0
        self._tokens.update({name: answer[f"{name}_tokens"] or 0 for name in _TOKENS})
        parsed = parse(answer, self._config)
        self._rows["names"] += [self._named(answer, *pair) for pair in zip(subjects, parsed, strict=True)]
        return [str(result.outcome) for result in parsed]

    def _named(self, answer: dict[str, Any], mask_id: int, parsed: answers.Parsed) -> dict[str, Any]:
        made, share = self._todo.setting, len(answer["subjects"])
        numbers = {name: answer[name] for name in ("prompt_tokens", "cached_tokens", "generated_tokens")}
        return {
            "mask_id": mask_id,
            "image_id": answer["image_id"],
            "namer": NAMER,
            "outcome": str(parsed.outcome),
            "category": parsed.category,
            "raw": answer["text"],
            "logprob": answer["logprob"],
            **{name: None if value is None else value // share for name, value in numbers.items()},
            "seconds": None if answer["seconds"] is None else answer["seconds"] / share,
            "engine": self._engine.kind,
            "model": made.model,
            "revision": made.revision,
            "layout": made.layout,
            "prompt": made.prompt,
            "fingerprint": self._todo.prints[mask_id],
        }

    def _fail(self, answer: dict[str, Any], error: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for mask_id in answer["subjects"]:
            fingerprint = self._todo.prints[mask_id]
            row = {"mask_id": mask_id, "namer": NAMER, "fingerprint": fingerprint, "error": error, "made_at": now}
            self._rows["failures"].append(row)
            tries = self._todo.tries.get(mask_id, 0) + 1
            if tries >= self._config.tries:
                self._refuse(mask_id, answer, "failed", f"failed in {tries} runs: {error}")

    def _refuse(self, mask_id: int, answer: dict[str, Any], reason: str, error: str) -> None:
        self._rows["quarantine"].append(
            {
                "step": STEP,
                "input": f"mask:{mask_id}",
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
                with self._run.part(STEP, name, key) as part:
                    part.write(tables.from_rows(name, rows))
                parts[name] = part
        now = time.monotonic()
        hours = self._engine.gpus_used * (now - self._told) / 3600
        self._run.commit(
            STEP,
            key,
            parts,
            fingerprint=files.sha256(msgspec.json.encode(self._todo.setting))[:16],
            counts=self._counts(),
            facts={
                "setting": msgspec.to_builtins(self._todo.setting),
                "masks": len(self._rows["names"]),
                "seconds": round(now - self._told, 3),
                "gpu_hours": round(hours, 6),
                "tokens": dict(self._tokens),
            },
        )
        self._rows = {name: [] for name in TABLES}
        self._tokens.clear()
        self._number, self._told = self._number + 1, now

    def _counts(self) -> dict[str, int]:
        outcomes = Counter(f"names.{row['outcome']}" for row in self._rows["names"])
        refused = Counter(f"names.quarantined.{row['reason']}" for row in self._rows["quarantine"])
        return {**outcomes, **refused, "names.failures": len(self._rows["failures"])}
