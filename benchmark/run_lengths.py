"""Where the pixels of a COCO mask are, without making the image that they are in; numpy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_CHARACTERS = 13
"""Of one run at most: 5 bits each, of a number of 64."""


def pixels(counts: str, total: int) -> Ints:
    """Return the numbers of a mask's pixels, ascending, counted down the columns from 0, of `total` = height × width.

    `counts` are COCO's compressed run lengths (pycocotools, `common/maskApi.c`, rleFrString). Raises `ValueError` for
    those that are damaged, or of an image of another size.
    """
    runs = _runs(counts)
    if runs.min() < 0 or runs.max() > total or runs.sum() != total:  # two runs of 2**63 px would sum to 0
        raise ValueError(f"no run lengths of {total:,} px")
    ends = np.cumsum(runs)[1::2]
    lengths = runs[1::2]
    before = np.cumsum(lengths) - lengths
    return np.repeat(ends - lengths - before, lengths) + np.arange(lengths.sum())


def _runs(counts: str) -> Ints:
    """Return the lengths of the runs, background first. Raises `ValueError`."""
    codes = np.frombuffer(counts.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("characters that are not COCO's, or an unfinished run")
    lasts = np.flatnonzero(codes & 32 == 0)
    firsts = np.append(0, lasts[:-1] + 1)
    sizes = lasts - firsts + 1
    if sizes.max() >= _CHARACTERS:
        raise ValueError("a run longer than any image")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(firsts, sizes))
    runs: Ints = np.add.reduceat((codes & 31) << shifts, firsts) - np.where(codes[lasts] & 16, 1 << 5 * sizes, 0)
    runs[1::2] = np.cumsum(runs[1::2])  # from the fourth on, a run is stored as the difference to the one before last
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
