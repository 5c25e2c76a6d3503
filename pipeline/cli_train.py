"""`rr7k train`: WOW-Seg from region samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli_options import SetOption
from pipeline.console import err, out, tell
from pipeline.errors import UsageError, UserError

if TYPE_CHECKING:
    from model.train_config import TrainConfig
    from model.train_log import Row
    from model.train_quote import Quote
    from model.training_data import TrainingData
    from pipeline.progress import Meter

_TERMINATED = 143  # what a shell makes of SIGTERM
_SAY_EVERY = 10.0  # seconds


def train(
    folder: Annotated[Path, typer.Option("--out", help="The training's folder, new or begun.", show_default=False)],
    config_file: Annotated[
        str | None,
        typer.Option(
            "--config",
            help="TOML file, or a preset: debug, wowseg-1b, wowseg-1b-clean, wowseg-1b-internvl2, "
            "wowseg-1b-internvl2_5.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="Region samples, as import and release write them; may be repeated.",
            show_default=False,
        ),
    ] = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and start nothing.")] = False,
) -> None:
    """Train WOW-Seg, on this machine or a Ray cluster, on its processors or GPUs.

    It starts from [bold]model.path[/] and learns from the data sets that [bold]--data[/] names; rows of a split
    [bold]test[/] are refused. Stopped at any moment it goes on from the last checkpoint when given again, as if it had
    not been stopped; SIGTERM and Ctrl-C save before. DIR/checkpoints holds models that [bold]predict --model[/] and
    transformers load, DIR/metrics.csv, curve.png and tensorboard how it went.

    Try it: [bold]rr7k train --config debug --data mine=DIR --out runs/debug-model[/]
    """
    from model.train_config import load

    config = _with_folders(load(config_file, overrides or []), data or [])
    _quiet()
    if dry_run:
        _quote(config, folder)
        return
    from model import train_on_ray, training_data

    folder = folder.absolute()
    with err.status("preparing data"):
        prepared = train_on_ray.prepare(config, folder)
    for one in prepared:
        tell(training_data.told(one.report))
    _train(config, folder, prepared)


def _with_folders(config: TrainConfig, given: list[str]) -> TrainConfig:
    """Add data sets to a configuration, and make its paths those that workers understand, wherever they run."""
    found = dict(config.data.folders)
    for text in given:
        name, mark, path = text.partition("=")
        if not mark or not path or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UsageError(f"--data {text}: write it as NAME=DIR; names are of letters, digits, -, _ and dots.")
        found[name] = path
    absolute = {name: str(Path(path).absolute()) for name, path in found.items()}
    start = config.model.path and str(Path(config.model.path).absolute())
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"folders": absolute}),
            "model": config.model.model_copy(update={"path": start}),
        }
    )


def _quiet() -> None:
    from typing import Any

    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()


def _train(config: TrainConfig, folder: Path, prepared: list[TrainingData]) -> None:
    from model import train_on_ray
    from model.train_checkpoints import FOLDER, Checkpoints
    from pipeline.progress import meter

    steps, checkpoints = train_on_ray.steps(config, prepared), Checkpoints(folder / FOLDER, config.training.keep)
    with meter(err) as bar:
        done = checkpoints.step()
        bar.say(f"{steps:,} steps" + (f", {done:,} of them done" if done else "") + "; starting workers")
        ended = train_on_ray.fit(config, folder, _Watcher(bar, steps - done))
    if ended.state == "failed":
        raise UserError(ended.message)
    tell(f"{checkpoints.latest()}: after step {ended.step:,}; the best is {checkpoints.best()}")
    tell(f"{folder}: metrics.csv, curve.png, tensorboard")
    if ended.state == "stopped":
        err.print("stopped and saved; give the same command again to go on.", highlight=False)
        raise typer.Exit(_TERMINATED)


class _Watcher:
    """Moves the bar with the log, and says now and then how it goes."""

    def __init__(self, bar: Meter, steps: int) -> None:
        self._bar, self._steps = bar, steps
        self._since: list[Row] = []
        self._begun = False

    def __call__(self, rows: list[Row]) -> None:
        if not self._begun:  # not before, or starting the workers would be in the rate
            self._bar.start("training", self._steps, "steps")
            self._begun = True
        counts = {name: sum(getattr(row, name) for row in rows) for name in ("masks", "tokens")}
        self._bar.advance(len(rows), counts)
        self._since += rows
        if sum(row.seconds for row in self._since) >= _SAY_EVERY:
            last, waited = self._since[-1], sum(row.waiting for row in self._since)
            loss = sum(row.loss for row in self._since) / len(self._since)
            share = waited / sum(row.seconds for row in self._since)
            self._bar.say(f"step {last.step:,}, epoch {last.epoch + 1}: loss {loss:.3f}, {share:.0%} waiting for data")
            self._since = []


def _quote(config: TrainConfig, folder: Path) -> None:
    from model import train_on_ray, train_quote, training_data

    prepared: list[TrainingData] = []
    if config.data.folders:
        prepared = train_on_ray.prepare_data(config, folder)
        for one in prepared:
            tell(training_data.told(one.report))
    elif not config.data.images:
        raise UsageError("--dry-run needs data (--data NAME=DIR), or data.images, which a preset states.")
    with err.status("counting"):
        found = train_quote.quote(config, prepared)
    _show(config, found)


def _show(config: TrainConfig, quote: Quote) -> None:
    from rich.table import Table

    from model import train_quote

    training = config.training
    whole = sum(quote.parameters.values())
    parts = ", ".join(f"{name} {count / 1e6:,.3g} M" for name, count in quote.parameters.items())
    table = Table(box=None, pad_edge=False, show_header=False)
    for heading, text in {
        "starts from": config.model.path or "random weights of the debug size",
        "weights": f"{whole / 1e6:,.4g} M: {parts}; all of them learn",
        "layout": f"{config.model.layout}, {config.model.encoder}, scale {config.model.scale:g}, "
        f"at most {config.data.masks} masks and {config.data.tiles} tiles of an image",
        "learning rate": f"{config.optimisation.learning_rate:g}, warm-up {config.optimisation.warmup:.0%}, cosine; "
        f"weight decay {config.optimisation.weight_decay:g}, clipped at {config.optimisation.clip:g}",
        "a step": f"{training.batch} images: {training.workers} workers × {quote.passes} passes × "
        f"{training.micro_batch}",
        "steps": f"{quote.steps:,}: {training.epochs} epochs of {quote.images:,} images"
        + (", less those of data.evaluated_on" if quote.assumed and config.data.leave_out_evaluated else ""),
        "an image": f"{quote.tiles:.1f} tiles, {quote.masks:.1f} masks of {quote.region:.0f} tokens"
        + (" (assumed; with --data, measured)" if quote.assumed else ""),
        "memory of a GPU": f"{quote.state_gb:.2g} GB of weights, gradients and averages; with activations about "
        f"{quote.state_gb + quote.activations_gb:.2g} GB at most (estimated)",
        "operations": f"{quote.step_tflop:,.4g} TFLOP a step, {quote.total_eflop:,.3g} EFLOP in all",
        "time": f"{quote.hours(training.workers):,.2g} h on {training.workers} H100 at {train_quote.UTILISATION:.0%} "
        f"of {train_quote.H100 / 1e12:.0f} TFLOP/s (assumed)",
    }.items():
        table.add_row(f"[bold]{heading}[/]", text)
    out.print(table, highlight=False)
