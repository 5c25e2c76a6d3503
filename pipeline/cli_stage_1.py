"""`rr7k stage-1`: runs its steps, shows their progress, prints what came of them."""

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

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="names: say what it would cost, and ask nothing.")]
PriceOption = Annotated[
    float | None, typer.Option(min=0, help="names: money per GPU-hour, for the quote.", show_default=False)
]
PilotOption = Annotated[
    int | None,
    typer.Option(min=1, help="names: try every layout on so many masks instead, and compare.", show_default=False),
]
TruthOption = Annotated[
    Path | None,
    typer.Option(help="True names, for --pilot and pairs --explain: Parquet of mask_id, category.", show_default=False),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="names: ask about so many more masks.", show_default="all")
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget-gpu-hours", min=0, help="names: stop after so many GPU-hours.", show_default="none"),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the sample.", show_default="0, or as the run has it")]


class Stage1Step(StrEnum):
    """The steps of stage 1."""

    manifest = "manifest"
    names = "names"
    ground = "ground"
    pairs = "pairs"


def stage_1(
    run: RunOption,
    step: Annotated[
        Stage1Step | None, typer.Argument(help="One step only.", show_default="all steps, in order")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH...",
            show_default=False,
            help="SA-1B shards: tars, a folder of tars, a quoted glob, an unpacked folder; local, s3:// or gs://. "
            "Added to those the run knows.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(metavar="N|all", help="Sample so many images.", show_default="all, or as the run has it"),
    ] = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    explain: Annotated[
        bool,
        typer.Option(help="manifest: what the tiny-mask rule removes at several cuts. pairs: the long tail. No work."),
    ] = False,
    redo: Annotated[bool, typer.Option(help="Make rows again that other settings or changed shards made.")] = False,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    price: PriceOption = None,
    pilot: PilotOption = None,
    truth: TruthOption = None,
) -> None:
    """Stage 1: find the masks worth naming in SA-1B shards, name them twice, and make pairs of mask and category.

    [bold]manifest[/]: shards → masks. Reads each annotation once and no pixel; drops tiny masks.

    [bold]names[/]: masks → names. Shows each region to a vision-language model ([bold]namer.*[/] says which).

    [bold]ground[/]: images → second names, by Grounding DINO and SAM ([bold]ground.*[/]); left out where none is set.

    [bold]pairs[/]: names → pairs. Compares the opinions, by the rules in [bold]pairs.*[/]; asks no model.

    Stop it at any time and give the same command again. More shards or more images later add rows and redo none.
    """
    from pipeline.run import Run

    target = Run(run)
    if explain:
        if step is Stage1Step.pairs:
            explain_pairs(target, truth)
        else:
            explain_sizes(target)
        return
    of_names = {"--limit": limit, "--budget-gpu-hours": budget, "--dry-run": dry_run, "--pilot": pilot}
    if step not in (None, Stage1Step.names) and (given := [option for option, value in of_names.items() if value]):
        raise UsageError(f"{', '.join(given)}: options of rr7k stage-1 names.")
    if more and not shards:
        raise UsageError(f"unexpected {' '.join(more)}: name shards with --shards.")
    named = [f"manifest.shards={_toml_list([*(shards or []), *(more or [])])}"] if shards else []
    named += [f"manifest.images={images}"] if images else []
    named += [f"manifest.seed={seed}"] if seed is not None else []
    named += [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    if pilot or dry_run:
        preview_names(target, settings, pilot, truth, limit, price)
        return
    work = {
        Stage1Step.manifest: lambda: make_masks(target, settings, redo),
        Stage1Step.names: lambda: name_masks(target, settings, redo, limit, budget),
        Stage1Step.ground: lambda: ground_masks(target, settings, redo, alone=step is not None),
        Stage1Step.pairs: lambda: make_pairs(target, settings.pairs),
    }
    for name in [step] if step else work:
        work[name]()
    print_funnel(target)
    looks = {Stage1Step.manifest: "stage-1 manifest --explain", Stage1Step.names: "show names"}
    tell(f"next: rr7k {looks.get(step, 'show pairs') if step else 'show pairs'} --run {run}")


def _toml_list(values: list[str]) -> str:
    import json

    return json.dumps(values)


def make_masks(run: Any, settings: Any, redo: bool) -> None:
    """Shards → masks, with a progress bar."""
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import manifest

    def session() -> AbstractContextManager[cluster.Session]:
        return cluster.session(settings.cluster)

    with meter(err) as shown:
        watcher = manifest.Watcher(
            lambda title, size: shown.start(title, size / 1e6),
            lambda p: shown.advance(p.bytes / 1e6, {"images": p.images, "masks": p.masks}),
        )
        manifest.build(run, settings.manifest, session, watcher, redo=redo)


def preview_names(
    run: Any, settings: Any, pilot: int | None, truth: Path | None, limit: int | None, price: float | None
) -> None:
    """Try the layouts on a sample, or only say what naming would cost."""
    if pilot:
        _try_layouts(run, settings, pilot, truth)
    else:
        _show_quote(run, settings, limit, price)


def _show_quote(run: Any, settings: Any, limit: int | None, price: float | None) -> None:
    """Print what naming would cost; ask nothing."""
    from stages.naming import Bounds, preview
    from stages.naming_settings import STEP
    from stages.quote import spent

    with err.status("counting tokens"):
        quote, before = preview(run, settings.names, settings.namer, Bounds(limit)), spent(run, STEP)
    show_quote(quote, before, price, "masks", "namer")


def _try_layouts(run: Any, settings: Any, count: int, truth: Path | None) -> None:
    """Print what every layout makes of a sample."""
    from rich.table import Table

    from pipeline import cluster
    from stages import pilot

    known = pilot.true_names(truth) if truth else {}
    heads = ("layout", "masks", "named", "failed", "agrees", "tokens", "new", "s")
    table = Table(*heads, *(("right", "similar") if known else ()), box=None, pad_edge=False)
    with cluster.session(settings.cluster):
        say = err.print
        for trial in pilot.run_trials(run, count, settings.names, settings.namer, known, say):
            cells = [f"{trial.named:.0%}", f"{trial.failed:.0%}", f"{trial.agreement:.0%}"]
            cells += [f"{trial.prompt_tokens:,.0f}", f"{trial.new_tokens:,.0f}", f"{trial.seconds:.3f}"]
            cells += [] if trial.accuracy is None else [f"{trial.accuracy:.3f}", f"{trial.similarity:.3f}"]
            table.add_row(trial.layout, f"{trial.masks:,}", *cells)
    out.print(table)
    out.print(
        "agrees: with the first layout; tokens, new (not shared within an image) and s: per mask; right: the true "
        "name after normalisation; similar: mean cosine to it",
        highlight=False,
    )
    if settings.namer.kind == "embedded":
        tell("embedded: an ImageNet classifier in place of a vision-language model")


def name_masks(run: Any, settings: Any, redo: bool, limit: int | None, budget: float | None) -> None:
    """Masks → names, with a progress bar."""
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import naming
    from stages.ledger import Progress, Watcher

    def session() -> AbstractContextManager[cluster.Session]:
        return cluster.session(settings.cluster)

    with meter(err) as shown:

        def advance(p: Progress) -> None:
            tokens = p.tokens["prompt"] + p.tokens["generated"]
            nameless = p.outcomes.total() - sum(p.outcomes[o] for o in ("named", "error", "quarantined"))
            shown.advance(p.masks, {"tokens": tokens}, {"failed": p.outcomes["error"], "without a name": nameless})

        watcher = Watcher(lambda masks: shown.start("naming", masks, "masks"), advance, shown.say)
        bounds = naming.Bounds(limit, budget)
        naming.build(run, settings.names, settings.namer, session, watcher, bounds=bounds, redo=redo)
    _show_spent(run)


def _show_spent(run: Any) -> None:
    """Print what naming has cost so far, beside its quote."""
    from stages.naming import Plan
    from stages.naming_settings import STEP
    from stages.quote import spent

    plan, now = run.plan(STEP, Plan), spent(run, STEP)
    if plan is not None and plan.quote.gpu_hours is not None:
        out.print(f"quoted {plan.quote.gpu_hours:,.2f} GPU-hours for this run, used {now.gpu_hours:,.2f} so far in all")
    if prompt := now.tokens.get("prompt"):
        cached, shared = now.tokens["cached"], now.tokens["shared"]
        told = f"{cached / prompt:.0%} from the prefix cache" if cached else f"{shared / prompt:.0%} shared in an image"
        tell(f"{prompt:,} prompt tokens, {told}")


def ground_masks(run: Any, settings: Any, redo: bool, *, alone: bool) -> None:
    """Images → second names, with a progress bar; left out where there is nobody to give them."""
    from pipeline import cluster
    from pipeline.errors import UsageError
    from pipeline.progress import meter
    from stages import grounded_sam, naming, naming_settings, phrases
    from stages.ledger import Progress, Watcher
    from stages.remembering import inherited

    config = inherited(run, grounded_sam.STEP, settings.ground)
    names, engine = naming.inherited(run, settings.names, settings.namer)
    if engine.kind == "embedded" or not config.wanted:
        why = (
            "the names are embedded, and its second opinion would be self-made"
            if engine.kind == "embedded"
            else ("ground.detector and ground.segmenter are not set")
        )
        if alone:
            raise UsageError(f"no second opinion can be had: {why}.")
        tell(f"ground: left out, {why}; every agreement is only-one")
        return

    def session() -> AbstractContextManager[cluster.Session]:
        return cluster.session(settings.cluster)

    for title, unit in (("listing", "images"), ("grounding", "masks")):
        with meter(err) as shown:

            def advance(p: Progress, bar: Any = shown) -> None:
                told = {"failed": p.outcomes["error"], "without a name": p.outcomes["none"] + p.outcomes["unmatched"]}
                bar.advance(p.masks, {}, told)

            def start(count: int, bar: Any = shown, title: str = title, unit: str = unit) -> None:
                bar.start(title, count, unit)

            watcher = Watcher(start, advance, shown.say)
            if title == "listing":
                phrases.build(run, names, engine, session, watcher, redo=redo)
            else:
                grounded_sam.build(run, config, naming_settings.STEP, session, watcher, redo=redo)


def make_pairs(run: Any, config: Any) -> None:
    """Names → pairs, and what came of it."""
    from stages import pairing

    with err.status("comparing names"):
        made = pairing.build(run, config, tell)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(made.dropped.items()))
    tell(f"{made.pairs:,} pairs{'' if made.rewritten else ' (nothing has changed)'}; dropped: {dropped or 'none'}")


def explain_pairs(run: Any, truth: Path | None) -> None:
    """Print and draw how many regions each category has; with true names, how often the pairs are right."""
    from rich.table import Table

    from pipeline.files import join
    from stages.frequency_report import draw, gather

    report = gather(run)
    table = Table("rank", "category", "pairs", box=None, pad_edge=False)
    for rank, (name, count) in enumerate(report.counts.items(), 1):
        if rank <= 10:
            table.add_row(str(rank), name, f"{count:,}")
    out.print(table, markup=False)
    agreements = ", ".join(f"{name} {count:,}" for name, count in report.agreements.items())
    out.print(
        f"{report.pairs:,} pairs in {len(report.counts):,} categories: {report.half():,} hold half of the pairs, "
        f"{report.once():,} have one. Agreement: {agreements}; flagged {report.flagged:,}.",
        highlight=False,
    )
    run.folder.replace("frequencies.png", draw(report))
    tell(f"drawn: {join(run.folder.uri, 'frequencies.png')}")
    if truth:
        _show_accuracy(run, truth)


def _show_accuracy(run: Any, truth: Path) -> None:
    from rich.table import Table

    from stages.pair_accuracy import measure
    from stages.pilot import true_names

    table = Table("agreement", "pairs with a true name", "right", "similarity", box=None, pad_edge=False)
    for found in measure(run, true_names(truth)):
        table.add_row(found.agreement, f"{found.pairs:,}", f"{found.right:.1%}", f"{found.similarity:.3f}")
    out.print(table)


def explain_sizes(run: Any) -> None:
    """Print and draw what the tiny-mask rule removes."""
    from rich.table import Table

    from pipeline.files import join
    from stages.area_report import CUTS, draw, gather, real_image

    report, real = gather(run), real_image()
    table = Table(
        "min_area_ratio", "at 2250×1500 px", "removes", "of all", f"of one real image ({real.masks})", "", box=None
    )
    for column in table.columns[:5]:
        column.justify = "right"
    for cut in sorted({*CUTS, report.cut}):
        share = report.below(cut) / max(report.total, 1)
        here = cut == report.cut
        table.add_row(
            f"{cut:g}",
            f"{cut * 2250 * 1500:,.0f} px",
            f"{report.below(cut):,}",
            f"{share:.1%}",
            str(real.below.get(cut, "")),
            f"{'█' * round(12 * share)}{' ◄ the cut' if here else ''}",
            style="bold" if here else "",
        )
    out.print(f"{report.total:,} masks of {report.images:,} images, before any rule\n")
    out.print(table)
    out.print(
        f"\nThe real image: {real.description}. It illustrates a cut; one image is no distribution.\n"
        "Why this default: data_manifests/sa1b/README.md. To change it: --set manifest.min_area_ratio=…",
        highlight=False,
    )
    run.folder.replace("mask-sizes.png", draw(report))
    tell(f"drawn: {join(run.folder.uri, 'mask-sizes.png')}")
