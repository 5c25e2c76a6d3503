"""The command line: parse, call, print. Imports are inside the commands, so that `rr7k --help` is instant."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import UsageError, UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(
    name="rr7k",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Name every region of an image: build the RR-7K benchmark from SA-1B, in three stages.\n\n"
    "A [bold]run folder[/] holds everything a run makes, as Parquet. Every command may be stopped at any moment and "
    "given again: it does only what is missing.\n\n"
    "Try it: [bold]rr7k sample-data sample-data[/], then [bold]rr7k stage-1 --run runs/demo --shards sample-data[/], "
    "then [bold]rr7k status --run runs/demo[/].",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at the configuration.")
app.add_typer(config_app, name="config")
models_app = typer.Typer(no_args_is_help=True, help="Fetch and verify the models that the pipeline uses.")
app.add_typer(models_app, name="models")

_INTERRUPTED = 130  # what typer makes of Ctrl-C

out, err = Console(), Console(stderr=True)

RunOption = Annotated[str, typer.Option("--run", help="Run folder: a local path, s3://… or gs://…", show_default=False)]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="TOML file, or a preset: laptop, cluster.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override one setting; may be repeated.", show_default=False),
]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Tasks at a time.", show_default="one per CPU")]
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
    typer.Option(help="names: true names for --pilot, Parquet of mask_id and category.", show_default=False),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="names: ask about so many more masks.", show_default="all")
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget-gpu-hours", min=0, help="names: stop after so many GPU-hours.", show_default="none"),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of the sample.", show_default="0, or as the run has it")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Stage1Step(StrEnum):
    """The steps of stage 1."""

    manifest = "manifest"
    names = "names"


def load_config(config_file: str | None, overrides: list[str]) -> Any:
    """Put the steps' sections together and load the whole. Raises `UsageError`."""
    from pydantic import create_model

    from pipeline.config import ClusterConfig, Section, load
    from stages.engines.base import EngineConfig
    from stages.manifest import ManifestConfig
    from stages.naming_settings import NamesConfig

    sections: dict[str, type[BaseModel]] = {
        "cluster": ClusterConfig,
        "manifest": ManifestConfig,
        "names": NamesConfig,
        "namer": EngineConfig,
    }
    fields: dict[str, Any] = {name: (kind, kind()) for name, kind in sections.items()}
    return load(create_model("Config", __base__=Section, **fields), config_file, overrides)


# --- commands, in the order of the work -------------------------------------------------------------------


@app.command()
def sample_data(
    folder: Annotated[Path, typer.Argument(help="Where to write the shard.")],
    coco: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="JSON IMAGES", help="Write this COCO annotation and its image folder instead.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a small shard in SA-1B's layout, from photographs that ship with scikit-image.

    With [bold]--coco[/], write any COCO-style annotation as such a shard, and its true names as names.parquet.
    """
    from stages import sample_data as step

    with err.status("segmenting photographs" if coco is None else "converting masks"):
        made = step.write_photographs(folder) if coco is None else step.write_coco(folder, *coco)
    out.print(f"{made.shard}: {made.images} images, {made.masks} masks ([bold]generated[/], not SA-1B)")
    if made.names:
        out.print(f"{made.names}: the true names")
    out.print(f"next: rr7k stage-1 --run runs/NAME --shards {made.shard}", highlight=False)


@app.command()
def fetch_shards(
    links: Annotated[
        Path, typer.Argument(help="Link file from SA-1B's download page: lines of file_name, tab, cdn_link.")
    ],
    folder: Annotated[Path, typer.Option("--out", help="Where the shards go.", show_default=False)],
    at_once: Annotated[int, typer.Option(min=1, max=16, help="Downloads at a time.")] = 4,
) -> None:
    """Download SA-1B shards from your own link file: resumable, verified, a few at a time."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from stages.fetching import fetch_all, read_links

    wanted = read_links(links)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        tasks = {link.name: bar.add_task(link.name, total=link.bytes) for link in wanted}
        outcomes = fetch_all(
            wanted, folder, at_once, lambda name, have, of: bar.update(tasks[name], completed=have, total=of or None)
        )
    failed = [outcome for outcome in outcomes if outcome.error]
    out.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} shards are in {folder}, whole and verified")
    if failed:
        raise UserError("\n".join(f"{outcome.name}: {outcome.error}" for outcome in failed))


@app.command("stage-1")
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
        bool, typer.Option(help="Show what the tiny-mask rule removes, at several cuts; read nothing.")
    ] = False,
    redo: Annotated[bool, typer.Option(help="Make rows again that other settings or changed shards made.")] = False,
    limit: LimitOption = None,
    budget: BudgetOption = None,
    dry_run: DryRunOption = False,
    price: PriceOption = None,
    pilot: PilotOption = None,
    truth: TruthOption = None,
) -> None:
    """Stage 1: find the masks worth naming in SA-1B shards, and name them.

    [bold]manifest[/]: shards → masks. Reads each annotation once and no pixel; drops tiny masks.

    [bold]names[/]: masks → names. Shows each region to a vision-language model ([bold]namer.*[/] says which).

    Stop it at any time and give the same command again. More shards or more images later add rows and redo none.
    """
    from pipeline.run import Run

    target = Run(run)
    if explain:
        _explain(target)
        return
    named = [f"manifest.shards={_toml_list([*(shards or []), *(more or [])])}"] if shards else []
    if more and not shards:
        raise UsageError(f"unexpected {' '.join(more)}: name shards with --shards.")
    named += [f"manifest.images={images}"] if images else []
    named += [f"manifest.seed={seed}"] if seed is not None else []
    named += [f"cluster.workers={workers}"] if workers else []
    settings = load_config(config, [*(overrides or []), *named])
    if step in (None, Stage1Step.manifest):
        _manifest(target, settings, redo)
    if step in (None, Stage1Step.names):
        if pilot:
            _pilot(target, settings, pilot, truth)
        elif dry_run:
            _quote(target, settings, limit, price)
        else:
            _names(target, settings, redo, limit, budget)
        if pilot or dry_run:
            return
    _print_funnel(target)
    look = "stage-1 manifest --explain" if step is Stage1Step.manifest else "show names"
    out.print(f"next: rr7k {look} --run {run}", highlight=False)


@app.command()
def status(run: RunOption, as_json: JsonOption = False) -> None:
    """Show what became of every shard, image and mask of a run; exit 1 if anything is unaccounted for."""
    import json

    from pipeline.run import Run
    from stages.funnel import levels

    found = levels(Run(run))
    if not found:
        raise UsageError(f"{run}: no run there. Start one: rr7k stage-1 --run {run} --shards PATH")
    if as_json:
        sys.stdout.write(json.dumps({"run": run, "levels": [level.as_dict() for level in found]}, indent=2) + "\n")
    else:
        _print_funnel(Run(run))
    if any(level.difference for level in found):
        raise UserError("the funnel does not add up: files of the run folder are missing or damaged.")


NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME", help="As in rr7k models list.")]
ToOption = Annotated[Path, typer.Option("--to", help="Folder of models; one that all nodes see.", show_default=False)]
RevisionOption = Annotated[
    str, typer.Option(help="A commit in place of the pinned one; of a single model.", show_default=False)
]


@models_app.command("fetch")
def models_fetch(names: NamesArgument, folder: ToOption, revision: RevisionOption = "") -> None:
    """Download models at their pinned revisions, safetensors only; what is whole is not asked for again.

    A token, where one is needed, is taken from HF_TOKEN.
    """
    from pipeline.models import fetch

    fetch(names, folder, revision)
    out.print(f"{', '.join(names)}: in {folder}, whole and verified", highlight=False)


@models_app.command("verify")
def models_verify(names: NamesArgument, folder: ToOption, revision: RevisionOption = "") -> None:
    """Hash every file again and say which are missing, truncated or changed."""
    from pipeline.models import verify

    with err.status("hashing"):
        wrong = verify(names, folder, revision)
    if wrong:
        raise UserError("\n".join([*wrong, "rr7k models fetch, given again, mends this."]))
    out.print(f"{', '.join(names)}: whole and unchanged", highlight=False)


@models_app.command("list")
def models_list() -> None:
    """List the models with their revisions, licences and uses."""
    from rich.table import Table

    from pipeline.models import manifest

    table = Table("", "repository", "revision", "parameters", "licence", "used for", box=None, pad_edge=False)
    for name, model in manifest().items():
        size = f"{model.parameters / 1e9:,.2f} B"
        table.add_row(f"[bold]{name}[/]", model.repo, model.revision[:8] or "none", size, model.licence, model.used_for)
    out.print(table, highlight=False)


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the whole configuration as TOML, each setting with its meaning."""
    from pipeline.config import as_toml

    sys.stdout.write(as_toml(load_config(config, overrides or [])))


# --- printing ---------------------------------------------------------------------------------------------


def _toml_list(values: list[str]) -> str:
    import json

    return json.dumps(values)


def _manifest(run: Any, settings: Any, redo: bool) -> None:
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


def _quote(run: Any, settings: Any, limit: int | None, price: float | None) -> None:
    from stages.naming import Bounds, preview
    from stages.quote import spent

    with err.status("counting tokens"):
        quote, before = preview(run, settings.names, settings.namer, Bounds(limit)), spent(run)
    out.print(f"{quote.masks:,} masks in {quote.prompts:,} prompts; nothing was asked", highlight=False)
    if quote.prompts and quote.prompt_tokens:
        each, saved = quote.prompt_tokens / quote.prompts, quote.shared_tokens / quote.prompt_tokens
        out.print(
            f"{each:,.0f} prompt tokens each, {quote.prompt_tokens:,} in all, of which a prefix cache saves "
            f"{saved:.0%}; about {quote.generated_tokens:,} generated",
            highlight=False,
        )
    kind = "this run's own rate" if quote.measured else "a declared rate"
    if quote.hours is None:
        out.print("no rate is known: set namer.tokens_per_second, or let --limit 200 measure one", highlight=False)
    else:
        out.print(f"about {quote.hours:,.2f} h at {quote.tokens_per_second:,.0f} tokens/s ({kind})", highlight=False)
    if quote.gpu_hours is not None:
        money = f", {quote.gpu_hours * price:,.2f} at {price:g} an hour" if price is not None else ""
        out.print(f"{quote.gpu_hours:,.2f} GPU-hours on {quote.gpus:g} GPUs{money}", highlight=False)
    if before.masks:
        out.print(
            f"so far: {before.masks:,} masks answered in {before.seconds / 3600:,.2f} h, "
            f"{before.gpu_hours:,.2f} GPU-hours",
            highlight=False,
        )


def _pilot(run: Any, settings: Any, count: int, truth: Path | None) -> None:
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
        out.print("embedded: an ImageNet classifier in place of a vision-language model", highlight=False)


def _names(run: Any, settings: Any, redo: bool, limit: int | None, budget: float | None) -> None:
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import naming
    from stages.naming_ledger import Progress, Watcher

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
    _print_spent(run)


def _print_spent(run: Any) -> None:
    from stages.naming import Plan
    from stages.naming_settings import STEP
    from stages.quote import spent

    plan, now = run.plan(STEP, Plan), spent(run)
    if plan is not None and plan.quote.gpu_hours is not None:
        out.print(f"quoted {plan.quote.gpu_hours:,.2f} GPU-hours for this run, used {now.gpu_hours:,.2f} so far in all")
    if prompt := now.tokens.get("prompt"):
        cached, shared = now.tokens["cached"], now.tokens["shared"]
        told = f"{cached / prompt:.0%} from the prefix cache" if cached else f"{shared / prompt:.0%} shared in an image"
        out.print(f"{prompt:,} prompt tokens, {told}", highlight=False)


def _print_funnel(run: Any) -> None:
    from rich.table import Table

    from stages.funnel import levels

    table = Table("", "total", "kept", "dropped", "quarantined", "pending", "difference", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for level in levels(run):
        table.add_row(
            f"[bold]{level.name}[/]",
            f"{level.total:,}",
            f"{level.kept:,}",
            f"{sum(level.dropped.values()):,}",
            f"{sum(level.quarantined.values()):,}",
            f"{level.pending:,}",
            f"[{'green' if level.difference == 0 else 'bold red'}]{level.difference:,}[/]",
        )
        for kind in (level.dropped, level.quarantined):
            for reason, count in kind.items():
                cells = ["", "", f"{count:,}", ""] if kind is level.dropped else ["", "", "", f"{count:,}"]
                table.add_row(f"  [dim]{reason}[/]", *(f"[dim]{cell}[/]" for cell in cells))
    out.print(table)


def _explain(run: Any) -> None:
    from rich.table import Table

    from pipeline.files import is_remote
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
    picture = Path("mask-sizes.png") if is_remote(run.folder.uri) else Path(run.folder.path, "mask-sizes.png")
    draw(report, picture)
    out.print(f"drawn: {picture}", highlight=False)


def main() -> None:
    """Run the command line; errors a user can act on end in one message and their own exit code."""
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error}\nWhat was finished is kept; give the same command again to go on.", 1)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            err.print("stopped. What was finished is kept; give the same command again to go on.", highlight=False)
        raise


def _fail(message: str, exit_code: int) -> None:
    from rich.markup import escape

    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
