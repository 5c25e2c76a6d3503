"""`rr7k segment`: masks made or given, named, drawn and written; on tiny random models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny_detectors
from PIL import Image
from pycocotools import mask as coco
from typer import Typer
from typer.testing import CliRunner
from wowseg_models import HEIGHT, WIDTH, one_thread, picture, rectangles, wowseg  # noqa: F401 (a fixture)

from model.wowseg import WowSeg
from pipeline import masks
from pipeline.cli_segment import segment
from pipeline.errors import UsageError, UserError
from pipeline.segmenters import open_segmenter

MASKS = rectangles(2)
RLES: list[dict[str, Any]] = [{"size": [HEIGHT, WIDTH], "counts": masks.encode(mask)} for mask in MASKS]
TURNED_LEFT = 6  # EXIF: the camera was held so that what is stored must be turned clockwise
EASY = ("--points", "3", "--least-iou", "-9", "--least-stability", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a segmenter, a picture, and the same picture stored turned."""
    folder = tmp_path_factory.mktemp("segment")
    wowseg(double=False).save(folder / "model")
    tiny_detectors.sam(folder / "sam")
    picture().save(folder / "it.png")
    turned, exif = picture().transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = TURNED_LEFT
    turned.save(folder / "turned.png", exif=exif)
    (folder / "rles.json").write_text(json.dumps(RLES))
    sa1b = {"image": {"image_id": 1}, "annotations": [{"id": 5, "segmentation": rle} for rle in RLES]}
    (folder / "sa1b.json").write_text(json.dumps(sa1b))
    (folder / "uncompressed.json").write_text(
        json.dumps([{"size": [HEIGHT, WIDTH], "counts": runs(mask)} for mask in MASKS])
    )
    return folder


def runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Runs down the columns, of background first."""
    found = [len(list(run)) for _, run in groupby([False, *mask.T.ravel().tolist()])]
    return [found[0] - 1, *found[1:]]


def rr7k(folder: Path, *arguments: str, image: str = "it.png", to: str = "out") -> dict[str, Any]:
    """Run the command; return what it wrote, or nothing."""
    app = Typer()
    app.command()(segment)
    where = [str(folder / image), "--model", str(folder / "model"), "--out", str(folder / to)]
    done = CliRunner().invoke(app, [*where, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    path = folder / f"{to}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def made(found: dict[str, Any]) -> list[str]:
    return [one["segmentation"]["counts"] for one in found["annotations"]]


def best_at(folder: Path, points: Sequence[tuple[int, int]]) -> list[str]:
    look = open_segmenter(str(folder / "sam"), "cpu").look(picture())
    offered = look.points(np.array(points, np.float32))
    return [masks.encode(max(some, key=lambda one: one.predicted_iou).mask) for some in offered]


@pytest.mark.parametrize("file", ["rles.json", "sa1b.json", "uncompressed.json"])
def test_given_masks_are_named_measured_and_drawn(folder: Path, file: str) -> None:
    found = rr7k(folder, "--masks", str(folder / file))
    named = WowSeg.from_pretrained(folder / "model").name(picture(), MASKS)
    assert found["image"] == {"file_name": "it.png", "width": WIDTH, "height": HEIGHT}
    assert [(one["id"], one["label"], one["logprob"]) for one in found["annotations"]] == [
        (number, one.label, pytest.approx(one.logprob, abs=1e-3)) for number, one in enumerate(named, 1)
    ]
    assert made(found) == [rle["counts"] for rle in RLES]
    for one, mask, rle in zip(found["annotations"], MASKS, RLES, strict=True):
        assert one["area"] == mask.sum()
        assert one["bbox"] == coco.toBbox({**rle, "counts": rle["counts"].encode()}).tolist()
    with Image.open(folder / "out.png") as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
        assert (np.asarray(drawn)[MASKS[0]] != np.asarray(picture())[MASKS[0]]).any()


def test_three_hundred_masks(folder: Path) -> None:
    many = [mask for mask in rectangles(60, 3) for _ in range(5)]
    stored = [{"size": [HEIGHT, WIDTH], "counts": masks.encode(mask)} for mask in many]
    (folder / "many.json").write_text(json.dumps(stored))
    found = rr7k(folder, "--masks", str(folder / "many.json"), to="many-out")
    assert [one["area"] for one in found["annotations"]] == [int(mask.sum()) for mask in many]
    assert made(found) == [rle["counts"] for rle in stored]


def test_what_was_written_can_be_given(folder: Path) -> None:
    first = rr7k(folder, "--masks", str(folder / "rles.json"), to="first")
    assert rr7k(folder, "--masks", str(folder / "first.json"), to="second") == first


def test_points_and_boxes(folder: Path) -> None:
    found = rr7k(
        folder, "--segmenter", str(folder / "sam"), "--point", "30,40", "--point", "100,20", "--box", "5,5,80,70"
    )
    boxes = open_segmenter(str(folder / "sam"), "cpu").segment(picture(), np.array([[5, 5, 80, 70]], np.float32))
    assert made(found) == [*best_at(folder, [(30, 40), (100, 20)]), *map(masks.encode, boxes)]


def test_everything(folder: Path) -> None:
    found = rr7k(folder, "--segmenter", str(folder / "sam"), *EASY, to="all")
    areas = [one["area"] for one in found["annotations"]]
    assert areas == sorted(areas, reverse=True)
    assert areas


def test_nothing_is_said_and_not_written(folder: Path) -> None:
    assert rr7k(folder, "--segmenter", str(folder / "sam"), "--points", "2", to="nothing") == {}


def test_superpixels_need_no_weights(folder: Path) -> None:
    assert made(rr7k(folder, "--segmenter", "superpixels", "--point", "30,40", to="pixels"))


def test_a_picture_is_turned_upright_before_masks_are_made(folder: Path) -> None:
    ask = ("--segmenter", str(folder / "sam"), "--point", "30,40")
    upright, turned = (rr7k(folder, *ask, image=image, to=image[:2]) for image in ("it.png", "turned.png"))
    assert turned["image"] == {"file_name": "turned.png", "width": WIDTH, "height": HEIGHT}
    assert turned["annotations"] == upright["annotations"]


def test_given_masks_refer_to_pixels_as_they_are_stored(folder: Path) -> None:
    stored = [{"size": [WIDTH, HEIGHT], "counts": masks.encode(np.rot90(mask))} for mask in MASKS]
    (folder / "stored.json").write_text(json.dumps(stored))
    found = rr7k(folder, "--masks", str(folder / "stored.json"), image="turned.png", to="stored-out")
    assert (found["image"]["width"], found["image"]["height"]) == (HEIGHT, WIDTH)
    with pytest.raises(UserError, match="mask 0 is 110×150"):
        rr7k(folder, "--masks", str(folder / "rles.json"), image="turned.png")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--segmenter PATH makes them, --masks FILE has them"),
        (["--segmenter", "SAM", "--masks", "rles.json"], "--segmenter PATH makes them, --masks FILE has them"),
        (["--masks", "rles.json", "--point", "3,4"], "with --masks there is none"),
        (["--segmenter", "sam", "--point", "3"], "3: x,y in px expected"),
        (["--segmenter", "sam", "--box", "1,2,3,x"], "1,2,3,x: left,top,right,bottom in px expected"),
        (["--segmenter", "sam", "--point", "150,4"], "point 150,4 is outside of the picture of 150×110 px"),
        (["--segmenter", "sam", "--box", "9,9,9,40"], r"box 9,9,9,40 .* holds nothing of the picture of 150×110 px"),
        (["--segmenter", "no/such/folder"], "no checkpoint there"),
        (["--masks", "nowhere.json"], "there is no such file"),
        (["--masks", "it.png"], r"it\.png: .* Masks are a list of COCO RLEs, or SA-1B's JSON"),
    ],
)
def test_what_cannot_be_asked(folder: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=told):
        rr7k(folder, *arguments)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"annotations": [{"area": 3}]}', r"missing required field `segmentation` - at `\$\.annotations\[0\]`"),
        ('[{"size": [110, 150], "counts": [3, 4]}]', "mask 0: its runs do not fill 150×110 px"),
        ('[{"size": [110, 150], "counts": [16501, -1]}]', "mask 0: its runs do not fill 150×110 px"),
        ('[{"size": [110, 150], "counts": "!"}]', "mask 0 is no COCO RLE"),
        ('[{"size": [1, 2], "counts": "2"}]', "mask 0 is 1×2"),
        ('[{"size": [4294967296, 1], "counts": [4294967296]}]', r"Expected `int` <= 65535 - at `\$\[0\]\.size\[0\]`"),
        ("[[[1, 2, 3, 4, 5, 6]]]", "Expected `object`, got `array`"),
    ],
)
def test_masks_that_cannot_be_read(folder: Path, text: str, told: str) -> None:
    (folder / "wrong.json").write_text(text)
    with pytest.raises(UserError, match=told):
        rr7k(folder, "--masks", str(folder / "wrong.json"))


def test_pictures_that_cannot_be_read(folder: Path) -> None:
    whole = (folder / "it.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, told in (("no.png", "no such file"), ("sa1b.json", "is no picture"), ("cut.png", "cannot be read")):
        with pytest.raises(UserError, match=told):
            rr7k(folder, "--segmenter", "superpixels", image=name)


@pytest.mark.parametrize("size", [(1, 1), (2_000, 10), (10, 2_000)])
def test_odd_pictures(folder: Path, size: tuple[int, int]) -> None:
    picture(0, *size).save(folder / "odd.png")
    ask = ["--point", f"{size[0] // 2},{size[1] // 2}", "--box", f"0,0,{size[0]},{size[1]}"]
    assert len(made(rr7k(folder, "--segmenter", "superpixels", *ask, image="odd.png"))) == 2
    # Ten pixels of two thousand are none of the tiny model's 64; random weights find nothing in a pixel.
    with pytest.raises(UserError, match=r"cannot take a picture of \d+×\d+ px|finds nothing at 0,0"):
        rr7k(folder, "--segmenter", str(folder / "sam"), *ask, image="odd.png")


def test_a_picture_of_a_declared_size_that_no_memory_holds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 2 - 1)
    with pytest.raises(UserError, match=r"it\.png cannot be read: .*decompression bomb"):
        rr7k(folder, "--segmenter", "superpixels")


def test_a_wrong_question_is_no_work(folder: Path) -> None:
    with pytest.raises(UsageError):
        rr7k(folder, "--segmenter", str(folder / "sam"), "--masks", str(folder / "rles.json"))
