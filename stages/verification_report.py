"""The yes/no check of a run in numbers: what it dropped, how sure it was, how often it said yes to what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files
from pipeline.run import Run
from stages import asked_regions, head_tail, verdicts, verification_counts, verification_settings
from stages.asked_regions import Row
from stages.calibration import STEP as CALIBRATION
from stages.calibration import Calibration
from stages.verification_counts import CategoryCounts, Counts, Lowest, Share, share

PAGE, FIGURE = "verification.html", "verification.png"

SCORE_EDGES = np.linspace(0, 1, 41)
LEFTOVER_EDGES = np.logspace(-6, 0, 31)
"""Of the histograms; what lies below the first edge is counted in the first bin."""
LOOSE = 0.1
"""Leftover above which most of an answer's doubt is not between yes and no."""

_EACH = 3  # examples of a kind
_VERDICT = ("mask_id", "score", "evidence", "kept", *verification_counts.VERDICT)
_CHECK = ("mask_id", "evidence", "p_yes", "p_no", "leftover", *verification_counts.CHECK)


class Example(msgspec.Struct, frozen=True):
    """A region to look at."""

    kind: str
    """Why it was chosen, as in `surest kept`; no two of a kind have the same category."""
    row: Row
    """As `asked_regions` returns it."""
    threshold: float | None


class VerificationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the check came to. Pairs are counted in `verdicts`, everything else in `checks`."""

    made_by: dict[str, dict[str, int]]
    """Engine, model, revision, layout and prompt: answers by value."""
    head_pairs: int
    """Pairs of head categories, answered or not."""
    tail_pairs: int
    """Kept whatever was said, if they were asked about at all."""
    categories: list[CategoryCounts]
    """The highest drop rate first, by its lower limit."""
    dropped: Share
    """Of the pairs asked."""
    unclear: int
    """Of those dropped: neither a yes nor a no."""
    false_yes: Share
    """Of the controls: yes to a wrong category."""
    passed: int
    """Controls with a score above the threshold of the category asked: they would have been kept."""
    pair_scores: list[int]
    control_scores: list[int]
    """By bins of `SCORE_EDGES`."""
    leftovers: list[int]
    """By bins of `LEFTOVER_EDGES`."""
    loose: Share
    """Answers with a leftover above `LOOSE`, of those with probabilities."""
    answers: int
    text_only: int
    """Answers without probabilities."""
    thresholds: list[float]
    """Those in use, ascending."""
    calibration: Calibration | None
    examples: list[Example]

    def worst_pairs(self) -> list[CategoryCounts]:
        """Return the categories with a dropped pair, the highest rate first, by its lower limit."""
        return [counts for counts in self.categories if counts.dropped.count]

    def worst_controls(self) -> list[CategoryCounts]:
        """Return the categories to which a yes was wrong, the highest rate first, by its lower limit."""
        found = [counts for counts in self.categories if counts.false_yes.count]
        return sorted(found, key=lambda c: (-c.false_yes.lower, -c.false_yes.count, c.category))

    @property
    def embedded(self) -> bool:
        """Whether a stand-in for a model answered."""
        return "embedded" in self.made_by["engine"]


class Written(NamedTuple):
    """What was written."""

    path: str
    """Of the page."""
    figure: str
    report: VerificationReport


def write(run: Run) -> Written:
    """Write `verification.html` and `verification.png` into the run folder. Raises `UsageError` as `gather` does."""
    from stages import verification_figures, verification_page

    report = gather(run)
    run.folder.replace(FIGURE, verification_figures.whole(report))
    run.folder.replace(PAGE, verification_page.html(run, report).encode())
    return Written(files.join(run.folder.uri, PAGE), files.join(run.folder.uri, FIGURE), report)


def gather(run: Run) -> VerificationReport:
    """Count a run's verdicts and checks, batch by batch; memory grows with the number of categories alone.

    Raises `UsageError` when there are no verdicts.
    """
    counts, pairs, answers = Counts(), _Pairs(), _Answers()
    for batch in run.dataset("verdicts", verdicts.STEP).to_batches(columns=list(_VERDICT)):
        counts.add_verdicts(batch)
        pairs.add(batch)
    counts.require(run)
    for batch in run.dataset("checks", verification_settings.STEP).to_batches(columns=list(_CHECK)):
        counts.add_checks(batch)
        answers.add(batch, counts)
    every, said = counts.by_category(), counts.outcomes()
    return VerificationReport(
        made_by={name: dict(found.most_common()) for name, found in counts.made_by.items()},
        head_pairs=_head_pairs(run),
        tail_pairs=counts.tail,
        categories=every,
        dropped=share(sum(c.dropped.count for c in every), sum(c.dropped.total for c in every)),
        unclear=sum(c.unclear for c in every),
        false_yes=share(said["yes"], said.total()),
        passed=answers.passed,
        pair_scores=pairs.scores.tolist(),
        control_scores=answers.scores.tolist(),
        leftovers=answers.leftovers.tolist(),
        loose=share(answers.loose, answers.total - answers.text_only),
        answers=answers.total,
        text_only=answers.text_only,
        thresholds=sorted(set(counts.thresholds.values())),
        calibration=run.plan(CALIBRATION, Calibration),
        examples=_examples(run, counts, pairs, answers),
    )


def _head_pairs(run: Run) -> int:
    bands = run.dataset("bands", head_tail.STEP).to_table(columns=["pairs"], filter=pc.field("band") == head_tail.HEAD)
    return pc.sum(bands["pairs"]).as_py() or 0


class _Pairs:
    """The pairs' scores, and which of them to look at."""

    def __init__(self) -> None:
        self.scores = np.zeros(len(SCORE_EDGES) - 1, np.int64)
        self.best = {kind: Lowest(1, 0) for kind in ("nearest to the threshold", "surest kept", "surest dropped")}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows of `verdicts`."""
        batch = batch.filter(pc.and_(batch["score"].is_valid(), pc.not_equal(batch["reason"], "tail")))
        scores = batch["score"].to_numpy()
        self.scores += np.histogram(scores, SCORE_EDGES)[0]
        distance = np.abs(scores - batch["threshold"].to_numpy())
        told = pc.equal(batch["evidence"], "logprobs")
        self._take("nearest to the threshold", batch, told, distance)
        self._take("surest kept", batch, batch["kept"], -scores)
        self._take("surest dropped", batch, pc.equal(batch["reason"], "no"), scores)

    def _take(self, kind: str, batch: pa.RecordBatch, chosen: pa.Array, values: npt.NDArray[np.float64]) -> None:
        self.best[kind].add(batch.filter(chosen), values[chosen.to_numpy(zero_copy_only=False)])


class _Answers:
    """What the checks hold, pairs and controls, and which controls to look at."""

    def __init__(self) -> None:
        self.total = self.text_only = self.loose = self.passed = 0
        self.scores = np.zeros(len(SCORE_EDGES) - 1, np.int64)
        self.leftovers = np.zeros(len(LEFTOVER_EDGES) - 1, np.int64)
        self.worst = Lowest(1, 0)

    def add(self, batch: pa.RecordBatch, counts: Counts) -> None:
        """Take in rows of `checks`."""
        self.total += batch.num_rows
        leftovers = batch["leftover"].drop_null().to_numpy()
        self.text_only += batch.num_rows - len(leftovers)
        self.loose += int((leftovers > LOOSE).sum())
        self.leftovers += np.histogram(leftovers.clip(LEFTOVER_EDGES[0], 1), LEFTOVER_EDGES)[0]
        wrong = verification_counts.controls(batch)
        scores = verdicts.scores(pa.Table.from_batches([wrong]))
        wrong, scores = wrong.filter(pa.array(np.isfinite(scores))), scores[np.isfinite(scores)]
        self.scores += np.histogram(scores, SCORE_EDGES)[0]
        self.passed += int((scores > counts.threshold_of(wrong["category"])).sum())
        yes = pc.equal(wrong["outcome"], "yes")
        self.worst.add(wrong.filter(yes), -scores[yes.to_numpy(zero_copy_only=False)])


def _examples(run: Run, counts: Counts, pairs: _Pairs, answers: _Answers) -> list[Example]:
    chosen: dict[int, str] = {}
    for kind, lowest in pairs.best.items():
        new = [mask_id for _, mask_id in lowest.best() if mask_id not in chosen]
        chosen |= dict.fromkeys(new[:_EACH], kind)
    rows = asked_regions.pairs(run, list(chosen))
    wrong = asked_regions.controls(run, answers.worst.best()[:_EACH])
    found: Sequence[tuple[str, Row]] = [
        *((chosen[mask_id], rows[mask_id]) for mask_id in chosen),
        *(("surest false yes: asked with a wrong category", row) for row in wrong.values()),
    ]
    return [Example(kind, row, counts.thresholds.get(row["category"])) for kind, row in found]
