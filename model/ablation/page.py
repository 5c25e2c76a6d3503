"""The report as one page that opens in any browser, its figures in it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from model.ablation import evaluation
from model.ablation.efficiency import Efficiency
from model.ablation.intervals import Interval
from model.ablation.report import ContrastResult, Report, RowResult, SpreadResult
from model.ablation.rougher import DILATED, ERODED
from pipeline import pages

_TEMPLATE = Path(__file__).with_name("report.html")
_CAPTIONS = {
    4: "Table 4: how masks share a sequence",
    5: "Table 5: sides of the window over sides of the mask (branches)",
    6: "Table 6: how a region is encoded (trained with single masks, as in the paper)",
    7: "Table 7: rougher masks at the test (branches; the same weights in every row)",
}
_PAPER = "paper LVIS · PACO"


def render(report: Report, efficiency: Efficiency, figures: dict[str, bytes]) -> str:
    """Return the page; `figures` are PNG: contrasts, losses, efficiency."""
    images = {name: _image(name, data) for name, data in figures.items()}
    return pages.filled(
        _TEMPLATE.read_text(encoding="utf-8"),
        title="The paper's ablations in miniature",
        summary=_summary(report),
        contrasts=_contrasts(report.contrasts),
        contrast_figure=images["contrasts"],
        tables="".join(_table(report, number) for number in _CAPTIONS) + _spreads(report.spreads),
        loss_figure=images["losses"] + _LOSS_NOTE,
        efficiency=_efficiency(report, efficiency) + images["efficiency"],
        limits=f"<ul>{''.join(f'<li>{point}</li>' for point in limits(report))}</ul>",
    )


def told(report: Report) -> str:
    """Return the verdicts in one line, as many of each as there are."""
    judged = [one.verdict for one in report.contrasts if _ordered(one)]
    counts = Counter(judged)
    others = Counter(one.verdict for one in report.contrasts if not _ordered(one))
    beside = ", ".join(f"{number} {verdict}" for verdict, number in sorted(others.items()))
    return (
        f"of {len(judged)} orderings of the paper {counts['reproduced']} reproduced, {counts['tie']} tie, "
        f"{counts['reversed']} reversed; of {others.total()} comparisons that the paper does not order: {beside}"
    )


def _ordered(one: ContrastResult) -> bool:
    """Say whether the paper orders the rows: its two data sets agree."""
    return bool(one.paper) and (min(one.paper) > 0 or max(one.paper) < 0)


def done(report: Report) -> str:
    """Return what was trained and tested, in words."""
    seeds = report.seeds
    return (
        f"The debug model trained in {len(report.speeds)} settings, {report.steps:,} steps each, on scenes that are "
        f"made up. Seeds of each setting: {seeds.branches} with branches, {seeds.packed} with all masks in one "
        f"sequence, {seeds.single} with single masks. Tested on {report.scenes:,} other scenes, mask by mask. Compared "
        "by word overlap × 100, the paper's Semantic IoU."
    )


def _summary(report: Report) -> str:
    verdicts = told(report)
    return f"<p>{done(report)}</p><p><strong>{verdicts[:1].upper()}{verdicts[1:]}.</strong></p>"


def _contrasts(contrasts: Sequence[ContrastResult]) -> str:
    note = (
        '<p class="faint">Reproduced: the 95 % interval lies on the paper\'s side of 0. Reversed: on the other. Tie: 0 '
        "is in it, and the difference is bounded by it. Higher and lower: where the paper has no such row, or its two "
        "data sets disagree. Each interval stands for itself: of 20 true ties one is expected to look like none.</p>"
    )
    rows = [
        f'<tr class="{one.verdict}"><th>{one.table}</th><td class="text">{escape(one.first)}</td>'
        f'<td class="text">{escape(one.second)}</td><td>{pair(one.paper, "+.2f")}</td><td>{span(one.found, "+.1f")}'
        f'</td><td class="text">{one.verdict}</td></tr>'
        for one in contrasts
    ]
    head = ("Table", "first", "second", f"first − second, {_PAPER}", "here, with 95 % interval", "verdict")
    return note + _wrapped(head, rows, text=(1, 2, 5))


def _table(report: Report, number: int) -> str:
    groups = evaluation.GROUPS
    rows = [_row(row, groups) for row in report.rows if row.table == number]
    head = ("", _PAPER, "word overlap here, 95 %", "exact", "macro", *groups)
    return f"<h2>{_CAPTIONS[number]}</h2>{_wrapped(head, rows)}"


def _row(row: RowResult, groups: Sequence[str]) -> str:
    start = f"<tr><th>{escape(row.title)}</th><td>{pair(row.paper, '.2f')}</td>"
    if row.overlap is None:
        return f'{start}<td colspan="{3 + len(groups)}" class="text">needs its own weights: left blank</td></tr>'
    values = [row.exact, row.macro, *(row.groups[group] for group in groups)]
    cells = "".join(f"<td>{value:.1f}</td>" for value in values)
    return f"{start}<td>{span(row.overlap, '.1f')}</td>{cells}</tr>"


_SPREADS = {
    "branches": "learning from all masks of a scene as branches (five settings)",
    "packed": "learning from all masks in one sequence (four settings)",
    "single": "learning from one mask of a scene (three settings)",
    "masks": "other masks at the test, the same weights",
}


def _spreads(spreads: Sequence[SpreadResult]) -> str:
    note = (
        '<p class="faint">How far seeds move a value, which is what the intervals rest on beside the chance of scenes; '
        "and the least true difference of two such rows that is told from 0 four times of five. With one seed the "
        "spread is that of the pilot in plan.toml: other seeds of branches, of MM without rules and of SM.</p>"
    )
    head = ("", "seeds", "standard deviation of a seed, points", "degrees of freedom", "told apart, points", "from")
    rows = [
        f"<tr><th>{_SPREADS[one.name]}</th><td>{one.seeds}</td><td>{one.points:.2f}</td><td>{one.freedom}</td>"
        f"<td>{one.resolved:.1f}</td><td>{'the pilot' if one.of_pilot else 'this run'}</td></tr>"
        for one in spreads
    ]
    return f"<h2>Chance of seeds</h2>{note}{_wrapped(head, rows)}"


def _efficiency(report: Report, found: Efficiency) -> str:
    head = ("", "masks a step", "ms a step: model", "ms a step: scenes and samples", "masks a second: model")
    rows = [
        f"<tr><th>{speed.setting}</th><td>{speed.masks_per_step:.1f}</td><td>{1e3 * speed.seconds_per_step:.0f}</td>"
        f"<td>{1e3 * speed.making_per_step:.0f}</td><td>{speed.masks_per_second:.0f}</td></tr>"
        for speed in report.speeds
    ]
    ratios = ", ".join(f"{one.pictures}: {one.together[-1] / one.together[0]:.1f}" for one in found.counted)
    return (
        f"<p>Training from all masks of an image at once ran through {found.measured:.1f} times as many masks a second "
        f"as from one mask of each (branches to SM); operations counted on the same model allow {found.expected:.1f}. "
        f"On the 1B, 32 masks in one pass cost, times one mask, by tiles with thumbnail: {ratios}; apart they cost "
        f"32.</p>{_wrapped(head, rows)}"
    )


_LOSS_NOTE = (
    '<p class="faint">Without the Output rule a label is predicted from the labels before it and from other regions '
    "too, which the test does not offer; such a loss is not comparable with the others. SM sees fewer masks a step."
    "</p>"
)


def limits(report: Report) -> list[str]:
    """Return what stands against reading more into it, HTML without tags."""
    return [
        "A miniature: 440 thousand random weights in place of a pre-trained billion, 112 px in place of 448, 4 × 4 "
        "tokens in place of 16 × 16, 120 names, no photograph. It says how these rules behave here; it proves nothing "
        "about the paper's numbers, and cannot disprove them.",
        "Equal steps, as the paper states of its own: SM then sees one mask of each scene where MM sees all. That "
        "alone is in MM's favour here. Branches are K trainings with single masks in one pass, to the last bit of "
        "their positions; so SM with as many masks would be branches.",
        "Every setting is tested mask by mask, as by the authors. For one mask the packed sequence and the branches' "
        "are the same. For several, from which packed settings learn, the packed one is another: a label comes after "
        "all regions and has to find its own among them. What a pre-trained model may bring along to bridge that, "
        "weights that began at random have to learn in these steps. Branches and SM learn what they are tested with.",
        f"Rougher masks: OpenCV's minAreaRect and fitEllipse; eroded by {ERODED} px and dilated by {DILATED} px with a "
        "3 × 3 cross. The rows of SAM, HQ-SAM and SAM 2 need their weights.",
        "Intervals add the chance of seeds and of scenes. A seed is the first weights and the scenes trained on. All "
        "settings share their seeds, yet are taken as apart, which makes intervals rather too wide. How far seeds move "
        "a value is pooled over settings that learn in the same way, which makes intervals too narrow for one that "
        "varies more than the others of its kind.",
        f"Generator, steps and measure were fixed before the first comparison; a change of them makes every cell anew "
        f"(this: {escape(report.cells)}). Changes since: {escape(' '.join(report.changes)) or 'none.'}",
    ]


def _wrapped(head: Sequence[str], rows: Sequence[str], text: Sequence[int] = ()) -> str:
    cells = "".join(f"<th{' class=text' * (place in text)}>{escape(name)}</th>" for place, name in enumerate(head))
    return f'<div class="table"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def pair(values: Sequence[float], form: str) -> str:
    """Return the paper's values of both data sets; a dash if it has none."""
    return " · ".join(format(value, form) for value in values) or "–"


def span(found: Interval, form: str) -> str:
    """Return a value with its interval."""
    return f"{found.value:{form}} ({found.lower:{form}} to {found.upper:{form}})"


def _image(name: str, data: bytes) -> str:
    return f'<p><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}"></p>'
