"""How many masks the tiny-mask rule removes, and how many it would at other cuts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.plots import board, png
from pipeline.run import Run
from stages.manifest import Plan
from stages.shard_tasks import RATIO_EDGES, READ, STEP

CUTS = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
"""Shares of the image; all are bin edges, so that what falls below them is exact. The last is GranD's cut."""

_REAL_IMAGE = Path(__file__).parent.parent / "data_manifests" / "sa1b" / "real_image.toml"


@dataclass(frozen=True)
class AreaReport:
    """The distribution of mask sizes in a run, before any rule."""

    counts: npt.NDArray[np.int64]  # per bin of RATIO_EDGES
    cut: float
    images: int

    @property
    def total(self) -> int:
        """Sound masks read."""
        return int(self.counts.sum())

    def below(self, cut: float) -> int:
        """Count the masks a cut removes; exact at the edges of the bins, else up to the next lower edge."""
        return int(self.counts[: np.searchsorted(RATIO_EDGES, cut * (1 + 1e-9), side="right") - 1].sum())


def gather(run: Run) -> AreaReport:
    """Add up the histograms of a run's readings. Raises `UsageError` when nothing was read yet."""
    plan, commits = run.plan(STEP, Plan), list(run.commits(READ).values())
    if plan is None or not commits:
        raise UsageError(
            f"{run.folder.uri}: no masks were read yet; run `rr7k stage-1 manifest --run … --shards …` first."
        )
    counts = np.sum([commit.facts["area_ratios"] for commit in commits], axis=0)
    return AreaReport(
        np.asarray(counts, np.int64),
        plan.settings["min_area_ratio"],
        sum(commit.counts.get("images.kept", 0) for commit in commits),
    )


@dataclass(frozen=True)
class RealImage:
    """What each cut removes in the one real annotated image at hand: an illustration, not a distribution."""

    description: str
    masks: int
    below: dict[float, int]


def real_image() -> RealImage:
    """Read the figures of the real image. Raises `FileNotFoundError` in an installed wheel."""
    data = tomllib.loads(_REAL_IMAGE.read_text(encoding="utf-8"))
    return RealImage(data["description"], data["masks"], {float(cut): n for cut, n in data["below"].items()})


def draw(report: AreaReport) -> bytes:
    """Return the histogram with the cut as a PNG."""
    figure = board(8, 4.2)
    axes = figure.add_subplot()
    edges = np.array(RATIO_EDGES)
    kept = edges[:-1] >= report.cut * (1 - 1e-9)
    for chosen, colour, label in ((kept, "#2a7fb8", "at or above the cut"), (~kept, "#c44e52", "tiny: dropped")):
        axes.bar(
            edges[:-1][chosen],
            report.counts[chosen],
            np.diff(edges)[chosen],
            align="edge",
            color=colour,
            label=f"{label} ({report.counts[chosen].sum():,})",
        )
    axes.axvline(report.cut, color="black", linestyle="--", linewidth=1)
    axes.annotate(f" min_area_ratio = {report.cut:g}", (report.cut, 1), xycoords=("data", "axes fraction"), va="top")
    used = np.flatnonzero(report.counts)
    axes.set(
        xscale="log",
        xlim=(edges[max(used.min() - 2, 0)], 1),
        xlabel="mask area ÷ image area",
        ylabel="masks",
        title=f"Mask sizes: {report.total:,} masks of {report.images:,} images",
    )
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)
