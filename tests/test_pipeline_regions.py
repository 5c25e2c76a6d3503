"""The region-sample format: what is written is what is read, and what is wrong is refused with its place."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import masks, regions
from pipeline.errors import UserError

Row = dict[str, Any]


def rle(side: int = 3) -> Row:
    mask = np.zeros((6, 8), np.bool_)
    mask[1 : 1 + side, 2 : 2 + side] = True
    return {"size": [6, 8], "counts": masks.encode(mask)}


def instance(number: int, category: str = "dog", image: int = 1, **changes: Any) -> Row:
    place = {"segmentation": rle(), "bbox_xywh": [2.0, 1.0, 3.0, 3.0], "area": 9, "area_ratio": 9 / 48}
    names = {"category": category, "category_raw": category, "split": "test", "mini": False}
    return {"instance_id": number, "image_id": image, **names, **place, **changes}


def image(number: int = 1, **changes: Any) -> Row:
    size = {"width": 8, "height": 6, "split": "test", "mini": False, "instances": 1}
    return {"image_id": number, "file_name": f"{number}.jpg", **size, **changes}


def tables(instances: list[Row], images: list[Row]) -> tuple[pa.Table, pa.Table]:
    return regions.from_rows("instances", instances), regions.from_rows("images", images)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    picture = {"bytes": b"jpeg", "path": "1.jpg"}
    regions.write(tmp_path, *tables([instance(2), instance(1, "cup")], [image(image=picture)]))
    found = regions.RegionSamples(tmp_path)
    assert found.read("instances", ["instance_id", "category", "segmentation", "namers"]).to_pylist() == [
        {"instance_id": 1, "category": "cup", "segmentation": rle(), "namers": None},
        {"instance_id": 2, "category": "dog", "segmentation": rle(), "namers": None},
    ]
    assert found.has_images
    assert found.read("images")["image"].to_pylist() == [picture]
    assert found.read("categories", ["category", "instances", "images", "frequency"]).to_pylist() == [
        {"category": "cup", "instances": 1, "images": 1, "frequency": "rare"},
        {"category": "dog", "instances": 1, "images": 1, "frequency": "rare"},
    ]


def test_images_may_be_left_out(tmp_path: Path) -> None:
    regions.write(tmp_path, *tables([instance(1)], [image()]))
    assert not regions.RegionSamples(tmp_path).has_images


def test_no_instances_are_a_data_set_too(tmp_path: Path) -> None:
    regions.write(tmp_path, *tables([], [image()]))
    assert regions.RegionSamples(tmp_path).read("instances").num_rows == 0


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_the_order_of_rows_changes_no_byte(order: list[int]) -> None:
    rows = [instance(number, ["dog", "cup", "car"][number % 3]) for number in range(6)]
    with TemporaryDirectory() as a, TemporaryDirectory() as b:
        regions.write(Path(a), *tables(rows, [image()]))
        regions.write(Path(b), *tables([rows[place] for place in order], [image()]))
        for path in sorted(Path(a, "data").iterdir()):
            assert path.read_bytes() == Path(b, "data", path.name).read_bytes()


def test_a_file_knows_its_hash_and_size(tmp_path: Path) -> None:
    path = tmp_path / "instances-0.parquet"
    with regions.FileWriter(path, "instances") as writer:
        writer.write(regions.from_rows("instances", [instance(1), instance(2)]))
    data = path.read_bytes()
    assert writer.written == regions.Written(path.name, len(data), hashlib.sha256(data).hexdigest(), 2)


def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), regions.FileWriter(tmp_path / "a.parquet", "instances"):
        raise RuntimeError
    with regions.FileWriter(tmp_path / "b.parquet", "instances") as writer:
        writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_image_bytes_lie_uncompressed_in_bounded_row_groups(tmp_path: Path) -> None:
    rows = [image(n, image={"bytes": bytes(9 << 20), "path": ""}) for n in range(8)]
    with regions.FileWriter(tmp_path / "images-0.parquet", "images", images=True) as writer:
        writer.write(regions.from_rows("images", rows))
    found = pq.ParquetFile(tmp_path / "images-0.parquet").metadata
    groups = [found.row_group(n) for n in range(found.num_row_groups)]
    by_name = {(c := groups[0].column(n)).path_in_schema: c.compression for n in range(found.num_columns)}
    assert by_name["image.bytes"] == "UNCOMPRESSED"
    assert by_name["sha256"] == "ZSTD"
    assert [group.num_rows for group in groups] == [3, 3, 2]


def test_statistics_lead_to_a_category(tmp_path: Path) -> None:
    rows = [instance(n, f"c{n // 700}") for n in range(4000)]
    regions.write(tmp_path, *tables(rows, [image()]))
    (file,) = regions.RegionSamples(tmp_path).files("instances")
    chosen = next(pads.dataset(file).get_fragments()).subset(pc.field("category") == "c3")
    assert [group.id for group in chosen.row_groups] == [2]  # rows 2,100 to 2,799 of groups of 1,024


@pytest.mark.parametrize(
    ("images", "band"),
    [(0, "rare"), (10, "rare"), (11, "common"), (100, "common"), (101, "frequent")],
)
def test_frequency_bands_are_lvis(images: int, band: str) -> None:
    assert regions.frequency(images) == band


@pytest.mark.parametrize(
    ("instances", "images", "message"),
    [
        ([instance(1), instance(1)], [image()], "instance_id 1 is there more than once"),
        ([instance(1)], [image(), image()], "image_id 1 is there more than once"),
        ([instance(1, image=7)], [image()], "instance 1: image 7 is not among the images"),
        ([instance(1, split="train")], [image()], "instance 1: split 'train', but its image 1 is in 'test'"),
        ([instance(1, "Dog")], [image()], "instance 1: category 'Dog' is not in normal form ('dog')"),
        ([instance(1, "")], [image()], "instance 1: category ''"),
        ([instance(1, area=8)], [image()], "instance 1: area 8, but its run lengths give 9"),
        ([instance(1, bbox_xywh=[1.0])], [image()], "instance 1: bbox_xywh has 1 numbers"),
        (
            [instance(1, segmentation={"size": [6, 9], "counts": rle()["counts"]})],
            [image()],
            "instance 1: its run lengths sum to 48, not 6 × 9",
        ),
        (
            [instance(1, segmentation={"size": [6, 8], "counts": "zz"})],
            [image()],
            "instance 1: segmentation.counts is no COCO RLE",
        ),
        (
            [instance(1, segmentation={"size": [6], "counts": rle()["counts"]})],
            [image()],
            "instance 1: segmentation.size has 1 numbers",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, instances: list[Row], images: list[Row], message: str) -> None:
    with pytest.raises(UserError) as refused:
        regions.write(tmp_path / "d", *tables(instances, images))
    assert message in str(refused.value)
    assert not (tmp_path / "d").exists()


def test_many_mistakes_are_counted() -> None:
    rows = [instance(n, area=1) for n in range(30)]
    with pytest.raises(UserError) as refused:
        regions.check(*tables(rows, [image()]), "here")
    assert len(str(refused.value).splitlines()) == 21
    assert str(refused.value).endswith("here: and 10 more")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no region samples there"):
        regions.RegionSamples(tmp_path)


def test_other_parquet_is_refused(tmp_path: Path) -> None:
    regions.write(tmp_path, *tables([instance(1)], [image()]))
    for path in (tmp_path / "data").glob("instances-*"):
        pq.write_table(pa.table({"instance_id": [1]}), path)
    with pytest.raises(UserError, match="missing image_id, category"):
        regions.RegionSamples(tmp_path).read("instances")


def test_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "VERSION", 99)
    regions.write(tmp_path, *tables([instance(1)], [image()]))
    monkeypatch.undo()
    with pytest.raises(UserError, match="format version 99, this rr7k reads up to"):
        regions.RegionSamples(tmp_path).read("instances")
