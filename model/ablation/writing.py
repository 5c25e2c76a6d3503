"""The report's files: the page, its figures, and every number."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model.ablation import cells, efficiency, figures, page, report
from model.ablation.plan import FormName, Plan
from model.ablation.report import Paper
from pipeline.errors import UsageError
from pipeline.files import Folder


def write(plan: Plan, name: FormName, out: Path, paper: Paper) -> tuple[Path, str]:
    """Write report.html, results.json and the figures for a form whose cells are all done; return page and verdicts.

    Raises `UsageError` if a cell is missing.
    """
    form = plan.form(name)
    where = cells.folder(out, form, plan.learning)
    done = cells.results(where, form)
    if missing := [cell.file for cell in cells.cells(form) if cell not in done]:
        raise UsageError(f"{where.uri}: {len(missing)} cells are missing, as {missing[0]}. Train them first.")
    found = report.build(plan, name, Path(where.uri).name, done, paper)
    counted = efficiency.measure(found.speeds)
    drawn = {
        "contrasts": figures.contrasts(found),
        "losses": figures.losses(found),
        "efficiency": figures.efficiency(found, counted),
    }
    target = Folder(str(out / name))
    for what, data in drawn.items():
        target.replace(f"{what}.png", data)
    numbers = {"report": found, "efficiency": counted}
    target.replace("results.json", msgspec.json.format(msgspec.json.encode(numbers)))
    target.replace("report.html", page.render(found, counted, drawn).encode())
    return out / name / "report.html", page.told(found)
