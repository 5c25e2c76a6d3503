"""Stage 3: what people said of the pairs, put together into a decision about each that needs no further look.

Derived and rewritten whole, in one commit, whenever what it is made of has changed. People who change their minds add
rows to `screenings`; only the latest of a person about a mask in a round is a vote.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, StringConstraints, field_validator

from pipeline import files, tables
from pipeline.config import Section
from pipeline.errors import UserError
from pipeline.run import Run
from stages import pairing, verdicts
from stages.remembering import inherited, remember

STEP = "decisions"
VERSION = 2
"""Raised when the same votes would give other rows."""

QUEUE, SCREENINGS = "queue", "screenings"
"""The steps that show pages and take in what was said of them, and their tables."""

SCREENING, CONFLICT, AUDIT, QUALIFICATION = "screening", "conflict", "audit", "qualification"
"""Rounds of the queue. The first two decide."""

RELEASE, DELETE, PRIVATE, UNCERTAIN = "release", "delete", "private", "uncertain"
KINDS = (RELEASE, DELETE, PRIVATE, UNCERTAIN)
PEOPLE, EXPERT, SIMULATED = "people", "expert", "simulated"
"""By whom it was decided. The last is an annotator's name as well: a program that answers in place of people."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_ORDER = ("at", "annotation_id", "verdict")
"""What makes one of two rows the later; the last so that no order of rows matters."""


class ScreeningConfig(Section):
    """Stage 3: whose votes decide, and how many are needed."""

    experts: list[Annotated[str, StringConstraints(min_length=1)]] = Field([])
    """Pseudonyms of annotators whose keep or delete overrides everybody else's."""

    votes: int = Field(1, ge=1)
    """People who must have looked at a pair on its page before the majority decides; an expert's verdict, or one from
    the conflict round, decides at once."""

    fast_seconds: float = Field(0.25, gt=0)
    """Seconds a tile below which a page counts as too fast: 24 tiles in 6 seconds cannot have been looked at."""

    @field_validator("experts")
    @classmethod
    def _persons(cls, names: list[str]) -> list[str]:
        if SIMULATED in names:
            raise ValueError(f"{SIMULATED} is no person and cannot be an expert")
        return names


class Made(NamedTuple):
    """What the step came to."""

    decisions: Counter[str]
    """Pairs by decision: release, delete, private, uncertain."""
    pending: int
    """Pairs for people, kept by stage 2 or in the queue, that too few have looked at."""
    conflicts: int
    """Pairs that votes leave open, to be shown singly."""
    rewritten: bool


class Resolved(NamedTuple):
    """What all votes come to."""

    decisions: pa.Table
    """The table of that name."""
    conflicts: pa.Table
    """Columns mask_id, image_id, category, ascending by mask."""
    pending: int


def build(run: Run, config: ScreeningConfig) -> Made:
    """Bring `decisions` up to the run's pairs and votes. Raises `UserError` for a time that cannot be read."""
    config = inherited(run, STEP, config)
    with run.lock(STEP):
        made_of = made_from(run, config)
        before = run.commits(STEP).get(STEP)
        rewritten = before is None or before.fingerprint != made_of
        if before is None or rewritten:
            run.sweep(STEP, [STEP])
            remember(run, STEP, config)
            before = _write(run, resolve(run, config), made_of)
    counts = {name.removeprefix("decisions."): count for name, count in before.counts.items()}
    decisions = Counter({name: counts[name] for name in KINDS if counts[name]})
    return Made(decisions, counts["pending"], counts["conflict"], rewritten)


def conflicts(run: Run, config: ScreeningConfig | None = None) -> pa.Table:
    """Return the pairs to be shown singly: mask_id, image_id, category, ascending by mask.

    They have tied votes, or nobody who looked was sure, and nobody has seen them singly. Raises `UserError` as `build`.
    """
    return resolve(run, inherited(run, STEP, config or ScreeningConfig())).conflicts


def made_from(run: Run, config: ScreeningConfig) -> str:
    """Return the hash of all that the decisions depend on, as it is now."""
    return files.sha256(msgspec.json.encode([VERSION, _sources(run), config.model_dump()]))[:16]


def _sources(run: Run) -> dict[str, list[str]]:
    """Return the files that the decisions are made of, by table."""
    steps = {"pairs": pairing.STEP, "verdicts": verdicts.STEP, QUEUE: QUEUE, SCREENINGS: SCREENINGS}
    return {table: run.parts(table, step) for table, step in steps.items()}


def current(run: Run) -> bool:
    """Say whether `decisions` is made from the run as it is."""
    before = run.commits(STEP).get(STEP)
    return before is not None and before.fingerprint == made_from(run, inherited(run, STEP, ScreeningConfig()))


def _write(run: Run, found: Resolved, made_of: str) -> Any:
    with run.part(STEP, STEP, STEP) as part:
        part.write(found.decisions)
    by_kind = Counter(found.decisions["decision"].to_pylist())
    counts = {**{name: by_kind[name] for name in KINDS}, "pending": found.pending}
    numbers = {f"decisions.{name}": count for name, count in {**counts, "conflict": len(found.conflicts)}.items()}
    facts = {"made_of": _sources(run)}  # for whoever builds on the decisions without this module
    return run.commit(STEP, STEP, {STEP: part}, fingerprint=made_of, counts=numbers, facts=facts)


# --- reading votes ---


def screened(run: Run) -> pa.Table:
    """Return all rows of `screenings` that answer to something in the queue, with text columns as strings.

    Added are `at`, the time of `submitted_at`, and `gold`: keep or delete, null where the answer is not known.
    Raises `UserError` for a time that cannot be read.
    """
    said = run.dataset(SCREENINGS, SCREENINGS).to_table()
    shown = run.dataset(QUEUE, QUEUE).to_table(columns=["page_id", "mask_id", "gold"])
    shown = shown.group_by(["page_id", "mask_id"]).aggregate([("gold", "max")]).rename_columns({"gold_max": "gold"})
    try:
        zoned = pc.replace_substring_regex(said["submitted_at"], r"(T[\d:.]+)$", r"\1Z")  # without a zone it is UTC
        at = zoned.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid as error:
        raise UserError(f"{run.folder.uri}: table screenings, column submitted_at: {error}") from error
    for name in ("round", "annotator", "verdict"):
        said = said.set_column(said.column_names.index(name), name, said[name].cast(pa.string()))
    return said.append_column("at", at).join(shown, ["page_id", "mask_id"], join_type="inner")


def latest(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return the last row of each combination of `keys` by time, sorted by them."""
    rows = rows.sort_by([(name, "ascending") for name in (*keys, *_ORDER)]).combine_chunks()
    last = np.zeros(len(rows), np.bool_)
    last[-1:] = True
    for name in keys if len(rows) else ():
        last[:-1] |= pc.not_equal(rows[name][1:], rows[name][:-1]).to_numpy()
    return rows.filter(pa.array(last))


def votes(run: Run, rounds: Sequence[str], mask_ids: Ints | None = None) -> pa.Table:
    """Return the votes of some rounds: the latest row per mask, annotator and round, sorted by these.

    Of all pairs, or of those in `mask_ids`, shape (masks,). A control tile is no vote, nor is what was said of another
    category than the pair has now. Raises `UserError` as `screened` does.
    """
    chosen = None if mask_ids is None else pc.field("mask_id").isin(pa.array(mask_ids))
    pairs = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "category"], filter=chosen)
    said = screened(run)
    said = said.filter(pa.array(among(said, "round", rounds) & said["gold"].is_null().to_numpy()))
    return latest(said.join(pairs, ["mask_id", "category"], join_type="inner"), ("mask_id", "annotator", "round"))


def deciders(run: Run, mask_ids: Ints) -> dict[int, set[str]]:
    """Return, by mask, the people who voted on it in the rounds that decide: others have to judge it in the audit.

    Masks that no person voted on are left out. Raises `UserError` as `screened` does.
    """
    found: defaultdict[int, set[str]] = defaultdict(set)
    for row in votes(run, (SCREENING, CONFLICT), mask_ids).select(["mask_id", "annotator"]).to_pylist():
        if row["annotator"] != SIMULATED:
            found[row["mask_id"]].add(row["annotator"])
    return dict(found)


def among(rows: pa.Table, column: str, values: Sequence[str]) -> Bools:
    """Return which rows have one of `values` in a string column, shape (rows,)."""
    return np.asarray(pc.is_in(rows[column], pa.array(values, pa.string())).to_numpy(), np.bool_)


# --- deciding ---


class _Votes:
    """Votes by the place of their pair; those of a program are left out where a person has voted."""

    def __init__(self, given: pa.Table, mask_ids: Ints, experts: Sequence[str]) -> None:
        place = np.searchsorted(mask_ids, given["mask_id"].to_numpy())
        person = ~among(given, "annotator", [SIMULATED])
        self.pairs = len(mask_ids)
        self.by_person: Bools = np.bincount(place[person], minlength=self.pairs) > 0
        counts = person | ~self.by_person[place]
        given = given.filter(pa.array(counts))
        self._place = place[counts]
        self._said = {name: among(given, "verdict", [name]) for name in ("keep", "delete", "private", "unsure")}
        self.expert = among(given, "annotator", experts)
        self.single = among(given, "round", [CONFLICT])

    def count(self, chosen: Bools) -> Ints:
        """Return how many of the chosen votes each pair has."""
        return np.bincount(self._place[chosen], minlength=self.pairs)

    def of(self, verdict: str, chosen: Bools | bool = True) -> Ints:
        """Return how many votes of that kind, and of the chosen, each pair has."""
        return self.count(self._said[verdict] & chosen)


def resolve(run: Run, config: ScreeningConfig) -> Resolved:
    """Decide about every pair of a run by its votes in the screening and the conflict round.

    One vote for private is enough: what shows a person is not published on the word of others. Else the keep and
    delete of experts override all others'; and those of the conflict round, where the region was seen large, those of
    the screening round. Of what is left the majority decides, once `config.votes` people have looked. Unsure is no
    vote. A tie, or nobody sure, is a conflict; one that the conflict round did not settle is uncertain, and not
    released: a benchmark has no use for what people cannot tell. A program's votes count only where no person voted.

    Raises `UserError` for a time that cannot be read.
    """
    pairs = run.dataset("pairs", pairing.STEP).to_table(columns=["mask_id", "image_id", "category"])
    pairs = pairs.sort_by("mask_id").combine_chunks()
    mask_ids = pairs["mask_id"].to_numpy()
    given = _Votes(votes(run, (SCREENING, CONFLICT)), mask_ids, config.experts)
    margin, tier = _strongest(given)
    private = given.of("private") > 0
    ripe = (tier > 0) | (given.count(~given.single) >= config.votes)
    uncertain = ripe & (margin == 0) & (given.count(given.single) > 0)
    decided = private | uncertain | (ripe & (margin != 0))
    undecided = ~decided & ~ripe & _for_people(run, pairs)
    decision = np.select([private, uncertain, margin > 0], [PRIVATE, UNCERTAIN, RELEASE], DELETE)
    expert = np.where(private, given.of("private", given.expert) > 0, tier > 1)
    by = np.where(expert, EXPERT, np.where(given.by_person, PEOPLE, SIMULATED))
    tallies = {name: given.of(name) for name in ("keep", "delete", "private", "unsure")}
    columns = {**{name: pairs[name] for name in pairs.column_names}, "decision": decision, "by": by, **tallies}
    whole = pa.table(columns).select(tables.SCHEMAS[STEP].names).cast(tables.SCHEMAS[STEP])
    return Resolved(whole.filter(pa.array(decided)), pairs.filter(pa.array(ripe & ~decided)), int(undecided.sum()))


def _strongest(given: _Votes) -> tuple[Ints, Ints]:
    """Return, by pair, keep less delete among the votes that outrank all others, and whose they are.

    Whose: -1 nobody's, 0 the screening round's, 1 the conflict round's, 2 and 3 the same of experts.
    """
    margin, tier = np.zeros(given.pairs, np.int64), np.full(given.pairs, -1)
    for number in range(4):
        chosen = (given.expert == (number > 1)) & (given.single == number % 2)
        keep, delete = given.of("keep", chosen), given.of("delete", chosen)
        said = keep + delete > 0
        margin, tier = np.where(said, keep - delete, margin), np.where(said, number, tier)
    return margin, tier


def _for_people(run: Run, pairs: pa.Table) -> Bools:
    """Return which pairs stage 2 kept, or the queue shows to be decided."""
    kept = run.dataset("verdicts", verdicts.STEP).to_table(columns=["mask_id", "category"], filter=pc.field("kept"))
    shown = run.dataset(QUEUE, QUEUE).to_table(columns=["mask_id", "category", "round", "gold"])
    deciding = pc.is_in(shown["round"].cast(pa.string()), pa.array([SCREENING, CONFLICT]))
    shown = shown.filter(pc.and_(deciding, shown["gold"].is_null())).select(["mask_id", "category"])
    here = pa.concat_tables([kept, shown]).join(pairs, ["mask_id", "category"], join_type="inner")
    return np.isin(pairs["mask_id"].to_numpy(), here["mask_id"].to_numpy())
