"""Pictures for people: what is on them, and that a file is made once, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from named_shards import members, write_shard
from PIL import Image
from sa1b_shards import HEIGHT, WIDTH, build, inline, rows, write_tar

from pipeline.errors import UsageError
from pipeline.images import Photograph
from pipeline.run import Run
from stages import crops
from stages.crops import Drawn, View
from stages.region_prompts import Region, regions


def wanted(run: Run, mask_ids: list[int], view: View = "page") -> pa.Table:
    """Rows of the queue, as far as `draw` reads them."""
    found = crops.names(run, np.array(mask_ids, np.int64), view)
    assert None not in found
    named = [name for name in found if name is not None]
    columns = {"crop": [name.crop for name in named], "raw": [name.raw for name in named]}
    return pa.table({"mask_id": mask_ids, "view": pa.array([view] * len(mask_ids)).dictionary_encode(), **columns})


def never() -> NoReturn:
    raise AssertionError("a session was opened though there was nothing to do")


def written(run: Run) -> dict[str, int]:
    """Every file below the folder, and when it was written."""
    place = crops.folder(run)
    return {str(path.relative_to(place)): path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def ids(run: Run, tmp_path: Path) -> list[int]:
    """Six masks, three in each of two images."""
    build(run, write_shard(tmp_path, 1, 2, 3))
    return [row["mask_id"] for row in rows(run)]


# --- files ------------------------------------------------------------------------------------------------


def test_every_row_gets_two_pictures(run: Run, ids: list[int]) -> None:
    table = wanted(run, ids)
    assert crops.draw(run, table, inline) == Drawn(6, 0, {})
    assert set(written(run)) == {*table["crop"].to_pylist(), *table["raw"].to_pylist()}
    for crop, raw in zip(table["crop"].to_pylist(), table["raw"].to_pylist(), strict=True):
        with Image.open(crops.folder(run) / crop) as marked, Image.open(crops.folder(run) / raw) as clean:
            assert marked.size == clean.size
            assert max(marked.size) == 256
            assert np.abs(np.asarray(marked, np.int16) - np.asarray(clean, np.int16)).max() > 100
        name = Path(crop)
        assert (name.parent.name, raw) == (name.name[:2], f"{name.with_suffix('')}-raw.jpg")


def test_a_single_region_is_shown_large_beside_its_tile(run: Run, ids: list[int]) -> None:
    both = pa.concat_tables([wanted(run, ids[:1]), wanted(run, ids[:1], "single")])
    assert crops.draw(run, both, inline) == Drawn(2, 0, {})
    sizes = []
    for name in both["crop"].to_pylist():
        with Image.open(crops.folder(run) / name) as picture:
            sizes.append(max(picture.size))
    assert sizes == [256, 900]


def test_a_second_run_writes_nothing(run: Run, ids: list[int]) -> None:
    table = wanted(run, ids)
    crops.draw(run, table, inline)
    before = written(run)
    assert crops.draw(run, table, never) == Drawn(0, 6, {})
    assert crops.draw(run, pa.concat_tables([table, table]), never) == Drawn(0, 6, {})  # gold is there more often
    assert written(run) == before


def test_after_a_kill_only_what_is_missing_is_made(run: Run, ids: list[int]) -> None:
    table = wanted(run, ids)
    crops.draw(run, table, inline)
    before = written(run)
    place = crops.folder(run)
    for name in table["crop"].to_pylist()[:3]:
        (place / name).unlink()
    emptied = table["raw"][3].as_py()
    (place / emptied).write_bytes(b"")  # what a crash of the machine may leave
    draft = (place / table["crop"][0].as_py()).with_name(".0123.jpg.abcd.part")
    draft.write_bytes(b"half a picture")
    assert crops.draw(run, table, inline) == Drawn(4, 2, {})
    after = written(run)
    assert set(after) == set(before)
    whole = [name for row in table.to_pylist()[4:] for name in (row["crop"], row["raw"])]
    assert all(after[name] == before[name] for name in whole)
    assert (place / emptied).stat().st_size > 0


def test_a_task_that_dies_while_writing_leaves_no_half_file(
    run: Run, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.replace

    def died(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError("the machine is gone")
        return whole(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", died)
        with pytest.raises(OSError, match="gone"):
            crops.draw(run, wanted(run, ids), inline)
    assert not [name for name in written(run) if not name.endswith(".part")]
    assert crops.draw(run, wanted(run, ids), inline) == Drawn(6, 0, {})
    assert len(written(run)) == 12


def test_names_are_known_before_and_change_with_the_look(
    run: Run, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = crops.names(run, np.array([*ids, 17]), "page")
    assert named[-1] is None
    assert len(set(named)) == 7
    assert named == crops.names(run, np.array([*ids, 17]), "page")
    assert not set(named[:-1]) & set(crops.names(run, np.array(ids), "single"))
    monkeypatch.setitem(crops.LOOKS, "page", crops.Look(256, 2.0, version=2))
    assert not set(named[:-1]) & set(crops.names(run, np.array(ids), "page"))
    assert not crops.folder(run).exists()


def test_pictures_need_a_disk() -> None:
    with pytest.raises(UsageError, match="object store"):
        crops.folder(Run("s3://bucket/run"))


# --- what cannot be drawn ---------------------------------------------------------------------------------


def quarantined(run: Run) -> dict[str, str]:
    table = run.dataset("quarantine", "crops").to_table()
    return {row["input"]: row["reason"] for row in table.to_pylist()}


def test_what_vanished_is_quarantined_until_it_is_back(run: Run, ids: list[int], tmp_path: Path) -> None:
    shard = tmp_path / "sa_000001.tar"
    kept = shard.rename(tmp_path / "elsewhere.tar")
    made = crops.draw(run, wanted(run, ids[:4]), inline)
    assert (made.made, made.there, set(made.missing)) == (0, 0, set(ids[:4]))
    assert quarantined(run) == {f"mask:{mask_id}": "shard-unreadable" for mask_id in ids[:4]}
    commit = run.commits("crops")
    crops.draw(run, wanted(run, ids[:4]), inline)
    assert run.commits("crops") == commit
    kept.rename(shard)
    assert crops.draw(run, wanted(run, ids[1:]), inline) == Drawn(5, 0, {})
    assert quarantined(run) == {f"mask:{ids[0]}": "shard-unreadable"}  # not asked about this time


def test_an_image_that_cannot_be_decoded_costs_only_its_own(run: Run, ids: list[int], tmp_path: Path) -> None:
    whole = [*members(1001, 3), *members(1002, 3)]
    name, data = whole[0]
    write_tar(tmp_path / "sa_000001.tar", [(name, b"\0" * len(data)), *whole[1:]])
    table = wanted(run, ids)
    gone = pa.table({**{n: table[n][:1] for n in ("view", "crop", "raw")}, "mask_id": [17]}).select(table.column_names)
    made = crops.draw(run, pa.concat_tables([table, gone]), inline)
    assert (made.made, set(made.missing)) == (3, {*ids[:3], 17})
    assert quarantined(run) == {**{f"mask:{i}": "image-unreadable" for i in ids[:3]}, "mask:17": "mask-gone"}


# --- what is on them --------------------------------------------------------------------------------------


def region(run: Run, mask_id: int) -> Region:
    columns: dict[str, list[Any]] = {}
    for name, value in next(row for row in rows(run) if row["mask_id"] == mask_id).items():
        columns[name] = [value]
    return regions(columns)[0]


@pytest.mark.parametrize("view", ["page", "single"])
def test_the_outline_shows_on_red(run: Run, ids: list[int], view: View) -> None:
    photo = Photograph(Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 0)), 1)
    marked, clean = (np.asarray(picture) for picture in crops.pictures(photo, region(run, ids[0]), view))
    assert (clean == (255, 0, 0)).all()
    white = (marked == 255).all(axis=2)
    assert white.any()
    green = Photograph(Image.new("RGB", (WIDTH, HEIGHT), (0, 90, 0)), 1)
    on_green = np.asarray(crops.pictures(green, region(run, ids[0]), view)[0])
    red = (on_green == (255, 0, 0)).all(axis=2)
    touching = red[:, :-1] & white[:, 1:]
    assert touching.any()
    assert ((on_green == (0, 90, 0)).all(axis=2) | red | (on_green == 255).all(axis=2)).all()


def test_pictures_are_upright(run: Run, ids: list[int]) -> None:
    lying = Photograph(Image.new("RGB", (WIDTH, HEIGHT)), 6)
    standing = crops.pictures(lying, region(run, ids[0]), "single")
    upright = crops.pictures(Photograph(lying.pixels, 1), region(run, ids[0]), "single")
    assert [picture.size for picture in standing] == [picture.size[::-1] for picture in upright]
