"""The figures of a data set, as PNG for papers; the colours differ for colour-blind readers (Okabe and Ito 2008)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from benchmark.data_sets import DataSet
from benchmark.semantic_space import LEVELS, Nearest, SemanticSpace
from benchmark.survey import Survey
from pipeline import pages, regions
from pipeline.plots import board, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8a8a8a"
_COLOURS = (_BLUE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#d55e00", "#6b6b6b")
_NAME = 30  # characters of a name
_NAMED = 9  # categories named along the curve
_LEAST_SIZE = 0.003  # relative mask size; 5 px of an image of 1500 × 2250
OUTSIDE = "not in the tree"


class Group(NamedTuple):
    """A secondary group of the coarse tree."""

    primary: str
    secondary: str
    categories: int
    instances: int


def coarse_counts(survey: Survey) -> list[Group]:
    """Count both levels of the coarse tree (Table 9), the largest primary group first; what is outside comes last."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in survey.categories.select(["coarse_primary", "coarse_secondary", "instances"]).to_pylist():
        key = (row["coarse_primary"] or OUTSIDE, row["coarse_secondary"] or OUTSIDE)
        found.setdefault(key, []).append(row["instances"])
    groups = [Group(*key, len(counts), sum(counts)) for key, counts in found.items()]
    totals: Counter[str] = Counter()
    for group in groups:
        totals[group.primary] += group.categories
    return sorted(
        groups, key=lambda g: (g.primary == OUTSIDE, -totals[g.primary], g.primary, -g.categories, g.secondary)
    )


def samples_per_category(survey: Survey) -> bytes:
    """Draw instances per category, as a curve over ranks and as a histogram (Fig. 6a)."""
    figure = board(11, 4.2)
    curve, bars = figure.subplots(1, 2, width_ratios=(5, 4))
    ranked = survey.categories.sort_by([("instances", "descending"), ("category", "ascending")])
    counts = ranked["instances"].to_numpy()
    _ranks(curve, counts, ranked["category"].to_pylist())
    edges = 2 ** np.arange(int(np.log2(counts[0])) + 2)
    found = np.histogram(counts, edges)[0]
    drawn = bars.bar(np.arange(len(found)), found, 0.85, color=_BLUE)
    bars.bar_label(drawn, [f"{count:,}" if count else "" for count in found], fontsize=7)
    labels = [f"{low:,}–{2 * low - 1:,}" if low > 1 else "1" for low in edges[:-1].tolist()]
    bars.set_xticks(np.arange(len(found)), labels, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    bands = Counter(ranked["frequency"].to_pylist())
    told = " · ".join(f"{bands[band]:,} {band}" for band in (regions.FREQUENT, regions.COMMON, regions.RARE))
    _finish(bars, told, "instances of the category", "categories")
    _thousands(bars.yaxis)
    return png(figure)


def _ranks(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    ranks = np.arange(1, len(counts) + 1)
    axes.plot(ranks, counts, color=_BLUE, marker="." if len(counts) < 200 else None)
    axes.fill_between(ranks, counts, 0.8, color=_BLUE, alpha=0.15)
    for place in (np.unique(np.geomspace(1, len(counts), _NAMED).round().astype(int)) - 1).tolist():
        text, at = _short(names[place]), (ranks[place], counts[place])
        right = place > len(counts) / 3  # the last ones would run out of the picture, the very last through the curve
        away = (-12, 4) if place == len(counts) - 1 and right else (4, 5)
        axes.annotate(
            text, at, xytext=away, textcoords="offset points", fontsize=8, ha="right" if right else "left",
            parse_math=False,
        )  # fmt: skip
    half = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) + 1
    title = f"{counts.sum():,} instances, {len(counts):,} categories; {half:,} hold half of them"
    _finish(axes, title, "rank of the category", "instances")
    axes.set(xscale="log", yscale="log", ylim=(0.8, counts[0] * 2))


def mask_sizes(surveys: Sequence[Survey]) -> bytes:
    """Draw how large the masks are relative to their images, ours first (Fig. 6b)."""
    figure = board(7, 4.2)
    axes = figure.subplots()
    edges = np.geomspace(_LEAST_SIZE, 1, 41)
    for number, survey in enumerate(surveys):
        shares = np.histogram(survey.sizes.clip(_LEAST_SIZE, 1), edges)[0] / len(survey.sizes)
        colour = (_ORANGE, *_COLOURS)[number % (len(_COLOURS) + 1)]
        label = f"{_short(survey.name)}: median {np.median(survey.sizes):.3f}"
        axes.stairs(shares, edges, color=colour, linewidth=2 if number == 0 else 1.2, label=label)
        if number == 0:
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.15)
    _finish(axes, "Relative mask size", "√(mask area ÷ image area), logarithmic", "share of the instances")
    axes.set(xscale="log", xlim=(_LEAST_SIZE, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    return png(figure)


def coarse_groups(groups: Sequence[Group]) -> bytes:
    """Draw categories and instances of both levels of the coarse tree (Fig. 12)."""
    figure = board(11, 1.4 + 0.24 * len(groups))
    panels = figure.subplots(1, 2, sharey=True)
    primaries = list(dict.fromkeys(group.primary for group in groups))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(primaries)} | {OUTSIDE: _GREY}
    places = np.arange(len(groups)) + np.array([primaries.index(group.primary) for group in groups]) * 0.6
    for axes, kind in zip(panels, ("categories", "instances"), strict=True):
        counts = [getattr(group, kind) for group in groups]
        drawn = axes.barh(places, counts, 0.8, color=[colours[group.primary] for group in groups])
        axes.bar_label(drawn, [f"{count:,}" for count in counts], fontsize=8, padding=3)
        for name in primaries:
            here = [n for n, group in enumerate(groups) if group.primary == name]
            label = f"{name}: {sum(counts[n] for n in here):,}"
            axes.plot([], [], color=colours[name], marker="s", linestyle="", label=label)
        _finish(axes, kind.capitalize(), "", "")
        axes.set(xlim=(0, max(counts) * 1.15))
        _thousands(axes.xaxis)
        axes.legend(
            frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1 * 8 / len(groups)), ncols=2
        )
    panels[0].set_yticks(places, [_short(group.secondary) for group in groups], fontsize=8, parse_math=False)
    panels[0].set_ylim(places[-1] + 0.7, -0.7)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
    return png(figure)


def comparison(rows: Sequence[DataSet]) -> bytes:
    """Draw categories, images and masks of data sets side by side (Fig. 1c); what was counted here is orange."""
    figure = board(12, 1.3 + 0.3 * len(rows))
    panels = figure.subplots(1, 3, sharey=True)
    colours = [_ORANGE if row.counted else _BLUE for row in rows]
    for axes, kind in zip(panels, ("categories", "images", "masks"), strict=True):
        counts = [getattr(row, kind) for row in rows]
        least, most = min(count for count in counts if count), max(count or 1 for count in counts)
        axes.barh(np.arange(len(rows)), [count or 0 for count in counts], 0.72, color=colours)
        nothing = {None: "none" if kind == "categories" else "not known", 0: "boxes only"}
        for place, count in enumerate(counts):
            text, at = nothing.get(count, f"{count or 0:,}"), (count or least / 8, place)
            axes.annotate(text, at, xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
        _finish(axes, kind.capitalize(), "logarithmic", "")
        axes.set(xscale="log", xlim=(least / 8, most * (8 * most / least) ** 0.35))
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(np.arange(len(rows)), [_short(row.name) for row in rows], fontsize=9, parse_math=False)
    panels[0].invert_yaxis()
    return png(figure)


def semantic_space(space: SemanticSpace) -> bytes:
    """Draw the categories among ImageNet-21K's names, and how much of either side the other covers (Fig. 11)."""
    figure = board(12, 5.6)
    flat, shares = figure.subplots(1, 2, width_ratios=(6, 5))
    for points, colour, label in (
        (space.theirs, _GREY, f"ImageNet-21K: {len(space.theirs):,} of {space.imagenet:,} names"),
        (space.ours, _ORANGE, f"categories: {len(space.ours):,} of {space.categories:,}"),
    ):
        flat.scatter(*points.T, s=6, color=colour, linewidths=0, alpha=0.7, label=label)
    flat.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, markerscale=3)
    flat.set(xticks=[], yticks=[])
    flat.spines[:].set_visible(False)
    flat.set_title("Names in the space of sentence embeddings, by t-SNE", loc="left", fontweight="bold", fontsize=10.5)
    for nearest, colour, label in (
        (space.covered, _GREY, "names of ImageNet-21K, to a category"),
        (space.known, _ORANGE, "categories, to a name of ImageNet-21K"),
        (space.apart, _BLUE, "categories, to another category"),
    ):
        _coverage(shares, nearest, colour, label)
    _finish(shares, "Share that has a neighbour as near", "cosine to the nearest, or more", "share of the names")
    shares.set(xlim=(0.2, 1.0), ylim=(0, 1))
    shares.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return png(figure)


def _coverage(axes: Axes, nearest: Nearest, colour: str, label: str) -> None:
    levels = np.linspace(0.2, 1, 161)
    axes.plot(levels, [nearest.share(level) for level in levels], color=colour, linewidth=2, label=label)
    axes.plot(LEVELS, [nearest.share(level) for level in LEVELS], color=colour, marker="o", linestyle="", markersize=4)


def group_samples(chosen: Mapping[str, Sequence[tuple[str, Path]]]) -> bytes:
    """Draw samples of every coarse group, a row each, from their names and picture files (Fig. 13)."""
    columns = max(len(found) for found in chosen.values())
    figure = board(1.7 * columns, 1.95 * len(chosen))
    for row, (group, found) in enumerate(chosen.items()):
        for column, (name, picture) in enumerate(found):
            axes = figure.add_subplot(len(chosen), columns, row * columns + column + 1)
            axes.imshow(np.asarray(_square(picture)))
            axes.set_axis_off()
            axes.set_title(_short(name, 22), fontsize=8, pad=3, parse_math=False)
            if column == 0:
                axes.text(-0.06, 0.5, _short(group), rotation=90, ha="right", va="center", fontsize=9,
                          fontweight="bold", transform=axes.transAxes, parse_math=False)  # fmt: skip
    return png(figure)


def _square(picture: Path) -> Image.Image:
    """Return a picture with white around it, so that all are in line."""
    with Image.open(picture) as image:
        square = Image.new("RGB", (max(image.size),) * 2, "white")
        square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    return square


def _short(name: str, longest: int = _NAME) -> str:
    name = " ".join(pages.visible(name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _thousands(axis: Axis) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _finish(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", fontsize=10.5, parse_math=False)
    axes.set(xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
