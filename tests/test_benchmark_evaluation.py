"""The paper's tables from local data: what is there, each thing done once, and the numbers beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import evaluation_data
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import small_benchmarks
from PIL import Image

from benchmark import importers, perturb, published, truth, vocabularies
from benchmark.evaluation import check, plan, report, run, scoring
from benchmark.evaluation.run import Answered, Evaluation, Outcome
from pipeline.errors import UsageError

PLAN = plan.load()
ALL = [1, 2, 3, 7]
MODELS, SYNONYMS = {"sam", "hq-sam", "sam2"}, {"cityscapes-synonyms", "ade-synonyms"}


class OneHot:
    """Equal texts are equal, others have nothing in common."""

    files = SimpleNamespace(weights="0" * 64)

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def of(self, texts: pa.Array) -> npt.NDArray[np.float32]:
        places = [self._places.setdefault(text, len(self._places)) for text in texts.to_pylist()]
        vectors = np.zeros((len(places), 1024), np.float32)
        vectors[np.arange(len(places)), places] = 1
        return vectors


@pytest.fixture(autouse=True)
def _known_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "Similarity", small_benchmarks.Known)
    monkeypatch.setattr(scoring, "Vectors", OneHot)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_data.everything(tmp_path_factory.mktemp("data"))


class Fake:
    """A model that knows every true name, unless told otherwise, and what it was asked."""

    def __init__(self, says: str = "", given: int | None = None) -> None:
        self.asked: list[str] = []
        self.says, self.given = says, given
        self.stops_at = ""

    def answer(self, folder: Path, target: Path) -> Answered:
        if target.name == self.stops_at:
            raise KeyboardInterrupt
        self.asked.append(target.name)
        known = truth.load(folder).instances
        names = zip(known["instance_id"].to_pylist(), known["category_raw"].to_pylist(), strict=True)
        answers: dict[int, str | None] = {one: self.says or name for one, name in list(names)[: self.given]}
        target.mkdir(parents=True, exist_ok=True)
        path = small_benchmarks.predict(target / "predictions.parquet", answers, model="fake")
        return Answered(path, len(answers), 0, len(known))

    def segmenter(self, kind: perturb.Source, folder: Path) -> perturb.Model:
        return perturb.Model(folder.name, f"{kind} weights", Blocks)

    def evaluate(
        self, data: Path, out: Path, tables: Sequence[int] = ALL, setting: str = "s", redo: bool = False
    ) -> Evaluation:
        model = run.Model("fake", setting, self.answer, lambda size, counts: [size[0]] * len(counts))
        told = run.Told(lambda text: None, lambda title, done, of: None)
        checked = check.check(PLAN, data, tables)
        return run.evaluate(PLAN, checked, data, out, model, self.segmenter, told, redo=redo)


class Blocks:
    """A segmenter that returns the box it is shown."""

    def segment(self, image: Image.Image, boxes_xyxy: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.bool_]]:
        for left, top, right, bottom in boxes_xyxy.astype(int).tolist():
            mask = np.zeros((image.height, image.width), np.bool_)
            mask[top:bottom, left:right] = True
            yield mask


def lines(found: Evaluation, table: int) -> dict[tuple[str, str, str], Outcome]:
    return {(one.data_set, one.row, one.how): one for one in found.outcomes if one.table == table}


def values(one: Outcome) -> dict[str, float | None]:
    assert one.scored, one
    return {name: value.value for name, value in one.scored.values.items()}


# --- the plan ---------------------------------------------------------------------------------------------


def test_the_plan_is_about_what_is_published_and_what_can_be_read() -> None:
    for task in PLAN.tasks(ALL):
        beside = published.beside(task.line.data_set, task.table)
        assert {row.measure for row in beside} == set(task.names)
        assert not task.line.row or task.line.row in {row.model for row in beside}
        assert not task.line.classes or task.line.classes in vocabularies.BUILT_IN
    assert {one.kind for one in PLAN.sets.values() if not one.of} <= set(importers.KINDS)
    needed = {name for task in PLAN.tasks(ALL) for name in PLAN.needed(task.line)}
    assert needed == set(PLAN.places)


def test_every_published_line_of_wowseg_is_in_the_plan() -> None:
    planned = {(task.table, task.line.data_set) for task in PLAN.tasks(ALL)}
    theirs = {(t, row.data_set) for t in ALL for row in published.rows() if row.source.endswith(f" Table {t}")}
    assert planned == theirs
    sources = {row.model for row in published.rows() if row.source.endswith(" Table 7")}
    assert {task.line.row for task in PLAN.tasks([7])} == sources


def test_a_plan_that_does_not_hold_together_is_refused(tmp_path: Path) -> None:
    text = Path(plan.__file__).with_name("plan.toml").read_text()
    path = tmp_path / "plan.toml"
    path.write_text(text.replace("[sets.paco]", "[sets.pako]"))
    with pytest.raises(ValueError, match="there is no paco"):
        plan.load(path)
    path.write_text(text.replace('split = "val"', 'spilt = "val"'))
    with pytest.raises(msgspec.ValidationError, match="spilt"):
        plan.load(path)


@pytest.mark.parametrize(("text", "found"), [("", ALL), ("7, 1", [1, 7]), ("2,2", [2])])
def test_tables_are_chosen(text: str, found: list[int]) -> None:
    assert plan.choose(PLAN, text) == found


@pytest.mark.parametrize("text", ["4", "1;2", "one", "1,,2"])
def test_other_tables_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="there are 1, 2, 3, 7"):
        plan.choose(PLAN, text)


# --- what is there ----------------------------------------------------------------------------------------


def test_of_an_empty_folder_everything_is_missing(tmp_path: Path) -> None:
    checked = check.check(PLAN, tmp_path, ALL)
    assert all(one.lacks == PLAN.needed(one.task.line) for one in checked)
    with pytest.raises(UsageError, match="no such folder"):
        check.check(PLAN, tmp_path / "other", ALL)


def test_what_is_there_is_found(data: Path) -> None:
    lacking = {name for one in check.check(PLAN, data, ALL) for name in one.lacks}
    assert lacking == MODELS | SYNONYMS


def test_it_says_what_to_put_where(tmp_path: Path) -> None:
    assert check.told(PLAN, "lvis-list", tmp_path).startswith("osprey/lvis_val_1k_category.json is not there: Osprey's")
    (tmp_path / "coco").mkdir()
    assert check.told(PLAN, "coco", tmp_path).startswith("coco holds no *2017/*.jpg: put there COCO's photographs")


def test_a_release_needs_its_images(tmp_path: Path) -> None:
    small_benchmarks.write(tmp_path / "rr7k", embedded=False)
    assert [one.lacks for one in check.check(PLAN, tmp_path, [1])][2:] == [["rr7k"], ["rr7k"]]
    assert "rr7k hydrate" in check.told(PLAN, "rr7k", tmp_path)


# --- the work ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def right(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Fake, Path]:
    """All tables by a model that is always right."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scoring, "Similarity", small_benchmarks.Known)
        patched.setattr(scoring, "Vectors", OneHot)
        model, out = Fake(), tmp_path_factory.mktemp("out")
        return model.evaluate(data, out), model, out


def test_who_is_always_right_has_all_the_points(right: tuple[Evaluation, Fake, Path]) -> None:
    found, _, out = right
    for table, wanted in ((1, {"similarity": 1, "iou": 1}), (3, {"mMaskAcc": 1}), (7, {"similarity": 1, "iou": 1})):
        scored = {key: one for key, one in lines(found, table).items() if not one.lacks}
        assert len(scored) == {1: 4, 3: 5, 7: 6}[table]
        assert all(values(one) == wanted for one in scored.values())
    segments = [one for one in lines(found, 2).values() if not one.lacks]
    # Pixels that no mask covers are of the first class; here they are void in the truth, and do not count.
    assert [values(one) for one in segments] == [{"PQ": 1, "mIoU": 1}] * 2
    assert found.complete
    assert (out / "scores/lvis-wowseg/scores.html").is_file()
    assert lines(found, 1)["LVIS", "", "wowseg"].tokens == small_benchmarks.WIDTH


def test_each_data_set_is_answered_once(right: tuple[Evaluation, Fake, Path]) -> None:
    _, model, _ = right
    sets = {task.line.set for task in PLAN.tasks(ALL)}
    made_by_models = {name for name, one in PLAN.sets.items() if one.model}
    assert sorted(model.asked) == sorted(sets - made_by_models)


def test_the_papers_numbers_stand_beside(right: tuple[Evaluation, Fake, Path]) -> None:
    found = right[0]
    assert lines(found, 1)["RR-7K", "", "rr7k-1"].paper == {"similarity": 69.1, "iou": 44.8}
    assert lines(found, 2)["Cityscapes", "", "bare names"].paper == {"PQ": 65.76, "mIoU": 66.4}
    assert lines(found, 7)["PACO", "Ellipse", "wowseg"].paper == {"similarity": 84.8, "iou": 73.4}


def test_nothing_is_done_twice(right: tuple[Evaluation, Fake, Path], data: Path, tmp_path: Path) -> None:
    found, _, out = right
    again = Fake()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and ".locks" not in path.parts}
    assert again.evaluate(data, out) == found
    assert again.asked == []
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    evaluation_data.context(data)
    known, other = ("PASCAL-Context-459", "", "bare names"), Fake(says="nonsense")
    assert values(lines(Fake().evaluate(data, out, [3]), 3)[known]) == {"mMaskAcc": 1}
    with pytest.raises(UsageError, match="holds answers of fake"):
        other.evaluate(data, out, [3], setting="other")
    assert other.asked == []
    found = lines(other.evaluate(data, out, [3], setting="other", redo=True), 3)[known]
    assert values(found) == {"mMaskAcc": 0.5}  # like none of them: the first, which one of two is
    assert other.asked == ["pascal-context-459"]


def test_a_killed_run_goes_on(data: Path, tmp_path: Path) -> None:
    model = Fake()
    model.stops_at = "ade20k-150"
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(data, tmp_path, [3])
    assert model.asked == ["ade20k-847", "pascal-context-459"]
    model.stops_at = ""
    assert model.evaluate(data, tmp_path, [3]).complete
    assert model.asked == ["ade20k-847", "pascal-context-459", "ade20k-150", "coco-stuff", "cityscapes"]


def test_data_that_changed_is_read_again_and_only_that(tmp_path: Path) -> None:
    data, out, model = tmp_path / "data", tmp_path / "out", Fake()
    evaluation_data.coco(data)
    model.evaluate(data, out, [7])
    listed = data / "osprey/lvis_val_1k_category.json"
    records = json.loads(listed.read_text())
    listed.write_text(json.dumps(records[:1]))
    model.asked.clear()
    found = model.evaluate(data, out, [7])
    assert model.asked == ["lvis", "lvis-rotated-box", "lvis-ellipse"]
    assert {one.scored.instances for one in found.outcomes if one.scored and one.data_set == "LVIS"} == {2}


def test_one_broken_data_set_does_not_stop_the_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    evaluation_data.coco(data)
    small_benchmarks.write(data / "rr7k")
    (data / "osprey/lvis_val_1k_category.json").write_text("{}")
    found = Fake().evaluate(data, tmp_path / "out", [1])
    assert not found.complete
    assert ["Osprey evaluation list" in one.error for one in found.outcomes] == [True, False, False, False]
    board = report.boards(found, PLAN)[0]
    assert any(note.startswith("LVIS, wowseg: failed: ") for note in board.notes)


def test_photographs_that_are_not_there_are_told(tmp_path: Path) -> None:
    data = tmp_path / "data"
    evaluation_data.coco(data)
    (data / "coco/val2017/000000000002.jpg").unlink()
    found = lines(Fake().evaluate(data, tmp_path / "out", [1]), 1)["LVIS", "", "wowseg"]
    assert found.notes == ["1 of 2 photographs are not there, or not as they should be: lvis/left_out.csv"]


def test_answers_that_are_waited_for_are_told(tmp_path: Path) -> None:
    data, out, rest = tmp_path / "data", tmp_path / "out", Fake()
    evaluation_data.context(data)
    found = Fake(given=3).evaluate(data, out, [3])
    assert [one.waiting for one in found.outcomes] == [0, 1, 0, 0, 0]
    assert not found.complete
    assert rest.evaluate(data, out, [3]).complete
    assert rest.asked == ["pascal-context-459"]


def test_segmenters_are_used_where_their_weights_lie(tmp_path: Path) -> None:
    data = tmp_path / "data"
    evaluation_data.coco(data)
    weights = data / "models/sam-vit-huge/0123abc"  # as `rr7k models fetch` puts them
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")
    found = lines(Fake().evaluate(data, tmp_path / "out", [7]), 7)
    assert found["LVIS", "SAM (Huge)", "wowseg"].notes == ["mean IoU with the true masks 1.000"]
    assert found["LVIS", "SAM2 (Large)", "wowseg"].lacks
    told = json.loads((tmp_path / "out/data/lvis-sam/perturbed.json").read_text())
    assert (told["model"], told["weights"]) == ("0123abc", "sam weights")


# --- the tables -------------------------------------------------------------------------------------------


def test_ours_stand_beside_the_papers(right: tuple[Evaluation, Fake, Path]) -> None:
    first, second, _, seventh = report.boards(right[0], PLAN)
    assert first.columns[:4] == ["LVIS S-Sim", "LVIS S-IoU", "LVIS tokens", "PACO S-Sim"]
    rows = {row.name: row.cells for row in first.rows}
    assert rows["WOW-Seg 1B"] == ["89.7", "82.4", "27", "88.5", "79.2", "", "69.1", "44.8", ""]
    assert rows["this model, wowseg"] == ["100.0", "100.0", "64.0"] * 3
    assert rows["this model, rr7k-1"] == [""] * 6 + ["100.0", "100.0", "64.0"]
    assert [row.cells for row in second.rows][-2:] == [["100.00"] * 4, ["–"] * 4]
    names = [row.name for row in seventh.rows]
    assert names[:4] == ["GT Mask", "GT Mask, this model", "RBB", "RBB, this model"]
    assert dict(zip(names, seventh.rows, strict=True))["SAM (Huge), this model"].cells == ["–"] * 4
    assert any(note.startswith("LVIS, SAM (Huge): blank: models/sam-vit-huge is not there") for note in seventh.notes)


def test_the_files_hold_all_of_it_and_text_stays_text(right: tuple[Evaluation, Fake, Path], tmp_path: Path) -> None:
    named = msgspec.structs.replace(right[0], model="<script>alert(1)</script>")
    report.write(named, PLAN, tmp_path)
    assert "<script>alert" not in (tmp_path / report.PAGE).read_text()
    kept = msgspec.json.decode((tmp_path / report.JSON).read_bytes(), type=Evaluation)
    assert kept == named
    facts = next(one.scored for one in kept.outcomes if one.scored).facts
    assert facts["benchmark"]["instances"] == 4
    assert len(facts["predictions"]) == 64
