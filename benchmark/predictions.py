"""Predictions from a file, ours or as other projects write them, and which instance of a benchmark each is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmark import foreign_predictions as foreign
from benchmark import own_predictions as own
from benchmark.foreign_predictions import Region
from benchmark.own_predictions import OwnFile
from benchmark.prediction_values import integers, texts
from benchmark.records import Record, csv_records, json_records, read_bytes
from pipeline.converted_labels import converted
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
"""Located predictions. `problem`: why there is no text (benchmark/prediction_values.py), else null; `number`: the line
in the file, or the place in its list, from 1."""

_SHOWN = 5
_DIGITS = 20  # an id has fewer; Python refuses thousands


REGIONS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("instance_id", pa.int64()),
        pa.field("image", pa.string()),
        pa.field("place", pa.int64()),
        pa.field("truth", pa.string()),
        pa.field("predicted", pa.bool_(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("problem", pa.string()),
    ]
)
"""What a file says of its regions (`foreign_predictions.Region`), `text` and `problem` as in `COLUMNS`. In our own
files with image_id and mask_id, `image` is the one and `place` the other."""


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
    regions: pa.Table
    """`REGIONS`, a row per prediction, and per true name without one where the file has true names."""
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
    digest = sha256(*(data for _, data in contents))
    if path.suffix == ".parquet":
        return _ours(digest, _parquet(path, contents[0][1], form), model)
    records = [record for one, data in contents for record in _records(one, data)]
    if not records:
        raise UserError(f"{path}: no predictions in it")
    form = form or _recognise(path, records[0].content)
    if form == TABLE:
        return _ours(digest, own.from_records(path, records), model)
    return _theirs(path, digest, records, form, model)


def _ours(digest: str, file: OwnFile, model: str) -> Predictions:
    found = own.read(file, model)
    rows = len(found.columns["number"])
    columns = {field.name: pa.nulls(rows, field.type) for field in REGIONS}
    columns |= found.columns | {"predicted": pa.repeat(True, rows)}
    table = pa.table(columns).cast(REGIONS)
    return Predictions(file.path, TABLE, found.model, found.benchmark, digest, table, found.keys)


def _parquet(path: Path, data: bytes, form: str) -> OwnFile:
    if form not in ("", TABLE):
        raise UserError(f"{path}: a Parquet file, which {form} does not write")
    return own.from_parquet(path, data)


def _theirs(path: Path, digest: str, records: Sequence[Record], form: str, model: str) -> Predictions:
    try:
        found = list(foreign.READERS[form](records))
    except (UserError, KeyError, AttributeError, TypeError) as error:
        why = str(error) if isinstance(error, UserError) else f"not as {form} writes it ({error})"
        raise UserError(f"{path}: {why}") from error
    regions = [region for region in found if region.place != foreign.NOWHERE]
    columns: dict[str, Any] = {name: [getattr(region, name) for region in regions] for name in Region._fields}
    columns["text"], columns["problem"] = texts(columns["text"])
    keys = ("instance_id",) if form == "dam" else ("image", "place")
    if form == "dam":
        columns["instance_id"] = integers(path, columns["number"], "instance_id", columns["instance_id"])
    try:
        table = pa.table(columns, schema=REGIONS)
    except UnicodeEncodeError as error:
        broken = error.object[error.start]
        item = next(region for region in regions if broken in f"{region.image}{region.truth}")
        where = f"item {item.number}: half a character ({broken!a}) in the name of an image or of a category"
        raise UserError(f"{path}: {where}; was the text cut between two?") from error
    return Predictions(path, form, model, "", digest, table, keys, len(found) - len(regions))


def _records(path: Path, data: bytes) -> Sequence[Record]:
    return csv_records(path, data) if path.suffix == ".csv" else json_records(path, data)


def _recognise(path: Path, first: Any) -> str:
    if isinstance(first, dict) and own.key(first):
        return TABLE
    if name := foreign.recognise(first):
        return name
    found = f"has {', '.join(map(str, first))[:200]}" if isinstance(first, dict) else f"is {str(first)[:80]!r}"
    raise UserError(
        f"{path}: not predictions in a form known here; its first record {found}. Expected are {own.EXPECTED}; or name "
        f"one of: {', '.join(foreign.READERS)}"
    )


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
    regions = predictions.regions
    if predictions.keys == ("instance_id",):
        places = pc.index_in(regions["instance_id"], value_set=truth["instance_id"])
    elif predictions.keys == ("image_id", "mask_id"):
        places = _by_mask(regions, truth)
    else:
        places = pa.array(_by_place(predictions, truth), pa.int64())
    places, regions = (part.filter(predictions.regions["predicted"]) for part in (places, regions))
    if places.null_count:
        raise _unknown(predictions, regions.filter(pc.is_null(places)), len(regions))
    return _located(truth["instance_id"].take(places), regions)


def own_truth(predictions: Predictions) -> tuple[pa.Table, pa.Table]:
    """Return a truth table from the file's own true names, and the predictions located in it.

    That is what the scripts of those projects score. Images are numbered from 0 by their name, instances as they come.
    Raises `UsageError` when the file has no true names.
    """
    regions = predictions.regions
    if regions["truth"].null_count:
        raise UsageError(f"{predictions.path}: has no true names. Score it against a benchmark.")
    ids = pa.array(range(len(regions)), pa.int64())
    images = regions["image"].combine_chunks().dictionary_encode().indices.cast(pa.int64())
    truth = pa.table({"instance_id": ids, "image_id": images, "category": regions["truth"]})
    predicted = regions["predicted"].combine_chunks()
    return truth, _located(ids.filter(predicted), regions.filter(predicted))


def _located(ids: pa.Array | pa.ChunkedArray, regions: pa.Table) -> pa.Table:
    return pa.table([ids.cast(pa.int64()), *(regions[name] for name in COLUMNS.names[1:])], schema=COLUMNS)


def _by_mask(regions: pa.Table, truth: pa.Table) -> pa.ChunkedArray:
    """Find rows by mask_id, which a data set's instance_id is, where the image is theirs as well."""
    places = pc.index_in(regions["place"], value_set=truth["instance_id"])
    same = pc.equal(truth["image_id"].take(places), regions["image"].cast(pa.int64()))
    return pc.if_else(same, places, None)


def _by_place(predictions: Predictions, truth: pa.Table) -> list[int | None]:
    order = np.argsort(truth["instance_id"].to_numpy(), kind="stable")
    order = order[np.argsort(truth["image_id"].to_numpy()[order], kind="stable")]
    images, starts = np.unique(truth["image_id"].to_numpy()[order], return_index=True)
    of_image = dict(zip(images.tolist(), np.split(order, starts[1:]), strict=True))
    names = truth["category_raw" if "category_raw" in truth.column_names else "category"].to_pylist()
    rows = predictions.regions.select(["number", "image", "place", "truth"]).to_pylist()
    found: list[int | None] = []
    for image, group in groupby(rows, lambda row: row["image"]):
        here = of_image.get(_image_id(image), np.empty(0, np.int64)).tolist()
        found += _align(predictions, list(group), here, [names[place] for place in here])
    return found


def _align(
    predictions: Predictions, rows: Sequence[dict[str, Any]], here: Sequence[int], names: Sequence[str]
) -> list[int | None]:
    """Return the row of each region, going forward through the rows of its image while the true names differ."""
    if not here or any(row["truth"] is None for row in rows):
        return [here[row["place"]] if row["place"] < len(here) else None for row in rows]
    found: list[int | None] = []
    at = -1
    for row in rows:
        at = -1 if not row["place"] else at  # a record of its own
        at = next((i for i in range(at + 1, len(here)) if _same(names[i], row["truth"])), len(here))
        if at == len(here):
            raise UserError(
                f"{predictions.path}: item {row['number']}: image {row['image']!r:.80} has no further region called "
                f"{row['truth']!r:.80} in this benchmark; was the file made from other data?"
            )
        found.append(here[at])
    return found


def _same(one: str, other: str) -> bool:
    return converted(one).casefold() == converted(other).casefold()


def _image_id(image: str) -> int:
    numbers = re.findall(r"\d+", Path(image).stem)
    return int(numbers[-1]) if numbers and len(numbers[-1]) < _DIGITS else -1


def _unknown(predictions: Predictions, unknown: pa.Table, total: int) -> UserError:
    instance = predictions.keys == ("instance_id",)
    first = unknown.slice(0, _SHOWN).to_pylist()
    told = [str(row["instance_id"]) if instance else f"{row['image']:.60} / {row['place']}" for row in first]
    return UserError(
        f"{predictions.path}: {len(unknown):,} of {total:,} predictions are about nothing in this benchmark, first "
        f"{' and '.join(predictions.keys)} {', '.join(told)} (row {first[0]['number']}). Is it another version or "
        "split?"
    )
