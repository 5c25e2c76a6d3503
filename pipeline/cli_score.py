"""`rr7k score`, `compare`, `submit` and `leaderboard`: predictions of any model against a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.console import err, out, tell
from pipeline.errors import UsageError, UserError


class _FilesOrCommand(TyperGroup):
    """What follows is the name of a command, or files to be shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before what is neither a command nor a question for help."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["show", *args]
        return super().parse_args(ctx, args)


leaderboard_app = typer.Typer(
    cls=_FilesOrCommand,
    no_args_is_help=True,
    subcommand_metavar="FILES... | COMMAND [ARGS]...",
    help="Show rows of several scores as one table; check a submission.",
)

PredictionsArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PREDICTIONS",
        show_default=False,
        help="Parquet, CSV or JSON Lines: instance_id (or image_id and mask_id), text, and model where it is known; or "
        "a file as WOW-Seg, VP-MLLM, Osprey, VideoRefer, DAM or PAM write it.",
    ),
]
BenchmarkOption = Annotated[
    Path, typer.Option("--benchmark", help="A release, or an imported data set.", show_default=False)
]
PresetOption = Annotated[str, typer.Option(help="Protocol: rr7k-1, wowseg, osprey or vpmllm.")]
FormOption = Annotated[
    str,
    typer.Option(
        help="Form of the file: table, wowseg, vpmllm, osprey, videorefer, dam, pam.", show_default="by itself"
    ),
]
ModelOption = Annotated[
    str, typer.Option(help="What is scored; where the file names several, which.", show_default="as the file says")
]
SplitOption = Annotated[str, typer.Option(help="As the rows have it, or mini.", show_default="test, or the only one")]
EmbeddingsOption = Annotated[
    str, typer.Option(help="Sentence embeddings: a folder or a hub id.", show_default="all-MiniLM-L6-v2")
]


def score(
    predictions: PredictionsArgument,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            help="A release, or an imported data set. Left out: true names in the file itself.", show_default=False
        ),
    ] = None,
    preset: PresetOption = "rr7k-1",
    form: FormOption = "",
    model: ModelOption = "",
    split: SplitOption = "",
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for results and the page.", show_default="PREDICTIONS.scores")
    ] = None,
    embeddings: EmbeddingsOption = "",
) -> None:
    """Score predictions against a benchmark: similarity and IoU with 95 % intervals, published numbers beside them.

    Published rows were measured by different protocols: [bold]--preset[/] chooses one, and rows by another are marked.
    [bold]rr7k-1[/], the default, counts missing, repeated, empty, overlong and unreadable predictions as zero; the
    published ones keep what their scripts do.

    Writes results.json, instances.parquet, leaderboard.jsonl and scores.html.
    """
    from benchmark import page, scorecard
    from benchmark.predictions import read
    from benchmark.presets import find
    from benchmark.similarity import Similarity

    protocol, similarity = find(preset), Similarity(embeddings)
    target = folder or predictions.with_name(f"{predictions.name}.scores")
    with err.status("reading") as status:
        given = read(predictions, form, model)
        if benchmark is None:
            card = scorecard.make_by_itself(given, protocol, similarity)
        else:
            known = _truth(benchmark, split)
            status.update("scoring")
            card = scorecard.make(given, known, protocol, similarity)
        status.update("drawing regions")
        scorecard.write(card, target, page.html(card))
    _show(card)
    tell(f"{target / scorecard.PAGE}: to look at; numbers in {scorecard.RESULTS}")


def compare(
    first: PredictionsArgument,
    second: PredictionsArgument,
    benchmark: BenchmarkOption,
    preset: PresetOption = "rr7k-1",
    models: Annotated[
        tuple[str, str],
        typer.Option(
            metavar="A B", help="What the two are called, or which models of their files.", show_default=False
        ),
    ] = ("", ""),
    split: SplitOption = "",
    path: Annotated[Path, typer.Option("--out", help="The page.")] = Path("comparison.html"),
    embeddings: EmbeddingsOption = "",
) -> None:
    """Compare two models on the same instances: paired differences, and regions on which they differ.

    p is two-sided, by resampling images. The page shows small, huge and rare regions.
    """
    from benchmark import comparison, scorecard
    from benchmark.predictions import read
    from benchmark.presets import find
    from benchmark.similarity import Similarity
    from pipeline.files import Folder

    protocol, similarity = find(preset), Similarity(embeddings)
    with err.status("scoring") as status:
        known = _truth(benchmark, split)
        cards = [
            scorecard.make(read(file, "", model), known, protocol, similarity)
            for file, model in zip((first, second), models, strict=True)
        ]
        found = comparison.differ(cards[0], cards[1])
        status.update("drawing regions")
        Folder(str(path.absolute().parent)).replace(path.name, comparison.html(cards[0], cards[1]).encode())
    _show_differences(found)
    tell(f"{path}: regions on which they differ")


def submit(
    predictions: PredictionsArgument,
    benchmark: BenchmarkOption,
    path: Annotated[Path, typer.Option("--out", help="The submission: a zip file.", show_default=False)],
    model: ModelOption = "",
    facts: Annotated[
        list[str] | None,
        typer.Option("--fact", metavar="NAME=TEXT", help="About the model, as params=7B; repeat.", show_default=False),
    ] = None,
    form: FormOption = "",
    split: SplitOption = "",
    embeddings: EmbeddingsOption = "",
) -> None:
    """Pack predictions, what the model is, its scores and this environment into one file.

    Whoever has the benchmark checks it with [bold]rr7k leaderboard validate[/].
    """
    from benchmark import submission
    from benchmark.predictions import read
    from benchmark.similarity import Similarity

    told = _facts(facts or [])
    with err.status("scoring in every protocol"):
        packed = submission.pack(
            read(predictions, form, model), _truth(benchmark, split), told, Similarity(embeddings), path
        )
    for name, why in packed.left_out.items():
        tell(f"not scored by {name}: {why}")
    scored = ", ".join(row.preset for row in packed.submission.claims)
    tell(f"{path}: {packed.submission.model}, scored by {scored}")


@leaderboard_app.command("show", hidden=True)
def leaderboard_show(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="leaderboard.jsonl of scores.")],
    path: Annotated[Path | None, typer.Option("--out", help="Also as .html or .md.", show_default=False)] = None,
) -> None:
    """Show rows of several scores, those that can be compared in one table, with what is published."""
    from benchmark import leaderboard
    from pipeline.files import Folder

    forms = {".html": leaderboard.html, ".md": leaderboard.markdown}
    if path is not None and path.suffix not in forms:
        raise UsageError(f"{path}: name it .html or .md")
    boards = leaderboard.boards(leaderboard.read(files))
    for board in boards:
        _show_board(board)
    if path is not None:
        Folder(str(path.absolute().parent)).replace(path.name, forms[path.suffix](boards).encode())
        tell(f"{path}: {len(boards)} {'table' if len(boards) == 1 else 'tables'}")


@leaderboard_app.command("validate")
def leaderboard_validate(
    path: Annotated[Path, typer.Argument(metavar="SUBMISSION", help="As rr7k submit packs it.", show_default=False)],
    benchmark: BenchmarkOption,
    split: SplitOption = "",
    row: Annotated[
        Path | None, typer.Option("--out", help="File for the rows found, for a leaderboard.", show_default=False)
    ] = None,
    embeddings: EmbeddingsOption = "",
) -> None:
    """Score a submission from scratch, and say whether its claims hold. Exits with 1 where they do not."""
    from tempfile import TemporaryDirectory

    import msgspec

    from benchmark import submission
    from benchmark.similarity import Similarity
    from pipeline.files import Folder

    with err.status("scoring from scratch"), TemporaryDirectory() as name:
        found = submission.validate(path, _truth(benchmark, split), Similarity(embeddings), Path(name))
    for card in found.cards:
        _show(card)
    if row is not None:
        lines = b"".join(msgspec.json.encode(card.row) + b"\n" for card in found.cards)
        Folder(str(row.absolute().parent)).replace(row.name, lines)
    if found.differences:
        raise UserError("\n".join([f"{path}: not what it claims:", *found.differences]))
    presets = ", ".join(card.result.preset for card in found.cards)
    tell(f"{path}: {found.submission.model}, scored from scratch by {presets}: as claimed")


# --- what they print and show -----------------------------------------------------------------------------


def _truth(benchmark: Path, split: str) -> Any:
    from benchmark.truth import load

    return load(benchmark, split)


def _facts(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"--fact {pair}: write it as NAME=TEXT")
        found[name] = text
    return found


def _show(card: Any) -> None:
    """Print a scorecard: measures, what was counted, published numbers, warnings."""
    from rich.markup import escape
    from rich.table import Table

    from benchmark.leaderboard import boards
    from benchmark.score import ANSWERED

    result = card.result
    tell(f"{result.model or 'model not named'} on {card.truth.name}, protocol {result.preset}")
    table = Table("× 100", "mean", "95 %", "by category", box=None, pad_edge=False)
    for name, found in result.scores.items():
        each = result.macro[name]
        mean, low, high, macro = (_number(name, v) for v in (found.value, found.lower, found.upper, each.value))
        table.add_row(name.replace("_", " "), f"[bold]{mean}[/]", f"{low} – {high}", macro)
    out.print(table, highlight=False)
    others = {name: count for name, count in result.outcomes.items() if count and name != ANSWERED}
    told = "".join(f", {count:,} {name}" for name, count in others.items())
    tell(f"{result.counted:,} of {result.instances:,} counted; {result.outcomes[ANSWERED]:,} answered{told}")
    if card.published:
        _show_board(boards([card.row])[0], warn=False)
    for text in card.all_warnings:
        out.print(f"[yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _number(name: str, value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.2f}" if name == "distance" else f"{100 * value:.1f}"


def _show_board(board: Any, *, warn: bool = True) -> None:
    """Print a table of the two published measures; a page or Markdown has room for all."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", *board.measures[:2], "protocol", "counted", title=escape(board.title), title_justify="left")
    table.box, table.pad_edge = None, False
    for line in board.lines:
        values = ["–" if one is None else one.told() for one in line.values[:2]]
        style = "dim" if line.is_published else "bold"
        table.add_row(*map(escape, (line.model, *values, line.protocol, line.coverage)), style=style)
    out.print(table, highlight=False)
    for text in board.warnings if warn else []:
        tell(text)


def _show_differences(found: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    tell(f"{found.first} − {found.second}, protocol {found.preset}; × 100, [95 %], p")
    measures = [name for name in ("similarity", "iou") if name in found.gains[0].measures]
    table = Table("", "n", *measures, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.no_wrap = True
    for gain in found.gains:
        told = [_difference(gain.measures[name]) if name in gain.measures else "–" for name in measures]
        table.add_row(escape(gain.group), f"{gain.instances:,}", *told)
    out.print(table, highlight=False)


def _difference(found: Any) -> str:
    value, lower, upper = (f"{100 * number:+.1f}" for number in (found.value, found.lower, found.upper))
    return f"{value} \\[{lower}, {upper}] p {found.p:.3f}"
