"""The manifest step without Ray: growth, resume, changes, duplicates, and a funnel that always adds up."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sa1b_shards import InlineSession, build, image_members, rows, square, write_shard, write_tar

from pipeline.errors import UsageError, UserError
from pipeline.files import Folder
from pipeline.run import Run
from stages import area_report
from stages.funnel import levels
from stages.shard_tasks import READ


def funnel(run: Run) -> dict[str, tuple[int, int, dict[str, int], dict[str, int], int]]:
    found = levels(run)
    assert [level.difference for level in found] == [0] * len(found)
    return {level.name: (level.total, level.kept, level.dropped, level.quarantined, level.pending) for level in found}


def parts(run: Run) -> set[str]:
    return {path.name for path in Path(run.folder.path, "masks").iterdir()}


def test_shards_become_masks(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1, images=2)
    build(run, path, min_area_ratio=0.01)
    masks = rows(run)
    assert [m["mask_id"] for m in masks] == [100101, 100102, 100201, 100202]
    first = masks[0]
    assert (first["image_id"], first["shard"], first["width"], first["height"]) == (1001, "sa_000001", 64, 48)
    assert (first["area"], first["area_ratio"]) == (100, 100 / 3072)
    assert [first[f"bbox_{k}"] for k in "xywh"] == [3, 5, 9, 9]
    jpg = path.read_bytes()[first["jpg_offset"] : first["jpg_offset"] + first["jpg_bytes"]]
    assert jpg == image_members(1001)[0][1]
    assert funnel(run) == {
        "shards": (1, 1, {}, {}, 0),
        "images": (2, 2, {}, {}, 0),
        "masks": (6, 4, {"tiny": 2}, {}, 0),
    }
    (shard,) = rows(run, "images", "image_id")[:1]
    assert shard["file_name"] == "sa_1001.jpg"


def test_rows_of_one_image_are_adjacent(run: Run, tmp_path: Path) -> None:
    build(run, *(write_shard(tmp_path, n, images=7) for n in range(3)))
    seen = run.dataset("masks").to_table()["image_id"].to_pylist()
    changes = sum(a != b for a, b in itertools.pairwise(seen))
    assert changes == len(set(seen)) - 1


def test_the_shards_table(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    Path(f"{path}.sha256").write_text("ab12  sa_000001.tar\n")
    build(run, path)
    import pyarrow.parquet as pq

    (row,) = pq.read_table(Path(run.folder.path, "shards.parquet")).to_pylist()
    assert (row["shard"], row["bytes"], row["sha256"], row["state"]) == (
        "sa_000001",
        path.stat().st_size,
        "ab12",
        "whole",
    )
    assert (row["images"], row["other_members"]) == (3, 0)


def test_an_empty_checksum_file_states_none(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    Path(f"{path}.sha256").write_text("\n")
    build(run, path)
    assert [commit.facts["sha256"] for commit in run.commits("manifest-index").values()] == [None]


def no_session() -> Any:
    raise AssertionError("there was nothing to do")


def test_a_finished_run_starts_no_ray(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    build(run, path)
    build(run, path, session=no_session)
    build(run, session=no_session)  # the run knows its shards


def test_more_shards_add_rows_and_redo_none(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1))
    before = parts(run)
    build(run, write_shard(tmp_path, 2))
    assert parts(run) > before
    other = Run(str(tmp_path / "other"))
    build(other, tmp_path / "sa_000001.tar", tmp_path / "sa_000002.tar")
    assert rows(run) == rows(other)


def test_a_larger_sample_adds_rows_and_redoes_none(run: Run, tmp_path: Path) -> None:
    paths = [write_shard(tmp_path, n, images=5) for n in (1, 2, 3)]
    build(run, *paths, images=4)
    assert funnel(run)["images"] == (15, 4, {"not-sampled": 11}, {}, 0)
    small, before = {m["mask_id"] for m in rows(run)}, parts(run)
    build(run, images=9)
    assert funnel(run)["images"] == (15, 9, {"not-sampled": 6}, {}, 0)
    assert {m["mask_id"] for m in rows(run)} > small
    assert parts(run) > before
    at_once = Run(str(tmp_path / "at-once"))
    build(at_once, *reversed(paths), images=9)
    assert rows(run) == rows(at_once)
    build(run, images="all")
    assert funnel(run)["images"] == (15, 15, {}, {}, 0)


def test_what_a_command_does_not_name_stays_as_it_was(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1, images=8), images=3, seed=5, min_area_ratio=0.01)
    build(run, session=no_session)
    build(run, write_shard(tmp_path, 2, images=8))
    levels_ = funnel(run)
    assert levels_["images"][0] == 16
    assert 3 <= levels_["images"][1] < 8  # the three stay, and what of shard 2 is among the three lowest hashes
    assert set(levels_["masks"][2]) == {"tiny"}


def test_a_smaller_sample_takes_nothing_away(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1, images=6), images=5)
    before = rows(run)
    build(run, images=2, session=no_session)
    assert rows(run) == before
    assert funnel(run)["images"] == (6, 5, {"not-sampled": 1}, {}, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"min_area_ratio": 0.02}, "manifest.min_area_ratio: 0.01 → 0.02"),
        ({"seed": 3}, "manifest.seed: 0 → 3"),
        ({"max_pixels": 5000}, "manifest.max_pixels: 100000000 → 5000"),
    ],
)
def test_other_settings_are_refused_then_redone(run: Run, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = write_shard(tmp_path, 1)
    build(run, path, min_area_ratio=0.01)
    before = rows(run)
    with pytest.raises(UserError, match=says):
        build(run, path, **{"min_area_ratio": 0.01, **change})
    assert rows(run) == before
    build(run, path, redo=True, **{"min_area_ratio": 0.01, **change})
    fresh = Run(str(tmp_path / "fresh"))
    build(fresh, path, **{"min_area_ratio": 0.01, **change})
    assert rows(run) == rows(fresh)
    assert funnel(run) == funnel(fresh)


def test_a_changed_shard_is_refused_then_redone(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1), write_shard(tmp_path, 2))
    kept = {m["mask_id"]: m for m in rows(run) if m["shard"] == "sa_000002"}
    write_tar(tmp_path / "sa_000001.tar", image_members(5))
    with pytest.raises(UserError, match="shard sa_000001: its content has changed"):
        build(run)
    build(run, redo=True)
    assert {m["image_id"] for m in rows(run)} == {5, 2001, 2002, 2003}
    assert {m["mask_id"]: m for m in rows(run) if m["shard"] == "sa_000002"} == kept


def test_a_repaired_shard_is_read_again_without_asking(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1, images=4)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    build(run, path)
    assert funnel(run)["shards"] == (1, 1, {}, {}, 0)
    assert 0 < len({m["image_id"] for m in rows(run)}) < 4
    path.write_bytes(whole)
    build(run)
    assert len({m["image_id"] for m in rows(run)}) == 4
    assert funnel(run)["images"] == (4, 4, {}, {}, 0)


def test_a_shard_may_move_or_go_once_it_is_read(run: Run, tmp_path: Path) -> None:
    path = write_shard(tmp_path, 1)
    build(run, path)
    (tmp_path / "new").mkdir()
    shutil.move(path, tmp_path / "new" / path.name)
    build(run, session=no_session)
    build(run, tmp_path / "new", session=no_session)
    assert funnel(run)["images"] == (3, 3, {}, {}, 0)


def test_a_shard_that_cannot_be_read_now_stays_pending(run: Run, tmp_path: Path) -> None:
    away, path = write_shard(tmp_path, 1), tmp_path / "elsewhere"
    write_shard(tmp_path, 2)

    class Unplugged(InlineSession):
        def stream(self, task: Any, jobs: Any) -> Iterator[Any]:
            yield from super().stream(task, jobs)
            if away.exists():  # after the index, before the reading
                away.rename(path)

    @contextmanager
    def session() -> Iterator[Unplugged]:
        yield Unplugged()

    with pytest.raises(UserError, match=r"(?s)could not be read now.*sa_000001.*run the same command again"):
        build(run, tmp_path, session=session)
    assert funnel(run)["images"] == (6, 3, {}, {}, 3)
    path.rename(away)
    build(run)
    assert funnel(run)["images"] == (6, 6, {}, {}, 0)


def test_an_image_in_two_shards_is_read_once(run: Run, tmp_path: Path) -> None:
    shared = image_members(7)
    first = write_tar(tmp_path / "a.tar", [*image_members(1), *shared])
    second = write_tar(tmp_path / "b.tar", [*image_members(2), *shared])
    build(run, first, second)
    assert [m["shard"] for m in rows(run) if m["image_id"] == 7] == ["a"] * 3
    assert funnel(run)["images"] == (4, 3, {}, {"duplicate-image": 1}, 0)
    (row,) = rows(run, "quarantine", "input")
    assert (row["input"], row["shard"], row["place"]) == ("image:7", "b", "sa_7.json")
    assert "shard a holds this image as well" in row["error"]


def test_growth_does_not_move_a_repeated_image(run: Run, tmp_path: Path) -> None:
    shared = image_members(7)
    build(run, write_tar(tmp_path / "b.tar", [*image_members(2), *shared]))
    build(run, write_tar(tmp_path / "a.tar", [*image_members(1), *shared]))
    assert {m["shard"] for m in rows(run) if m["image_id"] == 7} == {"b"}
    assert funnel(run)["images"] == (4, 3, {}, {"duplicate-image": 1}, 0)


def test_repeated_mask_ids(run: Run, tmp_path: Path) -> None:
    twice = image_members(1, [square(5), square(5, 12), square(6)])
    build(run, write_tar(tmp_path / "a.tar", [*twice, *image_members(2, [square(6)])]))
    assert [(m["mask_id"], m["image_id"]) for m in rows(run)] == [(5, 1), (6, 1)]
    assert funnel(run)["masks"] == (4, 2, {}, {"repeated-id": 2}, 0)
    with pytest.raises(UserError, match="1 mask ids appear in more than one shard, such as 5"):
        build(run, write_tar(tmp_path / "b.tar", image_members(3, [square(5)])))


def test_damage_is_counted_and_nothing_else_is_lost(run: Run, tmp_path: Path) -> None:
    bad = {**square(91), "area": 1}
    members = [
        *image_members(1),
        *image_members(2, [square(90), bad]),
        image_members(3)[0],
        ("sa_4.jpg", b""),
        image_members(4)[1],
        image_members(5)[0],
        ("sa_5.json", b"{"),
    ]
    (tmp_path / "c.tar").write_bytes(b"\x1f\x8b rest")
    build(run, write_tar(tmp_path / "a.tar", members), tmp_path / "c.tar")
    assert funnel(run) == {
        "shards": (2, 1, {}, {"unreadable": 1}, 0),
        "images": (5, 2, {}, {"empty-file": 1, "not-json": 1, "without-partner": 1}, 0),
        "masks": (5, 4, {}, {"area-mismatch": 1}, 0),
    }
    quarantined = rows(run, "quarantine", "input")
    assert [row["input"] for row in quarantined] == ["image:3", "image:4", "image:5", "mask:91", "shard:c"]
    assert quarantined[3]["place"] == "sa_2.json $.annotations[1].area"


def test_too_much_damage_is_an_error_after_the_fact(run: Run, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [*image_members(1), image_members(2)[0]])
    with pytest.raises(UserError, match=r"1 of 2 images had to be quarantined, more than manifest\.max_quarantined"):
        build(run, path, max_quarantined=0.4)
    assert len(rows(run)) == 3
    build(run, max_quarantined=0.6, session=no_session)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def dying_after(signs: int) -> Any:
    """A session that is killed after so many signs of life."""

    class Dying(InlineSession):
        def stream(self, task: Any, jobs: Any) -> Iterator[Any]:
            nonlocal signs
            for sign in super().stream(task, jobs):
                signs -= 1
                if signs < 0:
                    raise Killed
                yield sign

    @contextmanager
    def session() -> Iterator[Dying]:
        yield Dying()

    return session


@pytest.mark.parametrize("signs", range(8))
def test_killed_anywhere_and_resumed(run: Run, tmp_path: Path, signs: int) -> None:
    for number in range(3):
        write_shard(tmp_path, number)
    uninterrupted = Run(str(tmp_path / "uninterrupted"))
    build(uninterrupted, tmp_path, images=7)
    with pytest.raises(Killed):
        build(run, tmp_path, images=7, session=dying_after(signs))
    funnel(run)  # adds up at any moment
    build(run)
    assert rows(run) == rows(uninterrupted)
    assert funnel(run) == funnel(uninterrupted)


def test_a_part_without_a_commit_does_not_exist_and_is_swept(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1))
    before = rows(run)
    folder = Path(run.folder.path, "masks")
    (committed,) = folder.iterdir()
    orphan = folder / f"{READ}.sa_000009-00000000.parquet"
    shutil.copy(committed, orphan)
    foreign = folder / "names.sa_000001-00000000.parquet"  # another step may be writing it just now
    shutil.copy(committed, foreign)
    assert rows(run) == before
    build(run, write_shard(tmp_path, 2))
    assert not orphan.exists()
    assert foreign.exists()


def test_a_lost_part_shows_as_a_difference_or_an_error(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1))
    (part,) = Path(run.folder.path, "masks").iterdir()
    part.unlink()
    with pytest.raises(UserError, match="No such file"):
        levels(run)


def test_no_space_left_ends_in_a_clear_error_and_can_be_resumed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_shard(tmp_path, 1)
    create = Folder.create

    @contextmanager
    def full(self: Folder, name: str) -> Iterator[Any]:
        if self.uri.endswith("/masks"):
            raise OSError(28, "No space left on device")
        with create(self, name) as sink:
            yield sink

    monkeypatch.setattr(Folder, "create", full)
    with pytest.raises(OSError, match="No space left"):
        build(run, path)
    monkeypatch.undo()
    assert funnel(run)["images"] == (3, 0, {}, {}, 3)
    build(run)
    assert funnel(run)["images"] == (3, 3, {}, {}, 0)


def test_no_shards_at_all(run: Run) -> None:
    with pytest.raises(UsageError, match="--shards"):
        build(run)


def test_the_area_report_counts_every_cut(run: Run, tmp_path: Path) -> None:
    build(run, write_shard(tmp_path, 1), min_area_ratio=0.01)  # per image 1, 100 and 400 of 3072 px
    report = area_report.gather(run)
    assert (report.total, report.cut, report.images) == (9, 0.01, 3)
    assert [report.below(cut) for cut in (2e-4, 5e-4, 0.02, 0.05, 0.1, 0.2)] == [0, 3, 3, 6, 6, 9]
    assert area_report.draw(report).startswith(b"\x89PNG")
