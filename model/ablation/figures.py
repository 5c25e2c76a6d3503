"""The figures of the report, as PNG; the colours differ for colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.ablation.efficiency import MASKS, Efficiency
from model.ablation.report import ContrastResult, Report
from model.ablation.settings import SETTINGS
from pipeline.plots import board, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_GREY = "#8a8a8a"
_TABLE_4 = ("sm", "mm", "region", "output", "both", "branches")
_TITLES = {
    "sm": "SM", "mm": "MM", "region": "MM, Region", "output": "MM, Output", "both": "MM, both", "branches": "branches",
}  # fmt: skip
_WINDOW = 50  # steps that a point of a loss curve is the mean of


def losses(report: Report) -> bytes:
    """Draw the loss curves of Table 4's settings, after the paper's Fig. 9."""
    figure = board(7, 4)
    panel = figure.add_subplot()
    window = min(_WINDOW, max(1, report.steps // 4))
    for setting, colour in zip(_TABLE_4, _COLOURS, strict=True):
        smooth = np.convolve(report.losses[setting], np.ones(window) / window, "valid")
        panel.plot(np.arange(len(smooth)) + window, smooth, color=colour, label=_TITLES[setting], linewidth=1.5)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("{x:g}")
    panel.set(xlabel="step", ylabel="loss of a token of a label", title=f"Training, mean of {window} steps")
    panel.grid(alpha=0.3, which="both")
    panel.legend()
    return png(figure)


def contrasts(report: Report) -> bytes:
    """Draw every difference with its interval, the paper's beside it."""
    figure = board(8, 1.2 + 0.34 * len(report.contrasts))
    panel = figure.add_subplot()
    for place, one in enumerate(reversed(report.contrasts)):
        _contrast(panel, place, one)
    panel.axvline(0, color=_GREY, linewidth=1)
    names = [f"Table {one.table}: {one.first} − {one.second}" for one in reversed(report.contrasts)]
    panel.set_yticks(range(len(names)), names, parse_math=False)
    panel.set_xlabel("difference of word overlap, points")
    panel.grid(alpha=0.3, axis="x")
    panel.plot([], [], "o", color=_COLOURS[0], label="here, 95 % interval")
    panel.plot([], [], "d", color=_COLOURS[1], label="paper, LVIS and PACO")
    figure.legend(loc="outside upper right", ncols=2)
    return png(figure)


def efficiency(report: Report, found: Efficiency) -> bytes:
    """Draw operations over masks, after the paper's Fig. 7, beside the masks a second of each setting here."""
    figure = board(10, 4)
    counted, measured = figure.subplots(1, 2)
    for one, colour in zip(found.counted, _COLOURS, strict=False):
        tiles = f"{one.pictures} tile{'s' * (one.pictures > 1)}"
        counted.plot(MASKS, one.together, "o-", color=colour, label=f"{tiles}: one pass")
        counted.plot(MASKS, one.apart, "o:", color=colour, label=f"{tiles}: a pass a mask", markersize=3)
    counted.set(xlabel="masks", ylabel="TFLOP of a forward pass, 1B", yscale="log", title="Counted on the 1B")
    counted.legend(fontsize="small")
    names = [speed.setting for speed in report.speeds]
    values = [speed.masks_per_second for speed in report.speeds]
    colours = [_COLOURS[1] if SETTINGS[name].single else _COLOURS[0] for name in names]
    measured.barh(names, values, color=colours)
    measured.invert_yaxis()
    measured.set(xlabel="masks a second, one thread", title="Measured here (orange: single masks)")
    for panel in (counted, measured):
        panel.grid(alpha=0.3)
    return png(figure)


def _contrast(panel: Axes, place: int, one: ContrastResult) -> None:
    value, lower, upper = one.found
    panel.errorbar(value, place, xerr=[[value - lower], [upper - value]], fmt="o", color=_COLOURS[0], capsize=3)
    panel.plot(one.paper, [place + 0.22] * len(one.paper), "d", color=_COLOURS[1], markersize=4)
