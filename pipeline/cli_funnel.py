"""The funnel of a run, as a table for the terminal."""

from __future__ import annotations

from typing import Any

from pipeline.console import out


def print_funnel(run: Any) -> None:
    """Print what became of every input of a run."""
    from rich.table import Table

    from stages.funnel import levels

    table = Table("", "total", "kept", "dropped", "quarantined", "pending", "difference", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for level in levels(run):
        table.add_row(
            f"[bold]{level.name}[/]",
            f"{level.total:,}",
            f"{level.kept:,}",
            f"{sum(level.dropped.values()):,}",
            f"{sum(level.quarantined.values()):,}",
            f"{level.pending:,}",
            f"[{'green' if level.difference == 0 else 'bold red'}]{level.difference:,}[/]",
        )
        for kind in (level.dropped, level.quarantined):
            for reason, count in kind.items():
                cells = ["", "", f"{count:,}", ""] if kind is level.dropped else ["", "", "", f"{count:,}"]
                table.add_row(f"  [dim]{reason}[/]", *(f"[dim]{cell}[/]" for cell in cells))
    out.print(table)
