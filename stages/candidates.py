"""Which names may be one category: proposals with evidence, for people to decide; nothing is merged here.

Four kinds, the surest first: another spelling, plural and singular, a shared WordNet synset, near sentence embeddings.
What speaks against a pair is written beside it (`against`), so that nobody has to find it out again.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import categories, embeddings
from pipeline.inflection import singular
from pipeline.wordnet import WordNet
from stages import opposites
from stages.spelling import key as spelling_key

Kind = Literal["spelling", "plural", "synonym", "near-duplicate"]
Against = Literal["", "opposite", "hypernym", "hyponym", "part", "distinct", "sense"]
Vectors = npt.NDArray[np.float32]

_BLOCK = 1024
"""Rows of the similarity matrix at a time: 4 MB per 1,000 names."""

_SAME_SENSE = 0.6
"""Cosine from which two names that share a sense other than their first are proposed all the same.

With `WordNet.pictured`, over the synonyms that LVIS lists for its classes: 697 right of 737, where every shared sense
gives 854 of 1,037, such as can and toilet.
"""

_RELATED: dict[str, Against] = {"hypernym": "hypernym", "hyponym": "hyponym", "part": "part"}

EVIDENCE = ("kind", "variant_count", "canonical_count", "similarity", "wordnet", "against", "homograph", "decision")
"""Columns behind those of categories.csv; `decision` is the reviewer's."""


class Candidate(NamedTuple):
    """Two names that may be one: the rarer, and the more frequent that it would become."""

    variant: str
    canonical: str
    kind: Kind
    variant_count: int
    canonical_count: int
    similarity: float
    """Cosine of the sentence embeddings; nan where they were left out."""
    wordnet: str
    """What the canonical name is to the variant; empty for nothing, or without WordNet."""
    against: Against
    """Why this is no merge, by WordNet or by the words; empty for a proposal.

    `distinct`: WordNet has both, apart; or two species. `sense`: they are one only in a rarer sense.
    """
    homograph: str
    """Those of the two names that have senses in unrelated fields."""


def propose(
    counts: Mapping[str, int],
    wordnet: WordNet | None = None,
    threshold: float = 0.9,
    embed: Callable[[Sequence[str]], Vectors] | None = embeddings.embed,
) -> list[Candidate]:
    """Return every pair of normalised names that is a candidate, by kind, then by what a merge would move.

    `threshold` is a cosine; higher means fewer near-duplicates. Without `wordnet` there are no synonyms and only the
    words themselves speak against a pair; without `embed` there are no near-duplicates.
    """
    names = sorted(counts)
    vectors = embed(names) if embed else None
    places = {name: place for place, name in enumerate(names)}
    found: dict[tuple[str, str], Kind] = {}
    for kind, pairs in _pairs(names, wordnet, vectors, threshold):
        for pair in pairs:
            found.setdefault(pair, kind)
    judged = []
    for (a, b), kind in found.items():
        similarity = float(vectors[places[a]] @ vectors[places[b]]) if vectors is not None else float("nan")
        judged.append(_candidate(kind, *_directed(a, b, counts), counts, similarity, wordnet))
    order = {"spelling": 0, "plural": 1, "synonym": 2, "near-duplicate": 3}
    return sorted(judged, key=lambda c: (order[c.kind], -c.variant_count, -c.canonical_count, c.variant, c.canonical))


def proposals(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return those that nothing speaks against."""
    return [candidate for candidate in candidates if not candidate.against]


def summary(candidates: Iterable[Candidate]) -> dict[str, Counter[str]]:
    """Count by kind: `proposed`, or what speaks against."""
    counts: dict[str, Counter[str]] = {}
    for candidate in candidates:
        counts.setdefault(candidate.kind, Counter())[candidate.against or "proposed"] += 1
    return counts


def write_csv(candidates: Iterable[Candidate]) -> bytes:
    """Return a CSV with the columns of categories.csv, the evidence, and an empty `decision`.

    A row that was reviewed goes into categories.csv with its first five columns.
    """
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([*categories.COLUMNS, *EVIDENCE])
    for c in candidates:
        similarity = "" if np.isnan(c.similarity) else f"{c.similarity:.3f}"
        evidence = [c.kind, c.variant_count, c.canonical_count, similarity, c.wordnet, c.against, c.homograph, ""]
        writer.writerow([c.variant, c.canonical, c.kind, "", "", *evidence])
    return sink.getvalue().encode()


def _pairs(
    names: list[str], wordnet: WordNet | None, vectors: Vectors | None, threshold: float
) -> Iterator[tuple[Kind, Iterable[tuple[str, str]]]]:
    yield "spelling", _same(names, lambda name: [spelling_key(name)])
    yield "plural", _same(names, lambda name: [spelling_key(singular(name))])
    if wordnet:
        yield "synonym", _same(names, wordnet.senses)
    if vectors is not None:
        yield "near-duplicate", _near(names, vectors, threshold)


def _same(names: list[str], keys: Callable[[str], Iterable[object]]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of names that share a key."""
    groups: dict[object, list[str]] = {}
    for name in names:
        for key in keys(name):
            groups.setdefault(key, []).append(name)
    for group in groups.values():
        yield from combinations(group, 2)


def _near(names: list[str], vectors: Vectors, threshold: float) -> Iterator[tuple[str, str]]:
    for start in range(0, len(names), _BLOCK):
        rows, columns = np.nonzero(vectors[start : start + _BLOCK] @ vectors[start:].T >= threshold)
        for row, column in zip(rows, columns, strict=True):
            if row < column:
                yield names[start + row], names[start + column]


def _directed(a: str, b: str, counts: Mapping[str, int]) -> tuple[str, str]:
    """Return variant and canonical: the more frequent stays, then the singular, the shorter, the first."""
    canonical = min(a, b, key=lambda name: (-counts[name], singular(name) != name, len(name), name))
    return (b if canonical == a else a), canonical


def _candidate(
    kind: Kind, variant: str, canonical: str, counts: Mapping[str, int], similarity: float, wordnet: WordNet | None
) -> Candidate:
    relation = (wordnet.relation(variant, canonical) if wordnet else None) or ""
    double = [name for name in (variant, canonical) if wordnet and len(wordnet.topics(name)) > 1]
    return Candidate(
        variant,
        canonical,
        kind,
        counts[variant],
        counts[canonical],
        similarity,
        relation,
        _against(kind, variant, canonical, relation) or _meant(kind, variant, canonical, similarity, wordnet),
        "; ".join(double),
    )


def _against(kind: Kind, variant: str, canonical: str, relation: str) -> Against:
    """Judge by the words and by how WordNet relates them."""
    if kind in ("spelling", "plural"):
        return ""  # the same word, unless the two mean different things
    if relation == "antonym" or opposites.differ(variant, canonical):
        return "opposite"
    if relation in _RELATED:
        return _RELATED[relation]
    if variant.endswith(f" {canonical}"):  # a tennis ball is a ball
        return "hypernym"
    return "hyponym" if canonical.endswith(f" {variant}") else ""


def _meant(kind: Kind, variant: str, canonical: str, similarity: float, wordnet: WordNet | None) -> Against:
    """Judge by the senses that the two names have."""
    one, other = (wordnet.senses(variant), wordnet.senses(canonical)) if wordnet else ((), ())
    if kind == "plural":
        return ""
    if kind == "synonym":
        alike = wordnet is not None and wordnet.pictured(variant) & wordnet.pictured(canonical)
        return "" if alike or similarity >= _SAME_SENSE else "sense"
    if one and other:  # a pumpkinseed is a fish
        return "" if set(one) & set(other) else "distinct"
    return "distinct" if kind == "near-duplicate" and opposites.are_species(variant, canonical) else ""
