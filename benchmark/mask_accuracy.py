"""mMaskAcc: how often a mask is given its class, averaged over classes (MaskCLIP++; wowseg_facts.md B.2).

Data are semantic maps as `rr7k import` reads them: one mask for each class of an image. No pixel is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmark.vocabularies import Vocabulary
from pipeline.errors import UserError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SHOWN = 5


class MaskAccuracy(NamedTuple):
    """The score, and what it is the mean of."""

    mean: float
    """0 to 1, over the classes that occur; published × 100. NaN without any."""
    by_class: Floats
    """(C,): right masks of all masks of the class; NaN where it does not occur."""
    masks: Ints
    """(C,): masks of the class."""


def mask_accuracy(truth: Ints, predicted: Ints, classes: int) -> MaskAccuracy:
    """Score masks, (N,) each: true and predicted class, below `classes`; a predicted -1 is none, and wrong.

    Neither the area of a mask nor how many its class has makes a difference.
    """
    masks = np.bincount(truth, minlength=classes)
    right = np.bincount(truth[truth == predicted], minlength=classes)
    with np.errstate(invalid="ignore"):
        found = right / masks
    return MaskAccuracy(float(found[masks > 0].mean()) if len(truth) else float("nan"), found, masks)


def true_classes(instances: pa.Table, vocabulary: Vocabulary) -> Ints:
    """Return the class of each of `instances` (instance_id, image_id, category), (N,).

    Raises `UserError` for categories of no class, and where an image has two masks of one: that is no semantic map.
    """
    found = vocabulary.places(instances["category"].to_pylist())
    if not vocabulary.repeated:
        image = instances["image_id"].to_numpy()
        _, firsts, counts = np.unique(np.stack([image, found]), axis=1, return_index=True, return_counts=True)
        again = firsts[counts > 1]
        if len(again):
            told = [f"{vocabulary.classes[found[i]].name} in image {image[i]}" for i in again[:_SHOWN].tolist()]
            raise UserError(
                f"{len(again):,} times an image has several masks of a class ({', '.join(told)}), but mMaskAcc is "
                "defined on semantic maps. Import those: rr7k import ade20k-150, cityscapes, coco-stuff-maps, …"
            )
    return found
