"""`rr7k categories`: which names are one category, proposed to people and applied once they have decided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import cli_stage_1
from pipeline.cli_options import RunOption
from pipeline.console import err, tell

app = typer.Typer(no_args_is_help=True, help="Decide which names are one category.")


@app.command("propose")
def categories_propose(
    run: RunOption,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Cosine from which names are near-duplicates.")] = 0.9,
) -> None:
    """Write which categories of a run may be one, with evidence: a table to decide in and a page to look at.

    And each category's place in the coarse tree (data_manifests/coarse_categories.toml), for review as well.

    Nothing is merged by this. Copy what you approve into data_manifests/categories.csv, then [bold]apply[/].
    """
    from pipeline.run import Run
    from pipeline.wordnet import open_wordnet
    from stages.category_review import propose

    wordnet = open_wordnet()
    if wordnet is None:
        tell("WordNet is not installed (make wordnet): its evidence is left out")
    with err.status("comparing categories"):
        review = propose(Run(run), wordnet, threshold)
    for kind, counts in review.summary.items():
        against = ", ".join(f"{count:,} {why}" for why, count in counts.most_common() if why != "proposed")
        tell(f"{kind}: {counts['proposed']:,} proposed{f'; against: {against}' if against else ''}")
    tell(f"look: {review.page}; decide: {review.table}; coarse groups, the least sure first: {review.groups}")


@app.command("apply")
def categories_apply(
    run: RunOption,
    table: Annotated[
        Path | None, typer.Option(help="Reviewed table.", show_default="as the run has it, or data_manifests'")
    ] = None,
) -> None:
    """Derive a run's pairs again with the reviewed table; asks no model."""
    from pipeline.run import Run
    from stages.pairing import PairsConfig

    chosen = PairsConfig(table=str(table.absolute())) if table else PairsConfig()
    cli_stage_1.make_pairs(Run(run), chosen)
