"""Precision of few judgements, shrunk towards that of the other frequency bands as far as bands are alike."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.proportions import Flags, Floats, beta_quantile, effective_size, hajek, lower_shapes


class Shrunk(NamedTuple):
    """The precision of one band at one cut; all but `borrowed` in 0 to 1."""

    unshrunk: float
    """By the band's own judgements."""
    precision: float
    lower: float
    borrowed: float
    """Judgements of other bands that count in it, at their effective size."""


def prior_strength(precisions: Floats, sizes: Floats) -> float:
    """Return how many judgements of a band its likeness to the other bands is worth: 0 up to infinity.

    Precision and effective number of judgements of every band, shape (bands,). That is M of a beta prior for a band's
    precision, by the method of moments (Kleinman, JASA 68, 1973): with p the mean weighted by size and
    S = Σ n (p_b − p)², the correlation within bands 1 / (M + 1) is
    (S / (p (1 − p)) − (K − 1)) / (N − Σn² / N − (K − 1)) for K bands of N judgements, cut to 0 and 1. With the handful
    of bands there are it is a rough figure. 0 where nothing tells how alike bands are: a single one, or one judgement
    in each.
    """
    total, others = float(sizes.sum()), len(sizes) - 1
    spread = total - float(sizes @ sizes) / total
    if others == 0 or spread <= others:
        return 0.0
    mean = float(sizes @ precisions) / total
    if mean in (0, 1):
        return math.inf
    distance = float(sizes @ (precisions - mean) ** 2) / (mean * (1 - mean))
    correlation = min((distance - others) / (spread - others), 1)
    return (1 - correlation) / correlation if correlation > 0 else math.inf


def shrink(right: Flags, weights: Floats, bands: list[Flags], error: float) -> list[Shrunk]:
    """Return the precision of every band at one cut, shrunk towards that of the other bands, with a lower limit.

    `right` and `weights` are of the judged pairs kept there, shape (kept,); `bands` says which are whose, each has
    one at least. A band borrows 1 / (1 / M + 1 / n) judgements, M as above and n the effective number of the others':
    fewer the less alike bands are, and never more than there are (the second term is the error of the others' own
    precision). Nor does it borrow more than it has: M is too rough for a band's own judgements to be outweighed (the
    idea of limited translation, Efron and Morris, JASA 67, 1972). The limit is the `error` quantile of the beta
    distribution of own and borrowed judgements together; with nothing borrowed that is `proportions.weighted`'s.

    It is a posterior quantile with an estimated prior. Over bands it is right as often as bands really come from one
    beta distribution of this spread; for a given band that is worse than the others it can be too high. Nothing more
    is claimed for it.
    """
    precisions = np.array([hajek(right[band], weights[band]) for band in bands])
    sizes = np.array([effective_size(right[band], weights[band]) for band in bands])
    strength = prior_strength(precisions, sizes)
    borrowed = [
        _borrowed(right[~b], weights[~b], strength, size) for b, size in zip(bands, sizes.tolist(), strict=True)
    ]
    shapes = [lower_shapes(right[band], weights[band]) for band in bands]
    return [
        Shrunk(
            unshrunk=float(own),
            precision=float((size * own + lent_right) / (size + lent)),
            lower=beta_quantile(shape[0] + lent_right, shape[1] + lent - lent_right, error),
            borrowed=lent,
        )
        for own, size, shape, (lent, lent_right) in zip(precisions, sizes, shapes, borrowed, strict=True)
    ]


def _borrowed(right: Flags, weights: Floats, strength: float, most: float) -> tuple[float, float]:
    """Return how many judgements the other bands lend, and how many of those are right."""
    if strength == 0:
        return 0.0, 0.0
    lent = min(1 / (1 / strength + 1 / effective_size(right, weights)), most)
    return lent, lent * hajek(right, weights)
