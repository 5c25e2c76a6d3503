"""`rr7k report`: the figures of a release, and a page to browse it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.console import err, tell
from pipeline.errors import UsageError

_FIGURES = "figures"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A release, or an import.", show_default=False)],
    compare: Annotated[
        list[Path] | None,
        typer.Option("--compare", help="Another data set beside it, as rr7k import makes it; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes.", show_default="DIR/figures")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Regions shown of a category.")] = 6,
) -> None:
    """Draw a release's figures as the paper's, and write a page to browse it: search a category, see its regions.

    The page is one file, with the pictures of its sample of regions in a folder beside it; it opens from the disk in
    any browser. Figures stand outside checksums.txt. Given again, the command draws only what is missing.

    Needs rr7k[models] for what compares names: without it the semantic space and the near-synonyms are left out.
    """
    from benchmark import report as step

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder.")
    with err.status("counting") as status:
        written = step.write(folder, compare or [], out or folder / _FIGURES, samples, status.update)
    tell(f"{written.page}: a page with {written.pictures:,} regions; opens in any browser")
    tell(f"{written.page.parent}: {', '.join(written.figures)}")
    for line in written.left_out:
        tell(f"left out: {line}")
