"""Predictions from a file, ours or as other projects write them, and which instance of a benchmark each is about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmark import foreign_predictions as foreign
from benchmark.foreign_predictions import Region
from benchmark.presets import convert_label
from benchmark.records import Record, csv_records, json_records, read_bytes
from pipeline.errors import UsageError, UserError
from pipeline.files import sha256

TABLE = "table"
FORMATS = (TABLE, *foreign.READERS)

COLUMNS = pa.schema(
    [
        pa.field("instance_id", pa.int64(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("problem", pa.string()),
        pa.field("number", pa.int64(), nullable=False),
    ]
)
"""Located predictions. `problem`: why there is no text (NO_TEXT or OVERLONG), else null; `number`: the line in the
file, or the place in its list, from 1."""

NO_TEXT, OVERLONG = "no text", "overlong"

_LONGEST = 100_000
"""Characters of a text that are still read: MiniLM looks at 256 tokens, and no name has a thousandth of that."""

_SHOWN = 5
_INT64 = 2**63
_EXACT_FLOAT = 2**53


class Predictions(NamedTuple):
    """A file of predictions."""

    path: Path
    form: str
    """One of `FORMATS`."""
    model: str
    """As the file says, or empty."""
    benchmark: str
    """Fingerprint of the release that was answered, as the file says, or empty."""
    sha256: str
    """Of the file."""
    regions: list[Region]
    """One per prediction, and per true name without one where the file has true names."""
    keys: tuple[str, ...]
    """instance_id; image_id and mask_id; or image and place."""
    cut: int = 0
    """Predictions beyond the true names of their record, which WOW-Seg's scorer cuts without a word."""


def read(path: Path, form: str = "", model: str = "") -> Predictions:
    """Read predictions: Parquet, CSV or JSON Lines of ours, or one of `FORMATS`; recognised if not named.

    Ours have `text` and either `instance_id` or `image_id` and `mask_id` (the same number); `benchmark`, the
    fingerprint of the release that was answered, may be given, the same in all rows, and `model`, by which the argument
    of that name chooses rows. WOW-Seg's may be the folder of its subset_*.json.

    Raises `UsageError` for a file, format or model that is not there, `UserError` for damage, unusable ids (with the
    row) or a column `text` that holds no text. A single text that is none, or endless, is a prediction with a problem.
    """
    if form and form not in FORMATS:
        raise UsageError(f"no format {form!r}. There are: {', '.join(FORMATS)}")
    paths = sorted(path.glob("subset_*.json")) if path.is_dir() else [path]
    if not paths:
        raise UsageError(f"{path}: no subset_*.json in it. Give a file, or the folder of WOW-Seg's results.")
    contents = [(one, read_bytes(one)) for one in paths]
    records = [record for one, data in contents for record in _records(one, data)]
    if not records:
        raise UserError(f"{path}: no predictions in it")
    form = form or _recognise(path, records[0].content)
    digest = sha256(*(data for _, data in contents))
    return _ours(path, digest, records, model) if form == TABLE else _theirs(path, digest, records, form, model)


def _theirs(path: Path, digest: str, records: Sequence[Record], form: str, model: str) -> Predictions:
    try:
        found = list(foreign.READERS[form](records))
    except (UserError, KeyError, AttributeError, TypeError) as error:
        why = str(error) if isinstance(error, UserError) else f"not as {form} writes it ({error})"
        raise UserError(f"{path}: {why}") from error
    regions = [region for region in found if region.place != foreign.NOWHERE]
    keys = ("instance_id",) if form == "dam" else ("image", "place")
    return Predictions(path, form, model, "", digest, regions, keys, len(found) - len(regions))


def _records(path: Path, data: bytes) -> Iterable[Record]:
    if path.suffix == ".parquet":
        return _parquet(path, data)
    return csv_records(path, data) if path.suffix == ".csv" else json_records(path, data)


def _parquet(path: Path, data: bytes) -> Iterator[Record]:
    try:
        table = pq.read_table(pa.BufferReader(data))
        table = table.select([name for name in table.column_names if name in _Ours.NAMES])
        table.validate(full=True)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({str(error)[:200]})") from error
    return (Record(number, row) for number, row in enumerate(rows, 1))


def _recognise(path: Path, first: Any) -> str:
    if isinstance(first, dict) and "text" in first and _Ours.key(first):
        return TABLE
    if name := foreign.recognise(first):
        return name
    found = f"has {', '.join(map(str, first))[:200]}" if isinstance(first, dict) else f"is {str(first)[:80]!r}"
    raise UserError(
        f"{path}: not predictions in a form known here; its first record {found}. Expected are text and instance_id, "
        f"or text, image_id and mask_id; or name one of: {', '.join(foreign.READERS)}"
    )


# --- our own tables ---


class _Ours:
    """The columns of our own files."""

    KEYS = (("instance_id",), ("image_id", "mask_id"))
    NAMES = ("instance_id", "image_id", "mask_id", "text", "model", "benchmark")

    @classmethod
    def key(cls, row: dict[str, Any]) -> tuple[str, ...]:
        return next((key for key in cls.KEYS if row.keys() >= set(key)), ())


def _ours(path: Path, digest: str, records: Sequence[Record], model: str) -> Predictions:
    bad = [n for n, row in records if not isinstance(row, dict) or not ("text" in row and _Ours.key(row))]
    if bad:
        raise UserError(f"{path}: row {bad[0]}: needs text and instance_id, or text, image_id and mask_id")
    models = sorted({str(row["model"]) for _, row in records if row.get("model")})
    if model and models:
        records = [record for record in records if record.content.get("model") == model]
    if (model and models and not records) or (not model and len(models) > 1):
        raise UsageError(f"{path}: predictions of {', '.join(models[:_SHOWN])}; choose one of these models")
    keys = _Ours.key(records[0].content)
    regions = [_region(path, record, keys) for record in records]
    if all(not isinstance(region.text, str) for region in regions):
        raise UserError(f"{path}: column text holds no text, as in row {regions[0].number}: {regions[0].text!r:.80}")
    benchmarks = sorted({str(row["benchmark"]) for _, row in records if row.get("benchmark")})
    if len(benchmarks) > 1:
        raise UserError(f"{path}: answers to several benchmarks: {', '.join(benchmarks[:_SHOWN])}")
    model = model or (models[0] if models else "")
    return Predictions(path, TABLE, model, "".join(benchmarks), digest, regions, keys)


def _region(path: Path, record: Record, keys: tuple[str, ...]) -> Region:
    number, row = record
    ids = [_integer(path, number, name, row.get(name)) for name in keys]
    if len(ids) == 1:
        return Region(number, instance_id=ids[0], text=row["text"])
    return Region(number, image=str(ids[0]), place=ids[1], text=row["text"])


def _integer(path: Path, number: int, name: str, value: Any) -> int:
    """Return an id; floats because a column with gaps becomes one in pandas, digits because CSV has nothing else."""
    if type(value) is int and -_INT64 <= value < _INT64:  # as most are
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,19}(\.0)?\s*", value, re.ASCII):
        value = int(value.strip().removesuffix(".0"))
    if isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64:
        return value
    raise UserError(f"{path}: row {number}: {name} {value!r:.80} is no whole number of 64 bits")


# --- which instance each is about ---


def locate(predictions: Predictions, truth: pa.Table, benchmark: str = "") -> pa.Table:
    """Return predictions as `COLUMNS`, for a truth table as `benchmark.score` describes it.

    Regions named by image and order are taken in ascending order of instance_id; where the file has true names, they
    have to be the benchmark's in that order, though some may be missing. An image is known by the last number in its
    name. Raises `UserError` for ids that the benchmark lacks (how many, the first five), for other true names, and
    when the file says that it answers another release than `benchmark`, a fingerprint.
    """
    if benchmark and predictions.benchmark and benchmark != predictions.benchmark:
        raise UserError(
            f"{predictions.path}: answers another version of the benchmark ({predictions.benchmark:.16}…, here "
            f"{benchmark:.16}…): the checksums disagree. Predict again, or score against the release it was made for."
        )
    if predictions.keys == ("instance_id",):
        places = _by_instance(predictions, truth)
    elif predictions.keys == ("image_id", "mask_id"):
        places = _by_mask(predictions, truth)
    else:
        places = _by_place(predictions, truth)
    rows = [(r, place) for r, place in zip(predictions.regions, places, strict=True) if r.predicted]
    unknown = [region for region, place in rows if place is None]
    if unknown:
        raise _unknown(predictions, unknown, len(rows))
    ids = truth["instance_id"].to_numpy()[np.array([place for _, place in rows], np.int64)]
    return _table(ids.tolist(), [region for region, _ in rows])


def own_truth(predictions: Predictions) -> tuple[pa.Table, pa.Table]:
    """Return a truth table from the file's own true names, and the predictions located in it.

    That is what the scripts of those projects score. Images are numbered from 0 by their name, instances as they come.
    Raises `UsageError` when the file has no true names.
    """
    regions = predictions.regions
    if any(region.truth is None for region in regions):
        raise UsageError(f"{predictions.path}: has no true names. Score it against a benchmark.")
    images = pa.array([region.image for region in regions]).dictionary_encode().indices
    columns = {
        "instance_id": pa.array(range(len(regions)), pa.int64()),
        "image_id": images.cast(pa.int64()),
        "category": pa.array([region.truth for region in regions], pa.string()),
    }
    predicted = [(i, region) for i, region in enumerate(regions) if region.predicted]
    return pa.table(columns), _table([i for i, _ in predicted], [region for _, region in predicted])


def _table(ids: list[int], regions: Sequence[Region]) -> pa.Table:
    texts, problems = zip(*(_text(region.text) for region in regions), strict=True) if regions else ((), ())
    return pa.table([ids, texts, problems, [region.number for region in regions]], schema=COLUMNS)


def _text(value: Any) -> tuple[str | None, str | None]:
    if not isinstance(value, str) or (not value.isascii() and re.search("[\ud800-\udfff]", value)):
        return None, NO_TEXT  # half a character, which JSON can spell, is none either
    return (value, None) if len(value) <= _LONGEST else (None, OVERLONG)


def _by_instance(predictions: Predictions, truth: pa.Table) -> list[int | None]:
    path = predictions.path
    wanted = [_integer(path, r.number, "instance_id", r.instance_id) for r in predictions.regions]
    return list(pc.index_in(pa.array(wanted, pa.int64()), value_set=truth["instance_id"]).to_pylist())


def _by_mask(predictions: Predictions, truth: pa.Table) -> list[int | None]:
    """Find rows by mask_id, which a data set's instance_id is, where the image is theirs as well."""
    places = pc.index_in(pa.array([r.place for r in predictions.regions], pa.int64()), value_set=truth["instance_id"])
    images = truth["image_id"].take(places).to_pylist()
    found = zip(predictions.regions, places.to_pylist(), images, strict=True)
    return [place if image == int(region.image) else None for region, place, image in found]


def _by_place(predictions: Predictions, truth: pa.Table) -> list[int | None]:
    order = np.argsort(truth["instance_id"].to_numpy(), kind="stable")
    order = order[np.argsort(truth["image_id"].to_numpy()[order], kind="stable")]
    images, starts = np.unique(truth["image_id"].to_numpy()[order], return_index=True)
    of_image = dict(zip(images.tolist(), np.split(order, starts[1:]), strict=True))
    names = truth["category_raw" if "category_raw" in truth.column_names else "category"].to_pylist()
    found: list[int | None] = []
    for image, group in groupby(predictions.regions, lambda region: region.image):
        here = of_image.get(_image_id(image), np.empty(0, np.int64)).tolist()
        found += _align(predictions, list(group), here, [names[place] for place in here])
    return found


def _align(
    predictions: Predictions, regions: Sequence[Region], here: Sequence[int], names: Sequence[str]
) -> list[int | None]:
    """Return the row of each region, going forward through the rows of its image while the true names differ."""
    if not here or any(region.truth is None for region in regions):
        return [here[region.place] if region.place < len(here) else None for region in regions]
    found: list[int | None] = []
    at = -1
    for region in regions:
        at = -1 if not region.place else at  # a record of its own
        at = next((i for i in range(at + 1, len(here)) if _same(names[i], str(region.truth))), len(here))
        if at == len(here):
            raise UserError(
                f"{predictions.path}: item {region.number}: image {region.image!r:.80} has no further region called "
                f"{region.truth!r:.80} in this benchmark; was the file made from other data?"
            )
        found.append(here[at])
    return found


def _same(one: str, other: str) -> bool:
    return convert_label(one).casefold() == convert_label(other).casefold()


def _image_id(image: str) -> int:
    numbers = re.findall(r"\d+", Path(image).stem)
    return int(numbers[-1]) if numbers else -1


def _unknown(predictions: Predictions, unknown: Sequence[Region], total: int) -> UserError:
    instance = predictions.keys == ("instance_id",)
    told = [f"{r.instance_id}" if instance else f"{r.image:.60} / {r.place}" for r in unknown[:_SHOWN]]
    return UserError(
        f"{predictions.path}: {len(unknown):,} of {total:,} predictions are about nothing in this benchmark, first "
        f"{' and '.join(predictions.keys)} {', '.join(told)} (row {unknown[0].number}). Is it another version or split?"
    )
