"""Which masks are worth naming: the tiny-mask rule and its optional companions.

Each rule gives a reason; a mask is dropped for the first that applies, and every drop is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline import masks
from pipeline.config import Section
from pipeline.shards import IndexedImage
from stages.annotations import MaskColumns
from stages.sampling import stable_hash

Bools = npt.NDArray[np.bool_]


class MaskRules(Section):
    """Rules that decide which masks of a sampled image are kept; part of every row's fingerprint."""

    min_area_ratio: float = Field(1e-4, ge=0, lt=1)
    """Drop masks covering less than this share of the image. The paper says "excessively low" and gives no number;
    see data_manifests/sa1b/README.md for the reasons behind 1e-4 (18×18 px at SA-1B's usual 2250×1500)."""

    min_pixels: int = Field(0, ge=0)
    """Drop masks of fewer pixels; 0 = off. (The WOW-Seg demo uses 128.)"""

    min_predicted_iou: float = Field(0.0, ge=0)
    """Drop masks whose predicted_iou is lower; 0 = off. SA-1B's masks were already selected at 0.88."""

    min_stability_score: float = Field(0.0, ge=0, le=1)
    """Drop masks whose stability_score is lower; 0 = off. SA-1B's masks were already selected at 0.95."""

    max_overlap_iou: float = Field(1.0, gt=0, le=1)
    """Of two masks of one image with an IoU above this, drop the one with the lower predicted_iou; 1 = off."""

    max_masks_per_image: int = Field(0, ge=0)
    """Keep at most so many masks of an image, chosen by a hash of their ids, so that no size or score is preferred;
    0 = off."""


REASONS = ("tiny", "min-pixels", "predicted-iou", "stability", "near-duplicate", "over-limit")
"""Why a mask may be dropped, in the order the rules are applied."""


def area_ratio(images: Sequence[IndexedImage], table: MaskColumns) -> npt.NDArray[np.float64]:
    """Return each mask's share of its image's pixels, in (0, 1]."""
    pixels = np.array([image.width * image.height for image in images], np.int64)
    return np.asarray(table.area / pixels[table.image], np.float64)


def apply(rules: MaskRules, images: Sequence[IndexedImage], table: MaskColumns) -> tuple[Bools, dict[str, int]]:
    """Return which masks the rules keep, and how many each rule dropped (every reason, also with 0)."""
    failures = {
        "tiny": area_ratio(images, table) < rules.min_area_ratio,
        "min-pixels": table.area < rules.min_pixels,
        "predicted-iou": table.predicted_iou < rules.min_predicted_iou,
        "stability": table.stability_score < rules.min_stability_score,
    }
    keep = np.ones(len(table.area), np.bool_)
    dropped = dict.fromkeys(REASONS, 0)
    for reason, failed in failures.items():
        dropped[reason] = int((keep & failed).sum())
        keep &= ~failed
    if rules.max_overlap_iou < 1:
        dropped["near-duplicate"] = _drop_near_duplicates(rules.max_overlap_iou, images, table, keep)
    if rules.max_masks_per_image:
        dropped["over-limit"] = _drop_over_limit(rules.max_masks_per_image, table, keep)
    return keep, dropped


def _drop_near_duplicates(limit: float, images: Sequence[IndexedImage], table: MaskColumns, keep: Bools) -> int:
    """Greedy suppression within each image, best predicted_iou first, ties by id; clears `keep`."""
    dropped = 0
    for index, image in enumerate(images):
        rows = np.flatnonzero(keep & (table.image == index))
        rows = rows[np.lexsort((table.mask_id[rows], -table.predicted_iou[rows]))]
        counts = [table.rle_counts[int(row)].as_py() for row in rows]
        overlap = masks.iou_matrix(counts, image.height, image.width) > limit
        alive = np.ones(len(rows), np.bool_)
        for k in range(len(rows)):
            if alive[k]:
                alive[k + 1 :] &= ~overlap[k, k + 1 :]
        keep[rows[~alive]] = False
        dropped += int((~alive).sum())
    return dropped


def _drop_over_limit(limit: int, table: MaskColumns, keep: Bools) -> int:
    """Keep the `limit` masks of each image whose ids hash lowest; clears `keep`."""
    rows = np.flatnonzero(keep)
    rows = rows[np.lexsort((stable_hash(table.mask_id[rows], seed=0), table.image[rows]))]
    of_image = table.image[rows]
    rank = np.arange(len(rows)) - np.searchsorted(of_image, of_image)
    keep[rows[rank >= limit]] = False
    return int((rank >= limit).sum())
