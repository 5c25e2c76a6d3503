"""What people have done, on the terminal: how far they are, and the report of annotators and audit."""

from __future__ import annotations

import math
from typing import Any

from pipeline.console import out, tell


def show_progress(run: Any, before: Any = None) -> Any:
    """Print how far people are, unless that is as it was `before`; return it."""
    from stages import screening_progress

    found = screening_progress.measure(run)
    if found == before:
        return found
    for name, pages in found.rounds.items():
        tell(f"{name}: {pages.done:,} of {pages.pages:,} pages")
    verdicts = ", ".join(f"{count:,} {name}" for name, count in sorted(found.verdicts.items())) or "none yet"
    wrong = "" if found.error_rate is None else f"; {found.error_rate:.1%} wrong"
    tell(f"verdicts of {found.annotators} people: {verdicts}{wrong}")
    if found.simulated:
        tell(f"simulated: {found.simulated:,} verdicts, given by nobody")
    if found.hours_left is not None and found.seconds is not None:
        tell(f"{found.seconds:.2f} s per region; about {found.hours_left:,.1f} hours of one person are left")
    if found.left:
        tell(f"{found.left:,} pages are left")
    return found


def show_report(run: Any, server: Any) -> None:
    """Print annotators, agreement and audit; with a server, who the pseudonyms are, which is stored nowhere."""
    from stages import screening_report

    report = screening_report.measure(run)
    show_progress(run)
    _annotators(report.annotators)
    for pseudonym, address in sorted(_who(server).items()):
        tell(f"{pseudonym} is {address}")
    alpha = report.alpha
    if alpha.pairs:
        tell(f"agreement: Krippendorff's alpha {_number(alpha.value)}, on {alpha.pairs:,} pairs judged by several")
    for two in report.pairwise:
        tell(f"  {two.one} and {two.other}: kappa {_number(two.kappa)}, the same on {two.same:.1%} of {two.pairs:,}")
    _audit(run, report.audit)
    tell(f"files: {run.folder.uri}/{screening_report.JSON}, {screening_report.CSV}")


def _who(server: Any) -> dict[str, str]:
    """Return the addresses of the server's users, by pseudonym."""
    if server is None:
        return {}
    from annotation_ui.screenings import annotator

    with server.client() as client:
        name = client.name()
        return {annotator(name, user): email for user, email in client.people().items()}


def _annotators(found: list[Any]) -> None:
    from rich.table import Column, Table

    if not found:
        tell("annotators: none yet")
        return
    names = ("pages", "hours", "too fast", "qualified", "wrong found", "right deleted", "overlooked")
    table = Table(Column("annotator", no_wrap=True), *names, box=None, pad_edge=False)
    for one in found:
        cells = [one.annotator, f"{one.pages:,}", f"{one.hours:.2f}", f"{one.fast:,}", _share(one.qualification)]
        cells += [_share(one.gold.recall), _share(one.gold.false_delete)] if one.gold else ["–", "–"]
        table.add_row(*cells, _share(one.missed.wrong) if one.missed else "–")
    out.print(table, highlight=False, markup=False)
    tell(
        "In brackets limits of 95 %. Qualified: right answers in the qualification round. Wrong found, right deleted: "
        "of tiles whose answer is known. Overlooked: of pages kept whole, the share that the audit finds wrong."
    )


def _audit(run: Any, found: Any) -> None:
    from rich.table import Table

    if found is None:
        tell("audit: none yet; how precise the release is, is not known. rr7k stage-3 export --audit draws a sample")
        return
    table = Table("audit", "right", "judged", "looks to halve the limits", "", box=None, pad_edge=False)
    for name, stratum in {"overall": found.overall, **found.strata}.items():
        looks = f"{stratum.more:,} more"
        table.add_row(name, _share(stratum.right), f"{stratum.right.observations:,}", looks, "closed" * stratum.closed)
    out.print(table, highlight=False, markup=False)
    waiting = f"{found.waiting:,} of the sample wait for somebody who did not screen them"
    later = " (those of pairs released since it was drawn, for rr7k stage-3 export --audit)" if found.waiting else ""
    tell(f"{waiting}{later}; {found.unresolved:,} unresolved")
    if found.simulated:
        tell(f"simulated: {found.simulated:,} of these are by nobody, so the audit says nothing of real pairs")


def _share(found: Any) -> str:
    if not found.observations:
        return "–"
    return f"{found.value:.1%} ({100 * found.lower:.0f}–{100 * found.upper:.0f})"


def _number(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.2f}"
