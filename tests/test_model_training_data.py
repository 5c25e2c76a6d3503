"""Data sets to learn from: what is used, what is left out and counted, what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_benchmarks
from training_folders import instance, photograph, write, write_rows

from model import training_data
from model.train_config import DataConfig
from model.training_data import TrainingData
from pipeline import masks
from pipeline.errors import UserError


def prepare(folder: Path, out: Path, **data: Any) -> TrainingData:
    others = {name: str(path) for name, path in data.pop("others", {}).items()}
    return training_data.prepare("mine", DataConfig(folders={"mine": str(folder), **others}, **data), out)


def labels(data: TrainingData) -> list[str]:
    return [region.label for place in range(len(data)) for region in data.shown(place).regions]


def empty() -> dict[str, Any]:
    return {"size": [small_benchmarks.HEIGHT, 64], "counts": masks.encode(np.zeros((48, 64), bool))}


# --- what is there ---


def test_images_come_with_their_masks(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "in", (2, 1, 3)), tmp_path)
    assert len(data) == 3
    assert data.image_ids().tolist() == [1, 2, 3]
    found = data.shown(2)
    assert (found.image_id, found.size) == (3, (64, 48))
    assert [region.instance_id for region in found.regions] == [3000, 3001, 3002]
    assert found.regions[1] == (3001, instance(3, 1)["segmentation"]["counts"], "cup", 36, [6, 6])
    picture = data.picture(2)
    assert (picture.size, picture.mode) == ((64, 48), "RGB")
    assert picture.tobytes() != data.picture(1).tobytes()
    assert training_data.told(data.report) == "mine: 3 images, 6 masks"


def test_it_is_sent_to_other_processes_as_its_path(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "in", (2,) * 50), tmp_path)
    data.picture(0)
    sent = pickle.dumps(data)
    assert len(sent) < 500
    assert pickle.loads(sent).shown(49) == data.shown(49)


def test_what_is_prepared_is_kept_until_it_changes(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "in"), tmp_path)
    made = (tmp_path / "mine.arrow").stat().st_mtime_ns
    assert prepare(tmp_path / "in", tmp_path).report == data.report
    assert (tmp_path / "mine.arrow").stat().st_mtime_ns == made
    other = prepare(tmp_path / "in", tmp_path, labels="normal")
    assert (tmp_path / "mine.arrow").stat().st_mtime_ns > made
    assert other.report.fingerprint == data.report.fingerprint  # these labels are alike in both forms
    write(tmp_path / "in", category_raw="cat")
    assert prepare(tmp_path / "in", tmp_path).report.fingerprint != data.report.fingerprint


def test_the_fingerprint_is_of_rows_not_of_their_place(tmp_path: Path) -> None:
    one, two = (prepare(write(tmp_path / name), tmp_path / f"out-{name}") for name in ("a", "b"))
    assert one.report.fingerprint == two.report.fingerprint
    rows, images = [instance(1, 0)], [photograph(1, 1, sha256="0" * 64)]
    hashed = prepare(write_rows(tmp_path / "c", rows, images), tmp_path / "out-c")
    again = prepare(write_rows(tmp_path / "d", rows, [{**images[0], "sha256": "1" * 64}]), tmp_path / "out-d")
    assert hashed.report.fingerprint != again.report.fingerprint


@pytest.mark.parametrize(
    ("rule", "expected"), [("raw", "Bow-tie_(dress)"), ("normal", "bow-tie (dress)"), ("wowseg", "Bow tie")]
)
def test_labels_are_made_by_the_rule(rule: Any, expected: str, tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "in", (1,), category_raw="Bow-tie_(dress)"), tmp_path, labels=rule)
    assert labels(data) == [expected]


# --- what is left out ---


def test_what_cannot_be_learnt_is_counted(tmp_path: Path) -> None:
    rows = [
        instance(1, 0),
        instance(1, 1, segmentation=empty(), area=0),
        instance(1, 2, category_raw="  "),
        instance(1, 3, category_raw="é" * 6),  # 12 bytes
        instance(1, 4, category_raw="é" * 5),
        instance(2, 0, category_raw="elephant trunk"),
    ]
    folder = write_rows(tmp_path / "in", rows, [photograph(n, 1) for n in (1, 2, 3)])
    data = prepare(folder, tmp_path, longest_label=10)
    assert labels(data) == ["dog", "ééééé"]
    assert data.report.dropped == {
        "without a pixel": 1,
        "without a name": 1,
        "with a name longer than 10 bytes": 2,
        "images without masks": 2,
    }
    assert training_data.told(data.report).splitlines()[:2] == [
        "mine: 1 images, 2 masks",
        "  left out: 1 without a pixel",
    ]


def shared_folders(tmp_path: Path) -> dict[str, Path]:
    """Images 1 to 6, of which 2 and 5 are in lvis-val under another name; and paco-val, which has none of them."""
    images = [photograph(number, 1, file_name=f"{number:012}.jpg") for number in (2, 5, 9)]
    lvis = write_rows(tmp_path / "lvis", [instance(number, 0) for number in (2, 5, 9)], images)
    return {"lvis-val": lvis, "paco-val": write(tmp_path / "paco", (1, 1), first=20)}


@pytest.mark.parametrize("leave_out", [False, True])
def test_images_of_evaluation_are_told_or_left_out(leave_out: bool, tmp_path: Path) -> None:
    others = shared_folders(tmp_path)
    folder = write(tmp_path / "in", (1, 2, 1, 1, 3, 1))
    data = prepare(folder, tmp_path, others=others, evaluated_on=list(others), leave_out_evaluated=leave_out)
    assert data.report.shared == {"lvis-val": 2, "paco-val": 0}
    assert data.image_ids().tolist() == ([1, 3, 4, 6] if leave_out else [1, 2, 3, 4, 5, 6])
    assert data.report.dropped == (
        {"images that lvis-val has too": 2, "in an image for evaluation": 5} if leave_out else {}
    )
    assert "  2 of its images are in lvis-val too" in training_data.told(data.report)


def test_files_that_are_not_named_as_coco_names_them_are_not_compared(tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other", [instance(1, 0)], [photograph(1, 1, file_name="sa_1.jpg")])
    folder = write_rows(tmp_path / "in", [instance(1, 0)], [photograph(1, 1, file_name="sa_1.jpg")])
    assert prepare(folder, tmp_path, others={"o": other}, evaluated_on=["o"]).report.shared == {"o": 0}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Images 1 and 3 of the split train, 2 of test."""
    splits = {1: "train", 2: "test", 3: "train"}
    rows = [instance(number, place, split=split) for number, split in splits.items() for place in (0, 1)]
    return write_rows(tmp_path / "in", rows, [photograph(number, 2, split=split) for number, split in splits.items()])


def test_a_split_alone_is_learnt_from(release: Path, tmp_path: Path) -> None:
    data = prepare(release, tmp_path, splits={"mine": "train"})
    assert data.image_ids().tolist() == [1, 3]
    assert (data.report.instances, data.report.dropped) == (4, {})


def test_a_split_that_is_not_there(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to learn from: it has no rows"):
        prepare(release, tmp_path, splits={"mine": "val"})


# --- what is refused ---


def test_rows_of_a_test_split_are_refused(release: Path, tmp_path: Path) -> None:
    told = r"data/instances-\S+\.parquet: 1 of 3 rows are of the split test, .* --set data\.splits\.mine=train"
    with pytest.raises(UserError, match=told):
        prepare(release, tmp_path)
    with pytest.raises(UserError, match=r"data\.splits\.mine is test, which nothing may learn from"):
        prepare(release, tmp_path, splits={"mine": "test"})


@pytest.mark.parametrize(
    ("rows", "images", "message"),
    [
        ([], [photograph(1, 0)], "nothing to learn from: 1 images without masks"),
        ([instance(1, 0, category_raw="")], [photograph(1, 1)], "nothing to learn from: 1 without a name"),
        ([instance(2, 0)], [photograph(1, 1)], "instance 2000: its image is not among the images"),
        (
            [instance(1, 0)],
            [photograph(1, 1, width=65)],
            "1 masks are no COCO RLE of their image's size, or .* 1000",
        ),
        (
            [instance(1, 0, segmentation={"size": [48, 64], "counts": "~~~"})],
            [photograph(1, 1)],
            "1 masks are no COCO RLE of their image's size, or .* 1000",
        ),
        (
            [instance(1, 0, bbox_xywh=[1, 2])],
            [photograph(1, 1)],
            "1 masks are no COCO RLE of their image's size, or .* 1000",
        ),
        (
            [instance(1, 0, segmentation={"size": [48], "counts": empty()["counts"]})],
            [photograph(1, 1)],
            "1 masks are no COCO RLE of their image's size, or .* 1000",
        ),
    ],
)
def test_damaged_data_sets_are_refused(
    rows: list[dict[str, Any]], images: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        prepare(write_rows(tmp_path / "in", rows, images), tmp_path)


def test_images_by_reference_are_refused(tmp_path: Path) -> None:
    folder = small_benchmarks.write(tmp_path / "in", embedded=False, split="train")
    with pytest.raises(UserError, match="Import it with --images"):
        prepare(folder, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {"bytes": b"no picture", "path": "1.jpg"}}, "mine: image 1 in .* cannot be decoded"),
        ({"image": {"bytes": None, "path": "1.jpg"}}, "mine: image 1 in .* cannot be decoded"),
        ({"image": photograph(1, 1)["image"], "width": 32, "height": 96}, "is 64×48 px, but its row says 32×96"),
    ],
)
def test_damaged_pictures_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    size = [changes.get("height", 48), changes.get("width", 64)]
    mask = {"size": size, "counts": masks.encode(np.ones(size, bool))}
    rows = [instance(1, 0, segmentation=mask, area=48 * 64)]
    data = prepare(write_rows(tmp_path / "in", rows, [photograph(1, 1, **changes)]), tmp_path)
    with pytest.raises(UserError, match=message):
        data.picture(0)


def test_a_file_that_was_cut_since_is_named(tmp_path: Path) -> None:
    data = prepare(write(tmp_path / "in", (1,)), tmp_path)
    photographs = min((tmp_path / "in" / "data").glob("images-*.parquet"))
    photographs.write_bytes(photographs.read_bytes()[:100])
    with pytest.raises(UserError, match=r"mine: image 1 in .*images-.*\.parquet cannot be decoded"):
        data.picture(0)
