"""Stage 1, last step: every namer's opinion in, one category a mask out, by a rule that can be read.

A pure function of `names`, the reviewed category table and the rules: no model is asked, so a changed table or rule
costs seconds. The table is derived and rewritten whole, in one commit, whenever what it is made of has changed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import categories, files, tables
from pipeline.adjectives import Adjectives
from pipeline.categories import Categories
from pipeline.errors import UsageError
from pipeline.run import Run
from stages.remembering import inherited, remember

STEP = "pairs"
VERSION = 2
"""Raised when the same names and rules would give other rows."""

CATEGORIES = Path(__file__).parent.parent / "data_manifests" / "categories.csv"
ACCEPTED = CATEGORIES.with_name("accepted_names.csv")

Agreement = Literal["same", "synonym", "related", "different", "only-one"]
Verdict = Literal["keep", "flag", "drop"]

_ROWS = 1 << 20
"""Names held in memory at a time, about 1 GB of Python objects at most; more are done in several passes."""
_COLUMNS = ("mask_id", "image_id", "namer", "outcome", "category", "logprob", "score", "iou", "engine", "fingerprint")


class PairsConfig(Adjectives):
    """Stage 1 pairs: how the namers' opinions become one category. keep, flag (people see it first) or drop."""

    namers: list[str] = Field(default_factory=lambda: ["vlm", "grounded-sam"])
    """The namers, the most trusted first; others follow in the order of the alphabet. The first that has a name gives
    the category."""

    detectors: list[str] = Field(default_factory=lambda: ["grounded-sam"])
    """Namers that only say what they were asked to look for."""

    strong_score: float = Field(0.4, ge=0, le=1)
    """A detector's opinion is strong from this score on, with `strong_iou`. Grounding DINO's demo has 0.35."""

    strong_iou: float = Field(0.8, ge=0, le=1)
    """See strong_score."""

    same: Verdict = "keep"
    """All name the same category."""

    synonym: Verdict = "keep"
    """The names are accepted for each other (accepted_names.csv, or WordNet)."""

    related: Verdict = "keep"
    """One is more general than the other, or a part of it."""

    different_strong: Verdict = "flag"
    """The names differ, and the detector's opinion is strong."""

    different_weak: Verdict = "keep"
    """The names differ, and the detector's opinion is weak, or there is no detector among those who differ."""

    only_one: Verdict = "keep"
    """One namer alone, no detector."""

    only_detector_strong: Verdict = "flag"
    """A detector alone, its opinion strong."""

    only_detector_weak: Verdict = "drop"
    """A detector alone, its opinion weak."""

    table: str = ""
    """The reviewed table of categories; unset: data_manifests/categories.csv."""


class Opinion(NamedTuple):
    """A namer's name of a mask."""

    namer: str
    raw: str
    name: str
    """Canonical."""
    confidence: float | None
    score: float | None
    iou: float | None
    engine: str
    fingerprint: int


class Compared(NamedTuple):
    """What two canonical names are to each other."""

    agreement: Agreement
    similarity: float | None
    """Cosine of their sentence embeddings."""


class Decision(NamedTuple):
    """What becomes of a mask."""

    agreement: Agreement
    similarity: float | None
    rule: str
    verdict: Verdict


class Made(NamedTuple):
    """What the step came to."""

    pairs: int
    dropped: Counter[str]
    rewritten: bool


# --- the rule ---------------------------------------------------------------------------------------------


def decide(opinions: Sequence[Opinion], config: PairsConfig, compare: Callable[[str, str], Compared]) -> Decision:
    """Apply the rules to the opinions about one mask, the most trusted first; there is one at least.

    With three and more namers the closest of the others to the first counts, so a second opinion is never outvoted
    by a third that differs.
    """
    first, others = opinions[0], opinions[1:]
    detectors = [opinion for opinion in opinions if opinion.namer in config.detectors]
    strong = any(_is_strong(opinion, config) for opinion in detectors)
    if not others:
        rule = "only_one" if not detectors else f"only_detector_{'strong' if strong else 'weak'}"
        return Decision("only-one", None, rule, getattr(config, rule))
    order: tuple[Agreement, ...] = ("same", "synonym", "related", "different")
    closest = min((compare(first.name, other.name) for other in others), key=lambda c: order.index(c.agreement))
    rule = str(closest.agreement)
    if rule == "different":
        rule = f"different_{'strong' if strong else 'weak'}"
    return Decision(closest.agreement, closest.similarity, rule, getattr(config, rule))


def _is_strong(opinion: Opinion, config: PairsConfig) -> bool:
    return (opinion.score or 0) >= config.strong_score and (opinion.iou or 0) >= config.strong_iou


class Comparer:
    """Compares canonical names; each distinct pair once. `agreement` says what they are to each other, no more."""

    def __init__(self, accepted: Mapping[str, Sequence[categories.Accepted]], wordnet: Any) -> None:
        self._accepted, self._wordnet = accepted, wordnet
        self._compare = cache(self._compared)
        self.agreement = cache(self._agreement)

    def __call__(self, one: str, other: str) -> Compared:
        """Return what two names are to each other; the order does not matter."""
        return self._compare(*sorted((one, other)))

    def _compared(self, one: str, other: str) -> Compared:
        if one == other:
            return Compared("same", 1.0)
        from pipeline.embeddings import embed

        vectors = embed([one, other])
        return Compared(self.agreement(one, other), float(vectors[0] @ vectors[1]))

    def _agreement(self, one: str, other: str) -> Agreement:
        if one == other:
            return "same"
        kinds = {kind for a, b in ((one, other), (other, one)) for kind in self._kinds(a, b)}
        if "alias" in kinds or "synonym" in kinds:
            return "synonym"
        if kinds or one.endswith(f" {other}") or other.endswith(f" {one}"):  # wine glass and glass
            return "related"
        return "different"

    def _kinds(self, one: str, other: str) -> Iterator[str]:
        yield from (accepted.kind for accepted in self._accepted.get(one, ()) if accepted.name == other)
        relation = self._wordnet.relation(one, other) if self._wordnet else None
        if relation and relation != "antonym":
            yield relation


# --- the table --------------------------------------------------------------------------------------------


class Evidence(NamedTuple):
    """What names are compared with."""

    known: Categories
    accepted: Mapping[str, Sequence[categories.Accepted]]
    wordnet: Any
    """None where it is not installed."""

    def comparer(self, say: Callable[[str], None]) -> Comparer:
        """Return what compares names by all of it; says so where WordNet is missing."""
        if self.wordnet is None:
            say("WordNet is not installed (make wordnet): synonyms and more general names are told by the table alone")
        return Comparer(self.accepted, self.wordnet)


def evidence(config: PairsConfig) -> Evidence:
    """Open the category table of `config`, the accepted names and WordNet. Raises `UsageError` for a wrong table."""
    from pipeline.wordnet import open_wordnet

    known = categories.load(Path(config.table) if config.table else CATEGORIES, config)
    return Evidence(known, categories.load_accepted(ACCEPTED, known), open_wordnet())


def build(run: Run, config: PairsConfig, say: Callable[[str], None]) -> Made:
    """Bring `pairs` up to the run's names, the category table and the rules. Raises `UserError`."""
    config = inherited(run, STEP, config)
    found = evidence(config)
    made_of = _fingerprint(run, config, found.known, found.accepted, found.wordnet is not None)
    if not run.parts("masks"):
        raise UsageError(f"{run.folder.uri}: no masks, so no names of any. Make them first: rr7k stage-1")
    with run.lock(STEP):
        before = run.commits(STEP).get(STEP)
        if before and before.fingerprint == made_of:
            return Made(before.rows.get("pairs", 0), _dropped(before.counts), False)
        run.sweep(STEP, ["pairs"])
        remember(run, STEP, config)
        return _write(run, config, found.known, found.comparer(say), made_of)


def _fingerprint(run: Run, config: PairsConfig, known: Categories, accepted: Any, has_wordnet: bool) -> str:
    rules = config.model_dump()
    made_of = [VERSION, made_from(run), rules, known.fingerprint, accepted, has_wordnet]
    return files.sha256(msgspec.json.encode(made_of))[:16]


def made_from(run: Run) -> str:
    """Return the hash of the parts of `names` and `masks` that count now."""
    return files.sha256(msgspec.json.encode([run.parts("names"), run.parts("masks")]))[:16]


def _write(run: Run, config: PairsConfig, known: Categories, compare: Comparer, made_of: str) -> Made:
    canonical = cache(known.canonical)
    dropped: Counter[str] = Counter()
    with run.part(STEP, "pairs", STEP) as part:
        for names in _by_mask(run):
            rows = []
            for opinions, outcomes, image_id, mask_id in _opinions(names, config, canonical):
                decision = decide(opinions, config, compare) if opinions else None
                if decision is None or decision.verdict == "drop":
                    dropped[decision.rule if decision else outcomes[0]] += 1
                else:
                    rows.append({"mask_id": mask_id, "image_id": image_id, **_row(opinions, decision, made_of)})
            part.write(tables.from_rows("pairs", rows))
    counts = {"pairs.kept": part.rows, **{f"pairs.dropped.{reason}": n for reason, n in sorted(dropped.items())}}
    facts = {"rules": config.model_dump(), "categories": known.fingerprint, "made_from": made_from(run)}
    run.commit(STEP, STEP, {"pairs": part}, fingerprint=made_of, counts=counts, facts=facts)
    return Made(part.rows, dropped, True)


def _dropped(counts: Mapping[str, int]) -> Counter[str]:
    prefix = "pairs.dropped."
    return Counter({name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)})


def _by_mask(run: Run) -> Iterator[pa.Table]:
    """Yield the names of a share of the run's masks at a time, sorted by mask."""
    dataset, masks = run.dataset("names"), run.dataset("masks").to_table(columns=["mask_id"])["mask_id"]
    passes = 1
    while dataset.count_rows() > passes * _ROWS:
        passes *= 2
    for number in range(passes):
        share = pc.equal(pc.bit_wise_and(pc.field("mask_id"), passes - 1), number)
        names = dataset.to_table(columns=list(_COLUMNS), filter=share)
        yield names.filter(pc.is_in(names["mask_id"], masks)).sort_by("mask_id")


def _opinions(
    names: pa.Table, config: PairsConfig, canonical: Callable[[str], str]
) -> Iterator[tuple[list[Opinion], list[str], int, int]]:
    """Yield opinions, the most trusted first, outcomes, image and mask, for every mask in turn."""
    rank = {namer: place for place, namer in enumerate(config.namers)}
    masks = names["mask_id"].to_numpy()
    starts = [*np.flatnonzero(np.diff(masks, prepend=-1)).tolist(), len(masks)]
    rows = names.to_pylist()
    for start, stop in pairwise(starts):
        of_mask = sorted(rows[start:stop], key=lambda row: (rank.get(row["namer"], len(rank)), row["namer"]))
        opinions = [_opinion(row, canonical) for row in of_mask if row["category"]]
        yield opinions, [row["outcome"] for row in of_mask], of_mask[0]["image_id"], of_mask[0]["mask_id"]


def _opinion(row: dict[str, Any], canonical: Callable[[str], str]) -> Opinion:
    told = row["score"] if row["logprob"] is None else math.exp(min(row["logprob"], 0.0))
    name = canonical(row["category"])
    numbers = (row["score"], row["iou"], row["engine"], row["fingerprint"])
    return Opinion(row["namer"], row["category"], name, told, *numbers)


def _row(opinions: list[Opinion], decision: Decision, made_of: str) -> dict[str, Any]:
    detected = next((opinion for opinion in opinions if opinion.score is not None), None)
    prints = [made_of, *(opinion.fingerprint for opinion in opinions)]
    return {
        "category": opinions[0].name,
        "namer": opinions[0].namer,
        "namers": [opinion.namer for opinion in opinions],
        "raw_names": [opinion.raw for opinion in opinions],
        "names": [opinion.name for opinion in opinions],
        "agreement": decision.agreement,
        "similarity": decision.similarity,
        "confidence": opinions[0].confidence,
        "score": detected.score if detected else None,
        "iou": detected.iou if detected else None,
        "rule": decision.rule,
        "flagged": decision.verdict == "flag",
        "engines": sorted({opinion.engine for opinion in opinions}),
        "fingerprint": int(files.sha256(msgspec.json.encode(prints))[:15], 16),
    }
