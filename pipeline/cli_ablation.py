"""`rr7k ablation`: the paper's Tables 4 to 7 in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.console import err, out, tell

if TYPE_CHECKING:
    from model.ablation.plan import Form, FormName, Plan
    from model.ablation.report import Paper

_TABLES = range(4, 8)


def ablation(
    folder: Annotated[Path, typer.Option("--out", help="Where cells and report go.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="One seed and fewer steps.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time, each on one thread.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and what it can tell.")] = False,
) -> None:
    """Train the debug model in every setting of the paper's Tables 4 to 7 on a made-up world, and judge its orderings.

    Under three hours on two cores, with [bold]--quick[/] under twenty minutes. Stopped at any moment, it goes on where
    it was when given again: a finished training is kept. Steps, seeds and the test were fixed before the first
    comparison (model/ablation/plan.toml); the report has the paper's numbers beside ours, and says what became of each
    ordering: reproduced, tie or reversed.
    """
    from model.ablation import plan, run, writing
    from pipeline.progress import meter

    name: FormName = "quick" if quick else "full"
    known = plan.load()
    if dry_run:
        _tell_plan(known, name, folder)
        return
    form = known.form(name)
    with meter(err) as bar:
        watcher = run.Watcher(lambda steps: bar.start("training", steps, "steps"), lambda steps: bar.advance(steps, {}))
        run.run(folder, form, known.learning, workers, watcher)
    with err.status("writing the report"):
        page, verdicts = writing.write(known, name, folder, _paper())
    tell(f"{page}: {verdicts}")
    tell(f"{page.parent}: results.json, contrasts.png, losses.png, efficiency.png")


def _paper() -> Paper:
    from benchmark import published

    found: dict[tuple[int, str, str], dict[str, float]] = {}
    for table in _TABLES:
        for data_set in ("LVIS", "PACO"):
            for row in published.beside(data_set, table):
                if row.measure == "iou":
                    found.setdefault((table, row.model, row.variant), {})[data_set] = row.value
    return found


def _tell_plan(known: Plan, name: FormName, folder: Path) -> None:
    import msgspec
    from rich.table import Table

    from model.ablation import cells, plan

    form: Form = known.form(name)
    done, every = cells.results(cells.folder(folder, form, known.learning), form), cells.cells(form)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("trainings", f"{len(every)}, of which {len(done)} are done already")
    table.add_row("steps, scenes a step", f"{form.steps:,}, {known.learning.batch}")
    table.add_row("seeds", ", ".join(f"{way} {count}" for way, count in msgspec.structs.asdict(form.seeds).items()))
    table.add_row("scenes of the test", f"{form.scenes:,}")
    for what, spread in known.pilot(name).spreads()._asdict().items():
        least = plan.resolved(spread, form.seeds_of(what))
        table.add_row(f"told apart, {what}", f"{least:.1f} points of word overlap, four times of five (by the pilot)")
    out.print(table, highlight=False)
