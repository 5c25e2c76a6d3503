"""Matching proposals to masks: one-to-one, thresholds, ties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import masks
from stages.matching import match

Floats = npt.NDArray[np.float64]


def floats(*rows: list[float]) -> Floats:
    return np.array(rows, np.float64)


@pytest.mark.parametrize(
    ("iou", "scores", "expected"),
    [
        (np.zeros((0, 3)), [], []),  # no proposal
        (np.zeros((2, 0)), [0.9, 0.8], []),  # no mask
        (floats([0.49]), [0.9], []),  # below the threshold
        (floats([0.5]), [0.1], [(0, 0)]),  # on it
        (floats([0.9], [0.9]), [0.3, 0.4], [(1, 0)]),  # the same mask twice: the better score
        (floats([0.9], [0.9]), [0.4, 0.4], [(0, 0)]),  # and score: the first
        (floats([0.9, 0.9]), [0.4], [(0, 0)]),  # identical masks: the first
        (floats([0.9, 0.9], [0.9, 0.9]), [0.3, 0.4], [(1, 0), (0, 1)]),  # both named, the better score first
        (floats([0.9, 0.8], [0.85, 0.1]), [0.5, 0.5], [(0, 0)]),  # the best pair, though the sum would be 1.65
        (floats([0.6, 0.9], [0.7, 0.8]), [0.5, 0.5], [(0, 1), (1, 0)]),
    ],
)
def test_match(iou: Floats, scores: list[float], expected: list[tuple[int, int]]) -> None:
    assert match(iou, np.array(scores), 0.5) == expected


def test_a_threshold_of_zero_names_no_mask_that_is_not_touched() -> None:
    assert match(floats([0.0, 0.2]), np.array([0.5]), 0.0) == [(0, 1)]


@st.composite
def problems(draw: st.DrawFn, *, distinct: bool = False) -> tuple[Floats, Floats, float]:
    shape = draw(st.tuples(st.integers(0, 8), st.integers(0, 8)))
    # Few values, so that ties are the rule; or all different, so that there are none.
    if distinct:
        order = draw(st.permutations(range(shape[0] * shape[1])))
        iou = (np.array(order, np.float64).reshape(shape) + 1) / (len(order) + 1)
    else:
        iou = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0, 0.3, 0.5, 0.7, 1])))
    scores = draw(hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.3, 0.4, 0.5])))
    return iou, scores, draw(st.sampled_from([0.3, 0.5, 0.9]))


@given(problems())
def test_one_to_one_above_the_threshold_and_nothing_left_over(problem: tuple[Floats, Floats, float]) -> None:
    iou, scores, threshold = problem
    pairs = match(iou, scores, threshold)
    taken = {p for p, _ in pairs}, {m for _, m in pairs}
    assert len(taken[0]) == len(taken[1]) == len(pairs)
    assert all(iou[pair] >= threshold for pair in pairs)
    left = [(p, m) for p, m in np.argwhere(iou >= threshold).tolist() if p not in taken[0] and m not in taken[1]]
    assert not left
    assert pairs == match(iou.copy(), scores.copy(), threshold)


@given(problems())
def test_no_pair_is_preferred_on_both_sides_to_the_pairs_made(problem: tuple[Floats, Floats, float]) -> None:
    iou, scores, threshold = problem
    pairs = match(iou, scores, threshold)
    of_proposal = {p: iou[p, m] for p, m in pairs}
    of_mask = {m: iou[p, m] for p, m in pairs}
    for p, m in np.argwhere(iou >= threshold).tolist():
        assert iou[p, m] <= max(of_proposal.get(p, 0), of_mask.get(m, 0))


@given(problems(distinct=True), st.randoms())
def test_the_order_of_proposals_and_masks_does_not_matter(
    problem: tuple[Floats, Floats, float], random: st.DataObject
) -> None:
    iou, scores, threshold = problem
    rows, columns = list(range(iou.shape[0])), list(range(iou.shape[1]))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    shuffled = match(iou[rows][:, columns], scores[rows], threshold)
    assert [(rows[p], columns[m]) for p, m in shuffled] == match(iou, scores, threshold)


def test_iou_between_is_that_of_the_pixels() -> None:
    pixels = np.random.default_rng(0).random((5, 20, 30)) < 0.5
    counts = [masks.encode(mask) for mask in pixels]
    found = masks.iou_between(counts[:2], counts[2:], 20, 30)
    for i in range(2):
        for j in range(3):
            first, second = pixels[i], pixels[2 + j]
            assert found[i, j] == pytest.approx((first & second).sum() / (first | second).sum())
    assert masks.iou_between([], counts, 20, 30).shape == (0, 5)
    assert masks.iou_between(counts, [], 20, 30).shape == (5, 0)
