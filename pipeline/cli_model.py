"""`rr7k model`: WOW-Seg's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.console import err, out

app = typer.Typer(no_args_is_help=True, help="Look at WOW-Seg's weights.")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder: transformers' InternVL, InternVL's own, WOW-Seg's.")],
) -> None:
    """Read a checkpoint whole, and say what it is: every tensor, the vocabulary, and what the model is to be used with.

    What is missing, broken, left over or does not fit together is an error that says where.
    """
    from rich.table import Table
    from transformers.utils import logging

    from model import checkpoint
    from model.wowseg import WowSeg

    quiet: Any = logging
    quiet.disable_progress_bar()
    with err.status("reading"):
        loaded = checkpoint.load(path)
        WowSeg(loaded.network, loaded.tokenizer, loaded.settings)  # do vocabulary, template and prompt fit?
    table = Table("", str(path), box=None, pad_edge=False)
    for heading, text in checkpoint.describe(loaded).items():
        table.add_row(f"[bold]{heading}[/]", text)
    out.print(table, highlight=False)
