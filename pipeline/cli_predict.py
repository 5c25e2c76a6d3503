"""`rr7k predict`: WOW-Seg, or any engine of stage 1, answers a benchmark."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli_options import ConfigOption, RunOption, SetOption, WorkersOption, load_config
from pipeline.cli_quote import show_quote
from pipeline.cli_stage_1 import PriceOption
from pipeline.console import err, tell
from pipeline.errors import UsageError


def predict(
    benchmark: Annotated[Path, typer.Option(help="A release, or an imported data set.", show_default=False)],
    run: RunOption,
    model: Annotated[str, typer.Option(help="Checkpoint folder of WOW-Seg.", show_default=False)] = "",
    engine: Annotated[
        str,
        typer.Option(help="Or an engine: embedded, transformers, openai or vllm, as namer.kind.", show_default=False),
    ] = "",
    split: Annotated[
        str, typer.Option(help="As its rows have it, or mini.", show_default="test, or the only one")
    ] = "",
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many more regions.", show_default="all")] = None,
    budget: Annotated[
        float | None,
        typer.Option("--budget-gpu-hours", min=0, help="Stop after so many GPU-hours.", show_default="none"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and ask nothing.")] = False,
    price: PriceOption = None,
    redo: Annotated[bool, typer.Option(help="Ask again what was asked under other settings.")] = False,
) -> None:
    """Answer a benchmark with a checkpoint of WOW-Seg, which names all regions of an image at once.

    Or, for a baseline, with any engine of stage 1, asked as in stage 1 ([bold]names.*[/], [bold]namer.*[/]).

    Writes RUN/predictions.parquet, which [bold]rr7k score[/] reads. Stop it at any time and give the same command
    again: only what has no answer yet is asked.
    """
    from benchmark import truth
    from pipeline.regions import RegionSamples
    from pipeline.run import Run
    from stages import answering
    from stages.naming import Bounds
    from stages.quote import spent

    settings = load_config(config, [*(overrides or []), *_namer(model, engine), *_workers(workers)])
    target, bounds = Run(run), Bounds(limit, budget)
    with err.status("reading the benchmark"):
        known = truth.load(benchmark, split)
        samples = RegionSamples(benchmark.absolute())
    mini = known.split == truth.MINI
    asked = answering.Benchmark(samples, known.fingerprint, truth.TEST if mini else known.split, mini)
    if dry_run:
        quote = answering.preview(target, asked, settings.names, settings.namer, bounds)
        show_quote(quote, spent(target, answering.STEP), price, "regions", "namer")
        return
    _show(_answer(target, asked, settings, bounds, redo), benchmark, split)


def _namer(model: str, engine: str) -> list[str]:
    if bool(model) == bool(engine):
        raise UsageError("Say who answers: --model CHECKPOINT for WOW-Seg, or --engine KIND.")
    return ["namer.kind=wowseg", f"namer.model={json.dumps(model)}"] if model else [f"namer.kind={engine}"]


def _workers(workers: int | None) -> list[str]:
    return [f"cluster.workers={workers}"] if workers else []


def _answer(run: Any, asked: Any, settings: Any, bounds: Any, redo: bool) -> Any:
    """Ask, with a progress bar."""
    from pipeline import cluster
    from pipeline.progress import meter
    from stages import answering
    from stages.ledger import Progress, Watcher

    def session() -> AbstractContextManager[cluster.Session]:
        return cluster.session(settings.cluster)

    with meter(err) as shown:

        def advance(p: Progress) -> None:
            tokens = p.tokens["prompt"] + p.tokens["generated"]
            shown.advance(p.masks, {"tokens": tokens}, {"failed": p.outcomes["error"]})

        watcher = Watcher(lambda regions: shown.start("answering", regions, "regions"), advance, shown.say)
        return answering.build(run, asked, settings.names, settings.namer, session, watcher, bounds=bounds, redo=redo)


def _show(written: Any, benchmark: Path, split: str) -> None:
    tell(f"{written.path}: {written.answered:,} of {written.total:,} regions answered")
    if written.refused:
        tell(f"{written.refused:,} were given up and count as missing")
    if waiting := written.total - written.answered - written.refused:
        tell(f"{waiting:,} have no answer yet: give the same command again")
    told = f" --split {split}" if split else ""
    tell(f"next: rr7k score {written.path} --benchmark {benchmark}{told}")
