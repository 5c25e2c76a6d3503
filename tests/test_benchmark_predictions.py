"""Prediction files of every kind, and everything that can be wrong with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark import predictions
from benchmark.predictions import locate, own_truth, read
from pipeline.errors import UsageError, UserError

TRUTH = pa.table(
    {
        "instance_id": [30, 10, 11, 12, 20],
        "image_id": [3, 1, 1, 1, 2],
        "category": ["car", "dog", "cat", "cat", "mouse"],
        "category_raw": ["car", "dog", "cat", "cat", "mouse_(animal)"],
    }
)
ROWS = [{"instance_id": 10, "text": "dog", "model": "m"}, {"instance_id": 20, "text": "", "model": "m"}]


def write(path: Path, content: Any) -> Path:
    """Write lines, JSON, or a Parquet table, as the name says."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".parquet":
        pq.write_table(content if isinstance(content, pa.Table) else pa.Table.from_pylist(content), path)
    elif path.suffix == ".csv":
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def located(path: Path, **how: Any) -> list[tuple[int, str | None]]:
    found = locate(read(path, **how), TRUTH)
    assert found.schema == predictions.COLUMNS
    return list(zip(found["instance_id"].to_pylist(), found["text"].to_pylist(), strict=True))


# --- our own ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.parquet", ROWS),
        ("p.jsonl", ROWS),
        ("p.json", ROWS),
        ("lines.json", b'{"instance_id": 10, "text": "dog", "model": "m"}\n\n{"instance_id": 20, "text": ""}\n'),
        ("p.csv", "model,text,instance_id\nm,dog,10\nm,,20\n"),
        ("bom.csv", '\ufeffinstance_id,text,model\r\n10,"dog",m\r\n20,"",m\r\n'),
        ("masks.jsonl", [{"image_id": 1, "mask_id": 10, "text": "dog"}, {"image_id": 2, "mask_id": 20, "text": ""}]),
        ("masks.csv", "image_id,mask_id,text\n1,10,dog\n2,20,\n"),
        ("floats.parquet", pa.table({"instance_id": [10.0, 20.0], "text": ["dog", ""]})),
        ("labels.parquet", pa.table({"instance_id": [10, 20], "text": pa.array(["dog", ""]).dictionary_encode()})),
        ("unsigned.parquet", pa.table({"instance_id": pa.array([10, 20], pa.uint64()), "text": ["dog", ""]})),
        ("short.parquet", pa.table({"instance_id": pa.array([10, 20], pa.int8()), "text": ["dog", ""]})),
        (
            "digits.parquet",
            pa.table({"instance_id": ["10", " 20.0"], "text": pa.array(["dog", ""], pa.large_string())}),
        ),
        ("views.parquet", pa.table({"instance_id": [10, 20], "text": pa.array(["dog", ""], pa.string_view())})),
        ("masks.parquet", pa.table({"image_id": [1, 2], "mask_id": [10, 20], "text": ["dog", ""]})),
        ("more.jsonl", [{**row, "logprob": float("-inf"), "seconds": float("nan")} for row in ROWS]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_our_own(tmp_path: Path, name: str, content: Any) -> None:
    path = write(tmp_path / name, content)
    assert located(path) == [(10, "dog"), (20, "")]
    assert read(path).form == "table"


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_one_model_of_several(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [*ROWS, {"instance_id": 10, "text": "cat", "model": "n"}])
    with pytest.raises(UsageError, match="predictions of m, n; choose one"):
        read(path)
    with pytest.raises(UsageError, match="predictions of m, n; choose one"):
        read(path, model="o")
    assert located(path, model="n") == [(10, "cat")]
    assert read(path, model="n").model == "n"
    assert read(write(tmp_path / "q.jsonl", ROWS)).model == "m"


def test_one_model_of_several_where_texts_are_string_views(tmp_path: Path) -> None:
    rows = {"instance_id": [10, 20], "text": ["dog", "mouse"], "model": ["m", "n"]}
    views = pa.table(rows).cast(
        pa.schema([("instance_id", pa.int64()), *((n, pa.string_view()) for n in list(rows)[1:])])
    )
    assert located(write(tmp_path / "p.parquet", views), model="n") == [(20, "mouse")]


def test_models_with_endless_names_or_half_characters(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], {**ROWS[1], "model": "a" * 10_000}, {**ROWS[1], "model": "\ud800"}])
    with pytest.raises(UsageError, match=r"predictions of \?, aaa") as told:
        read(path)
    assert len(str(told.value)) < 500
    assert read(write(tmp_path / "q.jsonl", [{**ROWS[0], "model": "\ud800"}])).model == "?"


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_of_another_version_of_the_benchmark(tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path / name, [{**row, "benchmark": "aaaa"} for row in ROWS]))
    assert found.benchmark == "aaaa"
    assert len(locate(found, TRUTH, "aaaa")) == 2
    with pytest.raises(UserError, match=r"another version of the benchmark \(aaaa…, here bbbb…\): the checksums"):
        locate(found, TRUTH, "bbbb")
    mixed = [{**row, "benchmark": str(i)} for i, row in enumerate(ROWS)]
    with pytest.raises(UserError, match="several benchmarks: 0, 1"):
        read(write(tmp_path / name, mixed))


def test_unknown_ids_are_counted_and_the_first_five_told(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], *({"instance_id": i, "text": "x"} for i in range(100, 107))])
    with pytest.raises(UserError, match=r"7 of 8 predictions .* instance_id 100, 101, 102, 103, 104 \(row 2\)"):
        located(path)
    for wrong in ((2, 10), (1, 99)):  # another image's, nobody's
        path = write(tmp_path / "p.jsonl", [{"image_id": wrong[0], "mask_id": wrong[1], "text": "x"}])
        with pytest.raises(UserError, match=f"image_id and mask_id {wrong[0]} / {wrong[1]} "):
            located(path)


@pytest.mark.parametrize("value", [None, float("nan"), 7, True, ["dog"], {"a": 1}, "\ud800"])
def test_what_is_no_text_is_a_problem_of_one_row(tmp_path: Path, value: Any) -> None:
    path = write(tmp_path / "p.jsonl", [ROWS[0], {"instance_id": 20, "text": value}])
    found = locate(read(path), TRUTH)
    assert found["text"].to_pylist() == ["dog", None]
    assert found["problem"].to_pylist() == [None, "no text"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_problems_of_single_texts_in_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["é" * 100_000, None, "é" * 100_001], pa.string()).cast(kind)
    found = locate(read(write(tmp_path / "p.parquet", pa.table({"instance_id": [10, 11, 12], "text": texts}))), TRUTH)
    assert found["text"].to_pylist() == ["é" * 100_000, None, None]
    assert found["problem"].to_pylist() == [None, "no text", "overlong"]
    assert found["number"].to_pylist() == [1, 2, 3]


def test_a_hundred_megabytes_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"instance_id": 10, "text": "' + b"a" * 100_000_000 + b'"}\n{"instance_id": 20, "text": "b"}')
    found = locate(read(path), TRUTH)
    assert found["problem"].to_pylist() == ["overlong", None]
    path.write_bytes(b"a" * 100_000_000)
    with pytest.raises(UserError, match="line 1, character 1: not JSON") as told:
        read(path)
    assert len(str(told.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"instance_id": 10, "text": "a"}\n{"text": "\xff"}', "line 2, byte 11: not UTF-8"),
        ("p.csv", b"instance_id,text\n10,\xff", "line 2, byte 4: not UTF-8"),
        ("p.jsonl", b'{"instance_id": 10, "text": "a"}\n{"instance_id": 20, ', "line 2, character 21: not JSON"),
        ("p.json", b'[{"instance_id": 10, "text": "a"},\n {"instance', "line 2, character 3: not JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1: thousands of brackets"),
        ("p.json", b"[" * 100_000, "thousands of brackets"),
        ("p.jsonl", b'{"instance_id": 10, "text": "a"}\n{"a": ' + b"9" * 5000 + b"}", "line 2: a number of thousands"),
        ("p.json", b"[" + b"9" * 5000 + b"]", "p.json: a number of thousands of digits"),
        ("p.jsonl", [], "no predictions in it"),
        ("p.csv", "instance_id,text\n", "no predictions in it"),
        ("p.csv", "instance_id,text\n10,a,b\n", "line 2: 3 cells where the header has 2; is a text with a comma not"),
        ("p.csv", "text,instance_id,text\na,10,b\n", "line 1: a column appears twice"),
        ("p.csv", 'instance_id,text\n10,"a\n20,b\n', "is a quote not closed"),
        ("p.csv", f'instance_id,text\n10,"{"a" * 200_000}"\n', "line 2: field larger than field limit"),
        ("p.parquet", b"PAR1 nothing PAR1", "not a Parquet file"),
        ("p.jsonl", [{"id": 10, "answer": "a"}], "its first record has id, answer. Expected are text and instance_id"),
        ("p.jsonl", [5], "its first record is '5'"),
        ("p.jsonl", [ROWS[0], {"instance_id": 20}], "row 2: needs text and instance_id"),
        ("p.jsonl", [ROWS[0], 5], "row 2: needs text and instance_id"),
        ("p.jsonl", [{"instance_id": float("nan"), "text": "a"}], "row 1: instance_id nan is no whole number"),
        ("p.jsonl", [{"instance_id": 10.5, "text": "a"}], "instance_id 10.5 is no whole number"),
        ("p.jsonl", [{"instance_id": True, "text": "a"}], "instance_id True is no whole number"),
        ("p.jsonl", [{"instance_id": 2**63, "text": "a"}], "instance_id 9223372036854775808 is no whole number"),
        ("p.jsonl", [{"instance_id": None, "text": "a"}], "instance_id None is no whole number"),
        ("p.csv", "instance_id,text\nten,a\n", "row 2: instance_id 'ten' is no whole number"),
        ("p.parquet", pa.table({"instance_id": [10], "text": [7]}), "column text holds no text, as in row 1: 7"),
        ("p.jsonl", [{"instance_id": 10, "text": None}], "column text holds no text, as in row 1: None"),
        (
            "p.parquet",
            pa.table({"instance_id": [10], "text": pa.nulls(1, pa.string())}),
            "holds no text, as in row 1: None",
        ),
        (
            "p.parquet",
            pa.table({"instance_id": pa.array([2**62], pa.timestamp("us")), "text": ["a"]}),
            r"column instance_id holds timestamp.us., neither numbers nor text. Expected are text and instance_id",
        ),
        (
            "p.parquet",
            pa.table({"instance_id": [10], "text": pa.array([2**31 - 1], pa.date32())}),
            "column text holds date32.day., neither",
        ),
        (
            "p.parquet",
            pa.table({"instance_id": [10], "text": pa.array([[1]], pa.list_(pa.timestamp("us", "Nowhere/Land")))}),
            "column text holds list.*, neither",
        ),
        ("p.parquet", pa.table({"instance_id": [10, None], "text": ["a", "b"]}), "row 2: instance_id None is no whole"),
        ("p.parquet", pa.table({"instance_id": pa.array([2**63], pa.uint64()), "text": ["a"]}), "is no whole number"),
        ("p.parquet", pa.table({"id": [10], "text": ["a"]}), "has the columns id, text. Expected are text and i"),
        (
            "p.parquet",
            pa.table({"instance_id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}),
            "no predic",
        ),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as told:
        read(path)
    assert str(path) in str(told.value)


def test_text_of_a_parquet_file_that_is_not_utf_8(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    with pytest.raises(UserError, match="not a Parquet file that can be read"):
        read(write(tmp_path / "p.parquet", pa.table({"instance_id": [10], "text": broken})))


def test_a_model_that_is_no_text_is_called_as_it_is_written(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", pa.table({"instance_id": [10], "text": ["dog"], "model": [["a", "b"]]}))
    assert read(path).model == "['a', 'b']"


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"p\.csv: cannot be read \(No such file"):
        read(tmp_path / "p.csv")
    with pytest.raises(UsageError, match=r"no subset_\*\.json in it"):
        read(tmp_path)
    with pytest.raises(UsageError, match=r"no format 'wow'\. There are: table, wowseg"):
        read(tmp_path / "p.csv", "wow")


# --- as others write them ---


def wowseg(image: str, texts: Sequence[str], truths: Sequence[str]) -> dict[str, Any]:
    rates = {"per_image_sim": float("nan"), "per_image_iou": 0.0}
    return {"id": "1", "image": [image], "pred_labels": list(texts), "gt_labels": list(truths), **rates}


def test_wowseg(tmp_path: Path) -> None:
    write(tmp_path / "subset_0.json", [wowseg("val/000000000001.jpg", ["a", "b", "c"], ["dog", "cat", "cat"])])
    write(tmp_path / "subset_1.json", [wowseg("x/sa_2.jpg", ["d"], ["mouse"]), wowseg("sa_3.jpg", [], [])])
    found = read(tmp_path)
    assert (found.form, found.cut) == ("wowseg", 0)
    assert located(tmp_path) == [(10, "a"), (11, "b"), (12, "c"), (20, "d")]


def test_wowseg_drops_masks_from_both_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "subset_0.json", [wowseg("1.jpg", ["b"], ["cat"])])
    assert located(path) == [(11, "b")]
    path = write(path, [wowseg("1.jpg", ["b", "c"], ["cat", "dog"])])
    with pytest.raises(UserError, match=r"image '1\.jpg' has no further region called 'dog'"):
        located(path)
    path = write(path, [wowseg("9.jpg", ["b"], ["cat"])])
    with pytest.raises(UserError, match=r"1 of 1 predictions .* image and place 9\.jpg / 0"):
        located(path)


def test_wowseg_cuts_the_longer_list(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [wowseg("1.jpg", ["a"], ["dog", "cat"]), wowseg("2.jpg", ["b", "c"], ["mouse"])])
    found = read(path)
    assert found.cut == 1
    assert located(path) == [(10, "a"), (20, "b")]
    truth, own = own_truth(found)
    assert truth.to_pylist() == [
        {"instance_id": 0, "image_id": 0, "category": "dog"},
        {"instance_id": 1, "image_id": 0, "category": "cat"},  # missing
        {"instance_id": 2, "image_id": 1, "category": "mouse"},
    ]
    assert own.select(["instance_id", "text"]).to_pydict() == {"instance_id": [0, 2], "text": ["a", "b"]}


def vpmllm(prediction: str, answer: str) -> list[dict[str, Any]]:
    return [{"image_name": "1.jpg", "question_id": 0, "question": "?", "prediction": prediction, "answer": answer}]


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Region 1: dog\nRegion 2: red cat\nRegion 3: cat", ["dog", "red cat", "cat"]),
        ("Region 1: dog\nRegion 2: cat", ["dog", "cat"]),  # the last region has no line: not counted
        ("Region 1: dog\nRegion 2:\nRegion 3: cat", ["dog", "cat"]),  # no ": ", so the next moves up
        ("Region 1: dog\nRegion 2: \nRegion 3: cat", ["dog", "", "cat"]),
        ("Region 1: bottle: cap", ["bottle"]),  # what follows a second ": " is lost
        ("a dog and a cat", []),
    ],
)
def test_vpmllm(tmp_path: Path, prediction: str, expected: list[str]) -> None:
    answer = "Region 1: dog\nRegion 2: cat\nRegion 3: cat"
    path = write(tmp_path / "LVIS_results.json", vpmllm(prediction, answer))
    assert located(path) == list(zip([10, 11, 12], expected, strict=False))
    truth, own = own_truth(read(path))
    assert truth["category"].to_pylist() == ["dog", "cat", "cat"]
    assert own["text"].to_pylist() == expected


def test_vpmllm_with_more_lines_than_regions(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", vpmllm("Region 1: a\nRegion 2: b", "Region 1: dog"))
    with pytest.raises(UserError, match="item 1: 2 predicted labels for 1 regions"):
        read(path)


def test_osprey(tmp_path: Path) -> None:
    answers = [
        {"question_id": 0, "image": "000000000001.jpg", "categroy": "description", "text": "<Region 1>: A dog: big."},
        {"question_id": 1, "image": "2.jpg", "category": "description", "text": "A mouse."},
        {"question_id": 2, "image": "000000000001.jpg", "category": "description", "text": "A cat."},
    ]
    path = write(tmp_path / "p.json", answers)
    assert read(path).form == "osprey"
    assert located(path) == [(10, "A dog: big."), (20, "A mouse."), (11, "A cat.")]
    with pytest.raises(UsageError, match="has no true names"):
        own_truth(read(path))
    with pytest.raises(UserError, match="this is the list of questions"):
        read(write(path, [{**answers[0], "annotation": {"bbox": []}}]))


def test_videorefer(tmp_path: Path) -> None:
    lines = [
        {"image": "1.jpg", "Answer": name, "pred": text, "region_num": 3} for name, text in (("dog", "a"), ("cat", "b"))
    ]
    path = write(tmp_path / "p.jsonl", lines)
    assert read(path).form == "videorefer"
    assert located(path) == [(10, "a"), (11, "b")]
    assert own_truth(read(path))[0]["category"].to_pylist() == ["dog", "cat"]


def test_dam(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", {"query": "<image>\nDescribe it.", "10": "A dog.", "30": "A car."})
    assert read(path).form == "dam"
    assert located(path) == [(10, "A dog."), (30, "A car.")]
    with pytest.raises(UserError, match=r"1 of 1 predictions .* instance_id 99 \(row 1\)"):
        located(write(path, {"99": "A dog."}))


def test_pam(tmp_path: Path) -> None:
    record = {"type": "video", "image_root": "frames/V_1", "annotations": [{"event_id": 1, "gt": "a", "pred": "b"}]}
    path = write(tmp_path / "p.jsonl", [record])
    truth, own = own_truth(read(path))
    assert (truth["category"].to_pylist(), own["text"].to_pylist()) == (["a"], ["b"])
    del record["annotations"][0]["pred"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="item 1, event 1: no pred; is this PAM's input"):
        read(write(path, [record]))


@pytest.mark.parametrize(
    "record",
    [
        wowseg("\ud800.jpg", ["a"], ["dog"]),
        wowseg("1.jpg", ["a"], ["\ud800"]),
        *vpmllm("Region 1: a", "Region 1: \ud800"),
    ],
    ids=["image", "name", "name of VP-MLLM"],
)
def test_half_a_character_where_a_name_has_to_be(tmp_path: Path, record: dict[str, Any]) -> None:
    sound = json.loads(json.dumps(record).replace("\\ud800", "1"))
    path = write(tmp_path / "p.json", [sound, record])
    with pytest.raises(UserError, match=r"p\.json: item 2: half a character") as told:
        read(path)
    assert "\ud800" not in str(told.value)


@pytest.mark.parametrize("form", ["wowseg", "vpmllm", "osprey", "videorefer", "pam"])
def test_a_file_of_another_form_than_named(tmp_path: Path, form: str) -> None:
    with pytest.raises(UserError, match=f"{form}|item 1"):
        read(write(tmp_path / "p.jsonl", ROWS), form)
    with pytest.raises(UserError, match=f"{form}|item 1"):
        read(write(tmp_path / "p.json", [5]), form)


def test_an_image_whose_number_has_thousands_of_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [wowseg(f"{'9' * 5000}.jpg", ["a"], ["dog"])])
    with pytest.raises(UserError, match=r"item 1: image '9+ has no further region|about nothing in this benchmark"):
        located(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from([10**400, "9" * 5000, "Region 1: dog\nRegion 2: cat"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["10", "text", "\ud800"]), inner),
    max_leaves=6,
)
FORMS: list[dict[str, Any]] = [
    ROWS[0],
    {"image_id": 1, "mask_id": 10, "text": "dog", "benchmark": "a"},
    wowseg("1.jpg", ["a", "b"], ["dog", "cat"]),
    *vpmllm("Region 1: a\nRegion 2: b", "Region 1: dog\nRegion 2: cat"),
    {"question_id": 0, "image": "1.jpg", "text": "<Region 1>: A dog."},
    {"image": "1.jpg", "Answer": "dog", "pred": "a", "region_num": 1},
    {"query": "Describe it.", "10": "A dog."},
    {"type": "video", "image_root": "V_1", "annotations": [{"event_id": 1, "gt": "a", "pred": "b"}]},
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FORMS), st.sampled_from([".json", ".jsonl", ".csv"]), st.binary(max_size=2), st.data())
def test_any_file_is_read_or_refused_with_its_name(
    tmp_path: Path, form: dict[str, Any], suffix: str, damage: bytes, data: st.DataObject
) -> None:
    changed = {**form, data.draw(st.sampled_from([*form, "model"])): data.draw(JSON)}
    text = json.dumps([form, changed]) if suffix == ".json" else f"{json.dumps(form)}\n{json.dumps(changed)}\n"
    content = b"instance_id,text,model\n10,dog,m\n20,,m\n" if suffix == ".csv" else text.encode()
    place = data.draw(st.integers(0, len(content)))
    path = write(tmp_path / f"p{suffix}", content[:place] + damage + content[place + len(damage) :])
    told = ""
    try:
        found = read(path)
        assert len(locate(found, TRUTH)) == sum(found.regions["predicted"].to_pylist())
    except UserError as error:
        told = str(error)
    assert not told or (str(path) in told and len(told) < 1000)
