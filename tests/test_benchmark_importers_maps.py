"""Panoptic PNGs and semantic maps: one region a segment, or a class, exact to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_data_sets import Row, imported, save_labels, write_json
from PIL import Image

from benchmark import importers
from benchmark.importers import pixel_maps
from pipeline.errors import UsageError, UserError

SKY, DOG, CROWD = 5, 300, 70_000  # segment ids: red alone, with green, with blue
COLOURS = [[SKY, SKY, DOG], [SKY, DOG, DOG], [0, CROWD, CROWD]]


def segment(number: int, category: int, **more: object) -> Row:
    return {"id": number, "category_id": category, "iscrowd": 0, "bbox": [0, 0, 1, 1], **more}


def panoptic(folder: Path, segments: list[Row], colours: list[list[int]] | None = COLOURS, **changed: object) -> Path:
    """A panoptic JSON of one image with its PNG."""
    if colours:
        values = np.array(colours, np.uint32)
        rgb = np.stack([values & 255, values >> 8 & 255, values >> 16], axis=-1).astype(np.uint8)
        (folder / "panoptic").mkdir()
        Image.fromarray(rgb).save(folder / "panoptic" / "a.png")
    return write_json(
        folder / "panoptic.json",
        {
            "images": [{"id": "frankfurt_0", "file_name": "a_leftImg8bit.png", "width": 3, "height": 3}],
            "annotations": [{"image_id": "frankfurt_0", "file_name": "a.png", "segments_info": segments, **changed}],
            "categories": [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "dog", "isthing": 1}],
        },
    )


def test_panoptic_segments(tmp_path: Path) -> None:
    segments = [segment(SKY, 1), segment(DOG, 2, bbox=[1, 0, 2, 2]), segment(CROWD, 2, iscrowd=1)]
    made = imported("coco-panoptic", [panoptic(tmp_path, segments)], tmp_path / "out")
    assert sorted(made.named()) == [
        ("dog", [[0, 0, 0], [0, 0, 0], [0, 1, 1]]),
        ("dog", [[0, 0, 1], [0, 1, 1], [0, 0, 0]]),
        ("sky", [[1, 1, 0], [1, 0, 0], [0, 0, 0]]),
    ]
    assert {row["area"]: row["iscrowd"] for row in made.instances if row["category"] == "dog"} == {3: False, 2: True}
    assert made.report.dropped == {"void: pixels of no segment": 1}
    (image,) = made.images
    assert image["file_name"] == "a_leftImg8bit.png"
    assert made.instances[0]["image_id"] == image["image_id"] > 2**32  # made of the text that is the source's id
    again = imported("coco-panoptic", [tmp_path / "panoptic.json"], tmp_path / "again")
    assert again.instances == made.instances


def test_panoptic_damage_segment_by_segment(tmp_path: Path) -> None:
    segments = [segment(SKY, 1), segment(SKY, 2), segment(9, 1), segment(DOG, 8), {"id": 7}]
    made = imported("coco-panoptic", [panoptic(tmp_path, segments)], tmp_path / "out")
    assert [name for name, _ in made.named()] == ["sky"]
    at = "panoptic.json annotations[0]"
    assert made.report.examples == [
        f"{at}.segments_info[1].id: no pixel has colour 5, or two segments have it",
        f"{at}.segments_info[2].id: no pixel has colour 9, or two segments have it",
        f"{at}.segments_info[3].category_id: no category 8",
        f"{at}.segments_info[4]: Object missing required field `category_id`",
        f"{at}: colour 70000 of a.png is not in segments_info",
    ]
    assert (made.report.found, made.report.wrong) == (7, 5)


@pytest.mark.parametrize(
    ("colours", "changed", "error"),
    [
        (None, {}, r"annotations\[0\].file_name: 'a.png': no such file"),
        ([[1, 2]], {}, r"'a.png': 2×1 px, but its image has 3×3"),
        (COLOURS, {"file_name": "../panoptic/a.png"}, "not a plain file name"),
        (COLOURS, {"image_id": 4}, r"annotations\[0\].image_id: no sound image 4"),
        (COLOURS, {"segments_info": 4}, "Expected `array`, got `int`"),
    ],
)
def test_panoptic_without_its_picture(
    tmp_path: Path, colours: list[list[int]] | None, changed: Row, error: str
) -> None:
    file = panoptic(tmp_path, [segment(SKY, 1)], colours, **changed)
    with pytest.raises(UserError, match=error):
        importers.run("coco-panoptic", [file], tmp_path / "out", "val")


def test_panoptic_given_as_instances(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing required field `category_id`"):
        importers.run("coco", [panoptic(tmp_path, [segment(SKY, 1)])], tmp_path / "out", "val")


ADE = ([[0, 1], [150, 150]], {"wall": 1, "flag": 2}, {"void: other objects": 1}, "ADE_val_00000001.jpg")
STUFF = ({"person": 1, "wood": 2}, {"void: unlabeled": 1})


@pytest.mark.parametrize(
    ("kind", "name", "labels", "areas", "dropped", "image"),
    [
        ("ade20k-150", "ADE_val_00000001.png", *ADE),
        ("ade20k-150-from-0", "x.png", [[255, 0], [149, 149]], {"wall": 1, "flag": 2}, {"void: 255": 1}, "x.jpg"),
        ("ade20k-847", "x.tif", [[65535, 0], [846, 846]], {"wall": 1, "adding machine": 2}, {"void: 65535": 1},
         "x.jpg"),
        ("pascal-context-59", "2008_000002.png", [[0, 1], [59, 59]], {"aeroplane": 1, "wood": 2},
         {"void: background": 1}, "2008_000002.jpg"),
        ("pascal-context-59-from-0", "x.png", [[255, 0], [58, 58]], {"aeroplane": 1, "wood": 2}, {"void: 255": 1},
         "x.jpg"),
        ("pascal-context-459", "x.tif", [[65535, 0], [458, 458]], {"accordion": 1, "wool": 2}, {"void: 65535": 1},
         "x.jpg"),
        ("coco-stuff-maps", "000000000009.png", [[255, 0], [181, 181]], *STUFF, "000000000009.jpg"),
        ("coco-stuff-maps-from-0", "9.png", [[255, 0], [170, 170]], {"person": 1, "wood": 2}, {"void: 255": 1},
         "9.jpg"),
        ("coco-stuff-pixelmaps", "9.png", [[0, 92], [183, 182]], {"banner": 1, "wood": 1},
         {"void: unlabeled": 1, "other: the things, not told apart": 1}, "9.jpg"),
        ("cityscapes", "f/f_0_gtFine_labelIds.png", [[0, 7], [33, 33]], {"road": 1, "bicycle": 2},
         {"void: unlabeled": 1}, "f/f_0_leftImg8bit.png"),
    ],
)  # fmt: skip
def test_semantic_maps(
    tmp_path: Path, kind: str, name: str, labels: list[list[int]], areas: Row, dropped: Row, image: str
) -> None:
    save_labels(tmp_path / "maps" / name, labels, np.uint16 if name.endswith("tif") else np.uint8)
    made = imported(kind, [tmp_path / "maps"], tmp_path / "out")
    assert {row["category_raw"]: row["area"] for row in made.instances} == areas
    assert made.report.dropped == dropped
    assert [(row["file_name"], row["width"], row["height"]) for row in made.images] == [(image, 2, 2)]
    assert made.report.made_ids == len(areas)


def test_a_class_is_one_region_however_many_pieces(tmp_path: Path) -> None:
    save_labels(tmp_path / "maps" / "sub" / "a.png", [[1, 2, 1], [2, 2, 2], [1, 2, 1]])
    made = imported("ade20k-150", [tmp_path / "maps"], tmp_path / "out")
    assert sorted(made.named()) == [
        ("building", [[0, 1, 0], [1, 1, 1], [0, 1, 0]]),
        ("wall", [[1, 0, 1], [0, 0, 0], [1, 0, 1]]),
    ]
    assert made.images[0]["file_name"] == "sub/a.jpg"


def test_cityscapes_instances(tmp_path: Path) -> None:
    labels = [[7, 26, 26001], [26002, 26002, 4], [24, 24000, 1]]
    save_labels(tmp_path / "gtFine" / "x_gtFine_instanceIds.png", labels, np.uint16)
    made = imported("cityscapes-instances", [tmp_path / "gtFine"], tmp_path / "out")
    assert sorted((row["category_raw"], row["area"], row["iscrowd"]) for row in made.instances) == [
        ("car", 1, False),
        ("car", 1, True),  # a group
        ("car", 2, False),
        ("person", 1, False),
        ("person", 1, True),
        ("road", 1, False),
    ]
    assert made.report.dropped == {"void: ego vehicle": 1, "void: static": 1}


def test_a_map_of_another_numbering_is_left_out_whole(tmp_path: Path) -> None:
    save_labels(tmp_path / "maps" / "a.png", [[255, 3]])  # 255 is the void of the other kind
    save_labels(tmp_path / "maps" / "b.png", [[1, 3]])
    made = imported("ade20k-150", [tmp_path / "maps"], tmp_path / "out")
    assert sorted(name for name, _ in made.named()) == ["sky", "wall"]
    assert made.left_out == ["wrong,a.png,values,255: no class of ade20k_150.csv; is the folder of another KIND?,2"]


def test_files_that_are_no_maps(tmp_path: Path) -> None:
    save_labels(tmp_path / "maps" / "a.png", [[1]])
    Image.new("RGB", (2, 2)).save(tmp_path / "maps" / "b.png")
    (tmp_path / "maps" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    made = imported("ade20k-150", [tmp_path / "maps"], tmp_path / "out")
    assert (made.report.instances, made.report.problems) == (1, 2)
    assert made.report.examples[0] == "b.png: pixels of kind RGB, not P or L or I or I;16 or I;16B"
    with pytest.raises(UsageError, match="no folder with maps"):
        importers.run("cityscapes", [tmp_path / "maps"], tmp_path / "none", "val")


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    save_labels(tmp_path / "maps" / "a.png", [[1]])
    (tmp_path / "maps" / "a.png").rename(tmp_path / "maps" / "\udcff.png")
    save_labels(tmp_path / "maps" / "b.png", [[1]])
    made = imported("ade20k-150", [tmp_path / "maps"], tmp_path / "out")
    assert (made.report.instances, made.report.problems) == (1, 1)
    assert made.report.examples == ["\\udcff.png: file name '\\udcff.jpg': not a relative path"]


def test_class_tables() -> None:
    counts = {kind: sum(not c.void for c in pixel_maps.classes(of).values()) for kind, of in pixel_maps.LAYOUTS.items()}
    assert counts == {
        "ade20k-150": 150,
        "ade20k-150-from-0": 150,
        "ade20k-847": 847,
        "pascal-context-59": 59,
        "pascal-context-59-from-0": 59,
        "pascal-context-459": 459,
        "coco-stuff-maps": 171,
        "coco-stuff-maps-from-0": 171,
        "coco-stuff-pixelmaps": 171,
        "cityscapes": 19,
        "cityscapes-instances": 19,
    }
