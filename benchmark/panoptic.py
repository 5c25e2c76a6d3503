"""Panoptic quality and mean IoU of one image's maps after the other. Pure functions and counts that add.

The rules are panopticapi's (`evaluation.py` 7bb4655), and for the semantic part detectron2's and cityscapesScripts', as
wowseg_facts.md B.1, steps 5 to 9, has them. They are written out here because panopticapi is in no registry and was
last changed in 2021, and the package that is well kept, torchmetrics 1.9, computes something else: it knows no crowds,
and does not count as missed what a prediction leaves void. Where there is neither, its numbers are ours
(tests/bench/segmentation.py, which compares the speed as well).

    places    map of an image, of any one shape: 0 no segment, k the k-th segment, counted from 1
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Map = npt.NDArray[np.int32]

NO_CLASS = -1
"""In a semantic map: ground truth that is not to be judged, or a prediction that says nothing."""

_SURVIVES = 0.8
"""Share of a predicted mask that others must leave it, or it is no segment (FC-CLIP, and after it Osprey)."""


class Segments(NamedTuple):
    """The segments of an image, of which no two share a pixel."""

    places: Map
    classes: Ints
    """(S,): class of each segment."""
    crowd: Bools
    """(S,): COCO's iscrowd: the segment stands for several, and is never matched. No prediction is one."""


# --- masks into maps --------------------------------------------------------------------------------------


class Overlay(NamedTuple):
    """Masks laid over each other: an image cut into pieces that the same masks cover."""

    pieces: Map
    """Piece of each pixel; piece 0 is covered by none."""
    members: list[tuple[int, ...]]
    """By piece: the masks that cover it, ascending. A piece may have come to have no pixel."""
    areas: Ints
    """By piece: px."""


def overlay(masks: Iterable[Ints], pixels: int) -> Overlay:
    """Lay masks over each other, each given by the numbers of its pixels, below `pixels`; each is looked at once."""
    pieces, members = np.zeros(pixels, np.int32), [()]  # type: tuple[Map, list[tuple[int, ...]]]
    for number, inside in enumerate(masks):
        here = pieces[inside]
        cut = np.flatnonzero(np.bincount(here, minlength=len(members)))
        renamed = np.zeros(len(members), np.int32)
        renamed[cut] = len(members) + np.arange(len(cut))
        pieces[inside] = renamed[here]
        members += [(*members[piece], number) for piece in cut.tolist()]
    return Overlay(pieces, members, np.bincount(pieces, minlength=len(members)))


def disjoint(laid: Overlay, classes: Ints, crowd: Bools) -> Segments | None:
    """Take masks, with their classes, for the segments of an image, as ground truth has them; None: two overlap."""
    numbers = np.zeros(len(laid.members), np.int32)
    for piece, owners in enumerate(laid.members):
        if len(owners) > 1 and laid.areas[piece]:
            return None
        numbers[piece] = owners[0] + 1 if owners else 0
    return Segments(numbers[laid.pieces], classes, crowd)


class Predicted(NamedTuple):
    """What named masks of an image come to."""

    segments: Segments
    semantic: Map
    """Class of each pixel, or `NO_CLASS`."""
    dropped: int
    """Masks that lost more than a fifth of themselves to others, and so are no segments."""


def combine(laid: Overlay, cosines: npt.NDArray[np.float32], things: Bools, uncovered: int = NO_CLASS) -> Predicted:
    """Make segments and a semantic map of masks whose classes are predicted (B.1, steps 4 to 7).

    `cosines` (masks, C) is how near each mask's text is to each class; a row of NaN is a mask without a class, which is
    left out. A mask's class is the nearest; its score the class's share in the softmax over classes. Where masks
    overlap, a pixel of a segment belongs to the mask with the highest score, a pixel of the semantic map to the class
    with the highest sum of shares. All masks of a class that is stuff (`things` (C,) False) become one segment. Pixels
    that no mask covers are of the class `uncovered` in the semantic map.
    """
    named = ~np.isnan(cosines[:, 0])
    shares = np.exp(np.where(named[:, None], cosines, 0).astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    classes = np.where(named, np.where(named[:, None], cosines, 0).argmax(axis=1), NO_CLASS)
    owners, semantic = _owners(laid, classes, shares, uncovered)
    won = np.bincount(owners + 1, laid.areas, len(classes) + 1)[1:]
    whole = np.zeros(len(classes))
    for piece, members in enumerate(laid.members):
        whole[list(members)] += laid.areas[piece]
    kept = named & (won > 0) & (won >= _SURVIVES * whole)
    numbers, of_segments = _numbered(classes, kept, things)
    pieces = np.where(owners < 0, 0, np.append(numbers, 0)[owners]).astype(np.int32)
    segments = Segments(pieces[laid.pieces], of_segments, np.zeros(len(of_segments), np.bool_))
    return Predicted(segments, semantic[laid.pieces], int((named & ~kept).sum()))


def _owners(laid: Overlay, classes: Ints, shares: Floats, uncovered: int) -> tuple[Ints, Map]:
    """Return of each piece the mask it belongs to, or -1, and its class."""
    owners = np.full(len(laid.members), -1)
    semantic = np.full(len(laid.members), uncovered, np.int32)
    for piece, members in enumerate(laid.members):
        voices = [mask for mask in members if classes[mask] != NO_CLASS]
        if voices:
            owners[piece] = max(voices, key=lambda mask: shares[mask, classes[mask]])
            semantic[piece] = shares[voices].sum(axis=0).argmax() if len(voices) > 1 else classes[voices[0]]
    return owners, semantic


def _numbered(classes: Ints, kept: Bools, things: Bools) -> tuple[Ints, Ints]:
    """Return of each mask the number of its segment, 0 if it is none, and the classes of the segments."""
    numbers, of_segments = np.zeros(len(classes), np.int64), list[int]()
    merged: dict[int, int] = {}
    for mask in np.flatnonzero(kept).tolist():
        found = int(classes[mask])
        if found in merged:
            numbers[mask] = merged[found]
            continue
        of_segments.append(found)
        numbers[mask] = len(of_segments)
        if not things[found]:
            merged[found] = len(of_segments)
    return numbers, np.array(of_segments, np.int64)


# --- panoptic quality -------------------------------------------------------------------------------------


class Matches(NamedTuple):
    """Counts by class, (C,) each, of as many images as were added."""

    iou: Floats
    """Sum over the matched pairs."""
    tp: Ints
    fp: Ints
    fn: Ints

    def plus(self, other: Self) -> Matches:
        """Add the counts of other images."""
        return Matches(self.iou + other.iou, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def no_matches(classes: int) -> Matches:
    """Return the counts of no image."""
    return Matches(np.zeros(classes), *(np.zeros(classes, np.int64) for _ in range(3)))


def match(truth: Segments, predicted: Segments, classes: int) -> Matches:
    """Match the segments of an image (B.1, step 8).

    A pair matches when it is of one class, the true one is no crowd, and IoU is above 0.5, where the union has no
    pixel of the prediction that is void in the ground truth; so each has one partner at most. Other true segments that
    are no crowd are missed. Another predicted one is false, unless more than half of it is void or crowd of its class.
    """
    shared = _joint(truth.places, predicted.places, len(truth.classes) + 1, len(predicted.classes) + 1)
    areas, void, inside = shared.sum(axis=0)[1:], shared[0, 1:], shared[1:, 1:]
    union = shared[1:].sum(axis=1)[:, None] + (areas - void)[None, :] - inside
    same = truth.classes[:, None] == predicted.classes[None, :]
    of_truth, of_predicted = np.nonzero(same & ~truth.crowd[:, None] & (2 * inside > union))
    missed = ~truth.crowd
    missed[of_truth] = False
    ignored = void + (inside * (same & truth.crowd[:, None])).sum(axis=0)
    false = (areas > 0) & (2 * ignored <= areas)
    false[of_predicted] = False
    matched = truth.classes[of_truth]
    ious = inside[of_truth, of_predicted] / union[of_truth, of_predicted]
    return Matches(
        np.bincount(matched, ious, classes).astype(np.float64),  # which it is not where there is none
        np.bincount(matched, minlength=classes),
        np.bincount(predicted.classes[false], minlength=classes),
        np.bincount(truth.classes[missed], minlength=classes),
    )


class Quality(NamedTuple):
    """Means over those classes that any segment, true or predicted, has."""

    pq: float
    """0 to 1, NaN without a class."""
    sq: float
    rq: float
    classes: int


def by_class(matches: Matches) -> tuple[Floats, Floats, Floats]:
    """Return PQ, SQ and RQ of each class, 0 to 1; NaN for a class without any segment. PQ = SQ × RQ."""
    counted = matches.tp + (matches.fp + matches.fn) / 2
    with np.errstate(invalid="ignore"):
        sq = np.where(counted > 0, matches.iou / np.maximum(matches.tp, 1), np.nan)
        return matches.iou / counted, sq, matches.tp / counted


def quality(matches: Matches, chosen: Bools) -> Quality:
    """Average over the `chosen` classes (C,) that have segments."""
    pq, sq, rq = (values[chosen & ~np.isnan(values)] for values in by_class(matches))
    if not len(pq):
        nan = float("nan")
        return Quality(nan, nan, nan, 0)
    return Quality(float(pq.mean()), float(sq.mean()), float(rq.mean()), len(pq))


# --- mean IoU ---------------------------------------------------------------------------------------------


def confusion(truth: Map, predicted: Map, classes: int) -> Ints:
    """Count the pixels of each true (row) and predicted (column) class; the last row and column are `NO_CLASS`."""
    first, second = (np.where(one < 0, classes, one) for one in (truth, predicted))
    return _joint(first, second, classes + 1, classes + 1)


def ious(matrix: Ints) -> Floats:
    """Return each class's IoU, 0 to 1; NaN for one that is neither true nor predicted where the truth has a class.

    Pixels whose true class is not to be judged do not count; predicted ones without a class count as missed.
    """
    judged = matrix[:-1]
    right = np.diagonal(judged).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(right / (judged.sum(axis=1) + judged[:, :-1].sum(axis=0) - right))


def mean_iou(matrix: Ints, over: Literal["true", "any"] = "true") -> float:
    """Average over the classes that occur in the ground truth (detectron2), or in either (cityscapesScripts)."""
    found = ious(matrix)
    counted = matrix[:-1].sum(axis=1) > 0 if over == "true" else ~np.isnan(found)
    return float(found[counted].mean()) if counted.any() else float("nan")


def _joint(first: Map, second: Map, rows: int, columns: int) -> Ints:
    """Count pixels by the values of two maps, (rows, columns)."""
    both = first.ravel().astype(np.int64) * columns + second.ravel()
    return np.bincount(both, minlength=rows * columns).reshape(rows, columns)
