"""Osprey's lists, the authors' JSON Lines, named SA-1B, and a published RR-7K of any of these layouts."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_data_sets import SQUARE, Row, annotation, coco, imported, pixels, write_json
from PIL import Image

from benchmark import importers
from pipeline.errors import UserError

RLE = {"size": [5, 6], "counts": "6230>"}
"""Compressed: 6 out, 2 in, 3 out, 2 in, 17 out: the pixels of `SQUARE`."""


def osprey_record(**changed: Any) -> Row:
    return {
        "id": 42,
        "file_name": "000000000042.jpg",
        "height": 5,
        "width": 6,
        "categories": ["bottle:cap", "dog"],
        "annotations": [{"segmentation": [SQUARE], "bbox": [1, 1, 2, 2]}, {"segmentation": RLE}],
        **changed,
    }


def test_osprey(tmp_path: Path) -> None:
    made = imported("osprey", [write_json(tmp_path / "lvis_val_1k.json", [osprey_record()])], tmp_path / "out")
    assert sorted((row["category_raw"], row["area"], row["bbox_source_xywh"]) for row in made.instances) == [
        ("bottle:cap", 4, [1, 1, 2, 2]),
        ("dog", 4, None),
    ]
    assert {row["image_id"] for row in made.images} == {42}
    assert made.report.made_ids == 2


@pytest.mark.parametrize(
    ("changed", "error", "wrong", "problems"),
    [
        ({"categories": ["dog"]}, "[1].annotations[1]: the lists categories and annotations differ in length", 1, 0),
        ({"categories": ["a", "b", "c"]}, "[1].annotations[2]: the lists categories and annotations differ", 1, 0),
        ({"categories": ["a", None]}, "[1].categories[1]: Expected `str`, got `null`", 1, 0),
        (
            {"annotations": [{"segmentation": 3}, {"segmentation": RLE}]},
            "[1].annotations[0].segmentation: polygons",
            1,
            0,
        ),
        ({"height": None}, "[1].height: Expected `int`, got `null`", 0, 1),
        ({"width": 0}, "[1]: 0×5 px is not the size of an image", 2, 1),
    ],
)
def test_osprey_damage(tmp_path: Path, changed: Row, error: str, wrong: int, problems: int) -> None:
    file = write_json(tmp_path / "f.json", [osprey_record(), osprey_record(file_name="43.jpg", **changed)])
    made = imported("osprey", [file], tmp_path / "out")
    assert (made.report.wrong, made.report.problems) == (wrong, problems)
    assert made.report.examples[0].startswith(f"f.json {error}")


def jsonl_record(**changed: Any) -> Row:
    return {
        "id": "42",
        "image": "train2017/000000000042.jpg",
        "width": 6,
        "height": 5,
        "conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "dog , shoe: lace"}],
        "masks": [RLE, {"size": [5, 6], "counts": "0n0"}],
        "label": ["dog", "shoe: lace"],
        **changed,
    }


def write_lines(path: Path, *records: Row | str) -> Path:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records))
    return path


def test_the_authors_json_lines(tmp_path: Path) -> None:
    second = jsonl_record(masks=[{"size": [5, 6], "counts": "n0"}], label=["cat"])  # the same image once more; no pixel
    made = imported("jsonl", [write_lines(tmp_path / "a.jsonl", jsonl_record(), "", second)], tmp_path / "out")
    assert sorted((row["category_raw"], row["area"]) for row in made.instances) == [("dog", 4), ("shoe: lace", 30)]
    assert [(row["image_id"], row["file_name"], row["instances"]) for row in made.images] == [
        (42, "train2017/000000000042.jpg", 2)
    ]
    assert made.left_out == ["dropped,a.jsonl,line 3 masks[0],the mask covers no pixel,1"]


def test_ids_are_made_of_what_is_there_not_of_where(tmp_path: Path) -> None:
    other = jsonl_record(image="sa_7.jpg", label=["cat", "cow"])
    first = imported("jsonl", [write_lines(tmp_path / "a.jsonl", jsonl_record(), other)], tmp_path / "1")
    second = imported("jsonl", [write_lines(tmp_path / "b.jsonl", other, jsonl_record(), other)], tmp_path / "2")
    assert first.instances == second.instances
    assert second.report.dropped == {"the same annotation once more": 2}
    assert {row["image_id"] for row in first.images} == {7, 42}


@pytest.mark.parametrize(
    ("line", "error", "wrong", "problems"),
    [
        ("{", "line 2: Input data was truncated", 0, 1),
        ("[" * 100_000, "line 2: ", 0, 1),
        (jsonl_record(width=None), "line 2.width: Expected `int`, got `null`", 0, 1),
        (jsonl_record(image="../a.jpg"), "line 2: file name '../a.jpg': not a relative path", 2, 1),
        (jsonl_record(label=["dog"]), "line 2 masks[1]: 2 masks, but 1 labels", 1, 0),
        (jsonl_record(label=["dog", 3]), "line 2 label[1]: text expected, 3 found", 1, 0),
        (
            jsonl_record(masks=[RLE, {"size": [6, 5], "counts": "n0"}]),
            "line 2 masks[1].segmentation: size [6, 5]",
            1,
            0,
        ),
    ],
)
def test_json_lines_damage(tmp_path: Path, line: Row | str, error: str, wrong: int, problems: int) -> None:
    good = jsonl_record(image="1.jpg")
    made = imported("jsonl", [write_lines(tmp_path / "a.jsonl", good, line)], tmp_path / "out")
    assert (made.report.wrong, made.report.problems) == (wrong, problems)
    assert made.report.examples[0].startswith(f"a.jsonl {error}")


SA_5 = {"image_id": 5, "width": 6, "height": 5, "file_name": "sa_5.jpg"}


def sa1b_file(*names: str | None, field: str = "category") -> Row:
    common = {
        "area": 4,
        "predicted_iou": 0.9,
        "stability_score": 0.98,
        "crop_box": [0, 0, 6, 5],
        "point_coords": [[1, 1]],
    }
    entries = [
        {"id": 100 + n, "segmentation": RLE, "bbox": [1, 1, 1, 1], **common, **({field: name} if name else {})}
        for n, name in enumerate(names)
    ]
    return {"image": SA_5, "annotations": entries}


@pytest.mark.parametrize("field", ["category", "category_name", "label", "name", "class_name"])
def test_named_sa1b(tmp_path: Path, field: str) -> None:
    (tmp_path / "sa").mkdir()
    write_json(tmp_path / "sa" / "sa_5.json", sa1b_file("dog", None, "cat", field=field))
    made = imported("sa1b", [tmp_path / "sa"], tmp_path / "out")
    assert [(row["instance_id"], row["category_raw"], row["bbox_source_xywh"]) for row in made.instances] == [
        (100, "dog", [1, 1, 1, 1]),
        (102, "cat", [1, 1, 1, 1]),
    ]
    assert made.report.dropped == {"the source gives no name": 1}


def test_a_number_that_json_has_not_costs_nothing_else(tmp_path: Path) -> None:
    content = sa1b_file("dog", "cat")
    content["annotations"][0]["predicted_iou"] = content["annotations"][1]["bbox"][2] = float("nan")
    made = imported("sa1b", [write_json(tmp_path / "sa_5.json", content)], tmp_path / "out")
    assert [row["category_raw"] for row in made.instances] == ["dog"]
    assert made.report.examples == ["sa_5.json annotations[1].bbox[2]: Expected `float`, got `null`"]


def test_named_sa1b_in_a_shard(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "sa_000000.tar", "w") as shard:
        for name, data in {
            "./sa_5.json": json.dumps(sa1b_file("dog")).encode(),
            "sa_6.json": b"{}",
            "sa_5.jpg": b"",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    made = imported("sa1b", [tmp_path / "sa_000000.tar"], tmp_path / "out")
    assert [row["instance_id"] for row in made.instances] == [100]
    assert made.report.examples == ["sa_000000.tar/sa_6.json: Object missing required field `image`"]
    (tmp_path / "cut.tar").write_bytes((tmp_path / "sa_000000.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"cut\.tar: cannot be read"):
        importers.run("sa1b", [tmp_path / "cut.tar"], tmp_path / "cut", "val")


def write_parquet(path: Path, *rows: Row) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def as_bytes(record: Row) -> Row:
    """A record with its run lengths and its image stored as bytes, as a hub may store them."""
    masks = [{**mask, "counts": mask["counts"].encode()} for mask in record["masks"]]
    return {**record, "masks": masks, "image": {"bytes": picture("JPEG"), "path": record["image"]}}


def picture(form: str, pixels: Any = ()) -> bytes:
    """An image file of 6×5 px, grey or of these pixels."""
    sink = io.BytesIO()
    image = Image.fromarray(np.array(pixels, np.uint8)) if len(pixels) else Image.new("L", (6, 5), 90)
    image.save(sink, form)
    return sink.getvalue()


def test_a_published_rr7k_in_every_layout(tmp_path: Path) -> None:
    files = [
        write_json(tmp_path / "coco.json", coco([annotation(1)])),
        write_json(tmp_path / "sa_5.json", sa1b_file("dog")),
        write_lines(tmp_path / "train.jsonl", jsonl_record()),
        write_json(tmp_path / "one.json", jsonl_record(image="sa_8.jpg")),
        write_json(tmp_path / "osprey.json", [osprey_record(file_name="44.jpg")]),
        write_parquet(tmp_path / "a.parquet", jsonl_record(image="sa_9.jpg"), jsonl_record(image="sa_10.jpg")),
        write_parquet(tmp_path / "b.parquet", as_bytes(jsonl_record(image="sa_11.jpg"))),
        write_parquet(tmp_path / "c.parquet", {**sa1b_file(None, "cat"), "image": {**SA_5, "image_id": 12}}),
    ]
    expected = [7, 5, 42, 8, 44, 9, 10, 11, 12]
    made = imported("rr7k", files, tmp_path / "out")
    assert sorted(row["image_id"] for row in made.images) == sorted(expected)
    assert (made.report.instances, made.report.wrong, made.report.problems) == (15, 0, 0)
    assert {row["image_id"]: row["image"]["bytes"] for row in made.images if row["image"]} == {11: picture("JPEG")}
    (tmp_path / "folder").mkdir()
    for file in files:
        file.rename(tmp_path / "folder" / file.name)
    assert imported("rr7k", [tmp_path / "folder"], tmp_path / "again").instances == made.instances


def region_row(**changed: Any) -> Row:
    """A row of one region, as a hub may hold it."""
    return {"image": "sa_7.jpg", "width": 6, "height": 5, "segmentation": RLE, "category": "dog", **changed}


CORNERS = [[0] * 6, [0, 255, 255, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0] * 6, [0] * 6]
"""The pixels of `SQUARE`, each of them above 0."""


@pytest.mark.parametrize("changed", [
    {},
    {"segmentation": json.dumps(RLE)},
    {"segmentation": {**RLE, "counts": str(RLE["counts"]).encode()}},
    {"segmentation": [[float(number) for number in SQUARE]]},
    {"segmentation": {"bytes": picture("PNG", CORNERS), "path": "mask.png"}},
    {"segmentation": None, "mask": picture("PNG", CORNERS)},
    {"segmentation": None, "rle": RLE, "width": None, "height": None},
    {"image": {"bytes": picture("JPEG"), "path": "sa_7.jpg"}, "width": None, "height": None},
    {"image": {"bytes": picture("JPEG"), "path": None}, "image_id": 7, "segmentation": [SQUARE], "width": None},
    {"image": picture("JPEG"), "file_name": "x/sa_7.jpg", "category": None, "label": "dog"},
    {"image": None, "image_id": 7},
])  # fmt: skip
def test_parquet_with_a_row_per_region(tmp_path: Path, changed: Row) -> None:
    file = write_parquet(tmp_path / "a.parquet", region_row(**changed, id=5, bbox=[1, 1, 2, 2]))
    made = imported("rr7k", [file], tmp_path / "out")
    (row,), (image,) = made.instances, made.images
    assert (row["instance_id"], row["image_id"], row["category_raw"], row["area"]) == (5, 7, "dog", 4)
    assert pixels(row) == [[0] * 6, [0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0] * 6, [0] * 6]
    assert row["bbox_source_xywh"] == [1, 1, 2, 2]
    held = changed.get("image")
    assert image.get("image", {}).get("bytes") == (picture("JPEG") if isinstance(held, dict | bytes) else None)
    assert sorted(path.name for path in made.folder.iterdir()) == ["data", "import.json", "left_out.csv"]


def test_regions_of_an_image_hold_it_once(tmp_path: Path) -> None:
    held = {"bytes": picture("JPEG"), "path": "sa_7.jpg"}
    rows = [region_row(image=held, id=number, category=name) for number, name in enumerate(("dog", "cat"))]
    made = imported("rr7k", [write_parquet(tmp_path / "a.parquet", *rows)], tmp_path / "out")
    assert [(image["image_id"], image["instances"]) for image in made.images] == [(7, 2)]
    assert made.report.embedded == 1


def test_class_labels_are_named(tmp_path: Path) -> None:
    told = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}
    rows = [{**region_row(category=None), "label": number} for number in (1, 0, 2)]
    table = pa.Table.from_pylist(rows).drop_columns("category")
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "a.parquet")
    made = imported("rr7k", [tmp_path / "a.parquet"], tmp_path / "out")
    assert sorted(row["category_raw"] for row in made.instances) == ["cat", "dog"]
    assert made.report.examples == ["a.parquet row 2.label: 2 is no class; there are 2"]


@pytest.mark.parametrize(("changed", "error"), [
    ({"segmentation": "{"}, "row 0.segmentation: neither run lengths, polygons nor an image file: Input data was"),
    ({"segmentation": b"no picture"}, "row 0.segmentation: neither run lengths, polygons nor an image file: cannot"),
    ({"segmentation": {"size": [6, 5], "counts": "n0"}}, "row 0.segmentation: size [6, 5] (height, width), but its"),
    ({"image": "../sa_7.jpg"}, "row 0.image: file name '../sa_7.jpg': not a relative path"),
    ({"image": None}, "row 0.image: no image file, no name of one, and no image id"),
    ({"segmentation": [SQUARE], "width": None}, "row 0.image: its size is told nowhere"),
    ({"image": b"no picture", "segmentation": [SQUARE], "width": None}, "row 0.image: not an image that can be opened"),
    ({"category": 3}, "row 0.category: a name expected, 3 found"),
])  # fmt: skip
def test_a_bad_row_costs_itself_only(tmp_path: Path, changed: Row, error: str) -> None:
    files = [
        write_parquet(tmp_path / f"{n}.parquet", row)  # one file, one type of a column
        for n, row in enumerate((region_row(image="sa_1.jpg"), region_row(**changed)))
    ]
    made = imported("rr7k", files, tmp_path / "out")
    assert (made.report.instances, made.report.wrong) == (1, 1)
    assert made.report.examples[0].startswith(f"1.parquet {error}")


def test_rows_without_a_name_or_a_pixel_are_dropped(tmp_path: Path) -> None:
    nothing = picture("PNG", [[0] * 6] * 5)
    rows = [region_row(segmentation=None, mask=m, category=c) for m, c in ((nothing, "cup"), (picture("PNG"), None))]
    file = write_parquet(tmp_path / "a.parquet", *rows, region_row(segmentation=None, mask=picture("PNG")))
    made = imported("rr7k", [file], tmp_path / "out")
    assert made.report.dropped == {"the mask covers no pixel": 1, "the source gives no name": 1}
    assert [row["area"] for row in made.instances] == [30]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.json", '{"279135": "a cat"}', "neither COCO .* its keys are 279135"),
        ("a.json", "3", "not a JSON object or list"),
        ("a.parquet", "PAR1", "cannot be read"),
        ("b.parquet", {"image": "a.jpg", "category": "dog"}, "columns category, image; expected image, masks, label;"),
    ],
)
def test_a_published_rr7k_of_a_layout_unknown(tmp_path: Path, name: str, content: str | Row, error: str) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        write_parquet(tmp_path / name, content)
    with pytest.raises(UserError, match=error):
        importers.run("rr7k", [tmp_path / name], tmp_path / "out", "val")


def test_a_published_rr7k_damaged_in_its_middle(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", *(region_row(id=number) for number in range(50)))
    content = bytearray(file.read_bytes())
    content[4:60] = b"\xff" * 56
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read \(.*\)\. If it is damaged: get or make"):
        importers.run("rr7k", [file], tmp_path / "out", "val")


def test_region_samples_need_no_import(tmp_path: Path) -> None:
    made = imported("coco", [write_json(tmp_path / "f.json", coco([annotation(1)]))], tmp_path / "out")
    with pytest.raises(UserError, match="a region-sample file already"):
        importers.run("rr7k", [next((made.folder / "data").glob("instances-*"))], tmp_path / "again", "val")
