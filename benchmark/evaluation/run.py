"""From data sets to tables: each set is made and answered once, each line scored once; what is done is not done again.

OUT/data/              data.py
OUT/answers/SET/       run folder, as of `rr7k predict`; SET.json: what was answered, written last
OUT/scores/LINE.json   scoring.py; of names, LINE/ is what `rr7k score` writes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from benchmark import published, scorecard, truth
from benchmark.by_image import ByImage
from benchmark.evaluation import check, scoring
from benchmark.evaluation.check import Checked
from benchmark.evaluation.data import DataSets, Made, Segmenter
from benchmark.evaluation.plan import Plan, Task
from benchmark.evaluation.scoring import Inputs, Scored
from benchmark.perturb import Watcher
from pipeline import locks
from pipeline.decoding import UNDECODABLE
from pipeline.embeddings import model_files
from pipeline.errors import BusyError, UsageError, UserError
from pipeline.files import Folder, sha256
from pipeline.regions import RegionSamples
from pipeline.run import version

T = TypeVar("T")


class Answered(NamedTuple):
    """The answers about a data set."""

    path: Path
    answered: int
    refused: int
    """Regions that were given up."""
    total: int


class Model(NamedTuple):
    """The model that is evaluated; its package is not known here."""

    name: str
    setting: str
    """Hash of its weights and of how it is asked."""
    answer: Callable[[Path, Path], Answered]
    """Answers a data set into a run folder. Raises `UserError`."""
    tokens: Callable[[tuple[int, int], Sequence[str]], Sequence[int]]
    """Counts the tokens that stand for each mask (COCO run lengths) of an image of such a size (width, height)."""


class Told(NamedTuple):
    """Hears of the work."""

    doing: Callable[[str], None]
    steps: Callable[[str, int, int], None]
    """A title, further steps that are done, and of how many."""


class _Answers(msgspec.Struct, frozen=True):
    """What `OUT/answers/SET.json` holds."""

    stamp: str
    file: str
    sha256: str
    answered: int
    refused: int
    total: int
    tokens: float
    """For a mask, on average."""

    @property
    def waiting(self) -> int:
        """Regions that have no answer yet."""
        return self.total - self.answered - self.refused


class _Score(msgspec.Struct, frozen=True):
    stamp: str
    scored: Scored


class _Owner(msgspec.Struct, frozen=True):
    name: str
    setting: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a line."""

    table: int
    row: str
    data_set: str
    how: str
    measures: tuple[str, ...]
    paper: dict[str, float]
    """WOW-Seg's published numbers × 100, by measure, or those of the row that is repeated"""
    scored: Scored | None = None
    tokens: float | None = None
    """That stand for a mask, on average"""
    waiting: int = 0
    """Regions that have no answer yet: the numbers will change"""
    lacks: list[str] = []
    """What of its data is not there, and what to do"""
    error: str = ""
    """Why it failed"""
    notes: list[str] = []


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All lines, and what made them: the content of evaluation.json."""

    model: str
    setting: str
    made_by: str
    environment: dict[str, str]
    outcomes: list[Outcome]

    @property
    def complete(self) -> bool:
        """Whether no line failed or waits; those whose data is not there do not count."""
        return not any(one.waiting or one.error for one in self.outcomes)


def evaluate(
    plan: Plan,
    checked: Sequence[Checked],
    data: Path,
    out: Path,
    model: Model,
    segmenter: Segmenter,
    told: Told,
    *,
    redo: bool = False,
) -> Evaluation:
    """Do what there is data for; a set that fails is told in its lines, and the others go on.

    Raises `UsageError` where `out` is another model's, unless `redo` gives it to this one, or cannot be written;
    `BusyError` while another process works there.
    """
    with locks.hold(Folder(str(out / ".locks")), "evaluate"):
        _claim(out, model, redo)
        return _Work(plan, data, out, model, segmenter, told).everything(checked)


def _claim(out: Path, model: Model, redo: bool) -> None:
    path = out / "model.json"
    owner = _read(path, _Owner)
    if owner and owner.setting == model.setting:
        return
    if owner and not redo:
        told = f"{out}: holds answers of {owner.name}, by other weights or settings."
        raise UsageError(f"{told} Choose another --out; or, with --redo, all is asked again here.")
    _write(path, _Owner(model.name, model.setting))


class _Work:
    def __init__(self, plan: Plan, data: Path, out: Path, model: Model, segmenter: Segmenter, told: Told) -> None:
        self._plan, self._data, self._out, self._model, self._told = plan, data, out, model, told
        self._masks = 0
        watcher = Watcher(self._expect, lambda done: told.steps("replacing masks", done, self._masks))
        self._sets = DataSets(plan, data, out, segmenter, watcher)
        self._failed: dict[str, UserError] = {}

    def _expect(self, masks: int) -> None:
        self._masks = masks

    def everything(self, checked: Sequence[Checked]) -> Evaluation:
        """Go through the lines, those of one set together."""
        sets = [one.task.line.set for one in checked]
        places = sorted(range(len(checked)), key=lambda place: sets.index(sets[place]))
        found = {place: self._line(checked[place]) for place in places}
        return Evaluation(
            model=self._model.name,
            setting=self._model.setting,
            made_by=version(),
            environment=scorecard.environment(),
            outcomes=[found[place] for place in range(len(checked))],
        )

    def _line(self, checked: Checked) -> Outcome:
        task, line = checked.task, checked.task.line
        change, outcome = msgspec.structs.replace, _begun(task)
        if checked.lacks:
            return change(outcome, lacks=[check.told(self._plan, name, self._data) for name in checked.lacks])
        self._told.doing(f"table {task.table}: {line.data_set}, {line.row or line.how}")
        try:
            made, answers = self._answered(line.set)
            scored = self._scored(task, made, answers)
        except BusyError:
            raise
        except UserError as error:
            return change(outcome, error=str(error))
        tokens = answers.tokens if task.measures == "names" else None
        given_up = [f"{answers.refused:,} regions were given up, and have no answer"] if answers.refused else []
        notes = [*made.notes, *given_up]
        return change(outcome, scored=scored, tokens=tokens, waiting=answers.waiting, notes=notes)

    def _answered(self, name: str) -> tuple[Made, _Answers]:
        """Make a set and answer it; what failed once is not tried again for another table."""
        if name in self._failed:
            raise self._failed[name]
        try:
            made = self._sets.get(name)
            return made, self._answers(name, made)
        except UserError as error:
            self._failed[name] = error
            raise

    # --- answers ---

    def _answers(self, name: str, made: Made) -> _Answers:
        """Answer a set, unless it was answered by this model as it is."""
        folder = self._out / "answers"
        stamp = sha256(f"{self._model.setting} {made.stamp}".encode())
        before = _read(folder / f"{name}.json", _Answers)
        if before and before.stamp == stamp and not before.waiting and _hash(folder / before.file) == before.sha256:
            return before
        found = self._model.answer(made.folder, folder / name)
        told = _Answers(
            stamp=stamp,
            file=found.path.relative_to(folder).as_posix(),
            sha256=_hash(found.path),
            answered=found.answered,
            refused=found.refused,
            total=found.total,
            tokens=_mean_tokens(made.folder, self._model),
        )
        _write(folder / f"{name}.json", told)
        return told

    # --- scores ---

    def _scored(self, task: Task, made: Made, answers: _Answers) -> Scored:
        """Score a line, unless it was scored on the same."""
        line, folder = task.line, self._out / "scores"
        semantic = self._sets.get(line.semantic) if line.semantic else None
        synonyms = next(self._plan.places[line.synonyms].files(self._data)) if line.synonyms else None
        asked = str(msgspec.to_builtins(msgspec.structs.replace(line, row="")))  # two tables may have the same numbers
        made_of = [version(), model_files().weights, made.stamp, answers.sha256, asked]
        made_of += [semantic.stamp if semantic else "", _hash(synonyms) if synonyms else ""]
        stamp = sha256("\n".join(made_of).encode())
        path = folder / f"{line.key}.json"
        before = _read(path, _Score)
        if before and before.stamp == stamp:
            return before.scored
        inputs = Inputs(self._out / "answers" / answers.file, made.folder, semantic and semantic.folder, synonyms)
        written = _Score(stamp, scoring.score(task, inputs, folder / line.key, self._told.steps))
        _write(path, written)
        return (_read(path, _Score) or written).scored  # as it is found the next time


def _begun(task: Task) -> Outcome:
    line = task.line
    return Outcome(
        table=task.table,
        row=line.row,
        data_set=line.data_set,
        how=line.how,
        measures=task.names,
        paper=_paper(task),
    )


def _paper(task: Task) -> dict[str, float]:
    rows = published.beside(task.line.data_set, task.table)
    wanted = [row for row in rows if (row.model == task.line.row if task.line.row else row.model.startswith("WOW-Seg"))]
    return {row.measure: row.value for row in wanted if row.measure in task.names}


def _mean_tokens(folder: Path, model: Model) -> float:
    known = truth.load(folder)
    pictured = ByImage(RegionSamples(folder), known.split)
    counts: list[int] = []
    for part in pictured.parts():
        rows = pictured.rows(part, ("instance_id", "image_id", "segmentation"))
        for image in part:
            masks = [row["segmentation"]["counts"] for row in rows.get(image.image_id, [])]
            counts += model.tokens((image.width, image.height), masks) if masks else []
    return sum(counts) / len(counts)


def _hash(path: Path) -> str:
    return sha256(path.read_bytes()) if path.is_file() else ""


def _read(path: Path, kind: type[T]) -> T | None:
    """Read a record; none where there is none, or one of another version of the program."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, *UNDECODABLE):
        return None


def _write(path: Path, record: msgspec.Struct) -> None:
    Folder(str(path.parent)).replace(path.name, msgspec.json.format(msgspec.json.encode(record)))
