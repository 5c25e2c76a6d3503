"""A control is a wrong name, or it would measure nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from checking_server import write_pairs
from sa1b_shards import HEIGHT, WIDTH, build, image_members, jpeg, rows, square, write_tar

from pipeline.categories import Accepted
from pipeline.run import Run
from pipeline.wordnet import open_wordnet
from stages import controls, requests
from stages.controls import CO_OCCURRING, SIBLING, Siblings
from stages.pairing import Comparer

NAMES = ["airplane", "bird", "cat", "couch", "dog", "gull", "sofa", "wheel", "wine glass", "glass", "car", "teapot"]


@pytest.fixture(scope="module")
def compare() -> Comparer:
    return Comparer({"emu": [Accepted("dog", "alias")]}, open_wordnet())


@pytest.fixture(scope="module")
def siblings(compare: Comparer) -> Siblings:
    return Siblings(sorted([*NAMES, "emu"]), compare)


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("dog", ["dog"]),
        ("gull", ["bird"]),  # less general
        ("bird", ["gull"]),  # more general
        ("glass", ["wine glass"]),  # the same last word
        ("wheel", ["car"]),  # a part
        ("sofa", ["couch"]),  # a synonym
        ("dog", ["emu"]),  # accepted for it by people
        ("cat", ["airplane", "cat"]),  # of one of several
    ],
)
def test_what_may_be_true_is_no_control(siblings: Siblings, name: str, true: list[str]) -> None:
    if open_wordnet() is None and (name, true[0]) in {("gull", "bird"), ("bird", "gull"), ("wheel", "car")}:
        pytest.skip("WordNet is not installed")
    assert not siblings.wrong(name, true)


def test_near_names_are_taken_for_synonyms_even_if_no_table_knows_them() -> None:
    names = Siblings(["couch", "sofa", "teapot"], Comparer({}, None))
    assert not names.wrong("sofa", ["couch"])
    assert names.sibling("couch", ["couch"]) == "teapot"


def test_a_sibling_is_near_and_wrong(siblings: Siblings) -> None:
    found = siblings.sibling("cat", ["cat"])
    assert found in {"dog", "bird"}
    assert siblings.sibling("cat", ["cat", "dog", "bird", "gull"]) not in {"cat", "dog", "bird", "gull"}


def test_a_run_of_one_category_has_no_wrong_names() -> None:
    assert Siblings(["cat"], Comparer({}, None)).sibling("cat", ["cat"]) is None


def test_a_share_is_chosen_by_mask_alone_and_a_larger_one_contains_it() -> None:
    ids = np.arange(20_000, dtype=np.int64)
    tenth, half = controls.chosen(ids, 0.1), controls.chosen(ids, 0.5)
    assert tenth.mean() == pytest.approx(0.1, abs=0.01)
    assert not (tenth & ~half).any()
    assert controls.chosen(ids, 1.0).all()
    assert not controls.chosen(ids, 0.0).any()


# --- on a run ---------------------------------------------------------------------------------------------

PLACES = {0: (3, 5, 10), 1: (20, 5, 10), 2: (21, 6, 10), 3: (40, 20, 6)}  # 1 and 2 overlap
CATEGORIES = {0: "cat", 1: "car", 2: "teapot", 3: "airplane"}


@pytest.fixture
def pictured(run: Run, tmp_path: Path) -> Run:
    """Forty images of four regions each, two of which overlap."""
    members = []
    for image_id in range(1, 41):
        notes = [square(image_id * 1000 + k, side, left, top) for k, (left, top, side) in PLACES.items()]
        members += image_members(image_id, notes)
    build(run, write_tar(tmp_path / "sa_000000.tar", members), min_area_ratio=0.0)
    write_pairs(run, {row["mask_id"]: CATEGORIES[row["mask_id"] % 1000] for row in rows(run)})
    return run


def found(run: Run, compare: Comparer) -> list[controls.Control]:
    pairs = requests.Pairs(run.dataset("pairs").to_table(columns=["mask_id", "image_id", "category"]), [])
    return list(controls.choose(run, pairs.mask_ids, pairs, compare))


def test_every_mask_gets_one_of_either_kind_and_never_a_name_that_touches_it(pictured: Run, compare: Comparer) -> None:
    assert (WIDTH, HEIGHT) >= (46, 26)
    assert jpeg()
    made = found(pictured, compare)
    assert len({control.mask_id for control in made}) == len(made) == 160
    assert Counter(control.kind for control in made).keys() == {CO_OCCURRING, SIBLING}
    for control in made:
        place = control.mask_id % 1000
        assert control.category != CATEGORIES[place]
        if place in (1, 2):
            assert control.category not in {"car", "teapot"}


def test_the_choice_is_the_same_every_time(pictured: Run, compare: Comparer) -> None:
    assert found(pictured, compare) == found(pictured, compare)


class Named:
    """Categories of a handful of masks."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names

    @property
    def distinct(self) -> list[str]:
        return sorted(set(self._names.values()))

    def of(self, mask_ids: Sequence[int]) -> list[str | None]:
        return [self._names.get(mask_id) for mask_id in mask_ids]


def test_masks_without_a_pair_are_no_source_of_names(pictured: Run, compare: Comparer) -> None:
    wanted = np.array([1000], np.int64)
    assert list(controls.choose(pictured, wanted, Named({1000: "cat"}), compare)) == []
    (control,) = controls.choose(pictured, wanted, Named({1000: "cat", 1003: "airplane"}), compare)
    assert control.category == "airplane"
