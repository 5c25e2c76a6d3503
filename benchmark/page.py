"""A score as a page: numbers beside published ones, where the model does badly, what it takes for what, worst cases.

Names and predictions are not trusted: `pipeline.pages` escapes them, and the page's policy lets nothing run but its
own script and nothing load but the pictures inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import confusions, leaderboard, pictures
from benchmark.bootstrap import Interval
from benchmark.confusions import CategoryScore, Confusion
from benchmark.dataset import load
from benchmark.leaderboard import Limits
from benchmark.score import ANSWERED, MEASURES, Group
from benchmark.scorecard import Scorecard
from pipeline import gallery, pages
from pipeline.gallery import Card
from pipeline.pages import escaped

SAMPLES = 48

_TEMPLATE = Path(__file__).parent / "templates" / "scores.html"
_GROUPS = 24
"""Of a breakdown; a release of one run has a handful of each."""
_CONFUSIONS = 30
_NOT_SHARES = ("distance",)


def html(card: Scorecard, samples: int = SAMPLES) -> str:
    """Return the page, with `samples` worst cases; their pictures only where the benchmark holds its images."""
    found = confusions.count(card.result.per_instance)
    worst = confusions.worst(card.result.per_instance, samples)
    return pages.filled(
        _TEMPLATE.read_text(encoding="utf-8"),
        title=escaped(f"{card.result.model or 'model not named'} on {card.truth.name}"),
        facts=pages.terms(_facts(card)),
        warnings="".join(f"<li>{escaped(text)}</li>" for text in card.all_warnings),
        measures="\n".join(_measure(card, name) for name in card.result.scores),
        outcomes=_outcomes(card),
        published=_published(card),
        breakdowns="\n".join(_panel(name, groups) for name, groups in card.result.breakdowns.items()),
        confusions="\n".join(map(_confusion, found.confusions[:_CONFUSIONS])) or "<tr><td>none</td></tr>",
        confused=f"{sum(one.times for one in found.confusions):,}",
        worst=_worst(card, worst.to_pylist()) or "<p>none: every answer is the name or an alias</p>",
        rows="\n".join(map(_category, found.categories)),
        total=f"{len(found.categories):,}",
    )


def _facts(card: Scorecard) -> list[tuple[str, str]]:
    result, truth = card.result, card.truth
    return [
        ("protocol", f"{result.preset}, {result.facts['preset']}"),
        ("split", truth.split or "all"),
        ("benchmark", truth.fingerprint[:16] or "the file's own true names"),
        ("predictions", f"{card.predictions.path.name}, {card.predictions.form}, {card.predictions.sha256[:16]}"),
        ("counted", f"{result.counted:,} of {result.instances:,} instances"),
        ("intervals", "95 %, by resampling images"),
        ("made by", result.facts["made_by"]),
    ]


# --- numbers ----------------------------------------------------------------------------------------------


def _measure(card: Scorecard, name: str) -> str:
    micro, macro = card.result.scores[name], card.result.macro[name]
    return (
        f"<tr><th>{escaped(name.replace('_', ' '))}</th><td><b>{_number(name, micro.value)}</b></td>"
        f"<td>{_interval(name, micro)}</td><td>{_number(name, macro.value)}</td><td>{_interval(name, macro)}</td>"
        f"<td>{escaped(MEASURES[name])}</td></tr>"
    )


def _number(name: str, value: float) -> str:
    """Return a share × 100, a distance as it is."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if name in _NOT_SHARES else f"{100 * value:.1f}"


def _interval(name: str, found: Interval) -> str:
    return "" if math.isnan(found.lower) else f"{_number(name, found.lower)} – {_number(name, found.upper)}"


def _outcomes(card: Scorecard) -> str:
    counts = {name: count for name, count in card.result.outcomes.items() if count or name == ANSWERED}
    told = ", ".join(f"{count:,} {escaped(name)}" for name, count in counts.items())
    return f"Of {card.result.instances:,} instances: {told}."


def _published(card: Scorecard) -> str:
    """Return the published rows with this one among them, as `rr7k leaderboard` shows them; empty: there are none."""
    if not card.published:
        return "<p>Nothing is published about this data set.</p>"
    (board,) = leaderboard.boards([card.row])
    measures = board.measures[:2]
    rows = []
    for line in board.lines:
        numbers = "".join(f"<td>{escaped(_told(one))}</td>" for one in line.values[: len(measures)])
        kind = "" if line.is_published else ' class="own"'
        rows.append(
            f"<tr{kind}><th><bdi>{escaped(line.model)}</bdi></th>{numbers}<td>{escaped(line.protocol)}</td></tr>"
        )
    return f"<table><tr><th></th><th>similarity</th><th>IoU</th><th>protocol</th></tr>{''.join(rows)}</table>"


def _told(one: Limits | None) -> str:
    return "–" if one is None or one.value is None else f"{100 * one.value:.1f}"


def _panel(name: str, groups: Sequence[Group]) -> str:
    rows = "".join(map(_bar, groups[:_GROUPS]))
    more = f"<p>and {len(groups) - _GROUPS:,} more groups, in results.json</p>" if len(groups) > _GROUPS else ""
    return f'<div class="panel"><h3>{escaped(name.capitalize())}</h3><ol class="bars">{rows}</ol>{more}</div>'


def _bar(group: Group) -> str:
    found, iou = group.scores["similarity"], group.scores["iou"]
    told = f"{_number('', found.value)} · {_number('', iou.value)} <span>({group.instances:,})</span>"
    return (
        f"<li><bdi>{escaped(group.name)}</bdi>"
        f'<span class="bar" style="{_place(found.value, found.lower, found.upper)}"></span><small>{told}</small></li>'
    )


def _place(value: float, lower: float, upper: float) -> str:
    """Return where a bar ends and its interval lies; a negative similarity is drawn as 0."""
    ends = ((0.0 if math.isnan(end) else min(max(end, 0.0), 1.0)) for end in (value, lower, upper))
    return ";".join(f"--{name}:{end:.4f}" for name, end in zip(("value", "lower", "upper"), ends, strict=True))


# --- what is taken for what -------------------------------------------------------------------------------


def _confusion(found: Confusion) -> str:
    return (
        f"<tr><th><bdi>{escaped(found.category)}</bdi></th><td><bdi>{escaped(found.said)}</bdi></td>"
        f"<td>{found.times:,} of {found.of:,}</td><td>{_number('', found.similarity)}</td></tr>"
    )


def _category(found: CategoryScore) -> str:
    numbers = (found.instances, found.answered)
    shares = (found.similarity, found.iou, found.right)
    said = f"<bdi>{escaped(found.said)}</bdi> <small>{found.times:,}×</small>" if found.said else ""
    return (
        f"<tr><th><bdi>{escaped(found.category)}</bdi></th>"
        + "".join(f'<td data-value="{number}">{number:,}</td>' for number in numbers)
        + "".join(
            f'<td data-value="{-2 if math.isnan(share) else share:.6f}">{_number("", share)}</td>' for share in shares
        )
        + f'<td class="text">{said}</td></tr>'
    )


def _worst(card: Scorecard, rows: Sequence[dict[str, Any]]) -> str:
    if not card.truth.fingerprint:  # a file scored by its own true names: there is no data set
        drawn: dict[int, gallery.Picture | str] = {}
    else:
        drawn = pictures.draw(load(card.truth.folder), {row["instance_id"]: row["image_id"] for row in rows})
    return "".join(gallery.article(_card(row, drawn.get(row["instance_id"], ""))) for row in rows)


def _card(row: dict[str, Any], picture: gallery.Picture | str) -> Card:
    lines = [("said", row["text"]), *scores(row)]
    if row["relation"]:
        lines.append(("in WordNet", row["relation"]))
    return Card(row["category"], "", picture, [*lines, ("instance", f"{row['instance_id']} of {row['image_id']}")])


def scores(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the published measures of an instance, as lines of a card."""
    return [(name, _number("", row[name])) for name in ("similarity", "iou") if row[name] is not None]
