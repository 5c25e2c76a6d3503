"""Submissions: packed, unpacked safely whatever is in them, and scored again."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from small_benchmarks import RIGHT, Known, predict, write

from benchmark import submission, truth
from benchmark.predictions import read
from benchmark.presets import PRESETS
from benchmark.submission import Submission
from benchmark.truth import Truth
from pipeline.errors import UsageError, UserError

SIMILARITY = Known()
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return truth.load(write(tmp_path_factory.mktemp("known") / "benchmark"))


@pytest.fixture(scope="module")
def packed(known: Truth, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission that is right but for one answer, beside its predictions."""
    folder = tmp_path_factory.mktemp("packed")
    path = predict(folder / "p.parquet", {**RIGHT, 1000: "cat"}, model="m")
    submission.pack(read(path), known, {"params": "7B"}, SIMILARITY, folder / "s.zip")
    return folder / "s.zip"


def members(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def claims(files: Files, change: Callable[[dict[str, object]], object]) -> Files:
    """The same with another first claim."""
    told = json.loads(files["submission.json"])
    change(told["claims"][0])
    return {**files, "submission.json": json.dumps(told).encode()}


def validate(path: Path, known: Truth, tmp_path: Path) -> submission.Validated:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return submission.validate(path, known, SIMILARITY, folder)


def test_a_submission_holds_what_it_takes_to_score_it_again(packed: Path, known: Truth, tmp_path: Path) -> None:
    assert list(members(packed)) == ["submission.json", "predictions/p.parquet"]
    made, data = submission.unpack(packed)
    assert data == {"p.parquet": (packed.parent / "p.parquet").read_bytes()}
    assert (made.model, made.facts, made.form, made.format) == ("m", {"params": "7B"}, "table", 1)
    assert made.environment.keys() >= {"python", "rr7k", "torch", "sentence-transformers"}
    assert [row.preset for row in made.claims] == list(PRESETS)
    found = validate(packed, known, tmp_path)
    assert found.differences == []
    assert found.cards[0].result.scores["iou"].value == 5 / 6


def test_the_same_input_gives_the_same_bytes(packed: Path, known: Truth, tmp_path: Path) -> None:
    submission.pack(read(packed.parent / "p.parquet"), known, {"params": "7B"}, SIMILARITY, tmp_path / "again.zip")
    assert packed.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_protocols_that_cannot_score_it_are_told(known: Truth, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", {**RIGHT, 1000: None}, model="m")
    found = submission.pack(read(path), known, {}, SIMILARITY, tmp_path / "s.zip")
    assert [row.preset for row in found.submission.claims] == ["rr7k-1"]
    assert "a prediction that is no text" in found.left_out["wowseg"]


def test_a_model_has_a_name_and_a_file_a_plain_one(known: Truth, tmp_path: Path) -> None:
    path = predict(tmp_path / "p.parquet", RIGHT)
    with pytest.raises(UsageError, match="--model NAME"):
        submission.pack(read(path), known, {}, SIMILARITY, tmp_path / "s.zip")
    path = predict(tmp_path / "a file.parquet", RIGHT)
    with pytest.raises(UsageError, match=r"'a file\.parquet': rename the file"):
        submission.pack(read(path, model="m"), known, {}, SIMILARITY, tmp_path / "s.zip")


def test_several_files_stay_several(known: Truth, tmp_path: Path) -> None:
    folder = tmp_path / "wowseg"
    folder.mkdir()
    for image in (1, 2):
        item = {"id": image, "image": [f"{image}.jpg"], "gt_labels": ["dog", "cup", "car"], "pred_labels": ["dog"] * 3}
        (folder / f"subset_{image}.json").write_text(json.dumps([item]))
    submission.pack(read(folder, model="m"), known, {}, SIMILARITY, tmp_path / "s.zip")
    assert list(members(tmp_path / "s.zip"))[1:] == ["predictions/subset_1.json", "predictions/subset_2.json"]
    found = validate(tmp_path / "s.zip", known, tmp_path)
    assert found.differences == []
    assert found.cards[1].result.scores["iou"].value == 2 / 6


# --- what a stranger sends ---


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "/etc/evil.json",
        "predictions/../../evil.json",
        "predictions/..json",
        "predictions/a/b.json",
        "predictions\\..\\evil.json",
        "predictions/evil.sh",
        "predictions/.hidden.json",
        "predictions/",
        "other.json",
        "predictions/" + "x" * 200 + ".json",
        "predictions/nul\u202e.json",
    ],
)
def test_no_name_leads_anywhere(packed: Path, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    evil = zipped(tmp_path / "evil.zip", {**members(packed), name: b"{}"})
    with pytest.raises(UserError, match=r"holds .*, which no submission has"):
        submission.unpack(evil)
    assert set(tmp_path.rglob("*")) - before == {evil}


def test_what_is_too_large_is_never_unpacked(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_content", lambda *_: pytest.fail("unpacked"))
    bomb = zipped(tmp_path / "bomb.zip", {"predictions/zeros.json": bytes(1 << 24)})
    data = bytearray(bomb.read_bytes())
    size = (1 << 24).to_bytes(4, "little")
    bomb.write_bytes(bytes(data).replace(size, (0xFFFFFFF0).to_bytes(4, "little")))
    many = zipped(tmp_path / "many.zip", {f"predictions/{n}.json": b"" for n in range(1001)})
    for path in (bomb, many):
        with pytest.raises(UserError, match="more than 1,000 files or 1 GiB unpacked"):
            submission.unpack(path)


def test_a_member_longer_than_it_says_is_refused(packed: Path, tmp_path: Path) -> None:
    files = members(packed)
    path = zipped(tmp_path / "liar.zip", {**files, "predictions/zeros.json": bytes(1 << 20)})
    data = path.read_bytes().replace((1 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(UserError, match="no submission"):
        submission.unpack(path)


def test_damage_is_an_error_of_ours(packed: Path, tmp_path: Path) -> None:
    files = members(packed)
    broken = tmp_path / "broken.zip"
    cases: list[tuple[bytes, str]] = [
        (b"", "not a zip file"),
        (packed.read_bytes()[:-30], "not a zip file"),
        (zipped(broken, {"submission.json": files["submission.json"]}).read_bytes(), "it needs submission.json"),
        (zipped(broken, {"predictions/p.parquet": b""}).read_bytes(), "it needs submission.json"),
        (zipped(broken, {**files, "submission.json": b"{"}).read_bytes(), "submission.json: "),
        (zipped(broken, {**files, "submission.json": b'{"x": "\xff"}'}).read_bytes(), "submission.json: "),
        (zipped(broken, {**files, "submission.json": b'{"x": ' + b"[" * 99_999}).read_bytes(), "submission.json: "),
        (zipped(broken, {**files, "submission.json": b"{}"}).read_bytes(), "missing required field"),
        (zipped(broken, {**files, "submission.json": b" " * (5 << 20)}).read_bytes(), "of some kilobytes"),
        (zipped(broken, {**files, "predictions/p.parquet": b"x"}).read_bytes(), "not those that submission.json lists"),
    ]
    for content, message in cases:
        broken.write_bytes(content)
        with pytest.raises(UserError, match=message):
            submission.unpack(broken)
    with pytest.raises(UsageError, match="cannot be read"):
        submission.unpack(tmp_path / "none.zip")


def test_a_byte_that_flipped_is_noticed(packed: Path, tmp_path: Path) -> None:
    whole, flipped = packed.read_bytes(), tmp_path / "flipped.zip"
    made, data = submission.unpack(packed)
    for place in range(0, len(whole), 23):
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found: tuple[Submission, Files] = submission.unpack(flipped)
        except UserError:
            continue
        assert found == (made, data)  # a field that nobody reads, such as a date


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["scores"]["iou"].update(value=0.99), "rr7k-1: scores iou is 0.833333, claimed 0.990000"),
        (lambda row: row["macro"].pop("exact"), r"rr7k-1: macro exact is 0\.\d+, claimed not there"),
        (lambda row: row.update(counted=7), "rr7k-1: counted is 6, claimed 7"),
        (lambda row: row.update(embedding_weights="x"), "embedding_weights is .*, claimed x"),
        (lambda row: row.update(model="better"), "model is m, claimed better"),
    ],
)
def test_claims_that_do_not_hold_are_told(
    packed: Path, known: Truth, tmp_path: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    path = zipped(tmp_path / "other.zip", claims(members(packed), change))
    found = validate(path, known, tmp_path)
    assert len(found.differences) == 1
    assert re.search(message, found.differences[0])


def test_another_benchmark_is_refused(packed: Path, known: Truth, tmp_path: Path) -> None:
    other = truth.load(write(tmp_path / "other", category_raw="x"))
    with pytest.raises(UserError, match=r"scored on benchmark, split test .*; here is other, split test"):
        validate(packed, other, tmp_path)
