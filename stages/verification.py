"""Stage 2, second step: pairs in, a model's yes or no about each out; wrong names mixed in to measure its false yeses.

What is asked is planned first (`requests`), then asked and committed request by request like names are: killed at any
moment, the step loses what was not committed and asks no committed request again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.run import Run
from stages import asking, naming, naming_settings, questions, requests, todo, yes_no
from stages.engines.base import EngineConfig, part
from stages.ledger import Answer, Asker, Watcher
from stages.naming import Bounds, record, shards
from stages.questions import Article
from stages.quote import Quote, Task, quote
from stages.remembering import over, over_engine
from stages.rendering import Piece, Renderer, in_tables
from stages.requests import Bools, Pairs
from stages.sampling import stable_hash
from stages.todo import Subjects, Todo, limited
from stages.verification_preflight import ControlWatch, preflight
from stages.verification_settings import DECODING, STEP, Setting, VerifyConfig, setting, settled

TASK = Task(STEP, "check", 2, DECODING.max_tokens)
"""A yes or no, and its end."""


class Plan(msgspec.Struct, frozen=True):
    """What the run was last asked for: what a later command does not name stays as it is here."""

    verify: dict[str, Any]
    verifier: dict[str, Any]
    quote: Quote


class Request(NamedTuple):
    """A question to be asked."""

    mask_id: int
    category: str
    role: str


class Questions(NamedTuple):
    """Requests about masks that lie in one row group of a part of `masks`, those of one mask adjacent."""

    part: str
    row_group: int
    mask_ids: list[int]
    request_ids: list[int]
    categories: list[str]


class Planned(NamedTuple):
    """What is to be asked."""

    todo: Todo
    requests: dict[int, Request]
    """Those of `todo`."""


@dataclass(frozen=True)
class QuestionRenderer:
    """Makes prompts out of requests: each mask is drawn once for all that is asked about it."""

    masks: Renderer
    article: Article

    def __call__(self, pieces: pa.Table) -> Iterator[pa.Table]:
        """Render every piece (rows of `Questions`); yields tables of `PROMPTS`."""
        yield from in_tables(row for piece in pieces.to_pylist() for row in self._rows(Questions(**piece)))

    def _rows(self, piece: Questions) -> Iterator[dict[str, Any]]:
        asked: dict[int, list[tuple[int, str]]] = {}
        for mask_id, request_id, category in zip(piece.mask_ids, piece.request_ids, piece.categories, strict=True):
            asked.setdefault(mask_id, []).append((request_id, category))
        for row in self.masks.rows(Piece(piece.part, piece.row_group, list(asked))):
            for number, (request_id, category) in enumerate(asked[row["subjects"][0]]):
                text = questions.question(self.masks.question, category, self.article)
                yield {
                    **row,
                    "prompt_id": request_id,
                    "subjects": [request_id],
                    "parts": [*row["parts"][:-1], part(text)] if row["parts"] else [],
                    "shared_tokens": row["image_tokens"] if number else row["shared_tokens"],
                }


def inherited(run: Run, config: VerifyConfig, engine: EngineConfig) -> tuple[VerifyConfig, EngineConfig]:
    """Fill in what a command does not name with what the run has; another kind of engine inherits nothing."""
    before = run.plan(STEP, Plan)
    kept = over_engine(before.verifier, engine) if before else None
    return (over(before.verify, config), kept) if before and kept else (config, engine)


def _settings(run: Run, config: VerifyConfig, engine: EngineConfig) -> tuple[VerifyConfig, EngineConfig]:
    """Return the settings that hold. Raises `UsageError` where a stand-in would judge a real model's names."""
    config, engine = inherited(run, config, engine)
    named = run.plan(naming_settings.STEP, naming.Plan)
    own = named is not None and named.namer["kind"] == "embedded"
    if engine.kind == "embedded" and named is not None and not own and config.preflight == "refuse":
        raise UsageError(
            f"the names are of kind = {named.namer['kind']}, and verifier.kind = embedded is only for trying: it would "
            "drop most right ones. Set verifier.* (as --config cluster does), or verify.preflight = warn."
        )
    return settled(config, engine), engine


def build(
    run: Run,
    config: VerifyConfig,
    engine: EngineConfig,
    session: Callable[[], AbstractContextManager[Any]],
    watcher: Watcher,
    *,
    bounds: Bounds,
    redo: bool = False,
) -> None:
    """Ask about every pair in scope that has no answer yet, and about the wrong names of some.

    `session` opens a Ray session, called only when there is work. With `redo`, answers made under other settings and
    quarantined requests are asked again; without it, answers made otherwise are refused. Raises `UserError`.
    """
    config, engine = _settings(run, config, engine)
    with run.lock(STEP) as lock:
        found = requests.pairs(run)
        requests.extend(run, found, scope(found, config), config.control_share, watcher.say)
        planned = _planned(run, found, config, engine, redo=redo)
        asker = _asker(config, engine, planned.requests)
        run.sweep(STEP, asker.tables)
        pieces = limited(planned.todo.pieces, bounds.limit)
        cost = quote(run, _about(pieces, planned), TASK, config.shown, engine)
        run.save_plan(STEP, Plan(config.model_dump(), engine.model_dump(), cost))
        if not pieces:
            return
        with session() as ray_session:
            lock.works_through(ray_session.name)
            watcher.start(sum(len(piece.mask_ids) for piece in pieces))
            asked = _answers(run, pieces, planned, config, engine, watcher.say)
            record(asked, run, planned.todo, asker, watcher, bounds)


class Preview(NamedTuple):
    """What `build` would do."""

    quote: Quote
    answered: int
    """Requests that have an answer."""


def preview(run: Run, config: VerifyConfig, engine: EngineConfig, bounds: Bounds) -> Preview:
    """Return what `build` would cost: plans the requests, asks nothing. Raises `UserError` where it would refuse."""
    config, engine = _settings(run, config, engine)
    with run.lock(STEP):
        found = requests.pairs(run)
        requests.extend(run, found, scope(found, config), config.control_share, lambda _: None)
        planned = _planned(run, found, config, engine, redo=False)
    cost = quote(run, _about(limited(planned.todo.pieces, bounds.limit), planned), TASK, config.shown, engine)
    return Preview(cost, run.dataset("checks", STEP).count_rows())


def scope(found: Pairs, config: VerifyConfig) -> Bools:
    """Return which pairs are asked about."""
    return found.head if config.ask == "head" else np.ones_like(found.head)


def _planned(run: Run, found: Pairs, config: VerifyConfig, engine: EngineConfig, *, redo: bool) -> Planned:
    made = setting(config, engine)
    wanted = requests.wanted(run, found, scope(found, config))
    subjects, at = _subjects(run, made, wanted)
    todo.settle_changes(run, STEP, "checks", subjects, made, redo=redo, key="request_id")
    done = np.concatenate([todo.answered_ids(run, "checks", STEP, "request_id"), todo.quarantined_ids(run, STEP)])
    missing = ~np.isin(subjects.ids, done)
    roles = np.where(wanted.control[at], requests.CONTROL, requests.PAIR)[missing].tolist()
    asked = wanted.categories.take(pa.array(at[missing])).to_pylist()
    rows = map(Request, wanted.mask_ids[at[missing]].tolist(), asked, roles)
    known = dict(zip(subjects.ids[missing].tolist(), rows, strict=True))
    left = Todo(
        made,
        todo.every_piece(subjects, missing),
        todo.tries(run, STEP, subjects),
        dict(subjects.prints(missing)),
        {request_id: request.mask_id for request_id, request in known.items()},
    )
    return Planned(left, known)


def _subjects(run: Run, made: Setting, wanted: requests.Wanted) -> tuple[Subjects, requests.Ids]:
    """Return the wanted requests in the order of their masks on disk, and where in `wanted` each is."""
    masks = todo.fingerprints(run, made)
    order = np.argsort(masks.ids, kind="stable")
    place = np.searchsorted(masks.ids, wanted.mask_ids, sorter=order)
    there = np.flatnonzero(place < len(order))
    there = there[masks.ids[order[place[there]]] == wanted.mask_ids[there]]
    rank = order[place[there]]
    sequence = np.lexsort((wanted.control[there], rank))
    at, rank = there[sequence], rank[sequence]
    ids = wanted.request_ids[at]
    prints = stable_hash(masks.fingerprint[rank] ^ ids, 0).view(np.int64)
    return Subjects(ids, masks.image_ids[rank], prints, masks.place[rank], masks.places), at


def _about(pieces: Sequence[Piece], planned: Planned) -> list[Piece]:
    """Return the pieces with the masks in place of the requests, one for each."""
    return [piece._replace(mask_ids=[planned.requests[r].mask_id for r in piece.mask_ids]) for piece in pieces]


def _answers(
    run: Run,
    pieces: Sequence[Piece],
    planned: Planned,
    config: VerifyConfig,
    engine: EngineConfig,
    say: Callable[[str], None],
) -> Iterator[pa.Table]:
    """Yield tables of `ANSWERS`, once the engine has passed its preflight, while it does not fall for the controls."""
    controls = {id_ for id_, request in planned.requests.items() if request.role == requests.CONTROL}
    watch = ControlWatch(controls, _false_yeses(run), config.preflight, say)
    text = questions.template(config)
    masks = Renderer(run.folder.uri, shards(run), config.shown, text, engine)
    test = preflight(config, engine)
    asked = [_questions(piece, planned) for piece in pieces]
    render = QuestionRenderer(masks, config.article)
    tables = asking.stream(asked, test.prompts, render.__call__, engine, DECODING)
    yield from watch.passed_on(test.passed_on(tables, config.preflight, say))


def _false_yeses(run: Run) -> tuple[int, int]:
    """Return how many controls got a yes so far, and how many have an answer."""
    asked = run.dataset("checks", STEP).to_table(columns=["role", "outcome"])
    rows = zip(asked["role"].to_pylist(), asked["outcome"].to_pylist(), strict=True)
    outcomes = [outcome for role, outcome in rows if role == requests.CONTROL]
    return outcomes.count("yes"), len(outcomes)


def _questions(piece: Piece, planned: Planned) -> Questions:
    asked = [planned.requests[request_id] for request_id in piece.mask_ids]
    ids, categories = [request.mask_id for request in asked], [request.category for request in asked]
    return Questions(piece.part, piece.row_group, ids, piece.mask_ids, categories)


def _asker(config: VerifyConfig, engine: EngineConfig, known: dict[int, Request]) -> Asker:
    made = setting(config, engine)

    def rows(answer: Answer) -> list[dict[str, Any]]:
        (request_id,) = answer["subjects"]
        reading = yes_no.read(answer["text"], answer["likeliest"])
        numbers = ("prompt_tokens", "cached_tokens", "generated_tokens", "seconds")
        return [
            {
                **known[request_id]._asdict(),
                **reading._asdict(),
                **{name: answer[name] for name in numbers},
                "request_id": request_id,
                "image_id": answer["image_id"],
                "raw": answer["text"],
                "engine": engine.kind,
                "model": made.model,
                "revision": made.revision,
                "layout": made.layout,
                "prompt": made.prompt,
            }
        ]

    return Asker(STEP, STEP, "checks", rows, config.tries, engine.gpus_used, subject="request")
