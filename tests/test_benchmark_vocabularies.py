"""Which class a text means; the numbers are those of wowseg_facts.md B.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark import vocabularies
from benchmark.vocabularies import BARE, OSPREY, compare, load
from pipeline.errors import UsageError, UserError

SYNONYMS = {
    "road": "road,railroad",
    "sidewalk": "sidewalk, pavement",
    "building": "building,house,ceiling",
    "vegetation": "vegetation,tree",
    "terrain": "terrain,river,sand,sea,snow,water,mountain,grass,dirt,rock",
    "bus": "bus,buses",
}


@pytest.fixture
def synonyms(tmp_path: Path) -> Path:
    path = tmp_path / "cityscapes.txt"
    names = [each.name for each in load("cityscapes").classes]
    lines = [f"{number}:{SYNONYMS.get(name, name)}\n" for number, name in enumerate(names, 1)]
    path.write_text("".join(["0:invalid_class_id\n", *lines]))
    return path


def test_template_and_synonyms_decide(synonyms: Path) -> None:
    texts = ["pedestrian", "man", "van", "motorcycle rider", "ground", "tree", "grass", "house", "car"]

    def found(template: str, file: Path | None) -> list[tuple[str, float]]:
        vocabulary = load("cityscapes", file)
        answers = compare(texts, vocabulary, template)
        names = [vocabulary.classes[place].name for place in answers.classes]
        return list(zip(names, answers.cosines.max(axis=1)[answers.codes].round(4).tolist(), strict=True))

    def near(*rows: tuple[str, float]) -> list[tuple[str, object]]:
        return [(name, pytest.approx(cosine, abs=1e-3)) for name, cosine in rows]

    assert found(OSPREY, synonyms) == near(
        ("sidewalk", 0.5185), ("traffic sign", 0.1200), ("bus", 0.2687), ("motorcycle", 0.7347), ("sidewalk", 0.4160),
        ("vegetation", 0.7658), ("terrain", 0.7144), ("building", 0.6871), ("car", 0.6674),
    )  # fmt: skip
    assert found(BARE, synonyms) == near(
        ("person", 0.6481), ("person", 0.4086), ("car", 0.4233), ("rider", 0.7968), ("terrain", 0.5930),
        ("vegetation", 1.0), ("terrain", 1.0), ("building", 1.0), ("car", 1.0),
    )  # fmt: skip
    assert found(BARE, None) == near(
        ("person", 0.6481), ("person", 0.4086), ("car", 0.4233), ("rider", 0.7968), ("terrain", 0.5186),
        ("vegetation", 0.4548), ("vegetation", 0.5639), ("wall", 0.5186), ("car", 1.0),
    )  # fmt: skip


def test_a_text_without_a_word_means_nothing() -> None:
    vocabulary = load("cityscapes")
    answers = compare(["car", "", None, " \n", "car", "road"], vocabulary)
    assert answers.classes.tolist() == [13, -1, -1, -1, 13, 0]
    assert answers.cosines.shape == (2, 19)  # each text once
    assert compare([None, ""], vocabulary).classes.tolist() == [-1, -1]


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}"])
def test_a_template_has_one_place(template: str) -> None:
    with pytest.raises(UsageError, match=r"has to have \{\} once"):
        compare(["car"], load("cityscapes"), template)


def test_the_built_in_ones() -> None:
    sizes = {name: len(load(name).classes) + load(name).repeated for name in vocabularies.BUILT_IN}
    assert sizes == {
        "cityscapes": 19, "ade20k-150": 150, "ade20k-847": 847, "pascal-context-459": 459, "coco-stuff": 171
    }  # fmt: skip
    cityscapes = load("cityscapes")
    assert [each.name for each in cityscapes.classes][10:13] == ["sky", "person", "rider"]
    assert np.flatnonzero(cityscapes.things).tolist() == list(range(11, 19))
    assert load("ade20k-150").things.sum() == 100
    with pytest.raises(UsageError, match="coco-stuff: its table has no column thing"):
        _ = load("coco-stuff").things


def test_classes_by_their_names_in_ground_truth() -> None:
    ade = load("ade20k-150")
    assert ade.places(["windowpane", "window", "refrigerator, icebox", "refrigerator", "bed"]).tolist() == [
        8, 8, 50, 50, 7
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"ade20k-150: 12 categories .*: a, b, c, d, e, f, g, h, i, j and 2 more"):
        ade.places(list("abcdefghijkl"))


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("name,thing,void\nteddy bear,1,0\nbackground,0,1\nlawn,0,0\n")
    mine = load(str(path))
    assert [(each.name, each.thing) for each in mine.classes] == [("teddy bear", True), ("lawn", False)]
    assert mine.name == "mine"
    for content, error in (
        ("", "needs a column name"),
        ("name\n\n \n", "needs a column name"),
        (None, "no vocabulary"),
    ):
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(UsageError, match=error):
            load(str(path))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda lines: lines[:-1], "18 classes for 19; the first that differs is number 19"),
        (lambda lines: [lines[-1], *lines[:-1]], "19 classes for 19; the first that differs is number 1"),
        (lambda lines: ["car", *lines], "line 1: NUMBER:name,synonym,… expected, 'car' found"),
        (lambda lines: ["1:car,,bus", *lines], "line 1: NUMBER:name"),
    ],
)
def test_synonyms_of_another_vocabulary(synonyms: Path, change: object, error: str) -> None:
    lines = synonyms.read_text().splitlines()[1:]
    synonyms.write_text("\n".join(change(lines)))  # type: ignore[operator]
    with pytest.raises(UsageError, match=error):
        load("cityscapes", synonyms)


def test_a_name_in_a_list_may_differ(synonyms: Path) -> None:
    synonyms.write_text(synonyms.read_text().replace(":bicycle", ":bike"))
    last = load("cityscapes", synonyms).classes[-1]
    assert last == ("bicycle", True, ("bike",), frozenset({"bicycle"}))
