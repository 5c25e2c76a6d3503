"""Generated shards are exact in SA-1B's layout, so the pipeline cannot tell; people can."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sa1b_shards import build, jpeg, rows

from pipeline import masks
from pipeline.errors import UsageError
from pipeline.run import Run
from stages import sample_data
from stages.funnel import levels
from stages.sample_data import FIRST_ID, annotation

SA_1B_KEYS = {"id", "segmentation", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords"}


def contents(shard: Path) -> dict[str, Any]:
    with tarfile.open(shard) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def test_an_annotation_follows_sa_1bs_conventions() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[4:9, 6:16] = True
    mask[4, 6] = False
    note = annotation(5, mask, 1.01, 0.5)
    assert set(note) == SA_1B_KEYS
    assert note["bbox"] == [6.0, 4.0, 9.0, 4.0]  # xmax - xmin, ymax - ymin
    assert note["area"] == 49
    assert note["segmentation"]["size"] == [20, 30]
    assert (masks.decode(note["segmentation"]["counts"], 20, 30) == mask).all()
    x, y = note["point_coords"][0]
    assert mask[int(y), int(x)]


def test_the_photographs(tmp_path: Path) -> None:
    made = sample_data.write_photographs(tmp_path / "out")
    files = contents(made.shard)
    assert len(files) == 2 * made.images == 2 * len(sample_data.PHOTOGRAPHS)
    notes = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert sum(len(note["annotations"]) for note in notes) == made.masks
    ids = [a["id"] for note in notes for a in note["annotations"]]
    assert len(set(ids)) == len(ids)
    assert min(ids + [note["image"]["image_id"] for note in notes]) >= FIRST_ID
    assert all(20 < len(note["annotations"]) < 200 for note in notes)
    assert "Generated, not SA-1B" in (tmp_path / "out" / "SOURCES.md").read_text()
    run = Run(str(tmp_path / "run"))
    build(run, made.shard)
    images, found = levels(run)[1:]
    assert (images.total, images.kept) == (made.images, made.images)
    assert found.total == made.masks
    assert found.quarantined == {}
    assert 0 < found.dropped["tiny"] < found.total / 2


def coco_file(folder: Path) -> Path:
    """Two images (one a PNG) with a polygon, a compressed and an uncompressed RLE, and an empty polygon."""
    (folder / "images").mkdir()
    (folder / "images" / "1.jpg").write_bytes(jpeg(40, 30))
    Image.new("RGBA", (40, 30)).save(folder / "images" / "2.png")
    box = [5, 5, 15, 5, 15, 10, 5, 10]
    rle = {"size": [30, 40], "counts": masks.encode(np.eye(30, 40, dtype=np.bool_))}
    notes = [
        {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [box], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 4, "segmentation": rle, "iscrowd": 0},
        {
            "id": 3,
            "image_id": 2,
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"size": [30, 40], "counts": [100, 7, 1093]},
        },
        {"id": 4, "image_id": 2, "category_id": 3, "segmentation": [[1, 1, 2, 2]], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.png"}],
        "annotations": notes,
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "remote control"}],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco_becomes_a_shard_with_its_true_names(tmp_path: Path, run: Run) -> None:
    made = sample_data.write_coco(tmp_path / "out", coco_file(tmp_path), tmp_path / "images")
    assert (made.images, made.masks) == (2, 3)
    assert contents(made.shard)[f"./sa_{FIRST_ID + 1}.jpg"] == (tmp_path / "images" / "1.jpg").read_bytes()
    names = dict(zip(*pq.read_table(made.names).to_pydict().values(), strict=True))
    assert names == {FIRST_ID + 1: "cat", FIRST_ID + 2: "remote control", FIRST_ID + 3: "cat"}
    build(run, made.shard, min_area_ratio=0.0)
    assert {row["mask_id"]: row["area"] for row in rows(run)} == {FIRST_ID + 1: 50, FIRST_ID + 2: 30, FIRST_ID + 3: 7}


def test_coco_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text("{")
    for name, says in (
        ("a.json", "without images, annotations, categories"),
        ("b.json", "as JSON"),
        ("c.json", "as JSON"),
    ):
        with pytest.raises(UsageError, match=says):
            sample_data.write_coco(tmp_path / "out", tmp_path / name, tmp_path)
    path = coco_file(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(UsageError, match=r"image 2 names 2\.png"):
        sample_data.write_coco(tmp_path / "out", path, tmp_path / "images")
