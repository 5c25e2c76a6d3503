"""The verification report as one page: figures, examples, and a table of all categories to sort and search.

Category names and answers come from models: `pipeline.pages` escapes them, and the page's policy lets nothing run
but its own script and nothing load but the pictures inside it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline import files, gallery, pages
from pipeline.gallery import Card
from pipeline.pages import escaped
from pipeline.run import Run
from stages import asked_regions, sampled_regions, verification_figures
from stages.false_yes import MEANING
from stages.verification_counts import CategoryCounts, Share
from stages.verification_figures import Panel
from stages.verification_report import LOOSE, VerificationReport

_TEMPLATE = Path(__file__).with_suffix(".html")
_BARS = 12  # categories
_NO_JUDGEMENTS = (
    "<h2>Reliability</h2><p>Whether a score of 0.9 is right nine times in ten only people can tell. Have some pairs "
    "judged, then:</p><p><code>rr7k stage-2 calibrate --judged TABLE</code></p>"
)


def html(run: Run, report: VerificationReport) -> str:
    """Return the page; a region that cannot be drawn has the reason in place of a picture."""
    return pages.filled(
        _TEMPLATE.read_text(encoding="utf-8"),
        title=escaped(f"Verification of {files.base_name(run.folder.uri)}"),
        badge='<strong class="badge">embedded (not a VLM)</strong>' if report.embedded else "",
        facts=pages.terms(_facts(run, report)),
        numbers=_numbers(report),
        scores=_figure(verification_figures.scores, report, "Scores of pairs and of controls"),
        reliability=_reliability(report),
        leftovers=_figure(verification_figures.leftovers, report, "Leftover probability"),
        meaning=escaped(MEANING),
        drops=_bars(((c.category, c.dropped) for c in report.worst_pairs()[:_BARS]), report.dropped),
        false_yeses=_bars(((c.category, c.false_yes) for c in report.worst_controls()[:_BARS]), report.false_yes),
        examples=_examples(run, report),
        rows="\n".join(map(_row, report.categories)),
        total=f"{len(report.categories):,}",
    )


def _facts(run: Run, report: VerificationReport) -> list[tuple[str, str]]:
    told = {name: ", ".join(value or "not known" for value in found) for name, found in report.made_by.items()}
    thresholds = ", ".join(f"{threshold:.3f}" for threshold in report.thresholds)
    return [
        ("run", files.base_name(run.folder.uri)),
        *told.items(),
        ("threshold", f"{thresholds}, {_calibrated(report)}" if thresholds else "nothing was asked"),
        ("in brackets", "95 % confidence limits"),
    ]


def _calibrated(report: VerificationReport) -> str:
    found = report.calibration
    if found is None:
        return "not calibrated"
    if not {found.thresholds.overall, *found.thresholds.bands.values()}.issuperset(report.thresholds):
        return "not those of the calibration: the verdicts are older"
    return f"calibrated for precision {found.precision:g} by {found.source}"


# --- numbers ----------------------------------------------------------------------------------------------


def _numbers(report: VerificationReport) -> str:
    dropped, controls = report.dropped, report.false_yes
    waiting = max(0, report.head_pairs - dropped.total)
    reasons = f"{dropped.count - report.unclear:,} no, {report.unclear:,} unclear"
    passed = f"; {report.passed:,} above the threshold" if report.passed != controls.count else ""
    told = [
        ("head pairs asked", f"{dropped.total:,}", f"{waiting:,} not answered yet" if waiting else "all of them"),
        ("kept", f"{dropped.total - dropped.count:,}", f"and {report.tail_pairs:,} of the tail, whatever was said"),
        ("dropped", _rate(dropped), f"{dropped.count:,}: {reasons}"),
        ("false yes", _rate(controls), f"{controls.count:,} of {controls.total:,} controls{_limits(controls)}{passed}"),
        (f"leftover above {LOOSE:g}", _rate(report.loose), f"{report.loose.count:,} of {report.loose.total:,}"),
        ("text only", f"{report.text_only:,}", f"of {report.answers:,} answers"),
    ]
    return "\n".join(
        f"<div><dt>{escaped(label)}</dt><dd><b>{escaped(number)}</b> <small>{escaped(more)}</small></dd></div>"
        for label, number, more in told
    )


def _limits(share: Share) -> str:
    return f" ({100 * share.lower:.1f}–{100 * share.upper:.1f})" if share.total else ""


def _rate(share: Share) -> str:
    return f"{100 * share.value:.1f} %" if share.total else "–"


# --- figures ----------------------------------------------------------------------------------------------


def _figure(panel: Panel, report: VerificationReport, text: str) -> str:
    data = base64.b64encode(verification_figures.alone(panel, report)).decode()
    return f'<img class="figure" alt="{escaped(text)}" src="data:image/png;base64,{data}">'


def _reliability(report: VerificationReport) -> str:
    if report.calibration is None:
        return _NO_JUDGEMENTS
    return _figure(verification_figures.reliability, report, "Share right by score")


def _bars(shares: Iterable[tuple[str, Share]], total: Share) -> str:
    rows = [_bar(name, share, "") for name, share in shares] or ["<li>none</li>"]
    return "\n".join([*rows, _bar("all categories", total, "total")])


def _bar(name: str, share: Share, kind: str) -> str:
    return (
        f'<li class="{kind}"><bdi>{escaped(name)}</bdi><span class="bar" style="{_place(share)}"></span>'
        f"<small>{share.count:,} of {share.total:,}</small></li>"
    )


def _place(share: Share) -> str:
    return f"--value:{share.value:.4f};--lower:{share.lower:.4f};--upper:{share.upper:.4f}"


# --- examples ---------------------------------------------------------------------------------------------


def _examples(run: Run, report: VerificationReport) -> str:
    drawn = sampled_regions.pictures(run, sorted({example.row["mask_id"] for example in report.examples}))
    by_kind: dict[str, list[str]] = {}
    for found in report.examples:
        lines = asked_regions.lines(found.row, found.threshold)
        card = Card(
            found.row["category"], found.kind, drawn[found.row["mask_id"]], lines, asked_regions.badge(found.row)
        )
        by_kind.setdefault(found.kind, []).append(gallery.article(card))
    return "\n".join(
        f'<section><h3>{escaped(kind)}</h3><div class="cards">{"".join(cards)}</div></section>'
        for kind, cards in by_kind.items()
    )


# --- the table --------------------------------------------------------------------------------------------


def _row(counts: CategoryCounts) -> str:
    threshold = "" if counts.threshold is None else f"{counts.threshold:.3f}"
    cells: Sequence[str] = [
        f"<th><bdi>{escaped(counts.category)}</bdi></th>",
        *(f"<td>{number:,}</td>" for number in (counts.dropped.total, counts.kept, counts.no, counts.unclear)),
        _cell(counts.dropped),
        *(f"<td>{number:,}</td>" for number in (counts.false_yes.total, counts.false_yes.count)),
        _cell(counts.false_yes),
        f"<td>{threshold}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(share: Share) -> str:
    """Return a share as a cell; one of nothing is empty, and sorted below all others."""
    if not share.total:
        return '<td data-value="-1">–</td>'
    bar = f'<span class="bar" style="{_place(share)}"></span>'
    return f'<td data-value="{share.value:.6f}">{_rate(share)}<small>{_limits(share)}</small>{bar}</td>'
