"""Ablations: every setting trains, cells are the same each time, and what is killed goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from wowseg_models import one_thread  # noqa: F401 (a fixture)

from model import attention
from model.ablation import cells, plan, run, scenes, training, world
from model.ablation.cells import Cell
from model.ablation.plan import Form, Learning, Seeds
from model.ablation.settings import CONTRASTS, ROWS, SETTINGS, SHOWN
from model.branches import Layout
from model.inputs import Sample
from model.wowseg import WowSeg
from pipeline import cli
from pipeline.errors import UserError
from pipeline.files import Folder

ROOT = Path(__file__).parent.parent
FORM, LEARNING = Form(2, Seeds(1, 1, 2), 3), Learning(2, 1e-3, 0.0)
SILENT = run.Watcher(lambda steps: None, lambda steps: None)


@pytest.fixture(scope="module")
def model() -> WowSeg:
    return training.fresh(SETTINGS["branches"], 0)


# --- settings ---


def test_rows_and_contrasts_fit_together() -> None:
    names = [(row.table, row.name) for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.trained for row in ROWS} - {""} == set(SETTINGS)
    blank = {(row.table, row.name) for row in ROWS if not row.trained}
    for one in CONTRASTS:
        assert {(one.table, one.first), (one.table, one.second)} <= set(names) - blank
    assert SHOWN["branches"] == ["true", "rotated box", "ellipse", "eroded", "dilated"]
    assert all(SHOWN[name] == ["true"] for name in SETTINGS if name != "branches")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_takes_steps(name: str) -> None:
    setting = SETTINGS[name]
    trained = training.fresh(setting, 0)
    before = [weight.detach().clone() for weight in trained.parameters()]
    steps: list[int] = []
    course = training.train(trained, setting, 0, FORM, LEARNING, lambda: steps.append(1))
    assert len(steps) == len(course.losses) == FORM.steps
    assert np.isfinite(course.losses).all()
    assert any(not torch.equal(old, new) for old, new in zip(before, trained.parameters(), strict=True))
    shown = sum(len(training.sample(trained, setting, 0, number).rescued) for number in range(4))
    assert course.masks == (4 if setting.single else shown)
    assert not trained.training


@pytest.mark.parametrize("name", [name for name in SETTINGS if not SETTINGS[name].single])
def test_settings_differ_in_what_they_say(name: str, model: WowSeg) -> None:
    setting = SETTINGS[name]
    made = training.sample(training.fresh(setting, 0), setting, 0, 3)
    other = training.sample(model, SETTINGS["branches"], 0, 3)
    same_row = all(np.array_equal(one, two) for one, two in zip(made.row[:4], other.row[:4], strict=False)) and len(
        made.row.tokens
    ) == len(other.row.tokens)
    assert (same_row and np.array_equal(made.pixels, other.pixels)) == (name == "branches")


def test_single_masks_are_one_of_the_scenes_own_and_change_with_the_seed() -> None:
    labels = [str(number) for number in range(7)]
    found = [training.chosen(SETTINGS["sm"], seed, 5, labels, labels) for seed in range(40)]
    assert all(masks == names and len(masks) == 1 for masks, names in found)
    assert len({masks[0] for masks, _ in found}) == 7


def test_many_masks_are_any_number_in_any_order_the_same_for_all_settings() -> None:
    labels = [str(number) for number in range(5)]
    found = [training.chosen(SETTINGS["mm"], 0, number, labels, labels) for number in range(300)]
    assert all(masks == names and len(set(masks)) == len(masks) for masks, names in found)
    assert {len(masks) for masks, _ in found} == {1, 2, 3, 4, 5}
    assert {tuple(masks) for masks, _ in found} > {("4",), ("1", "0"), ("0", "1")}
    assert found == [training.chosen(SETTINGS["branches"], 0, number, labels, labels) for number in range(300)]


def test_each_word_is_a_token(model: WowSeg) -> None:
    tokens = model.preparer.tokenizer
    for name in world.names():
        for text in (name, f" {name}"):
            assert len(tokens.tokenize(text)) == (3 if ":" in name else 2)
    assert len(model.preparer.text.separator) == 1


def seen(sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which token sees which: (L, L)."""
    row = sample.row
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = attention.visible(
        row.reads[:, None], row.positions[:, None], row.branch, row.positions
    )
    return found


@pytest.mark.parametrize("name", ["mm", "region", "output", "both"])
def test_for_one_mask_packed_and_branches_are_the_same(name: str, model: WowSeg) -> None:
    scene = scenes.scene(9, 9)
    masks, labels = scene.masks()[:1], scene.labels()[:1]
    packed, ours = (model.preparer.sample(scene.image, masks, labels, one) for one in (SETTINGS[name].layout, Layout()))
    for column in ("tokens", "positions", "slots", "targets"):
        assert np.array_equal(getattr(packed.row, column), getattr(ours.row, column))
    assert np.array_equal(seen(packed), seen(ours))
    with torch.no_grad():
        outputs = [model([one]).logits for one in (packed, ours)]
    torch.testing.assert_close(*outputs)


# --- cells ---


def test_a_cell_is_the_same_each_time(tmp_path: Path) -> None:
    cell, made = Cell("sm", 1), []
    for name in ("one", "two"):
        where = Folder(str(tmp_path / name))
        cells.make(where, cell, FORM, LEARNING, lambda: None)
        result = msgspec.json.decode(where.read(cell.file), type=cells.Result)
        result.course.making = result.course.learning = 0.0
        made.append(result)
    assert made[0] == made[1]
    assert made[0].scored.keys() == {"true"}
    assert made[0].scored["true"].masks == [len(scenes.scene(0, number).regions) for number in range(3)]


def test_cells_go_seed_by_seed() -> None:
    found = cells.cells(FORM)
    assert len(found) == len(SETTINGS) + 3
    assert [cell.seed for cell in found] == [0] * len(SETTINGS) + [1] * 3
    assert found[0].file == "sm-seed0.json"


def test_other_steps_are_other_cells(tmp_path: Path) -> None:
    longer = msgspec.structs.replace(FORM, steps=3)
    more = msgspec.structs.replace(FORM, seeds=Seeds(5, 5, 5))
    faster = msgspec.structs.replace(LEARNING, rate=2e-3)
    first = cells.folder(tmp_path, FORM, LEARNING)
    assert cells.folder(tmp_path, more, LEARNING) == first
    assert cells.folder(tmp_path, longer, LEARNING) != first != cells.folder(tmp_path, FORM, faster)


# --- kill and resume ---

PROGRAM = """
import sys
from pathlib import Path
from model.ablation import run
from model.ablation.plan import Form, Learning, Seeds
if __name__ == "__main__":
    watcher = run.Watcher(lambda steps: print(steps, flush=True), lambda steps: None)
    run.run(Path(sys.argv[1]), Form(5, Seeds(1, 1, 1), 1), Learning(1, 1e-3, 0.0), 2, watcher)
"""


def started(folder: Path) -> subprocess.Popen[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    place = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, program, folder / "out"], env=place, stdout=subprocess.PIPE, text=True)


@pytest.mark.timeout(120)
def test_killed_it_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    first = started(tmp_path)
    written: dict[Path, bytes] = {}
    while len(written) < 2:
        assert first.poll() is None
        time.sleep(0.05)
        written = {path: path.read_bytes() for path in tmp_path.glob("out/cells/*/*.json")}
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = started(tmp_path)
    told, _ = second.communicate()
    assert second.returncode == 0
    there = {path: path.read_bytes() for path in tmp_path.glob("out/cells/*/*.json")}
    assert len(there) == len(SETTINGS)
    assert all(there[path] == data for path, data in written.items())
    assert int(told) <= 5 * (len(SETTINGS) - 2)


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    where = cells.folder(tmp_path, FORM, LEARNING)
    for cell in cells.cells(FORM):
        course = training.Course([], 0, 0, 0)
        where.replace(cell.file, msgspec.json.encode(cells.Result(cell.setting, cell.seed, course, {})))
    asked: list[int] = []
    run.run(tmp_path, FORM, LEARNING, 2, run.Watcher(asked.append, asked.append))
    assert sum(asked) == 0


def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    where = cells.folder(tmp_path, FORM, LEARNING)
    Path(where.uri).mkdir(parents=True)
    (Path(where.uri) / "sm-seed0.json").mkdir()  # in the way of the file
    with pytest.raises(UserError, match="ended with code 1"):
        run.run(tmp_path, FORM, LEARNING, 1, SILENT)


# --- the command ---


def test_the_plan_is_told(tmp_path: Path) -> None:
    known = plan.load()
    told = CliRunner().invoke(cli.app, ["ablation", "--out", str(tmp_path / "out"), "--dry-run"])
    assert told.exit_code == 0
    seeds = known.full.seeds
    assert f"{5 * seeds.branches + 4 * seeds.packed + 3 * seeds.single}, of which 0 are done" in told.stdout
    assert not (tmp_path / "out").exists()
