"""How many categories more images would hold: rarefaction and extrapolation of species richness.

The unit is the image, since regions of one image resemble each other: what counts is in how many images a category was
found (incidence). Formulas: Chao et al., Rarefaction and extrapolation with Hill numbers, Ecological Monographs 84
(2014), order 0, as in iNEXT (Hsieh, Ma and Chao 2016); unconditional variance: Colwell et al., J. of Plant Ecology 5
(2012); number of the unseen: Chao (2005), the bias-corrected Chao2, which is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

REACH = 2
"""Times the images of the sample up to which the limits are trusted. Colwell says twice to three times. In simulations
with categories as unequal as words, limits of 95 % hold in about 90 % at twice the sample, and in 30 to 80 % at three
times (tests/test_stages_recipe.py): the expectation is too small there. Beyond, it is a lower bound."""

_Z = 1.959964


class Limits(NamedTuple):
    """A number with its limits of 95 %."""

    value: float
    lower: float
    upper: float


class Reach(NamedTuple):
    """Images that a number of categories needs."""

    value: int | None
    """None: more than `REACH` times the sample, so that nobody can tell."""
    lower: int
    upper: int | None
    """Holds beyond the reach as well, since there are more categories than expected there; None: not known."""


def unseen(incidence: Ints, images: int) -> float:
    """Return how many categories, at least, exist beside those found; 0 or more.

    `incidence` has shape (categories,): in how many of the `images`, 1 or more, each was found.
    """
    once, twice = (incidence == 1).sum(), (incidence == 2).sum()
    return float((images - 1) / images * once * (once - 1) / (2 * (twice + 1)))


def richness(incidence: Ints, images: int, wanted: int) -> Limits:
    """Return the categories expected in `wanted` images like those of the sample, as in `unseen`.

    Normal limits of 95 %, not below 0. Beyond `REACH` times the sample only the lower one holds.
    """
    value, parts = _fewer(incidence, images, wanted) if wanted <= images else _more(incidence, images, wanted)
    everything = len(incidence) + unseen(incidence, images)
    variance = float(parts @ parts) - float(parts.sum()) ** 2 / everything if len(incidence) else 0.0
    margin = _Z * max(variance, 0.0) ** 0.5
    return Limits(value, max(value - margin, 0.0), value + margin)


def _fewer(incidence: Ints, images: int, wanted: int) -> tuple[float, Floats]:
    """Return the expectation in a part of the sample, and each category's chance to be in it."""
    room = images - incidence - wanted + 1  # 0 or less: it cannot be missed
    outside = gammaln(images - incidence + 1) - gammaln(np.maximum(room, 1))
    missed = np.exp(outside - gammaln(images + 1) + gammaln(images - wanted + 1))
    chances = np.where(room > 0, 1 - missed, 1.0)
    return float(chances.sum()), chances


def _more(incidence: Ints, images: int, wanted: int) -> tuple[float, Floats]:
    """Return the expectation in more than the sample, and its derivatives by the frequency class of each category."""
    once, twice, new = int((incidence == 1).sum()), int((incidence == 2).sum()), wanted - images
    slopes = np.ones(len(incidence))
    hidden = unseen(incidence, images)
    if not hidden:
        return float(len(incidence)), slopes
    total = images * hidden + once
    chance = once / total
    stay = (1 - chance) ** new
    per_chance = hidden * new * (1 - chance) ** (new - 1)
    hidden_by = ((images - 1) / images * (2 * once - 1) / (2 * (twice + 1)), -hidden / (twice + 1))
    chance_by = ((images * hidden - once * images * hidden_by[0]) / total**2, -once * images * hidden_by[1] / total**2)
    for frequency, by_hidden, by_chance in zip((1, 2), hidden_by, chance_by, strict=True):
        slopes[incidence == frequency] += by_hidden * (1 - stay) + per_chance * by_chance
    return len(incidence) + hidden * (1 - stay), slopes


def images_for(categories: int, incidence: Ints, images: int, most: int) -> Reach:
    """Return how many images, up to `most`, hold so many categories, 1 or more; the rest as in `unseen`."""
    near = REACH * images

    def reach(limit: int, end: int) -> int | None:
        return smallest(categories, lambda number: richness(incidence, images, number)[limit], end)

    return Reach(reach(0, near), reach(2, near) or near, reach(1, most))


def smallest(goal: float, reached: Callable[[int], float], most: int) -> int | None:
    """Return the smallest number in 1 to `most` for which `reached`, which grows, is `goal` or more; None: none is.

    Looked for by doubling first, since what is capped may fall again far out.
    """
    low, high = 0, 1
    while reached(high) < goal:
        if high == most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= goal else (middle, high)
    return high
