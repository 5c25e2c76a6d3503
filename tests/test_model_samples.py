"""What a worker gets to learn from in a step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_benchmarks
import torch
from training_folders import config, instance, photograph, prepared, write, write_rows
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from model import debug, prompts, samples
from model.branches import Layout
from model.inputs import Preparer, Settings
from model.mixing import Visit
from model.samples import Portion, Portions
from model.train_config import TrainConfig
from model.training import Training
from model.wowseg import WowSeg
from pipeline import masks as rle


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return debug.debug(prompt="demo", tiles=1)


def portions(chosen: TrainConfig, out: Path, model: WowSeg, worker: int = 0, workers: int = 1) -> Portions:
    training = Training(config=chosen, out=out, data=prepared(chosen, out), device=torch.device("cpu"))
    work = training.work(debug.SIDE, debug.GRID)
    passes = chosen.training.micro_batch
    return Portions(training.plan(work), work, model.preparer, chosen.model.sequence(), passes, worker, workers)


def same(one: Portion, two: Portion) -> bool:
    assert one.names == two.names
    pairs = [pair for a, b in zip(one.batches, two.batches, strict=True) for pair in zip(a, b, strict=True)]
    return all(np.array_equal(a.pixels, b.pixels) and np.array_equal(a.row.tokens, b.row.tokens) for a, b in pairs)


def names(portion: Portion) -> list[str]:
    return [name for some in portion.names for name in some]


def test_workers_share_a_step_out(model: WowSeg, tmp_path: Path) -> None:
    chosen = config({"a": write(tmp_path / "a"), "b": write(tmp_path / "b", (2, 2, 2), first=50)}, batch=4)
    alone = portions(chosen, tmp_path, model)
    shared = [portions(chosen, tmp_path, model, worker, 2) for worker in range(2)]
    for step in range(alone.plan.steps):
        whole, parts = alone[step], [one[step] for one in shared]
        assert sorted(names(whole)) == sorted(name for part in parts for name in names(part))
        for count in (Portion.targets, Portion.tokens, Portion.masks):
            assert count(whole) == sum(map(count, parts))
        assert [len(some) for part in parts for some in part.batches] == [2, 2] if step < 4 else [1, 1]
    every = Counter(name for step in range(alone.plan.steps) for name in names(alone[step]))
    assert every == {f"a image {n}": 2 for n in range(1, 7)} | {f"b image {n}": 2 for n in range(50, 53)}


def test_a_worker_without_a_sample_repeats_one_that_counts_nothing(model: WowSeg, tmp_path: Path) -> None:
    chosen = config({"a": write(tmp_path / "a", (2,))}, batch=2, micro_batch=1, epochs=1)
    first, second = (portions(chosen, tmp_path, model, worker, 2)[0] for worker in range(2))
    assert (first.spare, first.masks(), first.tokens() > 0) == (False, 2, True)
    assert (second.spare, second.masks(), second.tokens(), second.targets()) == (True, 0, 0, 0)
    assert len(second.batches) == 1


@pytest.mark.parametrize("most", [1, 4])
def test_all_masks_are_seen_in_the_end(most: int, model: WowSeg, tmp_path: Path) -> None:
    chosen = config({"a": write(tmp_path / "a", (9, 2, 4))}, data={"masks": most}, batch=1, epochs=9)
    made = portions(chosen, tmp_path, model)
    seen: Counter[int] = Counter()
    for step in range(made.plan.steps):
        (visit,) = made.plan.step(step).visits
        regions = made._work.data["a"].shown(visit.image).regions
        places = samples.choose(made._work.data["a"].shown(visit.image), visit, most, chosen.training.seed)
        assert made[step].masks() == len(places) <= most
        seen.update(regions[place].instance_id for place in places)
    assert [seen[1000 + place] for place in range(9)] == [most] * 9
    assert sorted(seen) == [*range(1000, 1009), 2000, 2001, 3000, 3001, 3002, 3003]


def test_what_is_wrong_is_told_with_the_images_name(model: WowSeg, tmp_path: Path) -> None:
    rows = [instance(n, 0) for n in (1, 2)]
    broken = photograph(2, 1, image={"bytes": b"no picture", "path": "2.jpg"})
    chosen = config({"a": write_rows(tmp_path / "a", rows, [photograph(1, 1), broken])}, batch=2, epochs=1)
    portion = portions(chosen, tmp_path, model)[0]
    assert portion.failed.startswith("a image 2: a: image 2 in ")
    assert portion.batches == []
    assert (portion.masks(), portion.tokens()) == (0, 0)


def test_loaders_bring_the_same(model: WowSeg, tmp_path: Path) -> None:
    made = portions(config({"a": write(tmp_path / "a")}, batch=2, epochs=1), tmp_path, model)
    steps = made.plan.steps
    here, elsewhere = (list(samples.load(made, 1, steps, loaders)) for loaders in (0, 1))
    assert [portion.names for portion in here] == [made[step].names for step in range(1, steps)]
    assert all(same(one, two) for one, two in zip(here, elsewhere, strict=True))


@pytest.mark.parametrize("encoder", ["mask2token", "blur2token"])
def test_work_is_known_without_pixels(encoder: Any, tmp_path: Path) -> None:
    random, rows = np.random.default_rng(0), []
    for place in range(40):
        mask = np.zeros((small_benchmarks.HEIGHT, 64), np.bool_)
        top, left, height, width = (*random.integers(0, 24, 2), *random.integers(4, 24, 2))
        mask[top : top + height, left : left + width] = True
        box, area = [int(left), int(top), int(width), int(height)], int(mask.sum())
        segmentation = {"size": list(mask.shape), "counts": rle.encode(mask)}
        rows.append(instance(1, place, segmentation=segmentation, bbox_xywh=box, area=area))
    folder = write_rows(tmp_path / "a", rows, [photograph(1, 40)])
    chosen = config({"a": folder}, model={"encoder": encoder}, data={"masks": 40, "tiles": 4}, batch=1, epochs=1)
    training = Training(config=chosen, out=tmp_path, data=prepared(chosen, tmp_path), device=torch.device("cpu"))
    work, tokens = training.work(), debug.tokenizer()
    shown = Settings(prompt="training", encoder=encoder, tiles=4)
    preparer = Preparer(tokenizer=tokens, text=prompts.read(tokens, shown.template, "training"), settings=shown)
    visit = Visit("a", 0, 0)
    sample = Portions(training.plan(work), work, preparer, Layout(), 1, 0, 1).sample(visit)
    pictures = len(sample.pixels)
    true = len(sample.row.tokens) + 4 * 256 * pictures
    assert work(visit) == pytest.approx(true, rel=0.02)
    cells = int(sample.cells[-40:].sum())
    assert work.cells(work.data["a"].shown(0), range(40), (448, 448)) == pytest.approx(cells, rel=0.05)
