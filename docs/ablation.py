"""Writes ablation.md and its figures: what the last `make ablation` said of the paper's Tables 4 to 7."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

import msgspec

from model.ablation import page
from model.ablation.report import Report
from model.ablation.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
MADE = ROOT / "runs" / "ablation" / "full"
PAGE = ROOT / "docs" / "ablation.md"
FIGURES = ("contrasts", "losses")


class Results(msgspec.Struct):
    """What is read of `results.json`."""

    report: Report


def markdown(report: Report) -> str:
    """Return the page, Markdown."""
    return (
        "# The paper's tables in miniature\n\n"
        f"{page.done(report)} Trainings took {_hours(report):.1f} hours of processor time. Written by docs/ablation.py "
        "from what `make ablation` left; its own page, `report.html`, has more.\n\n"
        f"**In short: {page.told(report)}.**\n\n"
        "![Every difference with its interval, the paper's beside it](ablation-contrasts.png)\n\n"
        f"{_contrasts(report)}\nReproduced: the 95 % interval lies on the paper's side of 0; reversed: on the other; "
        "tie: 0 is in it. Higher and lower: what the paper does not order.\n\n"
        f"## Every row\n\n{_rows(report)}\n"
        "![Loss curves of Table 4's settings](ablation-losses.png)\n\n"
        "## What it cannot say\n\n" + "".join(f"- {unescape(point)}\n" for point in page.limits(report))
    )


def _hours(report: Report) -> float:
    seconds = {one.setting: one.seconds_per_step + one.making_per_step for one in report.speeds}
    return sum(report.steps * _seeds(report, setting) * each for setting, each in seconds.items()) / 3600


def _seeds(report: Report, setting: str) -> int:
    return int(getattr(report.seeds, SETTINGS[setting].way))


def _contrasts(report: Report) -> str:
    rows = [
        (f"{one.table}", one.first, one.second, page.pair(one.paper, "+.2f"), page.span(one.found, "+.1f"), one.verdict)
        for one in report.contrasts
    ]
    head = ("table", "first", "second", "first − second, paper LVIS · PACO", "here, with 95 % interval", "verdict")
    return "".join(_table(head, rows))


def _rows(report: Report) -> str:
    rows = [
        (f"{row.table}", row.title, page.pair(row.paper, ".2f"), page.span(row.overlap, ".1f"), f"{row.exact:.1f}")
        if row.overlap
        else (f"{row.table}", row.title, page.pair(row.paper, ".2f"), "needs its own weights: left blank", "")
        for row in report.rows
    ]
    head = ("table", "row", "paper LVIS · PACO", "word overlap here, 95 %", "named exactly, %")
    return "".join(_table(head, rows))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(markdown(msgspec.json.decode((MADE / "results.json").read_bytes(), type=Results).report), "utf-8")
    for figure in FIGURES:
        (ROOT / "docs" / f"ablation-{figure}.png").write_bytes((MADE / f"{figure}.png").read_bytes())
