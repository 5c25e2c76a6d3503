"""What a release keeps of an earlier one: every image's split, and its place in the small subset.

A test image never becomes train, whatever is left of it. A train image becomes test when people have screened it since.
An image leaves when it was taken down, when nothing of it is released any more, when it was test and nothing in it is
screened any more, or when it is train and resembles a test image. The places in the small subset that become free, and
those that were never taken, go to the other test images in the order of `splits.mini`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from benchmark import stats
from benchmark.splits import TEST
from benchmark.stats import Moves
from pipeline.errors import UsageError
from pipeline.regions import RegionSamples

KEPT, SCREENED, TAKEN_DOWN, NEAR, UNSCREENED, NOTHING = (
    "kept their split",
    "train to test: people have screened them since",
    "left: taken down",
    "left train: near-duplicates of test images",
    "left test: nothing in them is screened any more",
    "left: no pair of theirs is released any more",
)


class Previous(NamedTuple):
    """An earlier release, or none."""

    name: str = ""
    splits: Mapping[int, str] = {}
    """By image."""
    mini: Set[int] = frozenset()
    """Images of the small subset."""


class Refused(NamedTuple):
    """Images that a release does not have, though pairs of them could be released."""

    taken_down: Set[int] = frozenset()
    near: Set[int] = frozenset()
    unscreened: Set[int] = frozenset()


def load(folder: Path, version: str) -> Previous:
    """Read the release in `folder`, of which `version` is to keep the splits.

    Raises `UserError` for a folder that is no release, `UsageError` where its version is this one.
    """
    told = stats.load(folder)
    if told.version == version:
        raise UsageError(f"--version {version}: the release given as --previous, {folder}, has it already.")
    rows = RegionSamples(folder).read("images", ["image_id", "split", "mini"])
    of_images = dict(zip(rows["image_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    return Previous(told.name, of_images, frozenset(rows.filter(rows["mini"])["image_id"].to_pylist()))


def moves(before: Previous, rows: Sequence[Mapping[str, Any]], refused: Refused) -> Moves | None:
    """Count what became of the images of `before`; `rows` (image_id, split, mini) are those of the new release."""
    if not before.name:
        return None
    now = {row["image_id"]: row["split"] for row in rows}
    mini = {row["image_id"] for row in rows if row["mini"]}
    told = Counter(_fate(image, split, now, refused) for image, split in before.splits.items())
    return Moves(
        since=before.name,
        images=dict(sorted(told.items())),
        new=len(now.keys() - before.splits.keys()),
        mini_kept=len(mini & before.mini),
        mini_left=len(before.mini - mini),
        mini_new=len(mini - before.mini),
    )


def _fate(image: int, split: str, now: Mapping[int, str], refused: Refused) -> str:
    if image in now:
        return KEPT if now[image] == split else SCREENED
    if image in refused.taken_down:
        return TAKEN_DOWN
    if image in refused.near:
        return NEAR
    return UNSCREENED if split == TEST and image in refused.unscreened else NOTHING
