"""`rr7k release`: a benchmark out of screened runs; `release diff`, `hydrate` and `export` for those that exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import ConfigOption, SetOption, WorkersOption, load_config
from pipeline.console import err, out, tell
from pipeline.errors import UsageError

app = typer.Typer(invoke_without_command=True)


class Images(StrEnum):
    """What a release holds of its images."""

    embed = "embed"
    reference = "reference"


class Form(StrEnum):
    """Other forms of a release."""

    coco = "coco"
    jsonl = "jsonl"


_QUESTION = (
    "--images embed or --images reference: choose. embed copies SA-1B's photographs into the release; whether its "
    "licence lets you pass them on was not verified by rr7k: read it first. reference writes only where each one "
    "lies and its SHA-256; whoever has the shards adds them (rr7k hydrate). Scoring needs none."
)
_FEW = 5

ReleaseArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A release.", show_default=False)]


@app.callback()
def release(
    context: typer.Context,
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Run folder; repeat to merge.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The release: a new folder on a disk.", show_default=False)
    ] = None,
    version: Annotated[str | None, typer.Option(help="As in 1.0.0.", show_default=False)] = None,
    day: Annotated[str | None, typer.Option("--date", help="As the card states it.", show_default="today")] = None,
    images: Annotated[
        Images | None, typer.Option(help="Copy the photographs, or refer to them.", show_default=False)
    ] = None,
    unscreened: Annotated[
        bool, typer.Option("--unscreened", help="Also what stage 2 kept and nobody has judged, marked so everywhere.")
    ] = False,
    previous: Annotated[
        Path | None,
        typer.Option(help="An earlier release: its images keep their splits and `mini`.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
) -> None:
    """Release the pairs that people let through, as a folder of Parquet that explains itself.

    Pairs that wait for a verdict and votes that are unresolved are refused, with the command that resolves them. The
    folder appears whole or not at all; killed at any point, the same command goes on. The same runs, version, date and
    earlier release give the same bytes.

    An image of an earlier release (--previous) that was test stays test, one that was train becomes test only when
    people have screened it since, and who was in mini stays in it. Images that resemble a test image leave train, and
    what was taken down leaves both; how many, and why, is told here and in the card.
    """
    if context.invoked_subcommand is not None:
        return
    if not run or folder is None or version is None:
        raise UsageError("needed: rr7k release --run RUN --out DIR --version 1.0.0 --images embed|reference")
    if images is None:
        raise UsageError(_QUESTION)
    asked = (version, day, images.value, unscreened)
    made = _release(run, folder, asked, previous, _settings(config, overrides, workers))
    _report(made, folder)


@app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="The older release.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help="The newer release.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every instance.")] = False,
) -> None:
    """Say what changed from one release to another, and which of it can change scores."""
    import sys

    import msgspec

    from benchmark.diff import compare

    found = compare(before, after)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return
    for name, values in msgspec.structs.asdict(found).items():
        shown = ", ".join(_shown(value) for value in values[:_FEW]) + (", …" if len(values) > _FEW else "")
        tell(f"{name.replace('_', ' ')}: {len(values):,}{f': {shown}' if shown else ''}")


def hydrate(
    source: ReleaseArgument,
    shards: Annotated[list[str], typer.Option("--shards", help="As for stage 1; may be repeated.", show_default=False)],
    folder: Annotated[Path, typer.Option("--out", help="A new folder on a disk.", show_default=False)],
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
) -> None:
    """Make a release that holds its images out of one that refers to them; every image is checked by its SHA-256."""
    from benchmark import hydrate as step
    from pipeline import cluster

    settings = _settings(config, overrides, workers)
    with _watched() as watcher:
        made = step.hydrate(source, shards, folder.absolute(), lambda: cluster.session(settings.cluster), watcher)
    _tell_size(made, folder)


def export(
    source: ReleaseArgument,
    form: Annotated[
        Form, typer.Option("--format", help="coco: instances JSON; jsonl: as WOW-Seg trains on.", show_default=False)
    ],
    path: Annotated[Path, typer.Option("--out", help="The file.", show_default=False)],
    split: Annotated[str | None, typer.Option(help="As the card lists them.", show_default="all")] = None,
) -> None:
    """Write a release's instances as COCO JSON, or as the JSONL of WOW-Seg's authors."""
    from benchmark import exports
    from pipeline.regions import RegionSamples

    count = exports.write(RegionSamples(source), split, form.value, path)
    tell(f"{path}: {count:,} instances")


# --- what they print and show -----------------------------------------------------------------------------


def _settings(config: str | None, overrides: list[str] | None, workers: int | None) -> Any:
    named = [f"cluster.workers={workers}"] if workers else []
    return load_config(config, [*(overrides or []), *named])


def _release(
    runs: list[str], folder: Path, asked: tuple[str, str | None, Any, bool], earlier: Path | None, settings: Any
) -> Any:
    from datetime import UTC, datetime

    from benchmark import release as step
    from benchmark.stats import Options
    from pipeline import cluster
    from pipeline.run import Run

    version, day, images, unscreened = asked
    date = day or datetime.now(UTC).date().isoformat()
    options = Options(version=version, date=date, images=images, unscreened=unscreened)
    opened = [Run(uri) for uri in runs]
    with _watched() as watcher:
        return step.release(
            opened, folder.absolute(), options, lambda: cluster.session(settings.cluster), watcher, earlier
        )


@contextmanager
def _watched() -> Iterator[Any]:
    """Show how much of the run and of the images has been read."""
    from benchmark.image_files import Watcher
    from pipeline.progress import meter

    with meter(err) as bar:
        yield Watcher(lambda title, size: bar.start(title, size / 1e6), lambda size: bar.advance(size / 1e6, {}))


def _report(made: Any, folder: Path) -> None:
    """Print what became of every pair."""
    from rich.table import Table

    table = Table("pairs", "", box=None, pad_edge=False)
    table.columns[0].justify = "right"
    for name, count in made.outcomes.items():
        table.add_row(f"{count:,}", name)
    table.add_row(f"[bold]{made.pairs:,}[/]", "[bold]all[/]")
    out.print(table, highlight=False)
    for kind, count in made.conflicts.items():
        tell(f"{kind}: {count:,}, listed in {folder / 'conflicts.csv'}")
    _tell_moves(made.moves)
    if made.outside_the_tree:
        tell(
            f"{len(made.outside_the_tree):,} of {made.total.categories:,} categories have no coarse group, "
            f"{made.outside_the_tree[0]!r} for one; to place them before the next release: rr7k categories propose"
        )
    _tell_size(made, folder)


def _tell_moves(moves: Any) -> None:
    """Say what became of the splits of an earlier release."""
    if moves is None:
        return
    for fate, count in moves.images.items():
        tell(f"images of {moves.since}: {count:,} {fate}")
    tell(
        f"images that it did not have: {moves.new:,}; of mini {moves.mini_kept:,} stay, {moves.mini_left:,} left, "
        f"{moves.mini_new:,} came in"
    )


def _tell_size(made: Any, folder: Path) -> None:
    total = made.total
    counts = f"{total.instances:,} instances, {total.images:,} images, {total.categories:,} categories"
    tell(f"{folder}: {made.name}, {counts}")


def _shown(value: Any) -> str:
    return f"{value.instance_id} ({value.before} → {value.after})" if hasattr(value, "before") else str(value)
