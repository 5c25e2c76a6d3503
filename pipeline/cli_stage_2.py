"""`rr7k stage-2`: parts head from tail, has a model check the head, prints what came of it; chooses thresholds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_funnel import print_funnel
from pipeline.cli_options import ConfigOption, RunOption, SetOption, WorkersOption, load_config
from pipeline.cli_quote import show_quote
from pipeline.console import err, out, tell
from pipeline.errors import UsageError

JudgedOption = Annotated[
    Path | None,
    typer.Option(
        help="calibrate: human judgements, Parquet of mask_id, right, and the inclusion_probability of each.",
        show_default="controls alone",
    ),
]
PrecisionOption = Annotated[float, typer.Option(min=0, max=1, help="calibrate: wanted share of right pairs.")]


class Stage2Step(StrEnum):
    """What stage 2 does besides checking."""

    calibrate = "calibrate"


def stage_2(
    run: RunOption,
    step: Annotated[
        Stage2Step | None,
        typer.Argument(help="calibrate: choose thresholds from human judgements.", show_default="check the pairs"),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    explain: Annotated[
        bool, typer.Option(help="Draw the long tail with the cut; show what other cuts would do. No work.")
    ] = False,
    redo: Annotated[bool, typer.Option(help="Ask again what other settings answered, or was quarantined.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask so many more questions.", show_default="all")] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget-gpu-hours", min=0, help="Stop after so many GPU-hours.", show_default="none"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and ask nothing.")] = False,
    price: Annotated[
        float | None, typer.Option(min=0, help="Money per GPU-hour, for the quote.", show_default=False)
    ] = None,
    judged: JudgedOption = None,
    precision: PrecisionOption = 0.95,
) -> None:
    """Stage 2: have a second model check the pairs of frequent categories, and drop what it does not see.

    Categories with [bold]head_tail.head_min_count[/] pairs and more are head. About each of their pairs the model
    ([bold]verifier.*[/]) is asked: "Is the area outlined by the red contour and covered by the red mask in the image
    dog? Please answer yes or no." Some are asked about with a wrong name as well: how often that gets a yes is measured
    without anybody's help.

    [bold]calibrate[/]: with --judged, choose thresholds that keep the wanted share of right pairs and apply them;
    without, show what the wrong names alone say. Asks no model.

    Stop it at any time and give the same command again. Pairs that became head since then are asked, no others.
    """
    from pipeline.run import Run

    target = Run(run)
    if step is None and judged:
        raise UsageError("--judged: an option of rr7k stage-2 calibrate.")
    named = [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    if explain:
        explain_cut(target, settings.head_tail)
    elif step is Stage2Step.calibrate:
        calibrate(target, judged, precision)
    elif dry_run:
        preview(target, settings, limit, price)
    else:
        check_pairs(target, settings, redo, limit, budget)
        give_verdicts(target)
        print_funnel(target)
        tell(f"next: rr7k show verdicts --run {run}")


def explain_cut(run: Any, config: Any) -> None:
    """Print and draw which categories are head, at this cut and at others."""
    from rich.table import Table

    from pipeline.files import join
    from stages import frequency_report, head_tail
    from stages.remembering import inherited

    cut = inherited(run, head_tail.STEP, config).head_min_count
    report = frequency_report.gather(run)
    table = Table("head_min_count", "head categories", "head pairs", "", "tail categories", "tail pairs", "", box=None)
    for column in table.columns[:6]:
        column.justify = "right"
    for found in head_tail.splits(report.counts, cut):
        share = found.head_pairs / report.pairs
        cells = [f"{found.cut:,}", f"{found.head_categories:,}", f"{found.head_pairs:,}", f"{share:.0%}"]
        cells += [f"{found.tail_categories:,}", f"{found.tail_pairs:,}", "◄ the cut" if found.cut == cut else ""]
        table.add_row(*cells, style="bold" if found.cut == cut else "")
    out.print(table)
    run.folder.replace("head-tail.png", frequency_report.draw(report, cut))
    tell(f"drawn: {join(run.folder.uri, 'head-tail.png')}; to change the cut: --set head_tail.head_min_count=…")


def preview(run: Any, settings: Any, limit: int | None, price: float | None) -> None:
    """Print what checking would cost; ask nothing."""
    from stages import head_tail, verification
    from stages.naming import Bounds
    from stages.quote import spent
    from stages.verification_settings import STEP

    with err.status("planning questions"):
        split = head_tail.build(run, settings.head_tail)
        found = verification.preview(run, settings.verify, settings.verifier, Bounds(limit))
    tell(
        f"{split.head_categories:,} head categories with {split.head_pairs:,} pairs; {found.answered:,} answers so far"
    )
    show_quote(found.quote, spent(run, STEP), price, "questions", "verifier")


def check_pairs(run: Any, settings: Any, redo: bool, limit: int | None, budget: float | None) -> None:
    """Pairs → answers, with a progress bar."""
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import head_tail, verification
    from stages.ledger import Progress, Watcher
    from stages.naming import Bounds

    split = head_tail.build(run, settings.head_tail)
    tell(
        f"head: {split.head_categories:,} categories with {split.cut:,} pairs or more, {split.head_pairs:,} pairs; "
        f"tail: {split.tail_categories:,} categories, {split.tail_pairs:,} pairs"
    )

    def session() -> AbstractContextManager[cluster.Session]:
        return cluster.session(settings.cluster)

    with meter(err) as shown:

        def advance(p: Progress) -> None:
            tokens = p.tokens["prompt"] + p.tokens["generated"]
            shown.advance(p.masks, {"tokens": tokens}, {"failed": p.outcomes["error"], "no": p.outcomes["no"]})

        watcher = Watcher(lambda count: shown.start("checking", count, "questions"), advance, shown.say)
        bounds = Bounds(limit, budget)
        verification.build(run, settings.verify, settings.verifier, session, watcher, bounds=bounds, redo=redo)


def give_verdicts(run: Any) -> None:
    """Answers → verdicts and a report."""
    from stages import verdicts, verification_report

    with err.status("applying thresholds"):
        made = verdicts.build(run)
    told = ", ".join(f"{made.reasons[reason]:,} {reason}" for reason in (*verdicts.KEPT, *verdicts.DROPPED))
    tell(f"verdicts: {told}; {made.pending:,} pairs have no answer yet")
    with err.status("drawing the report"):
        written = verification_report.write(run)
    tell(f"report: {written.path}")


def calibrate(run: Any, judged: Path | None, precision: float) -> None:
    """Choose thresholds from judgements and apply them; without any, show what controls alone say."""
    from stages import calibration, head_tail, judgements

    if judged is None:
        _show_false_yeses(run)
        return
    with err.status("reading judgements"):
        found = judgements.gather(run, judgements.read_judged(judged))
    chosen = calibration.choose(found, precision)
    calibration.save(run, chosen)
    head_tail.build(run, head_tail.HeadTailConfig())  # pairs may have come since
    _show_calibration(chosen)
    give_verdicts(run)


def _show_calibration(chosen: Any) -> None:
    """Print the thresholds, with what they come to."""
    from rich.table import Table

    table = Table("pairs of the category", "threshold", "judged", "precision", "lower limit", "recall", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for band, cut in chosen.chosen.items():
        numbers = (f"{value:.3f}" for value in (cut.precision, cut.lower, cut.recall))
        table.add_row(band, f"{cut.threshold:.4g}", f"{cut.judged:,}", *numbers)
    out.print(table)
    for band, why in chosen.fallback.items():
        out.print(f"{band}: the overall threshold, since {why}", highlight=False)
    tell(
        f"kept: {chosen.applied.precision:.1%} right by {chosen.applied.judged:,} judgements, at least "
        f"{chosen.applied.lower:.1%} with {chosen.confidence:.0%} confidence; {chosen.applied.recall:.1%} of the right "
        "pairs stay"
    )
    if chosen.unscored:
        tell(f"{chosen.unscored:,} judged masks have no answer and were not used")


def _show_false_yeses(run: Any) -> None:
    """Print how many wrong names each threshold would keep."""
    from rich.table import Table

    from stages import false_yes

    table = Table("threshold", "wrong names", "kept", "false yes", "at most", "pairs kept", box=None)
    for column in table.columns:
        column.justify = "right"
    for found in false_yes.measure(run):
        rate = found.controls
        kept = "" if found.kept is None else f"{found.kept:.1%}"
        table.add_row(
            f"{found.threshold:g}",
            f"{rate.controls:,}",
            f"{rate.kept:,}",
            f"{rate.share:.1%}",
            f"{rate.upper:.1%}",
            kept,
        )
    out.print(table)
    out.print(f"{false_yes.MEANING} With judgements: rr7k stage-2 calibrate --judged TABLE", highlight=False)
