"""New names go to the group of their nearest labelled names, and the tree is what it says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import UsageError
from stages import coarse
from stages.coarse import Assignment, Group, Tree, assign

SHIPPED = Path(__file__).parent.parent / "data_manifests" / "coarse_categories.toml"
BIRDS, CARS = Group("Animals", "Birds"), Group("Man-made Objects", "Vehicles")
TREE = Tree({"gull": BIRDS, "duck": BIRDS, "owl": BIRDS, "car": CARS})
DEGREES = {"gull": 0, "duck": 10, "owl": 60, "car": 90, "crow": 5, "bus": 85, "crane": 70}


def embed(names: Sequence[str]) -> npt.NDArray[np.float32]:
    angles = np.radians([DEGREES[name] for name in names])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_no_names() -> None:
    assert assign([], TREE, embed) == []


def test_labelled_names_need_no_model() -> None:
    def none(names: Sequence[str]) -> npt.NDArray[np.float32]:
        raise AssertionError(names)

    assert assign(["car", "gull"], TREE, none) == [
        Assignment("car", *CARS, "car", 1.0, True),
        Assignment("gull", *BIRDS, "gull", 1.0, True),
    ]


@pytest.mark.parametrize(
    ("name", "group", "nearest", "score"),
    [
        # cosines of 5, 5 and 55 degrees
        pytest.param("crow", BIRDS, "gull", 0.8553, id="three-nearest"),
        # a group of one name: cosine of 5 degrees
        pytest.param("bus", CARS, "car", 0.9962, id="small-group"),
        # 10 degrees from an owl and 20 from a car, but 60 and 70 from the other birds: cos 20
        pytest.param("crane", CARS, "car", 0.9397, id="one-odd-name-does-not-attract"),
    ],
)
def test_new_names(name: str, group: Group, nearest: str, score: float) -> None:
    (found,) = assign([name], TREE, embed)
    assert found[:4] == (name, *group, nearest)
    assert found.score == pytest.approx(score, abs=1e-4)
    assert not found.labelled


def test_a_name_is_placed_as_it_would_be_alone() -> None:
    names = ["bus", "car", "crow", "bus"]
    together = assign(names, TREE, embed)
    assert [a.name for a in together] == names
    assert [a[:4] for a in together] == [assign([name], TREE, embed)[0][:4] for name in names]


def test_the_least_sure_come_first_in_the_review() -> None:
    lines = coarse.write_csv(assign(["car", "bus", "crow"], TREE, embed)).decode().splitlines()
    assert lines == [
        "name,primary,secondary,nearest,score,labelled,decision",
        "crow,Animals,Birds,gull,0.855,no,",
        "bus,Man-made Objects,Vehicles,car,0.996,no,",
        "car,Man-made Objects,Vehicles,car,1.000,yes,",
    ]


GROUP = '[[group]]\nprimary = "Animals"\nsecondary = "Birds"\npaper = ["gull"]\nnames = ["duck"]\n'


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "tree.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GROUP.replace("\n", "\r\n").encode())
    assert coarse.load(path).places == {"gull": BIRDS, "duck": BIRDS}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "missing required field `group`", id="empty"),
        pytest.param("group = []", "no group has a name", id="no-groups"),
        pytest.param("group = 1 2", "at line 1", id="no-toml"),
        pytest.param(GROUP + "note = 1\n", "unknown field `note`", id="unknown"),
        pytest.param(GROUP.replace("paper", "#"), "missing required field `paper`", id="missing"),
        pytest.param(GROUP.replace("duck", "gull"), "'Birds': 'gull' again; it is in 'Animals', 'Birds'", id="twice"),
        pytest.param(GROUP.replace("duck", "Duck"), "'Duck' is not in normal form; write 'duck'", id="form"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "tree.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        coarse.load(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_the_shipped_tree_has_the_papers_primary_groups() -> None:
    tree = coarse.load(SHIPPED)
    assert list(dict.fromkeys(group.primary for group in tree.groups)) == [
        "Animals",
        "Humans",
        "Plants",
        "Man-made Objects",
        "Food & Beverages",
        "Arts & Entertainment",
        "Environment",
    ]
    assert tree.places["seed pod"] == Group("Plants", "Plant parts")
