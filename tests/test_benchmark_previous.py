"""What a release keeps of an earlier one: splits and the small subset, and why an image moves or leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from released_runs import content, decision, fill, make, pair, photograph, shard, small
from sa1b_shards import build, inline
from test_pipeline_cli_release import said

from benchmark import previous, removals, stats
from benchmark.previous import Previous, Refused
from benchmark.removals import Removals
from benchmark.stats import Moves, Stats
from pipeline import cluster
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run

PICTURES = {image: photograph(image) for image in range(1, 9)} | {6: photograph(3, quality=60)}  # 6 is near 3


def made(folder: Path, name: str, pairs: list[int], said_of: dict[int, str], **changes: Any) -> Stats:
    """The release of a run in which these pairs are dogs, and people said of some what is told."""
    run = Run(str(folder / f"run-{name}"))
    build(run, folder / "shards" / "sa_000001.tar")
    fill(run, [pair(m, "dog") for m in pairs], [decision(m, "dog", word) for m, word in said_of.items()])
    return make(run, folder / name, unscreened=True, **changes)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Images 1 and 2 were screened, 3 to 6 and 8 were not; there is no 7 yet."""
    shard(tmp_path / "shards", PICTURES)
    made(tmp_path, "first", [100, 200, 201, 300, 400, 500, 600, 800], {100: "release", 200: "release"})
    return tmp_path / "first"


def second(folder: Path, name: str, earlier: Path | None) -> Stats:
    """Since then 200 and 800 were deleted, 3 and 7 screened."""
    told = {100: "release", 200: "delete", 300: "release", 700: "release", 800: "delete"}
    pairs = [100, 200, 201, 300, 400, 500, 600, 700, 800]
    return made(folder, name, pairs, told, version="1.1.0", previous=earlier)


def placed(folder: Path) -> list[tuple[int, str, bool]]:
    rows = RegionSamples(folder).read("images", ["image_id", "split", "mini"]).to_pylist()
    return sorted((row["image_id"], row["split"], row["mini"]) for row in rows)


def test_images_keep_their_split_unless_they_cannot(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert placed(first) == [
        *((1, "test", True), (2, "test", True)),
        *((image, "train", False) for image in (3, 4, 5, 6, 8)),
    ]
    monkeypatch.setattr(removals, "load", lambda: Removals(frozenset({4}), frozenset()))
    told = second(first.parent, "second", first)
    assert placed(first.parent / "second") == [
        *((1, "test", True), (3, "test", True), (5, "train", False), (7, "test", True)),
    ]
    assert told.moves == Moves(
        since="rr7k-unscreened-1.0.0",
        images={
            "kept their split": 2,
            "left test: nothing in them is screened any more": 1,
            "left train: near-duplicates of test images": 1,
            "left: no pair of theirs is released any more": 1,
            "left: taken down": 1,
            "train to test: people have screened them since": 1,
        },
        new=1,
        mini_kept=1,
        mini_left=1,
        mini_new=2,
    )
    assert told.outcomes == {
        **{"released": 4, "delete": 2, "taken-down": 1, "unscreened-in-test-image": 1, "near-duplicate-of-test": 1},
    }
    card = (first.parent / "second" / "README.md").read_text()
    assert "Of rr7k-unscreened-1.0.0's images 2 kept their split; 1 left test: nothing" in card
    assert "1 images are new. 1 stay in `mini`, 1 left it, 2 came in." in card


def test_without_it_a_test_image_may_become_train(first: Path) -> None:
    told = second(first.parent, "second", None)
    assert told.moves is None
    assert (2, "train", False) in placed(first.parent / "second")


def test_the_same_earlier_release_gives_the_same_bytes(first: Path) -> None:
    second(first.parent, "a", first)
    make(Run(str(first.parent / "run-a")), first.parent / "b", unscreened=True, version="1.1.0", previous=first)
    assert content(first.parent / "a") == content(first.parent / "b")


@pytest.mark.parametrize(("before", "now", "refused", "fate"), [
    ({1: "test"}, {1: "test"}, Refused(), previous.KEPT),
    ({1: "train"}, {1: "test"}, Refused(), previous.SCREENED),
    ({1: "test"}, {}, Refused(taken_down={1}, unscreened={1}), previous.TAKEN_DOWN),
    ({1: "train"}, {}, Refused(near={1}, unscreened={1}), previous.NEAR),
    ({1: "test"}, {2: "test"}, Refused(unscreened={1, 2}), previous.UNSCREENED),
    ({1: "train"}, {2: "test"}, Refused(), previous.NOTHING),
])  # fmt: skip
def test_fates(before: dict[int, str], now: dict[int, str], refused: Refused, fate: str) -> None:
    rows = [{"image_id": image, "split": split, "mini": False} for image, split in now.items()]
    told = previous.moves(Previous("rr7k-1.0.0", before, {1}), rows, refused)
    assert told
    assert told.images == {fate: 1}
    assert (told.mini_kept, told.mini_left, told.mini_new) == (0, 1, 0)
    assert previous.moves(Previous(), rows, refused) is None


def test_what_is_no_earlier_release_is_refused(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    with pytest.raises(UserError, match=r"stats.json: cannot be read"):
        make(run, tmp_path / "out", previous=tmp_path)
    make(run, tmp_path / "out")
    with pytest.raises(UsageError, match=r"--version 1.0.0: the release given as --previous, .*out, has it already"):
        make(run, tmp_path / "more", previous=tmp_path / "out")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"name": "rr7k-\xff"}'])
def test_damaged_statistics_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stats.json").write_bytes(content)
    with pytest.raises(UserError, match=r"stats.json: damaged .*make the release again"):
        stats.load(tmp_path)


def test_the_command_says_how_many_moved(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "first")
    monkeypatch.setattr(cluster, "session", lambda _: inline())
    named = ["--run", run.folder.uri, "--out", str(tmp_path / "second"), "--version", "1.1.0", "--images", "reference"]
    lines = said("release", *named, "--date", "2026-11-25", "--previous", str(tmp_path / "first")).splitlines()
    assert lines[-3:] == [
        "images of rr7k-1.0.0: 3 kept their split",
        "images that it did not have: 0; of mini 3 stay, 0 left, 0 came in",
        f"{tmp_path / 'second'}: rr7k-1.1.0, 9 instances, 3 images, 3 categories",
    ]
