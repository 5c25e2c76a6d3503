"""Masks as data sets write them, turned into COCO's compressed run lengths (pycocotools, `common/maskApi.c`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

NO_MASK = "the source gives no mask"
NO_POLYGON = "no polygon has three points"
NO_PIXEL = "the mask covers no pixel"

_Runs = npt.NDArray[np.int64]


class NoMaskError(Exception):
    """The annotation marks no region; says in which way."""


class BadMaskError(Exception):
    """The annotation's mask cannot be read; says why."""


def encode(segmentation: Any, height: int, width: int) -> str:
    """Return the compressed run lengths of a mask in an image of `height` × `width` px.

    `segmentation` is one of COCO's: a list of polygons [x, y, x, y, …] in px, whose union is the mask; {"size":
    [height, width], "counts": …} with compressed or plain run lengths; or plain run lengths alone (Osprey's lists).
    Polygons of fewer than three points are passed over, as the authors do (wowseg_facts.md, C.10). Compressed
    run lengths are returned as they are, unchecked. Raises `NoMaskError`, `BadMaskError`.
    """
    if segmentation is None or segmentation == []:
        raise NoMaskError(NO_MASK)
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, height, width)
    if isinstance(segmentation, list) and all(isinstance(part, list) for part in segmentation):
        return _from_polygons(segmentation, height, width)
    if isinstance(segmentation, list):
        return _from_runs(segmentation, height, width)
    raise BadMaskError(f"polygons or run lengths expected, {type(segmentation).__name__} found")


def _from_rle(rle: dict[str, Any], height: int, width: int) -> str:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise BadMaskError(f"size {size!r:.40} (height, width), but its image has [{height}, {width}]")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        return counts
    if isinstance(counts, list):
        return _from_runs(counts, height, width)
    raise BadMaskError(f"counts: run lengths expected, {type(counts).__name__} found")


def _from_runs(lengths: list[Any], height: int, width: int) -> str:
    """Compress runs that go down the columns, background first; those of no length spoil pycocotools' boxes."""
    if not (set(map(type, lengths)) == {int} and 0 <= min(lengths) <= max(lengths) <= height * width):
        raise BadMaskError("run lengths must be whole numbers of pixels, none negative")
    runs = np.array(lengths, np.int64)
    if runs.sum() != height * width:
        raise BadMaskError(f"the run lengths sum to {runs.sum()}, not {height} × {width}")
    inside = np.arange(len(runs))[runs > 0] & 1
    starts = np.flatnonzero(np.diff(inside, prepend=-1))
    merged = np.add.reduceat(runs[runs > 0], starts)
    return _compressed(np.concatenate([[0] * int(inside[0]), merged]), height, width)


def _compressed(runs: _Runs, height: int, width: int) -> str:
    plain = {"counts": runs.astype(np.uint32), "size": [height, width]}
    return str(coco.frPyObjects(plain, height, width)["counts"].decode())


def _from_polygons(polygons: list[list[Any]], height: int, width: int) -> str:
    sound = [_polygon(points, height, width) for points in polygons]
    solid = [points for points in sound if len(points) >= 6]  # of four numbers pycocotools would make a box
    if not solid:
        raise NoMaskError(NO_POLYGON)
    rles = coco.frPyObjects(solid, height, width)
    return str((coco.merge(rles) if len(rles) > 1 else rles[0])["counts"].decode())


def _polygon(points: list[Any], height: int, width: int) -> list[float]:
    """Check a polygon; its points may lie outside the image, but only so far that drawing it stays cheap."""
    if len(points) % 2:
        raise BadMaskError(f"a polygon of {len(points)} numbers: one of a pair x, y is missing")
    if not set(map(type, points)) <= {int, float}:
        raise BadMaskError("a polygon must hold numbers only")
    xs, ys = points[0::2] or [0], points[1::2] or [0]
    within = -width <= min(xs) <= max(xs) <= 2 * width and -height <= min(ys) <= max(ys) <= 2 * height
    if not within or not math.isfinite(math.fsum(points)):  # of a NaN, min and max know nothing
        raise BadMaskError(f"a polygon leaves its image of {width}×{height} px by more than its size")
    return points


def by_label(labels: npt.NDArray[Any]) -> Iterator[tuple[int, str]]:
    """Yield each value of a (height, width) map, ascending, and the compressed run lengths of its pixels.

    The map is gone through once, however many values it has.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")
    values, firsts = np.unique(flat[starts][order], return_index=True)
    for value, (first, last) in zip(values.tolist(), pairwise([*firsts.tolist(), len(order)]), strict=True):
        group = order[first:last]
        runs = np.empty(2 * len(group), np.int64)
        runs[0::2] = starts[group] - np.append([0], ends[group][:-1])
        runs[1::2] = ends[group] - starts[group]
        rest = flat.size - int(ends[group][-1])
        yield value, _compressed(np.append(runs, [rest] if rest else []).astype(np.int64), height, width)
