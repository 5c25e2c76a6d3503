"""The figures of the verification report, as PNG; the colours differ for colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline import pages
from pipeline.plots import board, png
from stages.verification_counts import Share
from stages.verification_report import LEFTOVER_EDGES, LOOSE, SCORE_EDGES, VerificationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8a8a8a"
_BARS = 15  # categories
_NAME = 28  # characters of a category
_TOP, _FRAME, _BAR = 4.5, 1.0, 0.3  # inches: the upper panels, what surrounds bars, a bar
_LEAST_BARS = 4

Panel = Callable[["Axes", VerificationReport], None]


def whole(report: VerificationReport) -> bytes:
    """Draw all panels as one figure, 2,400 px wide and up to 1,600 px high."""
    bars = _FRAME + _BAR * max(_LEAST_BARS, *(1 + len(found) for found in _worst(report)))
    figure = board(16, _TOP + bars)
    rows = figure.add_gridspec(2, 1, height_ratios=(_TOP, bars))
    for row, panels in enumerate([[scores, reliability, leftovers], [drops, false_yeses]]):
        places = rows[row].subgridspec(1, len(panels))
        for column, panel in enumerate(panels):
            panel(figure.add_subplot(places[column]), report)
    stand_in = " · embedded (not a VLM)" if report.embedded else ""
    figure.suptitle(f"Yes/no check: {report.dropped.told()} pairs dropped{stand_in}", parse_math=False)
    return png(figure)


def alone(panel: Panel, report: VerificationReport) -> bytes:
    """Draw one panel, 900 × 600 px."""
    figure = board(6, 4)
    panel(figure.add_subplot(), report)
    return png(figure)


# --- panels -----------------------------------------------------------------------------------------------


def scores(axes: Axes, report: VerificationReport) -> None:
    """Draw the scores of pairs and of controls, each as shares of all of its kind, with the thresholds."""
    pairs, controls = np.array(report.pair_scores), np.array(report.control_scores)
    if pairs.sum():
        axes.stairs(pairs / pairs.sum(), SCORE_EDGES, fill=True, color=_BLUE, alpha=0.35)
        axes.stairs(pairs / pairs.sum(), SCORE_EDGES, color=_BLUE, label=f"pairs ({pairs.sum():,})")
    if controls.sum():
        label = f"controls: a wrong category ({controls.sum():,})"
        axes.stairs(controls / controls.sum(), SCORE_EDGES, color=_ORANGE, linewidth=2, label=label)
    for threshold in report.thresholds:
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
    _finish(axes, "Scores", "score = p(yes) / (p(yes) + p(no))", "share of each, logarithmic")
    axes.set(xlim=(0, 1), yscale="log", ylim=(_least(pairs, controls), 1.5))
    if report.thresholds:
        title = "dashed: threshold " + " · ".join(f"{threshold:.3g}" for threshold in report.thresholds)
        axes.legend(loc="upper center", title=title, framealpha=1, edgecolor="none")


def _least(*histograms: np.ndarray) -> float:
    """Return a little less than the smallest share that a bin can show."""
    return 0.7 / max(1, *(int(counts.sum()) for counts in histograms))


def reliability(axes: Axes, report: VerificationReport) -> None:
    """Draw how often pairs of a score are right, by people's judgements; or say that there are none."""
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="score = share right")
    found = report.calibration
    _finish(axes, "Reliability", "mean score of the bin", "share right, by people")
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    if found is None:
        text = "no human judgements yet:\nrr7k stage-2 calibrate --judged TABLE"
        axes.text(0.5, 0.3, text, ha="center", transform=axes.transAxes, bbox={"color": "white"})
        return
    bins = [b for b in found.reliability if b.judged]
    right = np.array([b.right for b in bins])
    reach = np.array([right - [b.lower for b in bins], [b.upper for b in bins] - right]).clip(0).tolist()
    label = f"{sum(b.judged for b in bins):,} judged pairs, with 95 % limits"
    axes.errorbar([b.score for b in bins], right, reach, color=_BLUE, marker="o", capsize=3, label=label)
    for b in bins:
        text, at = f"{b.judged:,}", (b.score, b.right)
        axes.annotate(text, at, xytext=(5, -11), textcoords="offset points", fontsize=8, color=_GREY)
    axes.legend(loc="upper left", frameon=False)


def leftovers(axes: Axes, report: VerificationReport) -> None:
    """Draw how much of the probability was on neither yes nor no."""
    counts = np.array(report.leftovers)
    shares = counts / max(1, counts.sum())
    loose = np.where(LEFTOVER_EDGES[1:] > LOOSE * 1.001, shares, 0)
    axes.stairs(shares, LEFTOVER_EDGES, fill=True, color=_BLUE)
    axes.stairs(loose, LEFTOVER_EDGES, fill=True, color=_ORANGE)
    axes.axvline(LOOSE, color="black", linestyle="--", linewidth=1)
    _finish(axes, "Neither yes nor no", "leftover = 1 − p(yes) − p(no); first bin: and below", "share of the answers")
    axes.set(xscale="log", xlim=(LEFTOVER_EDGES[0], 1), ylim=(0, max(0.01, shares.max() * 1.25)))
    told = f"above {LOOSE:g}: {report.loose.told()}" if report.loose.total else "no answer came with probabilities"
    axes.text(0.02, 0.98, told, va="top", transform=axes.transAxes)


def drops(axes: Axes, report: VerificationReport) -> None:
    """Draw the drop rates of the worst categories."""
    _bars(axes, _worst(report)[0], report.dropped, _BLUE)
    _finish(axes, "Dropped, by category", "share of the pairs asked, with 95 % limits", "")


def false_yeses(axes: Axes, report: VerificationReport) -> None:
    """Draw the false-yes rates of the worst categories."""
    _bars(axes, _worst(report)[1], report.false_yes, _ORANGE)
    _finish(axes, "False yes, by the category asked", "share of the controls, with 95 % limits", "")


def _worst(report: VerificationReport) -> tuple[list[tuple[str, Share]], list[tuple[str, Share]]]:
    """Return the highest drop rates and the highest false-yes rates."""
    drops = [(c.category, c.dropped) for c in report.worst_pairs()[:_BARS]]
    return drops, [(c.category, c.false_yes) for c in report.worst_controls()[:_BARS]]


def _bars(axes: Axes, shares: Sequence[tuple[str, Share]], total: Share, colour: str) -> None:
    """Draw shares as bars with limits and counts, the first on top, and their total below."""
    rows = [*shares, ("all categories", total)]
    values = np.array([share.value for _, share in rows])
    limits = np.array([values - [s.lower for _, s in rows], [s.upper for _, s in rows] - values]).clip(0).tolist()
    colours = [*([colour] * len(shares)), _GREY]
    places = np.arange(len(rows))
    axes.barh(places, values, 0.75, color=colours, xerr=limits, error_kw={"elinewidth": 1, "capsize": 2})
    for place, (_, share) in enumerate(rows):
        text = f"{share.count:,} of {share.total:,}"
        axes.annotate(text, (share.upper, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [_short(name) for name, _ in rows], fontsize=9, parse_math=False)
    axes.set(xlim=(0, 1.16), ylim=(max(len(rows), _LEAST_BARS) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
    axes.tick_params(axis="y", length=0)


def _short(name: str) -> str:
    name = " ".join(pages.visible(name).split())
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _finish(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set(xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
