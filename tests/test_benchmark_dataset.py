"""Releases in researchers' hands: our library, the examples of the card, Croissant, and other forms."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO
from released_runs import decision, fill, killed, make, pair, photograph, shard, small
from sa1b_shards import build

import benchmark
from benchmark import exports
from benchmark.dataset import Region
from benchmark.diff import Change, compare
from pipeline import masks, regions
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run

Row = dict[str, Any]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 1 to 3, each with a dog, a cup and a car, embedded."""
    folder = tmp_path_factory.mktemp("released")
    run = Run(str(folder / "run"))
    small(run, folder / "shards")
    make(run, folder / "out")
    return folder / "out"


# --- the library ---


def test_typed_access(released: Path) -> None:
    data = benchmark.load(released)
    assert len(data) == 9
    assert data.categories["category"].to_pylist() == ["car", "cup", "dog"]
    assert repr(data) == f"Dataset({str(released)!r}): {len(data)} regions, 3 categories"
    assert data.categories["aliases"].to_pylist()[0] == ["automobile"]
    assert data.categories["hypernyms"].to_pylist()[0] == ["vehicle"]
    dog = data.of_category("dog")[0]
    assert (dog.instance_id, dog.image_id, dog.split, dog.bbox_xywh) == (100, 1, "test", (3.0, 5.0, 10.0, 10.0))
    mask = dog.mask()
    assert mask.shape == (48, 64)
    assert mask[5:15, 3:13].all()
    assert mask.sum() == dog.area == 100
    assert [region.category for region in data.of_image(2)] == ["dog", "cup", "car"]
    assert len(list(data.regions("test", mini=True))) == 9
    assert list(data.regions("train")) == []
    assert data.instances("instance_id", split="test")["instance_id"].to_pylist()[:4] == [102, 202, 302, 101]
    assert "image" not in data.images().column_names
    assert data.image(1).size == (64, 48)


def test_what_is_not_there_is_named(released: Path, tmp_path: Path) -> None:
    data = benchmark.load(released)
    with pytest.raises(UsageError, match="no category 'dgo'"):
        data.of_category("dgo")
    with pytest.raises(UsageError, match="no image 7"):
        data.image(7)
    with pytest.raises(UserError, match="no region samples there"):
        benchmark.load(tmp_path)
    rows = [{**row, "image": None} if row["image_id"] == 2 else row for row in data.samples.read("images").to_pylist()]
    regions.write(tmp_path, data.samples.read("instances"), regions.from_rows("images", rows))
    with pytest.raises(UsageError, match="the file of image 2 is not in it"):
        benchmark.load(tmp_path).image(2)


@pytest.mark.parametrize("counts", ["", "z", "zzp", "é", "0" * 50])
def test_damaged_run_lengths_are_an_error_not_a_crash(counts: str) -> None:
    region = Region(1, 1, "dog", "test", 6, 8, counts, (0.0, 0.0, 0.0, 0.0), 1)
    with pytest.raises(UserError, match="instance 1: its run lengths are damaged"):
        region.mask()


def test_it_needs_neither_ray_nor_torch() -> None:
    program = "import benchmark, sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert not set(done.stdout.split()) & {"ray", "torch", "numba", "scipy", "pydantic"}


def read_bytes() -> int:
    """Bytes that this process has read from files so far (Linux)."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux tells what was read")
def test_a_category_reads_its_row_groups_only(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((10_000, 12, 16)) < 0.5
    place = {"image_id": 1, "bbox_xywh": [0.0] * 4, "area_ratio": 0.5, "split": "test", "mini": False}
    rows = [
        {"instance_id": n, "category": f"c{n // 100:04}", "category_raw": "c", "area": int(mask.sum()), **place}
        | {"segmentation": {"size": [12, 16], "counts": masks.encode(mask)}}
        for n, mask in enumerate(noise)
    ]
    size = {"width": 16, "height": 12, "split": "test", "mini": False, "instances": len(rows)}
    image = {"image_id": 1, "file_name": "1.jpg", **size}
    regions.write(tmp_path, regions.from_rows("instances", rows), regions.from_rows("images", [image]))
    data = benchmark.load(tmp_path)
    before = read_bytes()
    data.instances("mini")  # little but the footers
    footers, before = read_bytes() - before, read_bytes()
    assert len(list(data.regions())) == len(rows)
    whole, before = read_bytes() - before - footers, read_bytes()
    assert len(data.of_category("c0050")) == 100
    assert read_bytes() - before - footers < whole / 5  # one of ten row groups, two at most


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux tells what was read")
def test_an_image_reads_its_row_group_only(released: Path, tmp_path: Path) -> None:
    row = RegionSamples(released).read("images").to_pylist()[0]
    size = len(row["image"]["bytes"])
    rows = [{**row, "image_id": number} for number in range(1, 2561)]
    regions.write(tmp_path, RegionSamples(released).read("instances").slice(0, 0), regions.from_rows("images", rows))
    data = benchmark.load(tmp_path)
    assert data.image(1).size == (64, 48)  # and the footers are known
    before = read_bytes()
    assert data.image(1300).size == (64, 48)
    assert 256 * size <= read_bytes() - before < 2560 * size / 5  # one of ten


# --- other people's libraries ---


def examples(folder: Path) -> Iterator[str]:
    yield from re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)


def test_the_examples_of_the_card_run(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(released)
    printed = []
    for code in examples(released):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            exec(code, {})
        printed.append(told.getvalue())
    assert len(printed) == 5
    assert printed[0].splitlines() == ["102 1 144", "202 2 144", "302 3 144"]
    assert "JpegImageFile image mode=RGB size=64x48" in printed[1]
    assert re.search(r"dog +3", printed[2])
    assert "302" in printed[3]
    assert printed[4].strip() == "[(3, 3)]"


def test_datasets_finds_every_configuration(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import get_dataset_config_names, load_dataset

    names = ["instances", "instances-mini", "images", "images-mini", "categories"]
    assert get_dataset_config_names(str(released)) == names
    rows = [
        sum(part.num_rows for part in load_dataset(str(released), name, cache_dir=str(tmp_path)).values())
        for name in names
    ]
    assert rows == [9, 9, 3, 3, 3]


def test_croissant_is_valid_and_leads_to_the_rows(released: Path) -> None:
    import mlcroissant

    found = mlcroissant.Dataset(jsonld=str(released / "croissant.json"))
    assert found.metadata.issues.errors == set()
    assert found.metadata.issues.warnings == set()
    rows = list(found.records("instances"))
    assert len(rows) == 9
    assert rows[0]["instances/category"] == b"car"
    picture = next(iter(found.records("images")))
    assert picture["images/image"].size == (64, 48)
    told = json.loads((released / "croissant.json").read_text())
    assert told["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
    assert {"rai:dataCollection", "rai:dataBiases", "rai:personalSensitiveInformation"} <= told.keys()


# --- other forms ---


def test_coco_json_round_trip(released: Path, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    assert exports.write(RegionSamples(released), "test", "coco", path) == 9
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(str(path))
    names = {category["id"]: category["name"] for category in found.loadCats(found.getCatIds())}
    data = benchmark.load(released)
    for region in data.regions():
        annotation = found.loadAnns([region.instance_id])[0]
        assert names[annotation["category_id"]] == region.category
        assert annotation["image_id"] == region.image_id
        assert tuple(annotation["bbox"]) == region.bbox_xywh
        assert (found.annToMask(annotation) == region.mask()).all()
    assert found.loadImgs([1])[0] == {"id": 1, "file_name": "sa_1.jpg", "width": 64, "height": 48}


def test_authors_jsonl_round_trip(released: Path, tmp_path: Path) -> None:
    path = tmp_path / "rr7k.jsonl"
    assert exports.write(RegionSamples(released), None, "jsonl", path) == 9
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["id"], r["image"], r["width"], r["height"]) for r in records][:1] == [("1", "sa_1.jpg", 64, 48)]
    data = benchmark.load(released)
    for record in records:
        known = data.of_image(int(record["id"]))
        assert record["label"] == [region.category for region in known]
        assert record["conversations"] == [{"from": "human", "value": ""}, {"from": "gpt", "value": "dog , cup , car"}]
        assert [(mask["size"], mask["counts"]) for mask in record["masks"]] == [
            ([region.height, region.width], region.counts) for region in known
        ]


def test_exports_refuse_what_would_be_misread(tmp_path: Path, run: Run) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    fill(run, [pair(100, "salt , pepper")], [decision(100, "salt , pepper")])
    make(run, tmp_path / "out")
    with pytest.raises(UserError, match="category 'salt , pepper' holds ' , '"):
        exports.write(RegionSamples(tmp_path / "out"), None, "jsonl", tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="no instances in split 'val'"):
        exports.write(RegionSamples(tmp_path / "out"), "val", "coco", tmp_path / "x.json")
    with pytest.raises(UsageError, match="is a folder, or in none that is there"):
        exports.write(RegionSamples(tmp_path / "out"), None, "coco", tmp_path / "none" / "x.json")
    assert not list(tmp_path.glob("*x.json*"))


def test_a_killed_export_leaves_nothing_under_its_name(released: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    program = f"""
from pathlib import Path
from benchmark import exports
from pipeline.regions import RegionSamples
exports.write(RegionSamples(Path({str(released)!r})), None, "jsonl", Path({str(path)!r}))
"""
    killed(program, "benchmark.exports:os.fsync")
    assert [file.name for file in tmp_path.iterdir()] == [".x.jsonl.part"]
    exports.write(RegionSamples(released), None, "jsonl", path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]


# --- what changed ---


def rewritten(folder: Path, out: Path, change: dict[int, Row], drop: int) -> Path:
    """The same data set with some instances changed, one dropped and one added."""
    found = RegionSamples(folder)
    rows = [row | change.get(row["instance_id"], {}) for row in found.read("instances").to_pylist()]
    kept = [row for row in rows if row["instance_id"] != drop]
    table = regions.from_rows("instances", [*kept, kept[0] | {"instance_id": 999}])
    regions.write(out, table, pa.table(found.read("images").columns, schema=regions.SCHEMAS["images"]))
    return out


def test_a_diff_names_every_change(released: Path, tmp_path: Path) -> None:
    mask = masks.encode(np.ones((48, 64), np.bool_))
    change: dict[int, Row] = {
        100: {"category": "puppy"},
        200: {"segmentation": {"size": [48, 64], "counts": mask}, "area": 48 * 64},
        201: {"votes_keep": 2},
    }
    found = compare(released, rewritten(released, tmp_path / "after", change, drop=301))
    assert (found.added, found.removed, found.redrawn, found.moved) == ([999], [301], [200], [])
    assert found.renamed == [Change(100, "dog", "puppy")]
    assert found.judged == [Change(201, "people: 1/0/0", "people: 2/0/0")]
    assert (found.new_categories, found.lost_categories) == (["puppy"], [])
    assert found.accepted == ["car", "dog"]  # their accepted names are not in the rewritten one
    assert found.score_relevant == [100, 102, 200, 202, 300, 301, 302, 999]


def test_a_release_does_not_differ_from_itself(released: Path) -> None:
    found = compare(released, released)
    assert not any(getattr(found, name) for name in found.__struct_fields__)
