"""Rougher masks of the same region: its rotated bounding box, an ellipse (the paper's Table 7; wowseg_facts.md E.1).

The paper names them and gives no derivation; these are OpenCV's, with whose rounding the facts' examples were made.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

_LEAST_POINTS = 5
"""What an ellipse needs to be fitted (OpenCV refuses fewer)."""

_LONGEST = 2.0
"""Longer axis of a fit, in diagonals of what it is fitted to, above which it is degenerate: a block has 1.2."""


def rotated_box(mask: Bools) -> Bools:
    """Return the smallest-area rotated rectangle of all pixels of a mask (height, width), filled.

    One rectangle, however many pieces the mask has: `minAreaRect` on pixel centres, corners rounded, `fillPoly`. What
    leaves the image is cut off. Raises `ValueError` for an empty mask.
    """
    corners = cv2.boxPoints(cv2.minAreaRect(_edges(mask)))
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(drawn, [np.rint(corners).astype(np.int32)], 1)
    return drawn.view(np.bool_)


def ellipse(mask: Bools) -> Bools | None:
    """Return the ellipse fitted by least squares to all points of a mask's outer contours (`fitEllipse`), filled.

    None where there is none: fewer than 5 points, or a degenerate fit, which is one without finite axes, with one
    longer than twice the diagonal of the points' box, or that covers no pixel. Raises `ValueError` for an empty mask.
    """
    if not mask.any():
        raise ValueError("an empty mask has no ellipse")
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate(contours)
    if len(points) < _LEAST_POINTS:
        return None
    fitted = cv2.fitEllipse(points)
    longest = _LONGEST * float(np.hypot(*np.ptp(points.reshape(-1, 2), axis=0)))
    if not np.isfinite([*fitted[0], *fitted[1], fitted[2]]).all() or max(fitted[1]) > longest:
        return None
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(drawn, fitted, 1, -1)
    return drawn.view(np.bool_) if drawn.any() else None


def _edges(mask: Bools) -> npt.NDArray[np.int32]:
    """Return (N, 2) x, y of the first and last pixel of each row: all corners of the hull are among them.

    In the order of all pixels, each once, because OpenCV's choice between two boxes of one area depends on it.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        raise ValueError("an empty mask has no box")
    some = mask[rows]
    ends = np.stack([some.argmax(axis=1), mask.shape[1] - 1 - some[:, ::-1].argmax(axis=1)], axis=1)
    points = np.stack([ends.ravel(), np.repeat(rows, 2)], axis=1, dtype=np.int32)
    return points[np.stack([np.ones(len(rows), np.bool_), ends[:, 0] < ends[:, 1]], axis=1).ravel()]
