"""`rr7k evaluate`: the paper's Tables 1, 2, 3 and 7 for a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import cli_perturb
from pipeline.cli_options import ConfigOption, SetOption, WorkersOption, load_config
from pipeline.console import err, out, tell
from pipeline.errors import UsageError, UserError

if TYPE_CHECKING:
    from benchmark.evaluation.check import Checked
    from benchmark.evaluation.plan import Plan
    from benchmark.evaluation.report import Board
    from benchmark.evaluation.run import Answered, Model
    from pipeline.progress import Meter


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder of the data sets; --check says what goes where.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="Checkpoint folder of WOW-Seg.", show_default=False)] = "",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where answers, scores and tables go.", show_default=False)
    ] = None,
    tables: Annotated[str, typer.Option(help="Of the paper.")] = "1,2,3,7",
    only_check: Annotated[bool, typer.Option("--check", help="Only say what is there, and what to put where.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    redo: Annotated[bool, typer.Option(help="OUT holds answers of another checkpoint: ask all again.")] = False,
) -> None:
    """Measure a checkpoint as in the paper's Tables 1, 2, 3 and 7, on data sets that lie below one folder.

    What is there is looked at first; lines whose data is missing stay blank, with what to put where. Each data set is
    read, answered and scored once, whatever tables it is for. Stop it at any time and give the same command again: only
    what is missing is done. On a GPU: [bold]--set namer.gpus=1[/].

    Writes evaluation.json and evaluation.html, and below scores/ what [bold]rr7k score[/] writes.
    """
    from benchmark.evaluation import check, plan, report, run
    from pipeline.progress import meter

    known = plan.load()
    checked = check.check(known, data, plan.choose(known, tables))
    _show_check(checked, known, data)
    if all(one.lacks for one in checked):
        raise UsageError("None of it can be measured. Nothing was started.")
    if only_check:
        return
    if not model or folder is None:
        raise UsageError("Say what is to be measured, --model CHECKPOINT, and where that goes, --out DIR.")
    namer = ["namer.kind=wowseg", f"namer.model={json.dumps(model)}"]
    settings = load_config(config, [*(overrides or []), *namer, *([f"cluster.workers={workers}"] if workers else [])])
    with meter(err) as shown, ExitStack() as opened:
        bar = _Bar(shown)
        measured, told = _measured(settings, bar, opened), run.Told(bar.doing, bar.steps)
        folder.mkdir(parents=True, exist_ok=True)
        found = run.evaluate(known, checked, data.absolute(), folder.absolute(), measured, _segmenter, told, redo=redo)
    report.write(found, known, folder)
    for board in report.boards(found, known):
        _show(board)
    tell(f"{folder / report.PAGE}: to look at; numbers with intervals in {report.JSON}")
    if not found.complete:
        raise UserError("Not all of it could be measured, see above. Give the same command again.")


class _Bar:
    """A bar for one thing after the other."""

    def __init__(self, shown: Meter) -> None:
        self.shown = shown
        self._title = ""
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        """Print a line above the bar; the same of another data set is not said again."""
        if line not in self._said:
            self._said.add(line)
            self.shown.say(line)

    def doing(self, text: str) -> None:
        """Say what begins."""
        self.say(text)
        self._title = ""

    def steps(self, title: str, done: int, of: int) -> None:
        """Show further steps of what has that title."""
        if title != self._title:
            self._title = title
            self.shown.start(title, of, "steps")
        self.shown.advance(done, {})


# --- what other packages do -------------------------------------------------------------------------------


def _measured(settings: Any, bar: _Bar, opened: ExitStack) -> Model:
    """Return the checkpoint that the settings name; `opened` closes what it opens. Raises `UsageError`."""
    import msgspec

    from benchmark.evaluation.run import Model
    from pipeline import cluster
    from pipeline.files import sha256
    from stages.naming_settings import setting, settled

    made = setting(settled(settings.names, settings.namer), settings.namer)

    @cache
    def session() -> cluster.Session:  # one for all data sets: starting Ray takes longer than answering a small one
        return opened.enter_context(cluster.session(settings.cluster))

    def answer(data_set: Path, run: Path) -> Answered:
        return _answer(settings, data_set, run, bar, lambda: nullcontext(session()))

    @cache
    def preparer() -> Any:
        from transformers.utils import logging

        from model.wowseg import WowSeg

        quiet: Any = logging
        quiet.disable_progress_bar()
        return WowSeg.from_pretrained(settings.namer.source).preparer

    def tokens(size: tuple[int, int], counts: Sequence[str]) -> list[int]:
        from model import region_tokens

        return region_tokens.count(preparer(), size, counts)

    return Model(Path(settings.namer.model).resolve().name, sha256(msgspec.json.encode(made)), answer, tokens)


def _answer(
    settings: Any,
    data_set: Path,
    run: Path,
    bar: _Bar,
    session: Callable[[], AbstractContextManager[Any]],
) -> Answered:
    """Answer a data set, as `rr7k predict` does; what is about a region that is another now is asked again."""
    from benchmark import truth
    from benchmark.evaluation.run import Answered
    from pipeline.regions import RegionSamples
    from pipeline.run import Run
    from stages import answering
    from stages.ledger import Progress, Watcher
    from stages.naming import Bounds

    def advance(done: Progress) -> None:
        bar.shown.advance(done.masks, {"tokens": done.tokens["generated"]}, {"failed": done.outcomes["error"]})

    known = truth.load(data_set)
    asked = answering.Benchmark(RegionSamples(data_set), known.fingerprint, known.split)
    watcher = Watcher(lambda regions: bar.shown.start("answering", regions, "regions"), advance, bar.say)
    names, namer, every = settings.names, settings.namer, Bounds(None, None)
    written = answering.build(Run(str(run)), asked, names, namer, session, watcher, bounds=every, redo=True)
    return Answered(Path(written.path), written.answered, written.refused, written.total)


def _segmenter(kind: str, checkpoint: Path) -> Any:
    return cli_perturb.segmenter_at(kind, str(checkpoint), "")


# --- printing ---------------------------------------------------------------------------------------------


def _show_check(checked: Sequence[Checked], known: Plan, data: Path) -> None:
    """Print which lines can be had, and then what to put where for the others."""
    from rich.markup import escape
    from rich.table import Table

    from benchmark.evaluation import check

    table = Table("table", "data set", "how", "", box=None, pad_edge=False)
    for one in checked:
        line = one.task.line
        state = f"[yellow]lacks {', '.join(one.lacks)}[/]" if one.lacks else "[green]there[/]"
        table.add_row(str(one.task.table), line.data_set, escape(line.row or line.how), state)
    out.print(table, highlight=False)
    for name in dict.fromkeys(name for one in checked for name in one.lacks):
        out.print(f"[bold]{name}[/]: {escape(check.told(known, name, data))}", highlight=False, soft_wrap=True)


def _show(board: Board) -> None:
    from rich.markup import escape
    from rich.table import Table

    heads = ["\n".join(name.rsplit(" ", 1)) for name in board.columns]
    table = Table("", *map(escape, heads), title=escape(board.title), title_justify="left")
    table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)  # ten columns have to fit into 80
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for row in board.rows:
        table.add_row(*map(escape, (row.name, *row.cells)), style="bold" if row.own else "dim")
    out.print(table, highlight=False)
    for text in board.notes:
        out.print(f"- {escape(text)}", highlight=False, soft_wrap=True)
