"""Rougher masks, by the vectors of wowseg_facts.md E.1, and data sets of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from benchmark import drafts, perturb, truth
from benchmark.perturb import Model, Report, Watcher
from pipeline import masks, outlines, regions, segmenters
from pipeline.errors import UsageError, UserError

Bools = npt.NDArray[np.bool_]
SILENT = Watcher(lambda total: None, lambda done: None)


def block(top: int, left: int, height: int, width: int) -> Bools:
    mask = np.zeros((40, 60), np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def iou(one: Bools, other: Bools) -> float:
    return float((one & other).sum() / (one | other).sum())


# --- outlines ---------------------------------------------------------------------------------------------


def test_the_rotated_box_of_a_block_is_the_block() -> None:
    for mask in (block(10, 10, 10, 30), block(10, 10, 1, 30), block(10, 10, 1, 1), block(0, 0, 40, 60)):
        assert (outlines.rotated_box(mask) == mask).all()


def test_one_rotated_box_around_all_pieces() -> None:
    pieces = block(5, 5, 3, 10) | block(30, 5, 3, 10)
    assert (outlines.rotated_box(pieces) == block(5, 5, 28, 10)).all()
    diagonal = np.eye(40, 60, dtype=np.bool_)
    assert iou(outlines.rotated_box(diagonal), diagonal) == 1


def test_the_ellipse_of_a_block() -> None:
    mask = block(10, 10, 10, 30)
    drawn = outlines.ellipse(mask)
    assert drawn is not None
    assert iou(drawn, mask) == pytest.approx(0.81, abs=0.005)  # the axes are 38.4 and 10.05
    assert [int(np.ptp(np.flatnonzero(drawn.any(axis=axis)))) + 1 for axis in (0, 1)] == [
        40,
        12,
    ]  # axes of 38.4 and 10.05, each pixel touched


@pytest.mark.parametrize("mask", [block(10, 10, 1, 1), block(10, 10, 2, 2), block(5, 5, 1, 2)])
def test_too_few_points_for_an_ellipse(mask: Bools) -> None:
    assert outlines.ellipse(mask) is None


def test_an_ellipse_far_off_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for fitted in (((10, 10), (5.0, 900.0), 0.0), ((10, 10), (float("nan"), 5.0), 0.0), ((900, 900), (5.0, 5.0), 0.0)):
        monkeypatch.setattr(cv2, "fitEllipse", lambda points, fitted=fitted: fitted)
        assert outlines.ellipse(block(10, 10, 10, 30)) is None


def test_an_empty_mask_has_no_outline() -> None:
    for drawing in (outlines.rotated_box, outlines.ellipse):
        with pytest.raises(ValueError, match="an empty mask"):
            drawing(block(0, 0, 0, 0))


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 59)), min_size=1, max_size=30))
def test_the_box_is_that_of_all_pixels(pixels: list[tuple[int, int]]) -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[tuple(zip(*pixels, strict=True))] = True
    y, x = np.nonzero(mask)
    corners = cv2.boxPoints(cv2.minAreaRect(np.stack([x, y], axis=1).astype(np.int32)))
    expected = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(expected, [np.rint(corners).astype(np.int32)], 1)
    assert (outlines.rotated_box(mask) == expected).all()


# --- data sets --------------------------------------------------------------------------------------------

SHAPES = {11: block(10, 10, 10, 30), 12: block(2, 2, 2, 2), 21: block(5, 5, 20, 20) & np.tri(40, 60, dtype=np.bool_)}
"""By instance id, the first digit of which is the image's."""


def photograph(seed: int) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def row(instance_id: int, mask: Bools) -> dict[str, Any]:
    y, x = np.nonzero(mask)
    box = [float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1)]
    return {
        "instance_id": instance_id, "image_id": instance_id // 10, "category": "cat" if instance_id % 2 else "dog",
        "category_raw": "Cat", "split": "test", "mini": False, "area": int(mask.sum()), "area_ratio": 0.5,
        "segmentation": {"size": [40, 60], "counts": masks.encode(mask)}, "bbox_xywh": box,
        "bbox_source_xywh": box, "iscrowd": False, "source": "made up",
    }  # fmt: skip


def made(folder: Path, *, images: bool = True) -> Path:
    pictures = [
        {"image_id": image, "file_name": f"{image}.png", "width": 60, "height": 40, "split": split, "mini": False}
        | {"instances": 1, "image": {"bytes": photograph(image), "path": f"{image}.png"} if images else None}
        for image, split in ((1, "test"), (2, "test"), (3, "train"))
    ]
    train = {**row(31, SHAPES[11]), "split": "train"}
    rows = [*(row(one, mask) for one, mask in SHAPES.items()), train]
    instances = regions.from_rows("instances", rows)
    accepted = {"cat": (["kitty"], ["animal"])}
    counted = regions.count_categories(instances, accepted)
    regions.write(folder, instances, regions.from_rows("images", pictures), counted)
    return folder


def read(folder: Path) -> dict[int, dict[str, Any]]:
    table = regions.RegionSamples(folder).read("instances")
    return {one["instance_id"]: one for one in table.sort_by("instance_id").to_pylist()}


def test_a_data_set_of_rotated_boxes(tmp_path: Path) -> None:
    source, out = made(tmp_path / "source"), tmp_path / "out"
    report = perturb.perturb(source, "rotated-box", out, SILENT)
    found, samples = read(out), regions.RegionSamples(out)
    regions.check(samples.read("instances"), samples.read("images"), "out")
    assert sorted(found) == [11, 12, 21]  # of the split test
    before = read(source)
    for one, mask in SHAPES.items():
        drawn = outlines.rotated_box(mask)
        assert (masks.decode(found[one]["segmentation"]["counts"], 40, 60) == drawn).all()
        assert (found[one]["area"], found[one]["area_ratio"]) == (drawn.sum(), drawn.sum() / 2400)
        assert found[one]["bbox_source_xywh"] is None
        changed = {"segmentation", "bbox_xywh", "bbox_source_xywh", "area", "area_ratio"}
        assert {k: v for k, v in found[one].items() if k not in changed} == {
            k: v for k, v in before[one].items() if k not in changed
        }
    assert found[12]["bbox_xywh"] == [2, 2, 2, 2]
    assert report.outcomes == {"made": 3, "fallback": 0, "empty": 0}
    expected = np.mean([iou(mask, outlines.rotated_box(mask)) for mask in SHAPES.values()])
    assert report.mean_iou == pytest.approx(expected)
    known = truth.load(source)
    assert json.loads((out / "perturbed.json").read_text()) | {"versions": {}} == {
        "name": "source, masks: rotated-box", "source": "rotated-box", "benchmark": "source", "data_set": "",
        "split": "test", "fingerprint": known.fingerprint, "model": "", "weights": "", "versions": {},
        "instances": 3, "outcomes": report.outcomes, "mean_iou": report.mean_iou,
    }  # fmt: skip
    images = samples.read("images").to_pylist()
    assert [(one["image_id"], one["instances"], one["image"]["bytes"]) for one in images] == [
        (1, 2, photograph(1)), (2, 1, photograph(2))
    ]  # fmt: skip
    (cat, dog) = samples.read("categories").to_pylist()
    assert (cat["aliases"], cat["instances"], dog["instances"]) == (["kitty"], 2, 1)
    assert truth.load(out).instances["instance_id"].to_pylist() == [11, 21, 12]  # what the scorer opens


def test_where_no_ellipse_fits_the_box_stands_in(tmp_path: Path) -> None:
    report = perturb.perturb(made(tmp_path / "source", images=False), "ellipse", tmp_path / "out", SILENT)
    assert report.outcomes == {"made": 2, "fallback": 1, "empty": 0}
    assert (masks.decode(read(tmp_path / "out")[12]["segmentation"]["counts"], 40, 60) == SHAPES[12]).all()
    outcomes = pq.read_table(tmp_path / "out" / "masks.parquet").to_pylist()
    assert [(one["instance_id"], one["outcome"]) for one in outcomes] == [
        (11, "made"), (12, "fallback"), (21, "made")
    ]  # fmt: skip
    assert outcomes[1]["iou"] == 1


class Boxes:
    """In place of a model: the box it is shown, filled; nothing where that is small."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, list[list[float]]]] = []

    def segment(self, image: Image.Image, boxes_xyxy: npt.NDArray[np.float32]) -> Iterator[Bools]:
        self.seen.append((image.tobytes(), boxes_xyxy.tolist()))
        for left, top, right, bottom in boxes_xyxy.astype(int):
            yield block(top, left, bottom - top, right - left) if right - left > 2 else block(0, 0, 0, 0)


def test_a_model_sees_each_image_once_with_the_true_boxes(tmp_path: Path) -> None:
    source, segmenter = made(tmp_path / "source"), Boxes()
    model = Model("boxes", "cafe", lambda: segmenter)
    report = perturb.perturb(source, "sam", tmp_path / "out", SILENT, model=model)
    pixels = [Image.open(io.BytesIO(photograph(image))).tobytes() for image in (1, 2)]
    assert segmenter.seen == [(pixels[0], [[10, 10, 40, 20], [2, 2, 4, 4]]), (pixels[1], [[5, 5, 25, 25]])]
    assert report.outcomes == {"made": 2, "fallback": 0, "empty": 1}
    assert report.mean_iou == pytest.approx((1 + 0 + 210 / 400) / 3)
    assert (report.model, report.weights) == ("boxes", "cafe")
    assert sorted(read(tmp_path / "out")) == [11, 21]  # the empty one is left out, and listed
    assert pq.read_table(tmp_path / "out" / "masks.parquet").to_pylist()[1] == {
        "instance_id": 12, "outcome": "empty", "iou": 0
    }  # fmt: skip
    samples = regions.RegionSamples(tmp_path / "out")
    assert samples.read("images", ["instances"])["instances"].to_pylist() == [1, 1]
    assert samples.read("categories", ["category"])["category"].to_pylist() == ["cat"]


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, segmenter = made(tmp_path / "source"), Boxes()
    monkeypatch.setattr(perturb, "_INSTANCES", 2)
    whole = perturb.perturb(source, "sam", tmp_path / "whole", SILENT, model=Model("m", "w", Boxes))

    class Killed(BaseException):
        pass

    def record(draft: Path, written: Any) -> None:
        drafts_record(draft, written)
        raise Killed

    drafts_record = drafts.record
    with monkeypatch.context() as patched:
        patched.setattr(drafts, "record", record)
        with pytest.raises(Killed):
            perturb.perturb(source, "sam", tmp_path / "out", SILENT, model=Model("m", "w", Boxes))
    assert not (tmp_path / "out").exists()
    report = perturb.perturb(source, "sam", tmp_path / "out", SILENT, model=Model("m", "w", lambda: segmenter))
    assert len(segmenter.seen) == 1  # the second part only
    assert report == whole
    assert read(tmp_path / "out") == read(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "masks.parquet", "perturbed.json"]


def test_what_cannot_be_done(tmp_path: Path) -> None:
    bare, source = made(tmp_path / "bare", images=False), made(tmp_path / "source")
    model = Model("boxes", "cafe", Boxes)
    with pytest.raises(UsageError, match="holds no images, and sam2 sees them"):
        perturb.perturb(bare, "sam2", tmp_path / "out", SILENT, model=model)
    with pytest.raises(UsageError, match="no instances in split val"):
        perturb.perturb(source, "ellipse", tmp_path / "out", SILENT, split="val")
    with pytest.raises(UsageError, match="is there already"):
        perturb.perturb(bare, "ellipse", source, SILENT)
    empty = Model("empty", "", lambda: type("Empty", (), {"segment": lambda *_: iter([block(0, 0, 0, 0)] * 2)})())
    only = tmp_path / "only"
    samples = regions.RegionSamples(source)
    instances, images = samples.read("instances"), samples.read("images")
    regions.write(only, instances.filter(pc_in(instances, [11, 12])), images)
    with pytest.raises(UserError, match="all 2 new masks are empty"):
        perturb.perturb(only, "sam", tmp_path / "out", SILENT, model=empty)


def pc_in(table: Any, ids: list[int]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(table["instance_id"], pa.array(ids))


@pytest.mark.parametrize("damage", [b"", b"no image", photograph(1)[:300]])
def test_a_damaged_image_is_named(damage: bytes, tmp_path: Path) -> None:
    source = made(tmp_path / "source")
    samples = regions.RegionSamples(source)
    images = samples.read("images").to_pylist()
    images[1]["image"]["bytes"] = damage
    regions.write(tmp_path / "damaged", samples.read("instances"), regions.from_rows("images", images))
    with pytest.raises(UserError, match=r"image 2 \(2.png\): cannot be decoded"):
        perturb.perturb(tmp_path / "damaged", "sam", tmp_path / "out", SILENT, model=Model("m", "w", Boxes))


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> typer.Typer:
    from pipeline import cli_perturb

    found = typer.Typer()
    found.command()(cli_perturb.perturb)
    return found


def test_the_command_with_a_model(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, checkpoint = made(tmp_path / "source"), tmp_path / "tiny"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "sam2_video"}')
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    opened: list[tuple[str, str]] = []

    def open_segmenter(source: str, device: str) -> Boxes:
        opened.append((source, device))
        return Boxes()

    monkeypatch.setattr(segmenters, "open_segmenter", open_segmenter)
    order = [str(source), "--out", str(tmp_path / "out"), "--device", "cpu", "--checkpoint", str(checkpoint), "--to"]
    done = CliRunner().invoke(app, [*order, "sam2"], catch_exceptions=False)
    assert opened == [(str(checkpoint), "cpu")]
    assert "source, masks: sam2; 3 instances of split test" in done.stdout
    assert "1 came out empty: left out" in done.stdout
    report = json.loads((tmp_path / "out" / "perturbed.json").read_text())
    assert (report["model"], len(report["weights"])) == ("tiny", 64)
    with pytest.raises(UsageError, match="tiny: a model of type sam2_video, not sam"):
        CliRunner().invoke(app, [*order, "sam"], catch_exceptions=False)
    for damage, error in (("{", "no checkpoint there"), (None, "no checkpoint there")):
        (checkpoint / "config.json").write_text(damage) if damage else (checkpoint / "config.json").unlink()
        with pytest.raises(UsageError, match=error):
            CliRunner().invoke(app, [*order, "sam2"], catch_exceptions=False)


def test_a_checkpoint_goes_with_a_model(app: typer.Typer, tmp_path: Path) -> None:
    source = made(tmp_path / "source")
    for to, more, error in (("sam", [], "needs --checkpoint"), ("ellipse", ["--checkpoint", "x"], "is no model")):
        order = [str(source), "--to", to, "--out", str(tmp_path / "out"), *more]
        with pytest.raises(UsageError, match=f"{to} {error}"):
            CliRunner().invoke(app, order, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_the_command_knows_every_source() -> None:
    from pipeline.cli_perturb import Source

    assert [one.value for one in Source] == list(get_args(perturb.Source))
    assert Report.__struct_fields__[:2] == ("name", "source")
