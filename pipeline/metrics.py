"""What a step tells Prometheus while it runs, through Ray's own exporter (cluster/grafana.json shows it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StepMetrics:
    """Counters of one step. Needs a running Ray; without `ray[default]` Ray exports nothing."""

    def __init__(self, step: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self._step = {"step": step}
        self._rows: Any = Counter("rr7k_rows_total", "Rows by what became of them", ("step", "outcome"))
        self._tokens: Any = Counter("rr7k_tokens_total", "Tokens of language models", ("step", "kind"))
        self._pending: Any = Gauge("rr7k_rows_pending", "Rows not done yet", ("step",))

    def add(self, rows: Mapping[str, int], tokens: Mapping[str, int], pending: int) -> None:
        """Add rows by outcome and tokens by kind (prompt, cached, generated)."""
        for metric, label, counts in ((self._rows, "outcome", rows), (self._tokens, "kind", tokens)):
            for value, count in counts.items():
                if count:  # Ray refuses an increment of 0
                    metric.inc(count, {**self._step, label: value})
        self._pending.set(pending, self._step)
