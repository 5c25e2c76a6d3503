"""Sequences, piece by piece."""

import numpy as np
import pytest

from model.branches import NOTHING, Layout, build
from model.prompts import Text

TEXT = Text(before=[1, 2], between=[3], infix=[4, 5], start=10, slot=11, end=12, stop=13, separator=[14])
LABELS = [[20, 21], [22]]
_ = NOTHING


def test_branches() -> None:
    row = build(TEXT, 2, [1, 3], LABELS, Layout())
    assert row.prefix == 7
    assert row.tokens.tolist() == [
        1, 2, 10, 11, 11, 12, 3,
        10, 11, 12, 4, 5, 20, 21, 13,
        10, 11, 11, 11, 12, 4, 5, 22, 13,
    ]  # fmt: skip
    assert row.branch.tolist() == [0] * 7 + [1] * 8 + [2] * 9
    assert row.reads.tolist() == row.branch.tolist()
    assert row.positions.tolist() == [*range(7), *range(7, 15), *range(7, 16)]
    assert np.flatnonzero(row.slots).tolist() == [3, 4, 8, 16, 17, 18]
    assert row.targets.tolist() == [_] * 7 + [_, _, _, _, 20, 21, 13, _] + [_, _, _, _, _, _, 22, 13, _]
    assert row.instances.tolist() == [_] * 7 + [_, _, _, _, 0, 0, 0, _] + [_, _, _, _, _, _, 1, 1, _]


def test_branches_to_decode_from_end_with_the_infix() -> None:
    row = build(TEXT, 2, [1, 3], None, Layout())
    assert row.tokens.tolist() == [1, 2, 10, 11, 11, 12, 3, 10, 11, 12, 4, 5, 10, 11, 11, 11, 12, 4, 5]
    assert set(row.targets.tolist()) == {_}


@pytest.mark.parametrize(("owner", "of_separator"), [("previous", 1), ("next", 2)])
def test_packed(owner: str, of_separator: int) -> None:
    row = build(TEXT, 1, [1, 2], LABELS, Layout(kind="packed", separator_owner=owner))  # type: ignore[arg-type]
    assert row.tokens.tolist() == [1, 2, 10, 11, 12, 3, 10, 11, 12, 10, 11, 11, 12, 4, 5, 20, 21, 14, 22, 13]
    assert row.branch.tolist() == [0] * 6 + [1] * 3 + [2] * 4 + [0, 0, 1, 1, of_separator, 2, 2]
    assert row.reads.tolist() == row.branch.tolist()
    assert row.positions.tolist() == list(range(20))
    assert row.targets.tolist() == [_] * 14 + [20, 21, 14, 22, 13, _]
    assert row.instances.tolist() == [_] * 14 + [0, 0, 0, 1, 1, _]  # the separator is part of the label before it


@pytest.mark.parametrize("region", [False, True])
@pytest.mark.parametrize("output", [False, True])
def test_packed_variants_differ_in_what_is_read(region: bool, output: bool) -> None:
    row = build(TEXT, 1, [1, 2], LABELS, Layout(kind="packed", region_rule=region, output_rule=output))
    regions = [1] * 3 + [2] * 4 if region else [0] * 7
    answers = [1, 1, 1, 2, 2] if output else [0] * 5
    assert row.reads.tolist() == [0] * 6 + regions + [0, 0] + answers


def test_of_one_mask_both_layouts_are_the_same_but_for_whose_the_infix_is() -> None:
    branches, packed = build(TEXT, 2, [3], [[20]], Layout()), build(TEXT, 2, [3], [[20]], Layout(kind="packed"))
    for name in ("tokens", "positions", "slots", "targets", "instances"):
        assert np.array_equal(getattr(branches, name), getattr(packed, name)), name


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="1 labels for 2 masks"):
        build(TEXT, 1, [1, 1], [[1]], Layout())
    with pytest.raises(ValueError, match="branches layout"):
        build(TEXT, 1, [1, 1], None, Layout(kind="packed"))
