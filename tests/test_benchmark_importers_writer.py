"""The folder that an import makes: whole or absent, with images or their names, the same whatever the batches."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign_data_sets import SQUARE, annotation, coco, imported, write_json
from PIL import Image
from typer.testing import CliRunner

from benchmark import importers
from benchmark.importers import image_folder, writer
from benchmark.importers.source import Event, Found, Place, Region
from benchmark.importers.source import Image as SourceImage
from pipeline import cli_import, regions
from pipeline.errors import BusyError, UsageError

ORDER = writer.Order("coco", "val", ["f.json"])
IMAGE = SourceImage(7, "7.jpg", 6, 5)


def region(number: int | None, name: str = "dog") -> Region:
    return Region(Place("f.json", "annotations[0]"), IMAGE, number, name, "6230>")


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    file = write_json(tmp_path / "f.json", coco([annotation(1)]))
    imported("coco", [file], tmp_path / "out")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*"))
    with pytest.raises(UsageError, match=r"out: exists already\. Choose another --out"):
        importers.run("coco", [file], tmp_path / "out", "val")
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*")) == before


def test_nothing_appears_before_all_is_there(tmp_path: Path) -> None:
    def events() -> Iterator[Event]:
        yield from (IMAGE, Found(1), region(1))
        assert not (tmp_path / "out").exists()
        assert (tmp_path / ".out.part").exists()
        with pytest.raises(BusyError):
            writer.write(iter([]), tmp_path / "out", ORDER, lambda _: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write(events(), tmp_path / "out", ORDER, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_import_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".out.part" / "data").mkdir(parents=True)
    (tmp_path / ".out.part" / "data" / "instances-00007.parquet").write_bytes(b"half")
    file = write_json(tmp_path / "f.json", coco([annotation(1)]))
    made = imported("coco", [file], tmp_path / "out")
    assert sorted(path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()) == [
        "data/categories.parquet",
        "data/images-00000.parquet",
        "data/instances-00000.parquet",
        "import.json",
        "left_out.csv",
    ]


def test_batches_change_nothing_but_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    entries = [annotation(n, category_id=1 + n % 2, segmentation=[SQUARE, [0, 0, n, 0, n, n]]) for n in range(1, 6)]
    file = write_json(tmp_path / "f.json", coco([*entries, entries[0]], categories=names))
    whole = imported("coco", [file], tmp_path / "whole")
    monkeypatch.setattr(writer, "_ROWS", 2)
    parts = imported("coco", [file], tmp_path / "parts")
    assert parts.instances == whole.instances
    assert parts.report == whole.report
    assert len(list((parts.folder / "data").glob("instances-*"))) == 3
    found = regions.RegionSamples(parts.folder).read("categories").to_pylist()
    assert [(row["category"], row["instances"], row["images"], row["frequency"]) for row in found] == [
        ("cat", 3, 1, "rare"),
        ("dog", 2, 1, "rare"),
    ]


def test_an_id_met_before_is_made_anew(tmp_path: Path) -> None:
    told = [region(1), region(1, "cat"), region(1, "cat"), region(None, "cow"), region(None, "cow")]
    events: list[Event] = [IMAGE, Found(5), *told]
    report = writer.write(events, tmp_path / "out", ORDER, lambda _: None)
    assert (report.instances, report.dropped, report.made_ids) == (3, {writer.AGAIN: 2}, 2)


def test_a_reader_is_held_to_what_it_found(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 of 2 annotations are not accounted for"):
        writer.write([IMAGE, Found(2), region(1)], tmp_path / "out", ORDER, lambda _: None)


# --- images -----------------------------------------------------------------------------------------------


def photographs(folder: Path, *names: str, size: tuple[int, int] = (6, 5)) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (len(name), 0, 0)).save(folder / name)


def with_images(folder: Path, names: list[str]) -> Path:
    images = [{"id": n, "file_name": name, "width": 6, "height": 5} for n, name in enumerate(names)]
    return write_json(folder / "f.json", coco([annotation(1, image_id=0)], images=images))


def test_images_are_copied_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jpg", "val2017/b.jpg", "c.jpg", "d.png"]
    photographs(tmp_path / "photos", "a.jpg", "b.jpg", "train2017/c.jpg", "d.png")
    monkeypatch.setattr(image_folder, "_BATCH_ROWS", 1)
    monkeypatch.setattr(image_folder, "_FILE_BYTES", 700)
    made = imported("coco", [with_images(tmp_path, names)], tmp_path / "out", tmp_path / "photos")
    assert [row["file_name"] for row in made.images] == names
    for row, path in zip(made.images, ["a.jpg", "b.jpg", "train2017/c.jpg", "d.png"], strict=True):
        data = (tmp_path / "photos" / path).read_bytes()
        assert row["image"] == {"bytes": data, "path": Path(path).name}
        assert (row["file_bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (made.report.images, made.report.embedded, made.report.problems) == (4, 4, 0)
    assert len(list((made.folder / "data").glob("images-*"))) > 1


def test_images_that_cannot_be_copied_in_are_named(tmp_path: Path) -> None:
    photographs(tmp_path / "photos", "a.jpg")
    photographs(tmp_path / "photos", "small.jpg", size=(5, 6))
    (tmp_path / "photos" / "text.jpg").write_text("no image")
    names = ["a.jpg", "small.jpg", "text.jpg", "absent.jpg"]
    made = imported("coco", [with_images(tmp_path, names)], tmp_path / "out", tmp_path / "photos")
    assert [row["image"] is None for row in made.images] == [False, True, True, True]
    assert (made.report.embedded, made.report.problems) == (1, 3)
    assert made.report.examples[0] == "small.jpg: 5×6 px, but the annotations are of 6×5"
    assert made.report.examples[1].startswith("text.jpg: not an image that can be opened")
    assert made.report.examples[2] == "absent.jpg: no such file in photos"


# --- the command ------------------------------------------------------------------------------------------


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pascal: no such kind of data set\. There are lvis, paco, coco,"):
        importers.run("pascal", [tmp_path], tmp_path / "out", "val")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        importers.run("coco", [tmp_path / "nowhere"], tmp_path / "out", "val")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        importers.run("coco", [tmp_path], tmp_path / "out", "val", tmp_path / "nowhere")


def test_the_help_has_every_kind() -> None:
    assert re.findall(r"^\[bold\](.+?)\[/\]:", cli_import.HELP, re.MULTILINE) == list(importers.KINDS)


def test_the_command_prints_the_sums(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(cli_import.import_data)
    names = [{"id": 1, "name": "[bold]dog[/x]"}]
    wrong = [annotation(2, segmentation=[]), annotation(3, image_id="[/]")]
    file = write_json(tmp_path / "f.json", coco([annotation(1), *wrong], categories=names))
    done = CliRunner().invoke(app, ["coco", str(file), "--split", "val", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    lines = [line.strip().split(maxsplit=1) for line in done.output.splitlines()]
    assert [line for line in lines if line and line[0].isdigit()] == [
        ["1", "instances"], ["1", "dropped: the source gives no mask"], ["1", "wrong"], ["3", "found"],
    ]  # fmt: skip
    assert "wrong: f.json annotations[2].image_id: no sound image '[/]' in `images`" in done.output
