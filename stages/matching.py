"""Which proposal is which mask: one-to-one, by intersection over union."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def match(iou: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], threshold: float) -> list[tuple[int, int]]:
    """Pair P proposals with M masks, each at most once; return (proposal, mask) pairs, best first.

    `iou` is (P, M); `scores` (P,) are the detector's. No pair has an IoU below `threshold`, in (0, 1].

    Greedy: the pair of the highest IoU first; of equal ones the better score, then the lower proposal, then the lower
    mask. An assignment of the highest sum would take a mask from the proposal that fits it best to raise the total of
    two others, so that a name would depend on masks elsewhere in the image; and among identical masks, where several
    assignments have the same sum, it leaves the choice to the solver. The masks' own order decides ties among
    identical masks, and nothing else does: hand them over in the order of their ids.
    """
    proposals, places = np.nonzero((iou >= threshold) & (iou > 0))
    order = np.lexsort((places, proposals, -scores[proposals], -iou[proposals, places]))
    pairs: list[tuple[int, int]] = []
    free_proposal, free_mask = np.ones(iou.shape[0], np.bool_), np.ones(iou.shape[1], np.bool_)
    for proposal, place in zip(proposals[order].tolist(), places[order].tolist(), strict=True):
        if free_proposal[proposal] and free_mask[place]:
            free_proposal[proposal] = free_mask[place] = False
            pairs.append((proposal, place))
    return pairs
