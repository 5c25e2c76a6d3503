"""mMaskAcc by hand, and on data sets as imports write them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from foreign_data_sets import imported, save_labels
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmark import vocabularies
from benchmark.mask_accuracy import mask_accuracy, true_classes
from benchmark.vocabularies import Answers, Vocabulary
from pipeline import cli_segmentation
from pipeline.errors import UserError

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=20)


def test_by_hand() -> None:
    # Class 0: 2 of 3; class 1: 0 of 1, without a name; class 3: 1 of 1. Class 2 is predicted only, so it has no part.
    found = mask_accuracy(np.array([0, 0, 0, 1, 3]), np.array([0, 0, 2, -1, 3]), 4)
    assert found.by_class == pytest.approx([2 / 3, 0, math.nan, 1], nan_ok=True)
    assert found.masks.tolist() == [3, 1, 0, 1]
    assert found.mean == pytest.approx((2 / 3 + 0 + 1) / 3)
    none = np.empty(0, np.int64)
    assert math.isnan(mask_accuracy(none, none, 4).mean)


@given(LABELS, st.randoms(use_true_random=False))
def test_neither_order_nor_frequency_matters(labels: list[tuple[int, int]], random: Any) -> None:
    truth, said = (np.array(column) for column in zip(*labels, strict=True))
    mean = mask_accuracy(truth, said, 4).mean
    assert mask_accuracy(truth, truth, 4).mean == 1
    random.shuffle(labels)
    again, others = (np.array(column) for column in zip(*labels, strict=True))
    assert mask_accuracy(again, others, 4).mean == pytest.approx(mean)
    often = truth[truth == truth[0]]  # one class three times as often, answered as before
    said_often = said[truth == truth[0]]
    more = mask_accuracy(np.append(truth, [often, often]), np.append(said, [said_often, said_often]), 4)
    assert more.mean == pytest.approx(mean)


def instances(*rows: tuple[int, str]) -> pa.Table:
    images, categories = zip(*rows, strict=True)
    return pa.table({"instance_id": list(range(len(rows))), "image_id": images, "category": categories})


def test_one_mask_for_each_class_of_an_image() -> None:
    cityscapes = vocabularies.load("cityscapes")
    assert true_classes(instances((1, "car"), (1, "road"), (2, "car")), cityscapes).tolist() == [13, 0, 13]
    with pytest.raises(UserError, match=r"1 times an image has several masks of a class \(car in image 1\)"):
        true_classes(instances((1, "car"), (1, "road"), (1, "car")), cityscapes)
    with pytest.raises(UserError, match="cityscapes: 1 categories of the ground truth are no class of it: cow"):
        true_classes(instances((1, "cow")), cityscapes)


def test_classes_of_one_name_are_one() -> None:
    ade = vocabularies.load("ade20k-847")
    assert (len(ade.classes), ade.repeated) == (837, 10)
    first, second = true_classes(instances((1, "bag"), (1, "bag")), ade)
    assert first == second


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of embeddings: a text means the class of that name."""

    def compare(texts: Sequence[str | None], vocabulary: Vocabulary, *_: Any) -> Answers:
        names = [each.name for each in vocabulary.classes]
        table = [[float(name == text) for name in names] for text in texts]
        return Answers(np.arange(len(texts)), np.array(table, np.float32))

    monkeypatch.setattr(vocabularies, "compare", compare)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(
    ("kind", "classes", "file", "values", "names"),
    [
        ("ade20k-150", "ade20k-150", "a.png", [1, 2, 0], ["wall", "building"]),
        ("ade20k-847", "ade20k-847", "a.tif", [0, 3, 65535], ["wall", "tree"]),
        ("pascal-context-459", "pascal-context-459", "a.tif", [0, 1, 65535], ["accordion", "aeroplane"]),
        ("coco-stuff-maps", "coco-stuff", "a.png", [0, 2, 255], ["person", "car"]),
        ("cityscapes", "cityscapes", "a_gtFine_labelIds.png", [7, 26, 0], ["road", "car"]),
    ],
)
def test_every_layout_end_to_end(
    kind: str, classes: str, file: str, values: list[int], names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    save_labels(tmp_path / "maps" / file, [values], np.uint16 if file.endswith("tif") else np.uint8)
    made = imported(kind, [tmp_path / "maps"], tmp_path / "out")
    by_name = {row["category"]: row["instance_id"] for row in made.instances}
    assert sorted(by_name) == sorted(names)
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"instance_id": by_name[names[0]], "text": names[0]}) + "\n")
    app = typer.Typer()
    app.command()(cli_segmentation.mask_accuracy)
    order = [str(said), "--benchmark", str(made.folder), "--classes", classes]
    told = CliRunner().invoke(app, [*order, "--json"], catch_exceptions=False).stdout
    found = json.loads(told[told.index("{") :])
    assert (found["mMaskAcc"], found["masks"]) == (0.5, 2)
    assert {row["name"]: row["accuracy"] for row in found["classes"]} == {names[0]: 1, names[1]: 0}
    plain = CliRunner().invoke(app, order, catch_exceptions=False).stdout
    assert "mMaskAcc 50.00 over 2 classes" in plain
    assert "arXiv:2605.16903 Table 3" in plain
