"""Settings of a training: what fits together, and what is said if they do not."""

from __future__ import annotations

from typing import Any

import pytest

from model.train_config import DataConfig, TrainConfig, TrainingConfig, load
from pipeline.errors import UsageError

FOLDERS = {"lvis": "a", "paco": "b"}


def told(**data: Any) -> TrainConfig:
    return TrainConfig(data=DataConfig(**data))


def test_weights_are_one_unless_given() -> None:
    assert told(folders=FOLDERS).learnt_from() == {"lvis": 1.0, "paco": 1.0}
    assert told(folders=FOLDERS, weights={"lvis": 0.5, "paco": 2}).learnt_from() == {"lvis": 0.5, "paco": 2.0}
    assert told(folders=FOLDERS, evaluated_on=["paco", "else"]).learnt_from() == {"lvis": 1.0}


def test_the_order_in_which_data_sets_are_given_means_nothing() -> None:
    assert list(told(folders={"b": "x", "a": "y"}).learnt_from()) == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "nothing to learn from: --data NAME=DIR"),
        ({"folders": FOLDERS, "evaluated_on": ["lvis", "paco"]}, "nothing to learn from"),
        ({"folders": FOLDERS, "weights": {"lvis": 1.0}}, "do not fit: paco has no weight"),
        ({"folders": FOLDERS, "splits": {"lvs": "train"}}, "data.splits: lvs is no data set; there are lvis, paco"),
        ({"folders": {"a": "a"}, "weights": {"a": 1.0, "b": 1.0}}, "do not fit: b has no folder"),
        (
            {"folders": FOLDERS, "evaluated_on": ["val"], "leave_out_evaluated": True},
            "no folder for val: --data val=DIR",
        ),
    ],
)
def test_data_sets_that_do_not_fit(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        told(**data).learnt_from()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.weights.lvis=0", "data.weights.lvis: Input should be greater than 0, got 0"),
        ("data.weights.lvis=-1", "data.weights.lvis: Input should be greater than 0, got -1"),
        ("data.weights.lvis=nan", "data.weights.lvis: Input should be a finite number"),
        ("data.weights.lvis=inf", "data.weights.lvis: Input should be a finite number"),
        ("data.folders.a/b=c", "data.folders.a/b.*: String should match pattern"),
        ("data.labels=pretty", "data.labels: Input should be 'raw', 'normal' or 'wowseg'"),
        ("training.epoch=2", "training.epoch: unknown key; did you mean epochs?"),
    ],
)
def test_wrong_settings(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        load(None, [text])


@pytest.mark.parametrize(("batch", "workers", "micro_batch", "passes"), [(32, 8, 2, 2), (4, 1, 4, 1), (6, 3, 1, 2)])
def test_passes_come_out_even(batch: int, workers: int, micro_batch: int, passes: int) -> None:
    training = TrainingConfig(batch=batch, workers=workers, micro_batch=micro_batch)
    assert TrainConfig(training=training).accumulated() == passes


def test_workers_that_do_not_divide_the_batch() -> None:
    training = TrainingConfig(batch=32, workers=6)
    with pytest.raises(UsageError, match=r"training.batch = 32 cannot be shared out: 6 workers × 2 images .* = 12"):
        TrainConfig(training=training).accumulated()


def test_a_training_may_go_on_elsewhere_but_not_otherwise() -> None:
    before = load("debug", ["data.folders.a=here"]).identity()
    moved = ["data.folders.a=there", "training.workers=2", "training.micro_batch=2", "training.keep=9"]
    assert load("debug", moved).identity() == before
    for text in ("training.epochs=61", "optimisation.learning_rate=1.0", "data.masks=3", "model.scale=3.0"):
        assert load("debug", [text]).identity() != before


# --- presets ---

WOWSEG = ("wowseg-1b", "wowseg-1b-clean", "wowseg-1b-internvl2", "wowseg-1b-internvl2_5")


@pytest.mark.parametrize("name", WOWSEG)
def test_presets_are_the_authors_settings(name: str) -> None:
    found = load(name, [])
    assert found.accumulated() == 2
    assert (found.data.masks, found.data.tiles, found.training.batch, found.training.epochs) == (30, 4, 32, 2)
    assert (found.optimisation.learning_rate, found.optimisation.weight_decay) == (1e-5, 0.05)
    assert found.data.weights.keys() == found.data.images.keys()
    assert found.data.leave_out_evaluated == (name == "wowseg-1b-clean")


def test_presets_differ_in_what_their_names_say() -> None:
    base, *others = (load(name, []).model_dump() for name in WOWSEG)
    for other, section, key in zip(
        others, ("data", "model", "model"), ("leave_out_evaluated", "path", "path"), strict=True
    ):
        assert other[section][key] != base[section][key]
        other[section][key] = base[section][key]
        assert other == base
