"""Writes measured.md, what `make bench` measured last: every figure that was asked for beside its goal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "runs" / "bench.json"
PAGE = ROOT / "docs" / "measured.md"
WHY = {
    "manifest, time of the floor (read and parse JSON)": "the largest part of the time goes into summing every "
    "mask's run lengths, by which its area is checked; the floor looks at none of them.",
    "export, time of a bulk POST of ready-made pages": "the floor's pages are ready-made; an export makes them, the "
    "project, its storage and the list that people see first, and asks the server before which pages it has.",
    "export at size, a page, time of a page of that bulk POST": "as above; what happens once weighs less.",
    "submit to next page ready, slowest": "one page; the median keeps the goal. These are seconds, and other runs on "
    "faster days kept it.",
    "sequence and mask of 30 masks, of a forward pass of the middle size": "around the goal: most of it is writing a "
    "mask of all tokens by all tokens, which memory bounds, while the pass is bound by arithmetic.",
    "release of 25,000 instances, beside cp, sync and sha256sum": "around the goal, above it in one run, below it in "
    "the next; every photograph is hashed as well as every file, and the disk's own speed varies between runs.",
}
"""What stands behind a goal that was missed."""


def page(measured: dict[str, Any]) -> str:
    """Return the page, Markdown, of what `make bench` saved."""
    where = measured["machine"]
    head = (
        f"# What was measured\n\n`make bench`, {measured['began'][:10]}: {where['processor']}, {where['cores']} cores, "
        f"{where['memory_gb']:.0f} GB, Python {where['python']}. One run, written by docs/measured.py; shards, masks "
        "and servers are simulated. On another day or machine times differ, ratios less.\n\n"
        "| bench | figure | goal | measured | reached |\n|---|---|---|---|---|\n"
    )
    rows = "".join(row for bench in measured["benches"] for row in _rows(bench))
    figures = [figure for bench in measured["benches"] for figure in bench["figures"]]
    missed = [figure["what"] for figure in figures if figure["met"] is False]
    why = "".join(f"- **{what}**: {WHY.get(what, 'not known yet.')}\n" for what in missed)
    return head + rows + (f"\nWhere a goal was missed:\n\n{why}" if missed else "")


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
