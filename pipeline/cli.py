"""The command line: parse, call, print. Imports are inside the commands, so that `rr7k --help` is instant."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli_categories, cli_stage_1
from pipeline.cli_options import RunOption
from pipeline.console import err, out, tell
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
show_app = typer.Typer(no_args_is_help=True, help="Look at what a step has made, as a page for the browser.")
app.add_typer(show_app, name="show")
models_app = typer.Typer(no_args_is_help=True, help="Fetch and verify the models that the pipeline uses.")
app.add_typer(models_app, name="models")

app.add_typer(cli_categories.app, name="categories")

_INTERRUPTED = 130  # what typer makes of Ctrl-C

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
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Stage1Step(StrEnum):
    """The steps of stage 1."""

    manifest = "manifest"
    names = "names"
    ground = "ground"
    pairs = "pairs"


def load_config(config_file: str | None, overrides: list[str]) -> Any:
    """Put the steps' sections together and load the whole. Raises `UsageError`."""
    from pydantic import create_model

    from pipeline.config import ClusterConfig, Section, load
    from stages.engines.base import EngineConfig
    from stages.grounded_sam import GroundConfig
    from stages.manifest import ManifestConfig
    from stages.naming_settings import NamesConfig
    from stages.pairing import PairsConfig

    sections: dict[str, type[BaseModel]] = {
        "cluster": ClusterConfig,
        "manifest": ManifestConfig,
        "names": NamesConfig,
        "namer": EngineConfig,
        "ground": GroundConfig,
        "pairs": PairsConfig,
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
    tell(f"next: rr7k stage-1 --run runs/NAME --shards {made.shard}")


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
            cli_stage_1.explain_pairs(target, truth)
        else:
            cli_stage_1.explain_sizes(target)
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
        cli_stage_1.preview_names(target, settings, pilot, truth, limit, price)
        return
    work = {
        Stage1Step.manifest: lambda: cli_stage_1.make_masks(target, settings, redo),
        Stage1Step.names: lambda: cli_stage_1.name_masks(target, settings, redo, limit, budget),
        Stage1Step.ground: lambda: cli_stage_1.ground_masks(target, settings, redo, alone=step is not None),
        Stage1Step.pairs: lambda: cli_stage_1.make_pairs(target, settings.pairs),
    }
    for name in [step] if step else work:
        work[name]()
    _print_funnel(target)
    looks = {Stage1Step.manifest: "stage-1 manifest --explain", Stage1Step.names: "show names"}
    tell(f"next: rr7k {looks.get(step, 'show pairs') if step else 'show pairs'} --run {run}")


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
    tell(f"{', '.join(names)}: in {folder}, whole and verified")


@models_app.command("verify")
def models_verify(names: NamesArgument, folder: ToOption, revision: RevisionOption = "") -> None:
    """Hash every file again and say which are missing, truncated or changed."""
    from pipeline.models import verify

    with err.status("hashing"):
        wrong = verify(names, folder, revision)
    if wrong:
        raise UserError("\n".join([*wrong, "rr7k models fetch, given again, mends this."]))
    tell(f"{', '.join(names)}: whole and unchanged")


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


@show_app.callback()
def show() -> None:
    """Look at what a step has made, as a page for the browser."""


@show_app.command("names")
def show_names(
    run: RunOption,
    samples: Annotated[int, typer.Option(min=1, help="Regions on the page.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
) -> None:
    """Write a page of sampled regions with their names, to judge whether the names are right."""
    from pipeline.run import Run
    from stages.name_gallery import write

    with err.status("drawing regions"):
        page = write(Run(run), samples, seed)
    tell(f"{page.path}: {page.shown:,} of {page.total:,} names")
    out.print(
        "One file, opens in any browser. Hover or press a picture to see it without the outline.", highlight=False
    )


@show_app.command("pairs")
def show_pairs(
    run: RunOption,
    samples: Annotated[int, typer.Option(min=1, help="Regions on the page.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
) -> None:
    """Write a page of sampled regions by category, with every namer's opinion and the rule that decided."""
    from pipeline.run import Run
    from stages.pair_gallery import write

    with err.status("drawing regions"):
        page = write(Run(run), samples, seed)
    tell(f"{page.path}: {page.shown:,} of {page.total:,} pairs")


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the whole configuration as TOML, each setting with its meaning."""
    from pipeline.config import as_toml

    sys.stdout.write(as_toml(load_config(config, overrides or [])))


# --- printing ---------------------------------------------------------------------------------------------


def _toml_list(values: list[str]) -> str:
    import json

    return json.dumps(values)


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
