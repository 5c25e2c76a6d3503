"""Benchmarks as scores see them: which split, which fingerprint, and which published numbers stand beside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from small_benchmarks import write

from benchmark import truth
from pipeline.errors import UsageError, UserError
from pipeline.regions import RegionSamples


def test_the_split_is_test_or_the_only_one(tmp_path: Path) -> None:
    assert truth.load(write(tmp_path / "a")).split == "test"
    assert len(truth.load(tmp_path / "a").instances) == 6
    assert len(truth.load(tmp_path / "a", "mini").instances) == 3  # the first image
    val = write(tmp_path / "b", 1, split="val")
    assert truth.load(val).split == "val"
    with pytest.raises(UsageError, match=r"no instances in split train\. There are: val\."):
        truth.load(val, "train")


def test_the_fingerprint_is_of_the_instances_alone(tmp_path: Path) -> None:
    prints = [
        truth.fingerprint(RegionSamples(folder))
        for folder in (
            write(tmp_path / "a"),
            write(tmp_path / "b", embedded=False),
            write(tmp_path / "c", category_raw="cat"),
        )
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_release_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (name,) = RegionSamples(folder).files("instances")
    digest = hashlib.sha256(name.read_bytes()).hexdigest()
    (folder / "checksums.txt").write_text(f"{digest}  data/{name.name}\n")
    truth.load(folder)
    write(folder, category_raw="cat")
    with pytest.raises(UserError, match=r"not as checksums\.txt has it: the release was changed"):
        truth.load(folder)


@pytest.mark.parametrize(
    ("file", "told", "expected"),
    [
        ("stats.json", {"name": "rr7k-1.0.0"}, ("rr7k-1.0.0", "RR-7K")),
        ("import.json", {"kind": "lvis", "sources": ["x.json"]}, ("d", "LVIS")),
        ("import.json", {"kind": "osprey", "sources": ["paco_val_1k_category.json"]}, ("d", "PACO")),
        ("import.json", {"kind": "coco", "sources": ["lvis.json"]}, ("d", "")),
        ("import.json", {"kind": "rr7k", "sources": []}, ("RR-7K", "RR-7K")),
        ("import.json", ["no object"], ("d", "")),
    ],
)
def test_what_published_tables_call_it(tmp_path: Path, file: str, told: object, expected: tuple[str, str]) -> None:
    folder = write(tmp_path / "d")
    (folder / file).write_text(json.dumps(told))
    found = truth.load(folder)
    assert (found.name, found.data_set) == expected


def test_other_instances_than_the_published_ones_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "d")
    (folder / "import.json").write_text(json.dumps({"kind": "lvis"}))
    assert truth.load(folder).warnings == ["Published LVIS rows are of Osprey's 4,004 instances; here are 6."]
    (folder / "stats.json").write_text(json.dumps({"name": "mine-1.0.0"}))
    assert "of its authors' release, not of mine-1.0.0" in truth.load(folder).warnings[0]
