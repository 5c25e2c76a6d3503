"""COCO's annotation file and its relatives: exact instances, and the fate of everything that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_data_sets import SQUARE, annotation, coco, imported, pixels, write_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark import importers
from pipeline.errors import UserError

SQUARE_PIXELS = [[int(y in (1, 2) and x in (1, 2)) for x in range(6)] for y in range(5)]


def test_an_instance_in_full(tmp_path: Path) -> None:
    file = write_json(
        tmp_path / "instances_val2017.json", coco([annotation(11, category_id=2, iscrowd=1, bbox=[1.5, 1, 2, 2.25])])
    )
    made = imported("coco", [file], tmp_path / "out")
    (row,) = made.instances
    assert pixels(row) == SQUARE_PIXELS
    told = {name: value for name, value in row.items() if value is not None and name != "segmentation"}
    assert told == {
        "instance_id": 11,
        "image_id": 7,
        "category": "bow (weapon)",
        "category_raw": "Bow_(weapon)",
        "split": "val",
        "mini": False,
        "bbox_xywh": [1, 1, 2, 2],
        "bbox_source_xywh": [1.5, 1, 2, 2.25],
        "area": 4,
        "area_ratio": 4 / 30,
        "iscrowd": True,
        "source": "coco",
    }
    (image,) = made.images
    assert {name: value for name, value in image.items() if value is not None} == {
        "image_id": 7,
        "file_name": "000000000007.jpg",
        "width": 6,
        "height": 5,
        "split": "val",
        "mini": False,
        "instances": 1,
        "source": "coco",
    }
    assert json.loads((made.folder / "import.json").read_text())["sources"] == ["instances_val2017.json"]


def test_lvis_names_images_by_url(tmp_path: Path) -> None:
    """v0.5 gives 2014's file names to 2017's images; v1 gives none."""
    url = "http://images.cocodataset.org/val2017/000000000007.jpg"
    size = {"width": 6, "height": 5, "coco_url": url}
    images = [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg", **size}]
    old = write_json(tmp_path / "v0.5.json", coco([annotation(1)], images=images))
    new = write_json(tmp_path / "v1.json", coco([annotation(2)], images=[{"id": 7, **size}]))
    made = imported("lvis", [old, new], tmp_path / "out")
    assert [image["file_name"] for image in made.images] == ["val2017/000000000007.jpg"]
    assert [row["iscrowd"] for row in made.instances] == [None, None]
    assert imported("coco", [old], tmp_path / "coco").images[0]["file_name"] == "COCO_val2014_000000000007.jpg"


def test_paco_keeps_objects_and_parts(tmp_path: Path) -> None:
    names = [{"id": 1, "name": "mouse_(computer_equipment)"}, {"id": 9, "name": "mouse_(computer_equipment):wheel"}]
    part = annotation(2, category_id=9, obj_ann_id=1, segmentation={"size": [5, 6], "counts": [6, 1, 23]})
    file = write_json(tmp_path / "paco.json", coco([annotation(1, obj_ann_id=1), part], categories=names))
    made = imported("paco", [file], tmp_path / "out")
    assert [(row["category_raw"], row["category"], row["area"]) for row in made.instances] == [
        ("mouse_(computer_equipment)", "mouse (computer equipment)", 4),
        ("mouse_(computer_equipment):wheel", "mouse (computer equipment):wheel", 1),
    ]


def test_coco_stuff_leaves_out_what_stands_for_things(tmp_path: Path) -> None:
    names = [{"id": 97, "name": "sky-other"}, {"id": 183, "name": "other"}]
    stuff = [annotation(1, category_id=97), annotation(2, category_id=183)]
    files = [
        write_json(tmp_path / "stuff.json", coco(stuff, categories=names)),
        write_json(tmp_path / "instances.json", coco([annotation(1), annotation(5)])),
    ]
    made = imported("coco-stuff", files, tmp_path / "out")
    assert sorted((row["category_raw"], row["instance_id"] < 10) for row in made.instances) == [
        ("dog", False),  # its id, 1, is taken by a piece of sky
        ("dog", True),
        ("sky-other", True),
    ]
    assert made.report.dropped == {"other: the things, not told apart": 1}
    assert made.left_out == ['dropped,stuff.json,annotations[1],"other: the things, not told apart",1']
    assert made.report.made_ids == 1


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"image_id": 8}, ".image_id", "no sound image 8 in `images`"),
    ({"category_id": 3}, ".category_id", "no category 3 in `categories`"),
    ({"category_id": "1"}, ".category_id", "Expected `int`, got `str`"),
    ({"category_id": None}, ".category_id", "Expected `int`, got `null`"),
    ({"bbox": [1, 1, 2]}, ".bbox", "Expected `array` of length 4"),
    ({"bbox": [1, 1, 2, float("nan")]}, ".bbox[3]", "Expected `float`, got `null`"),
    ({"segmentation": {"size": [6, 5], "counts": "abc"}}, ".segmentation", "size [6, 5] (height, width)"),
    ({"segmentation": {"size": [5, 6], "counts": "x~"}}, ".segmentation", "damaged run lengths"),
    ({"segmentation": {"size": [5, 6], "counts": "0Z"}}, ".segmentation", "damaged run lengths"),
    ({"segmentation": {"size": [5, 6], "counts": "64"}}, ".segmentation", "the run lengths sum to 10, not 5 × 6"),
    ({"segmentation": [[1, 1, 3, 1, 3]]}, ".segmentation", "a polygon of 5 numbers"),
]


@pytest.mark.parametrize(("changed", "field", "error"), WRONG)
def test_a_wrong_annotation_costs_itself(tmp_path: Path, changed: dict[str, Any], field: str, error: str) -> None:
    file = write_json(tmp_path / "f.json", coco([annotation(1), annotation(2, **changed), annotation(3)]))
    made = imported("coco", [file], tmp_path / "out")
    assert [row["instance_id"] for row in made.instances] == [1, 3]
    assert (made.report.wrong, made.report.dropped) == (1, {})
    assert made.report.examples[0].startswith(f"f.json annotations[1]{field}: {error}")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"segmentation": []}, "the source gives no mask"),
        ({"segmentation": None}, "the source gives no mask"),
        ({"segmentation": [[1, 1, 2, 2]]}, "no polygon has three points"),
        ({"segmentation": [0] * 0 + [30]}, "the mask covers no pixel"),
        ({"segmentation": [[1, 1, 1, 1, 1, 1]]}, "the mask covers no pixel"),
        ({"category_id": 2}, "the source gives no name"),
        ({"id": 1}, "the same annotation once more"),
    ],
)
def test_what_is_no_named_region_is_dropped(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    names = [{"id": 1, "name": "dog"}, {"id": 2, "name": " - "}]
    file = write_json(tmp_path / "f.json", coco([annotation(1), annotation(2, **changed)], categories=names))
    made = imported("coco", [file], tmp_path / "out")
    assert [row["instance_id"] for row in made.instances] == [1]
    assert made.report.dropped == {reason: 1}
    assert made.left_out == [f"dropped,f.json,annotations[1],{reason},1"]


def test_wrong_images_and_categories_take_their_annotations_along(tmp_path: Path) -> None:
    good = {"id": 7, "file_name": "a/7.jpg", "width": 6, "height": 5}
    images = [
        good,
        {**good, "id": 1, "file_name": "../7.jpg"},
        {**good, "id": 2, "file_name": "/7.jpg"},
        {**good, "id": 3, "width": 0},
        {**good, "id": 4, "height": 1 << 40},
        {**good, "id": 5, "width": "6"},
        {**good, "file_name": "b/7.jpg"},
        {**good, "id": 6, "file_name": ""},
        3,
    ]
    names = [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}, {"name": "x"}, {"id": 3}]
    everything = [annotation(n, image_id=n) for n in range(1, 8)]
    file = write_json(tmp_path / "f.json", coco(everything, images=images, categories=names))
    made = imported("coco", [file], tmp_path / "out")
    assert [(row["instance_id"], row["category_raw"]) for row in made.instances] == [(7, "dog")]
    assert (made.report.wrong, made.report.problems) == (6, 8 + 3)
    assert [image["file_name"] for image in made.images] == ["a/7.jpg"]


def test_images_of_one_id_in_two_files(tmp_path: Path) -> None:
    other = [{"id": 7, "file_name": "other.jpg", "width": 6, "height": 5}]
    files = [
        write_json(tmp_path / "a.json", coco([annotation(1)])),
        write_json(tmp_path / "b.json", coco([annotation(2)])),
        write_json(tmp_path / "c.json", coco([annotation(3)], images=other)),
    ]
    made = imported("coco", files, tmp_path / "out")
    assert [row["instance_id"] for row in made.instances] == [1, 2]
    assert (made.report.wrong, made.report.problems) == (1, 1)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "cannot be read"),
        ("{", "not JSON"),
        ("[]", "Expected `object`, got `array`"),
        ('{"images": []}', "missing required field `annotations`"),
        ('{"images": ' + "[" * 100_000, "not JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "not one named region in 0 annotations"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=error):
        importers.run("coco", [tmp_path / "f.json"], tmp_path / "out", "val")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.json"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=6,
)
SEGMENTATIONS = JSON | st.builds(
    lambda size, counts: {"size": size, "counts": counts},
    st.just([5, 6]) | JSON,
    st.text(st.characters(min_codepoint=48, max_codepoint=112), max_size=8) | st.lists(st.integers(-1, 31), max_size=4),
)
ENTRIES = JSON | st.fixed_dictionaries(
    {"image_id": st.just(7), "category_id": st.sampled_from([1, 2]), "segmentation": SEGMENTATIONS},
    optional={"id": JSON, "bbox": JSON, "iscrowd": JSON},
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRIES, max_size=5))
def test_whatever_stands_there_the_sums_hold(tmp_path_factory: Any, entries: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    file = write_json(folder / "f.json", coco([annotation(1, segmentation=[SQUARE]), *entries]))
    made = imported("coco", [file], folder / "out")  # checks them
    assert made.report.found == 1 + len(entries)
    assert made.report.instances >= 1
