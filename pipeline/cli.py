"""The command line: parse, call, print. Imports are inside the commands, so that `rr7k --help` is instant."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import (
    cli_ablation,
    cli_annotate,
    cli_categories,
    cli_evaluate,
    cli_import,
    cli_model,
    cli_perturb,
    cli_plan,
    cli_predict,
    cli_release,
    cli_report,
    cli_score,
    cli_segment,
    cli_segmentation,
    cli_stage_1,
    cli_stage_2,
    cli_stage_3,
    cli_train,
    cli_ui,
)
from pipeline.cli_funnel import print_funnel
from pipeline.cli_options import ConfigOption, RunOption, SetOption, load_config
from pipeline.cli_screening import show_progress
from pipeline.console import err, out, tell
from pipeline.errors import UsageError, UserError

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

app.add_typer(cli_categories.app, name="categories")

_INTERRUPTED = 130  # what typer makes of Ctrl-C
_INSTALL = (
    "To score, compare and look at releases: pip install 'rr7k[score]'. To make and train: pip install "
    "'rr7k[pipeline,models]', on every machine of the cluster."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    tell(f"{made.shard}: {made.images} images, {made.masks} masks (generated, not SA-1B)")
    if made.names:
        tell(f"{made.names}: the true names")
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
    tell(f"{len(outcomes) - len(failed)} of {len(outcomes)} shards are in {folder}, whole and verified")
    if failed:
        raise UserError("\n".join(f"{outcome.name}: {outcome.error}" for outcome in failed))


app.command("plan")(cli_plan.plan)
app.command("stage-1")(cli_stage_1.stage_1)
app.command("stage-2")(cli_stage_2.stage_2)
app.command("stage-3")(cli_stage_3.stage_3)
app.command("annotate")(cli_annotate.annotate)
app.add_typer(cli_release.app, name="release")
app.command("report")(cli_report.report)
app.command("hydrate")(cli_release.hydrate)
app.command("export")(cli_release.export)
app.command("predict")(cli_predict.predict)
app.command("score")(cli_score.score)
app.command("compare")(cli_score.compare)
app.command("submit")(cli_score.submit)
app.command("segmentation")(cli_segmentation.segmentation)
app.command("mask-accuracy")(cli_segmentation.mask_accuracy)
app.command("perturb")(cli_perturb.perturb)
app.add_typer(cli_score.leaderboard_app, name="leaderboard")
app.add_typer(cli_model.app, name="model")
app.command("train")(cli_train.train)
app.command("evaluate")(cli_evaluate.evaluate)
app.command("segment")(cli_segment.segment)
app.command("ui")(cli_ui.ui)
app.command("ablation")(cli_ablation.ablation)
app.command("import", help=cli_import.HELP)(cli_import.import_data)


@app.command()
def status(run: RunOption, as_json: JsonOption = False) -> None:
    """Show what became of every shard, image and mask of a run, and how far people are with stage 3.

    Exits with 1 if anything is unaccounted for.
    """
    import json

    import msgspec

    from pipeline.run import Run
    from stages import screening_progress
    from stages.funnel import levels

    target = Run(run)
    found, shown = levels(target), target.parts("queue")
    if not found:
        raise UsageError(f"{run}: no run there. Start one: rr7k stage-1 --run {run} --shards PATH")
    if as_json:
        told: dict[str, object] = {"run": run, "levels": [level.as_dict() for level in found]}
        if shown:
            told["screening"] = msgspec.to_builtins(screening_progress.measure(target))
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        print_funnel(target)
        if shown:
            show_progress(target)
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


class Shown(StrEnum):
    """What can be looked at."""

    names = "names"
    pairs = "pairs"
    verdicts = "verdicts"
    screenings = "screenings"


@app.command()
def show(
    what: Annotated[Shown, typer.Argument(help="What to look at.", show_default=False)],
    run: RunOption,
    samples: Annotated[int, typer.Option(min=1, help="Regions on the page, about.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
) -> None:
    """Look at what a step has made, as a page for the browser: one file, a sample of regions.

    [bold]names[/]: regions with their names and the raw answers, to judge whether they are right.

    [bold]pairs[/]: regions by category, with every namer's opinion and the rule that decided.

    [bold]verdicts[/]: dropped and kept pairs side by side, the worst categories first, with the controls.

    [bold]screenings[/]: what people left out and released, side by side.
    """
    from pipeline.run import Run
    from stages import name_gallery, pair_gallery, screening_gallery, verdict_gallery

    galleries = {
        Shown.names: name_gallery,
        Shown.pairs: pair_gallery,
        Shown.verdicts: verdict_gallery,
        Shown.screenings: screening_gallery,
    }
    with err.status("drawing regions"):
        written = galleries[what].write(Run(run), samples, seed)
    told = "answers" if what is Shown.verdicts else what
    tell(f"{written.path}: {written.shown:,} of {written.total:,} {told}")
    out.print(
        "One file, opens in any browser. Hover or press a picture to see it without the outline.", highlight=False
    )


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print the whole configuration as TOML, each setting with its meaning."""
    from pipeline.config import as_toml

    sys.stdout.write(as_toml(load_config(config, overrides or [])))


def main() -> None:
    """Run the command line; errors a user can act on end in one message and their own exit code."""
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed. {_INSTALL}", UsageError.exit_code)
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
