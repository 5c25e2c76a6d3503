"""The masks that a trained model is shown in place of the true ones (Table 7)."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from model.ablation.world import Bools
from pipeline import outlines

Kind = Literal["true", "rotated box", "ellipse", "eroded", "dilated"]

ERODED, DILATED = 1, 2
"""px; the smallest parts are five pixels wide, and would be gone after two."""
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def rougher(mask: Bools, kind: Kind) -> Bools:
    """Return what stands in for a mask, (height, width), never empty.

    Where no ellipse can be fitted, the rotated box does; where erosion leaves nothing, the mask stays as it is.
    """
    if kind == "true":
        return mask
    if kind == "rotated box":
        return outlines.rotated_box(mask)
    if kind == "ellipse":
        found = outlines.ellipse(mask)
        return outlines.rotated_box(mask) if found is None else found
    bytes_ = mask.view(np.uint8)
    if kind == "dilated":
        return cv2.dilate(bytes_, _CROSS, iterations=DILATED).view(np.bool_)
    left = cv2.erode(bytes_, _CROSS, iterations=ERODED, borderValue=0).view(np.bool_)
    return left if left.any() else mask
