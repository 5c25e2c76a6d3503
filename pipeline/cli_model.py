"""`rr7k model`: WOW-Seg's weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import err, out, tell

app = typer.Typer(no_args_is_help=True, help="Look at WOW-Seg's weights, convert them, or make some for trying.")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder: transformers' InternVL, InternVL's own, WOW-Seg's.")],
) -> None:
    """Read a checkpoint whole, and say what it is: every tensor, the vocabulary, and what the model is to be used with.

    What is missing, broken, left over or does not fit together is an error that says where.
    """
    from rich.table import Table

    from model import checkpoint
    from model.wowseg import WowSeg

    without_bars()
    with err.status("reading"):
        loaded = checkpoint.load(path)
        WowSeg(loaded.network, loaded.tokenizer, loaded.settings)  # do vocabulary, template and prompt fit?
    table = Table("", str(path), box=None, pad_edge=False)
    for heading, text in checkpoint.describe(loaded).items():
        table.add_row(f"[bold]{heading}[/]", text)
    out.print(table, highlight=False)


class Format(StrEnum):
    """Of checkpoints, as `model.checkpoint.Kind`."""

    NATIVE = "native"
    ORIGINAL = "original"


@app.command()
def convert(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder, as of [bold]inspect[/].")],
    to: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    form: Annotated[
        Format, typer.Option("--to", help="transformers' format, or InternVL's own (InternVLChatModel).")
    ] = Format.NATIVE,
) -> None:
    """Write a checkpoint in transformers' format, or in InternVL's own, for programs that want that.

    Vocabulary and settings go with it, and everything here reads both. InternVL's own has weights, vocabulary and
    config.json; the Python files that lie in its published folders are InternVL's, and are not written.
    """
    from model.wowseg import WowSeg

    without_bars()
    with err.status("converting"):
        WowSeg.from_pretrained(path).save(to, form.value)
    tell(f"{to}: in the {form.value} format; look at it: rr7k model inspect {to}")


@app.command()
def debug(to: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")]) -> None:
    """Write the debug checkpoint: a few hundred thousand [bold]random[/] weights, so its names are nonsense.

    For trying every command without a download.
    """
    from model import debug

    without_bars()
    debug.debug().save(to)
    tell(f"{to}: random weights, whose names are nonsense")


def without_bars() -> None:
    """Switch off the bars that transformers draws for every file."""
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
