"""Releases: whole or not at all, the same bytes from the same input, and every number accounted for."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from released_runs import content, decision, fill, killed, make, pair, photograph, shard, small, verdict
from sa1b_shards import InlineSession, build, commit
from verified_runs import check

from benchmark import checksums, hydrate, image_files, stats
from benchmark.image_files import Watcher
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples
from pipeline.run import Run

Row = dict[str, Any]


def test_a_release_explains_every_pair(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    made = make(run, tmp_path / "out")
    assert made.outcomes == {"released": 9}
    assert made.pairs == 9
    assert made.name == "rr7k-1.0.0"
    assert made.splits == {"test": stats.Size(9, 3, 3), "mini": stats.Size(9, 3, 3)}
    assert made.frequency == {"rare": 3}
    assert made.coarse["Animals"] == {"Mammals": 3}
    assert made.audit == {"run": None}
    assert stats.load(tmp_path / "out") == made
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("LICENSE.md", "README.md", "checksums.txt", "conflicts.csv", "croissant.json", "data", "stats.json")
    ]
    assert not list(tmp_path.glob(".*"))


def test_rows_tell_where_they_are_from(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    said = [verdict(100, "dog", band="head", p_yes=0.9, threshold=0.5, score=0.9, reason="yes")]
    asked = check(100, "pair", "dog", {"p_yes": 0.9, "p_no": 0.1, "leftover": 0.0, "evidence": "logprobs"}, "yes")
    wrong = check(100, "control", "cat", {"p_yes": 0.1, "p_no": 0.9, "leftover": 0.0, "evidence": "logprobs"}, "no")
    commit(run, checks=[asked, {**wrong, "model": "another"}])
    fill(run, [pair(100, "dog")], [decision(100, "dog", keep=2, unsure=1)], said)
    make(run, tmp_path / "out")
    row = RegionSamples(tmp_path / "out").read("instances").to_pylist()[0]
    assert {name: value for name, value in row.items() if name != "segmentation"} == {
        **{"instance_id": 100, "image_id": 1, "category": "dog", "category_raw": "dog", "split": "test", "mini": True},
        **{"coarse_primary": "Animals", "coarse_secondary": "Mammals", "area": 100, "area_ratio": 100 / 64 / 48},
        **{"bbox_xywh": [3.0, 5.0, 10.0, 10.0], "bbox_source_xywh": [3.0, 5.0, 9.0, 9.0], "iscrowd": None},
        **{"namers": ["vlm"], "raw_names": ["dog"], "namer_engines": ["vllm"], "namer_models": ["namer-model@r1"]},
        **{"namer_prompts": ["p1"], "agreement": "only-one", "confidence": 0.5, "band": "head", "p_yes": 0.9},
        **{"verifier_model": "some-model@r1", "verifier_prompt": "p1", "screened_by": "people", "votes_keep": 2},
        **{"votes_delete": 0, "votes_unsure": 1, "audited": False, "source": "run"},
    }
    picture = RegionSamples(tmp_path / "out").read("images").to_pylist()[0]
    data = photograph(1)
    assert picture["image"] == {"bytes": data, "path": "sa_1.jpg"}
    assert (picture["sha256"], picture["file_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_same_input_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "a")
    make(run, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_checksums_are_those_of_the_files(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "out")
    assert checksums.verify(tmp_path / "out") == []
    (tmp_path / "out" / "README.md").write_text("other")
    (tmp_path / "out" / "conflicts.csv").unlink()
    (tmp_path / "out" / "more.txt").write_text("")
    assert checksums.verify(tmp_path / "out") == [
        *("conflicts.csv: missing", "more.txt: not listed", "README.md: changed")
    ]


def test_hydrating_gives_the_bytes_of_an_embedded_release(run: Run, tmp_path: Path) -> None:
    made_from = small(run, tmp_path / "shards")
    make(run, tmp_path / "embedded")
    make(run, tmp_path / "referenced", images="reference")
    assert not RegionSamples(tmp_path / "referenced").has_images
    assert b"hydrate" in (tmp_path / "referenced" / "README.md").read_bytes()
    hydrated(tmp_path / "referenced", made_from, tmp_path / "hydrated")
    assert content(tmp_path / "hydrated") == content(tmp_path / "embedded")
    with pytest.raises(UsageError, match="holds its images already"):
        hydrated(tmp_path / "embedded", made_from, tmp_path / "more")


def hydrated(source: Path, made_from: Path, out: Path) -> None:
    watcher = Watcher(lambda *_: None, lambda _: None)
    hydrate.hydrate(source, [str(made_from)], out, Sessions().open, watcher)


@pytest.mark.parametrize(("at", "call"), [
    ("benchmark.hydrate:shutil.copyfileobj", 2),  # between two data files
    ("pipeline.regions:pq.ParquetWriter.close", 1),  # within the images
    ("benchmark.checksums:of", 1),  # all but the last file
])  # fmt: skip
def test_a_killed_hydrating_leaves_nothing_and_is_gone_on_with(run: Run, tmp_path: Path, at: str, call: int) -> None:
    made_from = small(run, tmp_path / "shards")
    make(run, tmp_path / "embedded")
    make(run, tmp_path / "referenced", images="reference")
    paths = [str(path) for path in (tmp_path / "referenced", made_from, tmp_path / "out")]
    killed(f"""
from pathlib import Path
from test_benchmark_release import hydrated
hydrated(*map(Path, {paths!r}))
""", at, call)  # fmt: skip
    assert not (tmp_path / "out").exists()
    hydrated(*map(Path, paths))
    assert content(tmp_path / "out") == content(tmp_path / "embedded")
    assert not list(tmp_path.glob(".*"))


def test_hydrating_with_another_image_is_refused(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    make(run, tmp_path / "referenced", images="reference")
    changed = {1: photograph(1), 2: bytes_like(photograph(2)), 3: photograph(3)}
    other = shard(tmp_path / "others", changed)
    with pytest.raises(UserError, match=r"1 images cannot be read as the run says:\n.*sa_2.jpg: SHA-256 \w+ expected"):
        hydrated(tmp_path / "referenced", other, tmp_path / "out")
    with pytest.raises(UserError, match="1 shards that --shards does not name: sa_000001"):
        hydrated(tmp_path / "referenced", shard(tmp_path / "x", changed, name="sa_9"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def bytes_like(data: bytes) -> bytes:
    """The same JPEG header and length, other pixels."""
    return data[:-10] + bytes(8) + data[-2:]


# --- refused, or gone on with ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "one"}, "--version one: write it as 1.0.0"),
        ({"date": "today"}, "--date today: write it as 2026-11-24"),
    ],
)
def test_options_are_checked(run: Run, tmp_path: Path, options: Row, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(run, tmp_path / "out", **options)


def test_a_release_is_never_changed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="A release is never changed"):
        make(run, tmp_path / "out")


def test_runs_of_one_name_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several runs are called run"):
        make([run, Run(str(tmp_path / "x" / "run"))], tmp_path / "out")


def test_damaged_run_lengths_are_refused(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    masks = run.dataset("masks").to_table().to_pylist()
    masks[0]["rle_counts"] = "zz"
    run.discard("manifest-read", "masks")
    commit(run, masks=masks)
    with pytest.raises(UserError, match=rf"rle_counts: 1 are damaged: {masks[0]['mask_id']}\. Read these shards again"):
        make(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "sa_000001.tar"),
        (lambda path: path.write_bytes(path.read_bytes()[:6000]), "sa_3.jpg: 1"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0")), "no JPEG of 64×48 px"),
    ],
)
def test_images_missing_from_shards_are_named(
    run: Run, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(small(run, tmp_path / "shards"))
    with pytest.raises(UserError, match="images cannot be read as the run says") as refused:
        make(run, tmp_path / "out")
    assert message in str(refused.value)
    assert "data_manifests/removed.csv" in str(refused.value)
    assert not (tmp_path / "out").exists()


class Sessions:
    """Runs tasks in this process; counts them, and dies after some."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.tasks = 0
        self.dies_after = dies_after

    @contextmanager
    def open(self) -> Iterator[Any]:
        session = InlineSession()
        session.stream = self._stream  # type: ignore[method-assign]
        yield session

    def _stream(self, task: Callable[[Any], Iterator[Any]], jobs: Iterable[Any]) -> Iterator[Any]:
        for job in jobs:
            if self.tasks == self.dies_after:
                raise KeyboardInterrupt
            self.tasks += 1
            yield from task(job)


def test_a_killed_release_is_gone_on_with(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(run, tmp_path / "shards")
    monkeypatch.setitem(image_files._FILE_BYTES, "embed", 1)  # a file an image
    make(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        make(run, tmp_path / "out", session=Sessions(dies_after=2).open)
    assert not (tmp_path / "out").exists()
    second = Sessions()
    make(run, tmp_path / "out", session=second.open)
    assert second.tasks == 1
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_another_release_does_not_go_on_with_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(run, tmp_path / "shards")
    monkeypatch.setitem(image_files._FILE_BYTES, "embed", 1)
    with pytest.raises(KeyboardInterrupt):
        make(run, tmp_path / "out", session=Sessions(dies_after=2).open, images="embed")
    second = Sessions()
    make(run, tmp_path / "out", session=second.open, version="1.0.1")
    assert second.tasks == 3


# --- splits ---


def unscreened(run: Run, tmp_path: Path, pictures: dict[int, bytes]) -> stats.Stats:
    """Image 1 was screened but for one pair; the others were not."""
    build(run, shard(tmp_path / "shards", pictures))
    ids = [100, 101, *(image * 100 for image in pictures if image > 1)]
    fill(run, [pair(m, "dog") for m in ids], [decision(100, "dog")])
    return make(run, tmp_path / "out", unscreened=True)


def test_screened_images_are_test_and_others_train(run: Run, tmp_path: Path) -> None:
    made = unscreened(run, tmp_path, {1: photograph(1), 2: photograph(2)})
    assert made.name == "rr7k-unscreened-1.0.0"
    assert made.outcomes == {"released": 2, "unscreened-in-test-image": 1}
    assert made.near_duplicates_checked
    columns = ["instance_id", "split", "screened_by", "mini"]
    assert RegionSamples(tmp_path / "out").read("instances", columns).to_pylist() == [
        {"instance_id": 100, "split": "test", "screened_by": "people", "mini": True},
        {"instance_id": 200, "split": "train", "screened_by": "nobody", "mini": False},
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "> **Not screened.** Nobody has looked at 1 of the instances" in card
    assert "- split: train" in card


def test_near_duplicates_of_test_images_are_left_out_of_train(run: Run, tmp_path: Path) -> None:
    made = unscreened(run, tmp_path, {1: photograph(1), 2: photograph(1, quality=60), 3: photograph(3)})
    assert made.outcomes == {"released": 2, "unscreened-in-test-image": 1, "near-duplicate-of-test": 1}
    assert RegionSamples(tmp_path / "out").read("images", ["image_id"])["image_id"].to_pylist() == [1, 3]


def test_a_simulated_release_says_so(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    fill(run, [pair(100, "dog")], [decision(100, "dog", by="simulated")])
    assert make(run, tmp_path / "out").name == "rr7k-simulated-1.0.0"
    assert "> **Simulated.**" in (tmp_path / "out" / "README.md").read_text()


def test_nothing_left_is_refused(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    fill(run, [pair(100, "dog")], [decision(100, "dog", "delete")])
    with pytest.raises(UserError, match="nothing is left to release of 1 pairs: 1 delete"):
        make(run, tmp_path / "out")


# --- what else a release says ---


def test_the_audit_is_told_where_it_was_measured(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards")
    share = {"share": 0.95, "lower": 0.91, "upper": 0.98, "observations": 40, "more": 0, "closed": True}
    none = {"share": None, "lower": 0.0, "upper": 1.0, "observations": 0, "more": 9, "closed": False}
    strata = {"head": {**share, "observations": 30}, "tail": none}
    told = {"audit": {"overall": share, "strata": strata, "waiting": 3, "unresolved": 1, "simulated": 0}}
    run.folder.replace("screening.json", json.dumps(told).encode())
    make(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "Share of right names in run, by a blind second look at a sample (3 wait, 1 are judged neither right nor "
        "wrong):\n\n"
        "| | judged | right | 95 % limits |\n"
        "|---|---|---|---|\n"
        "| head | 30 | 95.0% | 91.0% to 98.0% |\n"
        "| tail | 0 | not measured | 0.0% to 100.0% |\n"
        "| **all** | 40 | 95.0% | 91.0% to 98.0% |\n"
    ) in card
    run.folder.replace("screening.json", b"{}")
    with pytest.raises(UserError, match=r"screening.json: .*rr7k stage-3 import"):
        make(run, tmp_path / "more")


def test_reviewed_coarse_groups_count(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    names = {100: "dog", 101: "gizmo", 102: "zorb"}
    fill(run, [pair(*one) for one in names.items()], [decision(*one) for one in names.items()])
    head = "name,primary,secondary,nearest,score,labelled,decision\n"
    run.folder.replace("coarse-groups.csv", f"{head}gizmo,Animals,Mammals,dog,0.1,no,Birds\n".encode())
    assert make(run, tmp_path / "out").coarse["Animals"] == {"Birds": 1, "Mammals": 1}
    assert stats.load(tmp_path / "out").outside_the_tree == ["zorb"]
    run.folder.replace("coarse-groups.csv", f"{head}gizmo,Animals,Mammals,dog,0.1,no,Gadgets\n".encode())
    with pytest.raises(UserError, match="line 2: 'Gadgets' is no secondary group"):
        make(run, tmp_path / "more")


def test_conflicts_are_listed(run: Run, tmp_path: Path) -> None:
    small(run, tmp_path / "shards", images=1)
    other = Run(str(tmp_path / "other"))
    build(other, tmp_path / "shards" / "sa_000001.tar")
    fill(other, [pair(100, "cat")], [decision(100, "cat")])
    assert make([run, other], tmp_path / "out").conflicts == {"named-in-another-run": 1}
    with (tmp_path / "out" / "conflicts.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"kind": "named-in-another-run", "image_id": "1", "kept": "100", "kept_category": "dog"}
            | {"left_out": "100", "left_out_category": "cat"}
        ]


def test_names_are_no_markup(run: Run, tmp_path: Path) -> None:
    build(run, shard(tmp_path / "shards", {1: photograph(1)}))
    fill(run, [pair(100, "a```b<i>$x|y")], [decision(100, "a```b<i>$x|y")])
    make(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a```b" not in card
    assert r"of_category('a\x60\x60\x60b<i>$x|y')" in card
