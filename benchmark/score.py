"""Scores of a model's predictions: metrics with intervals, what was counted and what not, and where it does badly.

A truth table is the table `instances` of a data set (pipeline/regions.py), or any with `instance_id`, `image_id` and
`category`; the other columns it has there (`category_raw`, `area_ratio`, `coarse_primary`, `namer_models`,
`verifier_model`, `screened_by`) are used where they are. The published protocols compare with `category_raw`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmark.bootstrap import DRAWS, Interval, Resamples, interval
from benchmark.breakdowns import Grouping, groupings, relatives
from benchmark.families import families
from benchmark.metrics import Floats, Hierarchy, Ints, macro_mean, micro_mean, semantic_iou
from benchmark.prediction_values import OVERLONG
from benchmark.presets import RR7K_1, Preset
from benchmark.similarity import Similarity
from pipeline.categories import Categories
from pipeline.errors import UserError
from pipeline.run import version
from pipeline.wordnet import WordNet

Objects = npt.NDArray[np.object_]

MEASURES = {
    "similarity": "Semantic Similarity: cosine of the sentence embeddings",
    "iou": "Semantic IoU: common words / all words",
    "exact": "share that is the category's name, in normal form",
    "synonym": "share that is its name or an alias, whatever article and number",
    "lenient_similarity": "the largest similarity to the name, an alias or a hypernym; 1 where lenient is",
    "lenient_iou": "the largest Semantic IoU with the name, an alias or a hypernym; 1 where lenient is",
    "lenient": "share that is the name, an alias or a hypernym, whatever article and number",
    "distance": "links in WordNet between the two names, of those that it knows; lower is better",
}
"""What is measured, per instance and on average; all but the distance: higher is better, 1 at most."""

LONGEST = 60
"""Characters of a predicted name, normalised; more is overlong. No longer name is given by stage 1 (stages/answers.py);
the longest of V3Det's 13,204 has 56."""

MISSING, DUPLICATE, UNPARSABLE, EMPTY, ANSWERED = "missing", "duplicate", "unparsable", "empty", "answered"
OUTCOMES = (ANSWERED, MISSING, DUPLICATE, UNPARSABLE, OVERLONG, EMPTY)

_SHOWN = 5
_ALL = "all"


class Group(msgspec.Struct, frozen=True):
    """The scores of some of the instances."""

    name: str
    instances: int
    scores: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model scores."""

    model: str
    preset: str
    instances: int
    counted: int
    """Instances in the averages."""
    outcomes: dict[str, int]
    """Instances by what was predicted: answered, missing, duplicate, unparsable, overlong, empty."""
    scores: dict[str, Interval]
    """By measure, averaged over instances, as published."""
    macro: dict[str, Interval]
    """The same averaged over categories, so that rare ones weigh as much."""
    breakdowns: dict[str, list[Group]]
    warnings: list[str]
    facts: dict[str, Any]
    """What the result depends on beside its input: rules, embedding weights, seed, versions."""
    per_instance: pa.Table
    """instance_id, image_id, category, text, outcome, the measures, and relation: same, too general, too specific, or
    other, in WordNet."""

    def as_json(self) -> bytes:
        """Return all but the rows."""
        fields = {name: value for name, value in vars(self).items() if name != "per_instance"}
        return msgspec.json.format(msgspec.json.encode(fields))


class _Pairs(NamedTuple):
    """Distinct pairs of text and category, because most occur many times, and which pair each answer is."""

    texts: list[str]
    categories: list[str]
    raw: list[str]
    """The category as the source writes it."""
    of: Ints


def score(
    truth: pa.Table,
    predictions: pa.Table,
    preset: Preset = RR7K_1,
    *,
    categories: pa.Table | None = None,
    similarity: Similarity | None = None,
    wordnet: WordNet | None = None,
    model: str = "",
    draws: int = DRAWS,
    seed: int = 0,
) -> Result:
    """Score predictions, as `benchmark.predictions.locate` returns them or any table with `instance_id` and `text`.

    `categories` is the data set's table of that name, with frequencies, aliases and hypernyms: without it there are no
    lenient scores. Without `wordnet` there is no distance. `model` names what is scored, to find its relatives among
    the labellers.

    Raises `UserError` for a truth table without rows or names, ids that are not in it, and what a published protocol
    cannot score.
    """
    similarity = similarity or Similarity()
    truth = _checked(truth)
    outcomes, texts = _outcomes(truth, predictions, preset)
    scored = np.isin(outcomes, (ANSWERED, EMPTY, OVERLONG) if preset.published else (ANSWERED,))
    pairs = _pairs(truth, texts, scored, preset)
    measured, relations = _measure(pairs, preset, similarity, categories, wordnet)
    values = {name: _spread(name, of_pairs, pairs, scored, preset) for name, of_pairs in measured.items()}
    columns = np.column_stack(list(values.values()))
    related = relatives(truth, model)
    resamples = Resamples(truth["image_id"].to_numpy(), draws, seed)
    names = list(values)
    everything = Grouping(_ALL, [_ALL], np.zeros(len(truth), np.int64))
    groups = _groups([everything, *groupings(truth, categories, related)], columns, names, resamples)
    (overall,) = groups.pop(_ALL)
    counts = {name: int((outcomes == name).sum()) for name in OUTCOMES}
    relation = np.full(len(truth), None, object)
    relation[scored] = np.array(relations, object)[pairs.of]
    return Result(
        model=model,
        preset=preset.name,
        instances=len(truth),
        counted=int((~np.isnan(columns[:, 0])).sum()),
        outcomes=counts,
        scores=overall.scores,
        macro=_macro(truth, columns, names, resamples),
        breakdowns=groups,
        warnings=[*_coverage(counts, preset), *_kinship(related, model)],
        facts={
            "preset": preset.about,
            "measures": {name: MEASURES[name] for name in names},
            "embedding_weights_sha256": similarity.files.weights,
            "bootstrap": {"draws": draws, "seed": seed, "resampled": "images"},
            "made_by": version(),
        },
        per_instance=_per_instance(truth, texts, outcomes, values, relation),
    )


def _per_instance(
    truth: pa.Table, texts: Objects, outcomes: Objects, values: Mapping[str, Floats], relation: Objects
) -> pa.Table:
    columns = {
        **{name: truth[name] for name in ("instance_id", "image_id", "category")},
        "text": pa.array(texts, pa.large_string()),
        "outcome": pa.array(outcomes, pa.string()),
        **{name: pa.array(column, from_pandas=True) for name, column in values.items()},
        "relation": pa.array(relation, pa.string()),
    }
    return pa.table(columns)


# --- what was predicted of what ---


def _checked(truth: pa.Table) -> pa.Table:
    missing = [name for name in ("instance_id", "image_id", "category") if name not in truth.column_names]
    if missing:
        raise UserError(f"the benchmark has no column {', '.join(missing)}")
    if not len(truth):
        raise UserError("the benchmark has no instances; is the split or the filter right?")
    if pc.count_distinct(truth["instance_id"]).as_py() < len(truth):
        raise UserError("the benchmark has an instance_id more than once")
    if truth["category"].null_count:
        raise UserError("the benchmark has instances without a category")
    return truth.combine_chunks()


def _outcomes(truth: pa.Table, predictions: pa.Table, preset: Preset) -> tuple[Objects, Objects]:
    """Return what was predicted of each instance: the outcome, and the text of those that have just one."""
    if not {"instance_id", "text"} <= set(predictions.column_names):
        raise UserError("predictions need the columns instance_id and text")
    places = pc.index_in(predictions["instance_id"], value_set=truth["instance_id"])
    if places.null_count:
        unknown = predictions["instance_id"].filter(pc.is_null(places))
        first = ", ".join(map(str, unknown[:_SHOWN].to_pylist()))
        raise UserError(f"{len(unknown):,} predictions are about instances that the benchmark lacks, first {first}")
    places = np.asarray(places.to_numpy(), np.int64)
    number = np.bincount(places, minlength=len(truth))
    outcomes, texts = np.full(len(truth), MISSING, object), np.full(len(truth), None, object)
    outcomes[places], texts[places] = _kinds(predictions, preset)
    outcomes[number > 1] = DUPLICATE
    texts[np.isin(outcomes, (DUPLICATE, UNPARSABLE))] = None
    if preset.published:
        _refuse(truth, outcomes, texts, preset)
    return outcomes, texts


def _kinds(predictions: pa.Table, preset: Preset) -> tuple[list[str], list[str | None]]:
    """Return the outcome and the text of each prediction."""
    texts = predictions["text"].cast(pa.large_string()).to_pylist()
    clean = {text: preset.prediction(text) for text in set(texts) if text is not None}
    known = {text: _kind(cleaned) for text, cleaned in clean.items()}
    if "problem" not in predictions.column_names:
        return [UNPARSABLE if text is None else known[text] for text in texts], texts
    problems = predictions["problem"].to_pylist()
    lost = [OVERLONG if problem == OVERLONG else UNPARSABLE for problem in problems]
    return [why if text is None else known[text] for text, why in zip(texts, lost, strict=True)], texts


def _kind(cleaned: str) -> str:
    if not cleaned.split():
        return EMPTY
    return OVERLONG if len(cleaned) > LONGEST else ANSWERED


def _refuse(truth: pa.Table, outcomes: Objects, texts: Objects, preset: Preset) -> None:
    """Raise `UserError` for what the scripts of a published protocol cannot have."""
    lost = (outcomes == OVERLONG) & np.array([text is None for text in texts])
    for wrong, what in (
        (outcomes == DUPLICATE, "have several predictions"),
        (outcomes == UNPARSABLE, "have a prediction that is no text"),
        (lost, "have an endless prediction"),
    ):
        if wrong.any():
            first = ", ".join(map(str, truth["instance_id"].filter(pa.array(wrong))[:_SHOWN].to_pylist()))
            raise UserError(
                f"{wrong.sum():,} instances {what}, which {preset.name}'s script cannot score, first {first}. "
                f"Mend the file, or use {RR7K_1.name}, which counts them as zero."
            )


def _pairs(truth: pa.Table, texts: Objects, scored: npt.NDArray[np.bool_], preset: Preset) -> _Pairs:
    chosen = truth.filter(pa.array(scored))
    raw = chosen["category_raw" if preset.published and "category_raw" in truth.column_names else "category"]
    parts = (pa.array(texts[scored], pa.large_string()), chosen["category"].combine_chunks(), raw.combine_chunks())
    codes = [part.dictionary_encode() for part in parts]
    key = np.zeros(len(chosen), np.int64)
    for code in codes:
        key = key * max(1, len(code.dictionary)) + code.indices.to_numpy()
    _, first, of = np.unique(key, return_index=True, return_inverse=True)
    found = [_looked_up(code.dictionary, code.indices.to_numpy()[first]) for code in codes]
    return _Pairs(found[0], found[1], found[2], of)


def _looked_up(words: pa.Array, places: Ints) -> list[str]:
    """Return the words at these places: the same few objects, many times."""
    known = words.to_pylist()
    return [known[place] for place in places.tolist()]


# --- measuring ---


def _measure(
    pairs: _Pairs, preset: Preset, similarity: Similarity, categories: pa.Table | None, wordnet: WordNet | None
) -> tuple[dict[str, Floats], list[str | None]]:
    """Return every measure of the distinct pairs, and the relation in WordNet."""
    predicted = _mapped(preset.prediction, pairs.texts)
    true = _mapped(preset.truth, pairs.raw)
    _check_names(true, pairs, preset)
    similarities, ious = similarity.of_pairs(predicted, true), _ious(predicted, true, pairs, preset)
    ours, names = _mapped(RR7K_1.prediction, pairs.texts), _mapped(RR7K_1.truth, pairs.categories)
    plain = Categories({}).canonical
    keys, wanted = _mapped(plain, ours), _mapped(plain, names)
    same = np.array([one == other for one, other in zip(keys, wanted, strict=True)], np.bool_)
    found = {
        "similarity": similarities,
        "iou": ious,
        "exact": np.array([float(one == other) for one, other in zip(ours, names, strict=True)]),
        "synonym": same.astype(np.float64),
    }
    if categories is not None:
        found |= _lenient(pairs, predicted, keys, found, categories, preset, similarity)
    if wordnet is None:
        return found, [None] * len(pairs.texts)
    hierarchy = Hierarchy(wordnet)
    steps = [hierarchy.steps(name, text) for name, text in zip(wanted, keys, strict=True)]
    found["distance"] = np.array([np.nan if way is None else sum(way) for way in steps], np.float64)
    return found, [way and way.relation for way in steps]


def _mapped(rule: Any, texts: Sequence[str]) -> list[str]:
    known = {text: rule(text) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts]


def _check_names(true: Sequence[str], pairs: _Pairs, preset: Preset) -> None:
    if not preset.published and "" in true:
        raise UserError(f"category {pairs.raw[list(true).index('')]!r} has nothing that could be compared")


def _ious(predicted: Sequence[str], true: Sequence[str], pairs: _Pairs, preset: Preset) -> Floats:
    try:
        ious = [semantic_iou(*pair, preset.both_empty) for pair in zip(predicted, true, strict=True)]
    except ZeroDivisionError:
        without = next(raw for raw, name in zip(pairs.raw, true, strict=True) if not name.split())
        raise UserError(
            f"category {without!r} and its prediction have no word, by whose number {preset.name}'s script divides: it "
            "stops there. Mend the category, or use another preset."
        ) from None
    return np.array(ious, np.float64)


def _lenient(
    pairs: _Pairs,
    predicted: Sequence[str],
    keys: Sequence[str],
    strict: dict[str, Floats],
    categories: pa.Table,
    preset: Preset,
    similarity: Similarity,
) -> dict[str, Floats]:
    """Return the measures that accept aliases and hypernyms; `synonym` again, with aliases."""
    accepted = {kind: _accepted(categories, kind) for kind in ("aliases", "hypernyms")}
    rows = [
        (place, name, kind)
        for place, category in enumerate(pairs.categories)
        for kind, names in accepted.items()
        for name in names.get(category, ())
    ]
    places = np.array([place for place, _, _ in rows], np.int64)
    names, texts = [name for _, name, _ in rows], [predicted[place] for place, _, _ in rows]
    clean, plain = _mapped(preset.truth, names), _mapped(Categories({}).canonical, names)
    right = np.array([keys[place] == name for place, name in zip(places, plain, strict=True)], np.float64)
    alias = np.array([kind == "aliases" for _, _, kind in rows], np.bool_)
    ious = [semantic_iou(text, name) for text, name in zip(texts, clean, strict=True)]
    match = _at_least(strict["synonym"], places, right)
    return {
        "synonym": _at_least(strict["synonym"], places[alias], right[alias]),
        "lenient_similarity": np.maximum(
            _at_least(strict["similarity"], places, similarity.of_pairs(texts, clean)), match
        ),
        "lenient_iou": np.maximum(_at_least(strict["iou"], places, np.array(ious, np.float64)), match),
        "lenient": match,
    }


def _at_least(values: Floats, places: Ints, others: Floats) -> Floats:
    """Return `values` where none of the `others` at the same place is larger."""
    raised = values.copy()
    np.maximum.at(raised, places, others)
    return raised


def _accepted(categories: pa.Table, column: str) -> dict[str, list[str]]:
    rows = zip(categories["category"].to_pylist(), categories[column].to_pylist(), strict=True)
    return {category: names for category, names in rows if names}


def _spread(name: str, of_pairs: Floats, pairs: _Pairs, scored: npt.NDArray[np.bool_], preset: Preset) -> Floats:
    """Return a measure by instance: of those not scored 0 or, in the published protocols and for distances, NaN."""
    values = np.full(len(scored), np.nan if preset.published or name == "distance" else 0.0)
    values[scored] = of_pairs[pairs.of]
    return values


# --- averaging ---


def _groups(
    parts: Sequence[Grouping], columns: Floats, names: Sequence[str], resamples: Resamples
) -> dict[str, list[Group]]:
    """Return the scores of all groups, by the name of their grouping."""
    drawn = resamples.group_means(columns, [(part.codes, len(part.names)) for part in parts])
    found: dict[str, list[Group]] = {}
    for part, means in zip(parts, drawn, strict=True):
        for code, name in enumerate(part.names):
            chosen = columns[part.codes == code]
            scores = {measure: interval(micro_mean(chosen[:, m]), means[:, code, m]) for m, measure in enumerate(names)}
            found.setdefault(part.name, []).append(Group(name, len(chosen), scores))
    return found


def _macro(truth: pa.Table, columns: Floats, names: Sequence[str], resamples: Resamples) -> dict[str, Interval]:
    codes = truth["category"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    drawn = resamples.macro_means(columns, codes)
    return {name: interval(macro_mean(columns[:, m], codes), drawn[:, m]) for m, name in enumerate(names)}


# --- what has to be said with it ---


def _coverage(counts: dict[str, int], preset: Preset) -> list[str]:
    total, missing = sum(counts.values()), counts[MISSING]
    if preset.published:
        told = f"{missing:,} of {total:,} instances have no prediction and are left out of the averages"
        return [f"{told}: not comparable with a row that covers all."] if missing else []
    zero = {name: count for name, count in counts.items() if name != ANSWERED and count}
    parts = ", ".join(f"{count:,} {name}" for name, count in zero.items())
    return [f"{sum(zero.values()):,} of {total:,} instances count as zero: {parts}."] if zero else []


def _kinship(related: npt.NDArray[np.bool_] | None, model: str) -> list[str]:
    if not model:
        return ["The predictions do not name their model, so nobody knows whether it is a relative of the labellers."]
    if related is None or not related.any():
        return []
    shared = " and ".join(sorted(families(model)))
    return [
        f"{model} ({shared}) is a relative of what named or confirmed {related.sum():,} of {len(related):,} labels, "
        "which may favour it: see the scores by kinship."
    ]
