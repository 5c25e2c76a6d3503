"""A whole score: what counts, what is told apart, what is warned of; similarity is a stand-in with known values."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark import published
from benchmark.breakdowns import SIZES
from benchmark.families import families
from benchmark.metrics import Floats, semantic_iou
from benchmark.predictions import own_truth, read
from benchmark.presets import OSPREY, PRESETS, VPMLLM, WOWSEG, Preset
from benchmark.score import LONGEST, Result, score
from benchmark.similarity import Similarity
from pipeline.errors import UserError
from pipeline.wordnet import open_wordnet


class Known(Similarity):
    """1 for equal texts, else 0.5; 0.25 where the predicted one is empty."""

    def of_pairs(self, first: Sequence[str], second: Sequence[str]) -> Floats:
        pairs = zip(first, second, strict=True)
        return np.array([1.0 if a == b else 0.5 if a.strip() else 0.25 for a, b in pairs], np.float64)


SIMILARITY = Known()
CATEGORIES = pa.table(
    {
        "category": ["car", "dog", "gull"],
        "frequency": ["rare", "frequent", "common"],
        "aliases": [["automobile"], None, ["sea gull"]],
        "hypernyms": [["vehicle"], ["animal"], []],
    }
)


def truth(*names: str, **columns: Any) -> pa.Table:
    """Instances 1, 2, … two to an image."""
    ids = range(1, len(names) + 1)
    return pa.table({"instance_id": list(ids), "image_id": [i // 2 for i in ids], "category": list(names), **columns})


def said(*pairs: tuple[int, str | None], problems: Sequence[str | None] = ()) -> pa.Table:
    columns = {"instance_id": [i for i, _ in pairs], "text": pa.array([text for _, text in pairs], pa.large_string())}
    return pa.table(columns | ({"problem": list(problems)} if problems else {}))


def scored(*given: Any, **how: Any) -> Result:
    return score(*given, similarity=SIMILARITY, draws=20, **how)


def values(result: Result) -> dict[str, float]:
    return {name: found.value for name, found in result.scores.items()}


def column(result: Result, name: str) -> list[Any]:
    return list(result.per_instance[name].to_pylist())


# --- what counts ---

LONG = "a " * LONGEST
PROBLEMS = said(
    (1, "dog"), (2, "cat"), (4, "dog"), (4, "dog"), (5, None), (6, None), (7, " . "), (8, LONG),
    problems=[None, None, None, None, "no text", "overlong", None, None],
)  # fmt: skip


def test_ours_counts_everything_that_is_wrong_as_zero() -> None:
    result = scored(truth(*["dog"] * 8), PROBLEMS)
    kinds = {"answered": 2, "missing": 1, "duplicate": 1, "unparsable": 1, "overlong": 2, "empty": 1}
    assert (result.instances, result.counted, result.outcomes) == (8, 8, kinds)
    assert values(result) == {"similarity": 1.5 / 8, "iou": 1 / 8, "exact": 1 / 8, "synonym": 1 / 8}
    assert column(result, "similarity") == [1, 0.5, 0, 0, 0, 0, 0, 0]
    assert column(result, "outcome")[2:] == ["missing", "duplicate", "unparsable", "overlong", "empty", "overlong"]
    assert column(result, "text") == ["dog", "cat", None, None, None, None, " . ", LONG]
    zero = "6 of 8 instances count as zero: 1 missing, 1 duplicate, 1 unparsable, 2 overlong, 1 empty."
    assert result.warnings[0] == zero


@pytest.mark.parametrize("preset", [WOWSEG, OSPREY, VPMLLM], ids=lambda preset: preset.name)
def test_published_protocols_leave_out_what_is_missing_and_compare_the_rest(preset: Preset) -> None:
    result = scored(truth("dog", "dog", "dog", "dog"), said((1, "dog"), (2, ""), (3, LONG)), preset)
    assert (result.instances, result.counted) == (4, 3)
    assert column(result, "similarity") == [1, 0.25, 0.5, None]
    assert column(result, "iou") == [1, 0, 0, None]
    assert values(result)["similarity"] == pytest.approx(1.75 / 3)
    assert [result.outcomes[name] for name in ("answered", "missing", "overlong", "empty")] == [1, 1, 1, 1]
    assert result.warnings[0].startswith("1 of 4 instances have no prediction and are left out of the averages")


@pytest.mark.parametrize("preset", [WOWSEG, OSPREY, VPMLLM], ids=lambda preset: preset.name)
@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (said((1, "dog"), (1, "dog")), "1 instances have several predictions"),
        (said((1, None)), "1 instances have a prediction that is no text"),
        (said((1, None), problems=["overlong"]), "1 instances have an endless prediction"),
    ],
)
def test_published_protocols_refuse_what_they_cannot_have(preset: Preset, predictions: pa.Table, message: str) -> None:
    with pytest.raises(UserError, match=f"{message}, which {preset.name}'s script cannot score, first 1.*rr7k-1"):
        scored(truth("dog"), predictions, preset)


def test_two_texts_without_words() -> None:
    named = truth("dog", "_")
    answers = said((1, "dog"), (2, " "))
    assert column(scored(named, answers, WOWSEG), "iou") == [1, 0]
    for preset in (OSPREY, VPMLLM):
        with pytest.raises(UserError, match=f"category '_' and its prediction have no word.*{preset.name}'s script"):
            scored(named, answers, preset)
        assert column(scored(named, said((1, "dog"), (2, "a")), preset), "iou") == [1, 0]
    with pytest.raises(UserError, match="category '_' has nothing that could be compared"):
        scored(named, said((1, "dog"), (2, "a")))


def test_published_protocols_compare_with_the_name_as_the_source_writes_it() -> None:
    table = truth("bat (animal)", category_raw=["bat_(animal)"])
    ious = {name: values(scored(table, said((1, "bat")), preset))["iou"] for name, preset in PRESETS.items()}
    assert ious == {"rr7k-1": 1, "wowseg": 1, "osprey": 1 / 2, "vpmllm": 1 / 2}


def test_the_average_is_over_instances_and_the_macro_average_over_categories() -> None:
    # the worked example of averaging in wowseg_facts.md A.5
    table = pa.table({"instance_id": [1, 2, 3, 4], "image_id": [1, 1, 1, 2], "category": ["a", "a", "b", "a"]})
    result = scored(table, said((1, "a"), (2, "a"), (3, "x"), (4, "x")))
    assert result.scores["iou"].value == 2 / 4
    assert result.macro["iou"].value == (2 / 3 + 0) / 2
    assert 0 <= result.scores["iou"].lower <= 2 / 4 <= result.scores["iou"].upper <= 1


# --- lenient scores and WordNet ---


@pytest.mark.parametrize(
    ("category", "text", "exact", "synonym", "lenient"),
    [
        ("car", "Car.", 1, 1, 1),
        ("car", "a car", 0, 1, 1),  # an article, a plural
        ("car", "cars", 0, 1, 1),
        ("car", "automobiles", 0, 1, 1),
        ("car", "vehicle", 0, 0, 1),
        ("car", "animal", 0, 0, 0),  # another category's
        ("dog", "the animal", 0, 0, 1),
        ("gull", "sea gull", 0, 1, 1),
        ("gull", "gull bird", 0, 0, 0),
    ],
)
def test_accepted_names(category: str, text: str, exact: float, synonym: float, lenient: float) -> None:
    found = values(scored(truth(category), said((1, text)), categories=CATEGORIES))
    assert (found["exact"], found["synonym"], found["lenient"]) == (exact, synonym, lenient)
    assert found["lenient_similarity"] == (1 if lenient else 0.5)


def test_the_published_measures_stay_strict() -> None:
    found = values(scored(truth("car"), said((1, "vehicle")), WOWSEG, categories=CATEGORIES))
    assert (found["similarity"], found["iou"], found["lenient_similarity"], found["lenient_iou"]) == (0.5, 0, 1, 1)


def test_distance() -> None:
    wordnet = open_wordnet()
    if wordnet is None:
        pytest.skip("WordNet is not installed: make wordnet")
    table, answers = truth("gull", "gull", "gull", "gull"), said((1, "sea birds"), (2, "a seagull"), (3, "xyzzy"))
    result = scored(table, answers, wordnet=wordnet)
    assert column(result, "distance") == [3, 0, None, None]
    assert column(result, "relation") == ["too general", "same", None, None]
    assert values(result)["distance"] == 1.5


# --- what is told apart ---


def test_breakdowns() -> None:
    table = truth(
        "dog", "dog", "car", "gull",
        area_ratio=[0.0005, *SIZES],
        coarse_primary=["Animals", "Animals", None, "Animals"],
        namer_models=[["qwen2.5-vl-72b@1", "dino@2"], ["qwen2.5-vl-72b@1", "dino@2"], ["dino@2"], None],
        verifier_model=["internvl3-78b@3", None, None, None],
        screened_by=["people", "people", "nobody", "nobody"],
    )  # fmt: skip
    result = scored(table, said((1, "dog"), (3, "car")), categories=CATEGORIES, model="InternVL2-8B")
    told = {
        name: [(group.name, group.instances, group.scores["exact"].value) for group in groups]
        for name, groups in result.breakdowns.items()
    }
    assert told == {
        "frequency": [("rare", 1, 1), ("common", 1, 0), ("frequent", 2, 0.5)],
        "size": [
            ("tiny: below 0.1 %", 1, 1),
            ("small: 0.1 to 1 %", 1, 0),
            ("medium: 1 to 10 %", 1, 1),
            ("large: 10 % or more", 1, 0),
        ],
        "coarse group": [("Animals", 3, 1 / 3), ("not told", 1, 1)],
        "named by": [("qwen2.5-vl-72b@1 + dino@2", 2, 0.5), ("dino@2", 1, 1), ("not told", 1, 0)],
        "confirmed by": [("no model", 3, 1 / 3), ("internvl3-78b@3", 1, 1)],
        "screened by": [("nobody", 2, 0.5), ("people", 2, 0.5)],
        "kinship": [("labelled by a relative", 1, 1), ("by others", 3, 1 / 3)],
    }
    warned = "InternVL2-8B (InternVL) is a relative of what named or confirmed 1 of 4 labels, which may favour it"
    assert warned in result.warnings[-1]


def test_no_relatives_no_warning() -> None:
    table = truth("dog", namer_models=[["qwen2.5-vl-72b@1"]])
    assert scored(table, said((1, "dog")), model="osprey-7b").warnings == []
    assert "do not name their model" in scored(table, said((1, "dog"))).warnings[0]
    assert "relative" in scored(table, said((1, "dog")), model="Qwen3-VL").warnings[0]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", {"Qwen"}),
        ("OpenGVLab/InternVL2-8B", {"InternVL"}),
        ("internvl3-78b", {"InternVL", "Qwen"}),  # its language model is Qwen2.5
        ("WOW-Seg-1B", {"InternVL", "Qwen"}),
        ("PAM-3B", {"Qwen"}),
        ("spam filter", set()),
        ("Osprey-7B", {"Osprey"}),
        ("", set()),
    ],
)
def test_families(model: str, expected: set[str]) -> None:
    assert families(model) == expected


# --- input and output ---


@pytest.mark.parametrize(
    ("table", "predictions", "message"),
    [
        (truth(), said(), "no instances"),
        (truth("dog").drop(["image_id"]), said(), "no column image_id"),
        (pa.concat_tables([truth("dog")] * 2), said(), "instance_id more than once"),
        (truth("dog", None), said(), "instances without a category"),  # type: ignore[arg-type]
        (truth("dog"), said((1, "a"), *((i, "a") for i in range(5, 12))), "7 predictions .* first 5, 6, 7, 8, 9$"),
        (truth("dog"), said().drop(["text"]), "need the columns instance_id and text"),
    ],
)
def test_bad_input(table: pa.Table, predictions: pa.Table, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scored(table, predictions)


def test_no_predictions_at_all() -> None:
    assert values(scored(truth("dog"), said()))["similarity"] == 0
    result = scored(truth("dog"), said(), WOWSEG, categories=CATEGORIES)
    assert result.counted == 0
    assert math.isnan(result.scores["similarity"].value)
    assert json.loads(result.as_json())["scores"]["similarity"] == {"value": None, "lower": None, "upper": None}


def test_what_is_written(tmp_path: Path) -> None:
    result = scored(truth("dog", "car"), said((1, "dog"), (2, "x")), categories=CATEGORIES, model="m", seed=5)
    told = json.loads(result.as_json())
    assert told["facts"]["embedding_weights_sha256"] == SIMILARITY.files.weights
    assert told["facts"]["bootstrap"] == {"draws": 20, "seed": 5, "resampled": "images"}
    assert set(told["facts"]["measures"]) == set(told["scores"]) == set(told["macro"])
    assert "per_instance" not in told
    pq.write_table(result.per_instance, tmp_path / "instances.parquet")
    assert pq.read_table(tmp_path / "instances.parquet").num_rows == 2


def test_a_file_with_its_own_true_names(tmp_path: Path) -> None:
    item = {"image": ["1.jpg"], "pred_labels": ["bow-tie", "truck"], "gt_labels": ["bow tie", "fire truck", "cat"]}
    (tmp_path / "subset_0.json").write_text(json.dumps([item]))
    result = scored(*own_truth(read(tmp_path)), WOWSEG)
    assert (column(result, "iou"), result.counted) == ([0, 1 / 2, None], 2)


TEXT = st.sampled_from(["dog", "a dog", "Red_dog", "", ":", "car, dog", "vehicle"])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["dog", "car", "red dog"]), TEXT), min_size=1, max_size=12), st.randoms())
def test_each_instance_is_scored_as_alone_in_any_order(rows: list[tuple[str, str]], random: Any) -> None:
    table, answers = truth(*(name for name, _ in rows)), said(*enumerate([text for _, text in rows], 1))
    for preset in PRESETS.values():
        result = scored(table, answers, preset)
        alone = [semantic_iou(preset.prediction(t), preset.truth(n), preset.both_empty) for n, t in rows]
        assert column(result, "iou") == alone
        order = random.sample(range(len(rows)), len(rows))
        mixed = scored(table.take(order), answers.take(order[::-1]), preset)
        assert values(mixed) == pytest.approx(values(result))
        assert mixed.scores["iou"].lower == pytest.approx(result.scores["iou"].lower)


# --- published numbers ---


def test_published_numbers() -> None:
    rows = published.rows()
    assert len(rows) == 202
    assert {row.preset for row in rows} <= {"", *PRESETS}
    ours = [row for row in published.beside("RR-7K") if row.model == "WOW-Seg"]
    assert [(row.measure, row.value, row.preset) for row in ours] == [
        ("similarity", 69.1, "wowseg"),
        ("iou", 44.8, "wowseg"),
    ]
    lines = published.warnings(published.beside("LVIS"), "wowseg")
    assert lines[0].startswith(
        "Shikra (2023), GPT4RoI (2024), Osprey (2024), Ferret (2023): measured by osprey, not wowseg"
    )
    assert "DAM (2025), PAM (2025): measured by a protocol that is not published" in lines[2]
    assert published.warnings(ours, "wowseg") == []
