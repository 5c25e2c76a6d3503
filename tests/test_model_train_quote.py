"""What a training would take, without weights and if need be without data."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_folders import config, prepared, write

from model import debug, train_quote
from model.train_config import load
from model.train_quote import Quote
from pipeline.errors import UsageError


@pytest.fixture(scope="module")
def paper() -> Quote:
    return train_quote.quote(load("wowseg-1b", []), [])


def test_the_papers_training(paper: Quote) -> None:
    million = {name: count / 1e6 for name, count in paper.parameters.items()}
    assert million == pytest.approx({"vision": 304.0, "projector": 4.5, "language": 493.8, "head": 135.9}, abs=0.05)
    assert (paper.images, paper.steps, paper.passes) == (264_247, 16_516, 2)
    assert paper.steps == -(-2 * 264_247 // 32)
    assert (paper.assumed, paper.masks, paper.region) == (True, 12.0, 27.0)
    assert paper.state_gb == pytest.approx(16 * 0.9382, rel=1e-3)
    assert 5 < paper.activations_gb < 65  # with the weights it fits a GPU of 80 GB, as theirs did
    assert paper.total_eflop == pytest.approx(paper.step_tflop / 1e6 * 2 * 264_247 / 32)


def test_hours_are_operations_over_speed(paper: Quote) -> None:
    assert paper.hours(8) == pytest.approx(paper.total_eflop * 1e18 / (8 * 0.35 * 989e12) / 3600)
    assert paper.hours(16) == pytest.approx(paper.hours(8) / 2)
    assert paper.hours(1, peak=1e15, utilisation=1.0) == pytest.approx(paper.total_eflop / 3.6)


def test_checkpointing_costs_a_pass_and_saves_memory(paper: Quote) -> None:
    without = train_quote.quote(load("wowseg-1b", ["training.gradient_checkpointing=false"]), [])
    assert without.step_tflop == pytest.approx(0.75 * paper.step_tflop)
    assert without.activations_gb > 3 * paper.activations_gb
    assert without.state_gb == paper.state_gb


def test_single_masks_are_cheaper_each_image(paper: Quote) -> None:
    single = train_quote.quote(load("wowseg-1b", ["data.masks=1"]), [])
    assert single.masks == 1.0
    assert paper.step_tflop / 12 < single.step_tflop < paper.step_tflop


def test_with_data_the_means_are_theirs(tmp_path: Path) -> None:
    chosen = config({"a": write(tmp_path / "in", (3, 5, 1, 7))}, data={"masks": 5})
    found = train_quote.quote(chosen, prepared(chosen, tmp_path))
    assert (found.assumed, found.tiles, found.masks) == (False, 1.0, 3.5)
    assert (found.images, found.steps) == (4, 2)
    assert sum(found.parameters.values()) == sum(w.numel() for w in debug.debug().parameters())


def test_passes_must_come_out_even() -> None:
    with pytest.raises(UsageError, match="do not divide it"):
        train_quote.quote(load("wowseg-1b", ["training.workers=5"]), [])
