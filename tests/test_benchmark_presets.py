"""Each protocol on the worked examples of wowseg_facts.md A.5: every row, every column, exactly."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import presets
from benchmark.metrics import semantic_iou
from benchmark.presets import OSPREY, PRESETS, RR7K_1, VPMLLM, WOWSEG, Preset, clean_wowseg_truth
from benchmark.similarity import Similarity
from pipeline.converted_labels import converted
from pipeline.errors import UsageError

RAW = dataclasses.replace(WOWSEG, truth=clean_wowseg_truth)
"""WOW-Seg's scorer on labels that its converter has not seen."""

Score = tuple[float, float]
# prediction, raw label, converted label; Semantic IoU and Similarity by wowseg, its scorer alone, osprey, rr7k-1
EXAMPLES: list[tuple[str, str, str, Score, Score, Score, Score]] = [
    ("traffic light", "traffic_light", "traffic light", (1, 1), (1, 1), (1, 1), (1, 1)),
    ("bat", "bat_(animal)", "bat", (1, 1), (1, 1), (1 / 2, 0.8025), (1, 1)),
    ("Teddy Bear", "teddy_bear", "teddy bear", (1, 1), (1, 1), (1, 1), (1, 1)),
    ("bottle: cap", "bottle:cap", "bottle: cap", (1, 1), (1, 1), (1 / 2, 0.7460), (1, 1)),
    ("cap", "bottle:cap", "bottle: cap", (1 / 2, 0.7460), (1 / 2, 0.7460), (1 / 2, 0.7460), (1 / 2, 0.7460)),
    ("mouse: scroll wheel", "mouse_(computer_equipment):scroll_wheel", "mouse: scroll wheel",
     (1, 1), (1, 1), (2 / 5, 0.8142), (1, 1)),
    ("bow-tie", "bow-tie", "bow tie", (0, 0.9568), (1, 1), (1, 1), (1, 1)),
    ("fire truck", "truck", "truck", (1 / 2, 0.7527), (1 / 2, 0.7527), (1 / 2, 0.7527), (1 / 2, 0.7527)),
    ("dog dog", "dog", "dog", (1, 0.9524), (1, 0.9524), (1, 0.9524), (1, 0.9524)),
    ("person.", "person", "person", (0, 0.9492), (0, 0.9492), (1, 1), (1, 1)),
    ("", "cat", "cat", (0, 0.3564), (0, 0.3564), (0, 0.3564), (0, 0.3564)),  # rr7k-1 does not compare it: zero
    ("cat , dog", "cat", "cat", (1 / 3, 0.8199), (1 / 3, 0.8199), (1 / 2, 0.8589), (1 / 2, 0.8589)),
    ("woman", "person", "person", (0, 0.6375), (0, 0.6375), (0, 0.6375), (0, 0.6375)),
    ("handbag", "backpack", "backpack", (0, 0.5707), (0, 0.5707), (0, 0.5707), (0, 0.5707)),
]  # fmt: skip


@pytest.fixture(scope="module")
def similarity(tmp_path_factory: pytest.TempPathFactory) -> Similarity:
    kept = Similarity(folder=tmp_path_factory.mktemp("embeddings"))
    texts = [
        (preset.prediction(row[0]), preset.truth(row[1])) for row in EXAMPLES for preset in (*PRESETS.values(), RAW)
    ]
    kept.of_pairs(*zip(*texts, strict=True))  # all at once
    return kept


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example[0]} | {example[1]}")
def test_worked_examples(example: tuple[str, str, str, Score, Score, Score, Score], similarity: Similarity) -> None:
    prediction, raw, label, *scores = example
    assert converted(raw) == label
    for preset, (iou, cosine) in zip((WOWSEG, RAW, OSPREY, RR7K_1), scores, strict=True):
        text, name = preset.prediction(prediction), preset.truth(raw)
        assert semantic_iou(text, name, preset.both_empty) == iou, preset.name
        assert similarity.of_pairs([text], [name]) == pytest.approx([cosine], abs=1e-3), preset.name


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_two_empty_texts(preset: Preset) -> None:
    if preset.both_empty is None:
        with pytest.raises(ZeroDivisionError):
            semantic_iou(preset.prediction(""), preset.truth(""), preset.both_empty)
    else:
        assert semantic_iou(preset.prediction(""), preset.truth(""), preset.both_empty) == 0


@pytest.mark.parametrize(
    ("prediction", "truth", "iou"),
    [
        ("bottle: cap", "bottle:cap", 1 / 3),  # nothing is done to the prediction: "bottle:" is a word
        ("traffic_light", "traffic_light", 0),
        ("Bat (animal)", "bat_(animal)", 1),
        ("person.", "person", 0),
    ],
)
def test_vpmllm(prediction: str, truth: str, iou: float) -> None:
    assert semantic_iou(VPMLLM.prediction(prediction), VPMLLM.truth(truth), VPMLLM.both_empty) == iou


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a: b: c", " b"),  # between the first and the second colon
        ("The answer is: dog.", " dog "),
        ("cat</s>", "cat"),
        (" cat, dog ", "cat  dog"),
        ("traffic_light", "traffic_light"),
        ("a:", ""),
    ],
)
def test_osprey_predictions(raw: str, expected: str) -> None:
    assert OSPREY.prediction(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  The “Fire Hydrant”. ", "the fire hydrant"),
        ("mouse (computer equipment)", "mouse"),
        ("(unknown)", "(unknown)"),  # nothing else is there
        ("t‑shirt", "t-shirt"),
        ("dog, brown; big", "dog brown big"),
        ("?!", ""),
    ],
)
def test_rr7k_1(raw: str, expected: str) -> None:
    assert RR7K_1.prediction(raw) == RR7K_1.truth(raw) == expected


@given(st.text(st.sampled_from("aB_-:(). ,"), max_size=12))
def test_names_that_are_clean_stay(text: str) -> None:
    for rule in (converted, WOWSEG.truth, OSPREY.truth):
        assert rule(rule(text)).split() == rule(text).split()


def test_an_unknown_preset() -> None:
    assert presets.find("osprey") is OSPREY
    with pytest.raises(
        UsageError, match=r"no preset 'wow-seg'\. Did you mean wowseg\? There are: rr7k-1, wowseg, osprey"
    ):
        presets.find("wow-seg")
