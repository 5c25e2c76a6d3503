"""Writes measured.md, what `make bench` measured last: every figure that was asked for beside its goal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "runs" / "bench.json"
PAGE = ROOT / "docs" / "measured.md"


def page(measured: dict[str, Any]) -> str:
    """Return the page, Markdown, of what `make bench` saved."""
    where = measured["machine"]
    head = (
        f"# What was measured\n\n`make bench`, {measured['began'][:10]}: {where['processor']}, {where['cores']} cores, "
        f"{where['memory_gb']:.0f} GB, Python {where['python']}. One run, written by docs/measured.py; shards, masks "
        "and servers are simulated. On another day or machine times differ, ratios less.\n\n"
        "| bench | figure | goal | measured | reached |\n|---|---|---|---|---|\n"
    )
    return head + "".join(row for bench in measured["benches"] for row in _rows(bench))


def _rows(bench: dict[str, Any]) -> Iterator[str]:
    for figure in bench["figures"]:
        sign = {"at least": "≥", "at most": "≤", None: ""}[figure["bounds"]]
        goal = f"{sign} {_number(figure['target'])}" if sign else ""
        reached = {True: "yes", False: "**no**", None: ""}[figure["met"]]
        measured = f"{_number(figure['result'])} {figure['unit']}"
        yield f"| {bench['bench']} | {figure['what']} | {goal} | {measured} | {reached} |\n"
    if bench["broke"]:
        yield f"| {bench['bench']} | broke: {bench['broke']} | | | **no** |\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")
