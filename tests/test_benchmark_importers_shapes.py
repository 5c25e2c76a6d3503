"""Masks of every kind to run lengths: exact pixels, and what is refused."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest
from foreign_data_sets import SQUARE
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as pycoco

from benchmark.importers import shapes
from pipeline import masks

HEIGHT, WIDTH = 5, 6
SQUARE_PIXELS = [[int(y in (1, 2) and x in (1, 2)) for x in range(WIDTH)] for y in range(HEIGHT)]
COUNTS = masks.encode(np.array(SQUARE_PIXELS, np.bool_))


def decoded(segmentation: Any) -> Any:
    return masks.decode(shapes.encode(segmentation, HEIGHT, WIDTH), HEIGHT, WIDTH).astype(int).tolist()


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [SQUARE, [0, 0, 5, 5]],  # two points are no polygon; pycocotools takes four numbers for a box
        [SQUARE, []],
        [[1, 1, 2, 1, 2, 3, 1, 3], [2, 1, 3, 1, 3, 3, 2, 3]],  # two halves
        {"size": [HEIGHT, WIDTH], "counts": COUNTS},
        {"size": [HEIGHT, WIDTH], "counts": COUNTS.encode()},
        {"size": [HEIGHT, WIDTH], "counts": [6, 2, 3, 2, 17]},
        [6, 2, 3, 2, 17],  # plain run lengths, as Osprey's lists may have them
        [6, 1, 0, 1, 3, 2, 0, 0, 17],
        [6, 2, 3, 2, 17, 0],
    ],
)
def test_all_ways_to_write_a_mask(segmentation: Any) -> None:
    assert decoded(segmentation) == SQUARE_PIXELS


def test_runs_that_begin_inside() -> None:
    assert decoded([0, 0, 0, 30]) == [[1] * WIDTH] * HEIGHT
    assert shapes.encode([0, 12, 0, 18], HEIGHT, WIDTH) == masks.encode(np.ones((HEIGHT, WIDTH), np.bool_))


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, shapes.NO_MASK),
        ([], shapes.NO_MASK),
        ([[]], shapes.NO_POLYGON),
        ([[1, 1, 3, 1]], shapes.NO_POLYGON),
    ],
)
def test_what_marks_nothing(segmentation: Any, reason: str) -> None:
    with pytest.raises(shapes.NoMaskError, match=f"^{reason}$"):
        shapes.encode(segmentation, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[1, 1, 3, 1, 3, 3, 1]], "7 numbers"),
        ([[1, 1, 3, 1, 3, "3"]], "numbers only"),
        ([[1, 1, 3, 1, 3, None]], "numbers only"),
        ([[1, 1, float("nan"), 1, 3, 3]], "leaves its image"),
        ([[1, 1, 3, 1, 3, -1 << 70]], "leaves its image"),
        ([[1, 1, 3, 1, 3, float("nan")]], "leaves its image"),
        ([[1, 1, 3, 1, 3, 1e9]], "leaves its image of 6×5 px"),
        ([[1, 1, 3, [1], 3, 1]], "numbers only"),
        ([SQUARE, 3], "whole numbers"),
        ("SQUARE", "str found"),
        ({"size": [WIDTH, HEIGHT], "counts": COUNTS}, r"size \[6, 5\] \(height, width\), but its image has \[5, 6\]"),
        ({"counts": COUNTS}, "size None"),
        ({"size": [HEIGHT, WIDTH]}, "NoneType found"),
        ([6, 2, 3, 2, 16], "sum to 29, not 5 × 6"),
        ([6, -2, 3, 2, 21], "none negative"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "whole numbers"),
        ([6, 2.5, 3, 2, 16], "whole numbers"),
        ([1 << 70], "whole numbers"),
        ([True, 29], "whole numbers"),
    ],
)
def test_damage_is_named(segmentation: Any, why: str) -> None:
    with pytest.raises(shapes.BadMaskError, match=why):
        shapes.encode(segmentation, HEIGHT, WIDTH)


MAPS = hnp.arrays(
    np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 7, 65535])
)


@given(MAPS)
def test_a_map_falls_into_its_values(labels: Any) -> None:
    found = dict(shapes.by_label(labels))
    assert list(found) == np.unique(labels).tolist()
    for value, counts in found.items():
        assert counts == masks.encode(labels == value)  # the canonical form: no run without pixels


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_plain_run_lengths_round_trip(mask: Any) -> None:
    flat = mask.ravel(order="F").tolist()
    runs = [0] * flat[0] + [len(list(run)) for _, run in groupby(flat)]
    assert shapes.encode(runs, *mask.shape) == masks.encode(mask)


POINTS = st.lists(st.floats(0, 5, width=32), min_size=3, max_size=12).map(
    lambda xs: [v for x in xs for v in (x, 5 - x / 2)]
)


@settings(max_examples=50)
@given(st.lists(POINTS, min_size=1, max_size=3))
def test_polygons_as_pycocotools_draws_them(polygons: list[list[float]]) -> None:
    drawn = np.logical_or.reduce(
        [pycoco.decode(pycoco.frPyObjects([points], HEIGHT, WIDTH))[..., 0] for points in polygons]
    )
    assert decoded(polygons) == drawn.astype(int).tolist()
