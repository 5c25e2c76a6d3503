"""The region-sample format: named regions of images, as Parquet. Releases and every imported data set are in it.

    DIR/data/instances-*.parquet    one row per named region
    DIR/data/images-*.parquet       one row per image, with or without its bytes
    DIR/data/categories.parquet     one row per category

Rows of `instances` are sorted by category within a file and cut into small row groups, so that a category is found by
the statistics in the footer; `images` likewise by image id. No Ray and no torch is needed to read or to write it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline import files, parquet
from pipeline.errors import UserError
from pipeline.labels import normalise
from pipeline.parquet import StoredTable

VERSION = 1
"""Version of the schemas below, written into every file; raised when a column changes."""

Table = Literal["instances", "images", "categories"]

FREQUENT, COMMON, RARE = "frequent", "common", "rare"
_FREQUENT_ABOVE, _COMMON_ABOVE = 100, 10
"""Images that show a category: more than 100 frequent, 11 to 100 common, else rare (LVIS, Gupta et al. 2019, §3)."""

_ROWS: Mapping[Table, int] = {"instances": 1024, "images": 256, "categories": 8192}
"""Rows of a row group at most: about 1 MB of instances; a category of 26 instances costs one or two such reads."""

_BYTES = 32 << 20
"""Bytes of a row group, about: what a reader holds at once of embedded images."""


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_TEXTS = pa.list_(pa.string())
_BOX = pa.list_(pa.float64())
_RLE = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

SCHEMAS: dict[Table, pa.Schema] = {
    "instances": pa.schema(
        [
            _field(
                "instance_id", pa.int64(), "unique in the data set; the source's own annotation id where it has one"
            ),
            _field("image_id", pa.int64(), "key into images"),
            _field("category", pa.string(), "the name in normal form (pipeline/labels.py)"),
            _field("category_raw", pa.string(), "the name exactly as the source writes it"),
            _field("coarse_primary", pa.string(), "first level of the coarse tree; null: not in it", nullable=True),
            _field("coarse_secondary", pa.string(), "second level of the coarse tree", nullable=True),
            _field("split", pa.string(), "test, train, or the source's name of it"),
            _field("mini", pa.bool_(), "its image is in the fixed small subset of the split"),
            _field("segmentation", _RLE, "COCO RLE: size [height, width] in px, compressed counts"),
            _field("bbox_xywh", _BOX, "px: left, top, columns and rows covered by the mask (COCO's convention)"),
            _field("bbox_source_xywh", _BOX, "px, as the source states it; SA-1B: width = xmax − xmin", nullable=True),
            _field("area", pa.int64(), "px of the mask"),
            _field("area_ratio", pa.float64(), "area / (width × height), in (0, 1]"),
            _field(
                "iscrowd", pa.bool_(), "COCO: the mask covers several; null: the source does not say", nullable=True
            ),
            _field("namers", _TEXTS, "who named the region, the most trusted first", nullable=True),
            _field("raw_names", _TEXTS, "what each of them called it", nullable=True),
            _field(
                "namer_engines", _TEXTS, "kind of engine behind each namer; embedded: for trying only", nullable=True
            ),
            _field("namer_models", _TEXTS, "model@revision of each namer", nullable=True),
            _field("namer_prompts", _TEXTS, "hash of the question each namer was asked", nullable=True),
            _field(
                "agreement", pa.string(), "of the namers: same, synonym, related, different, only-one", nullable=True
            ),
            _field("confidence", pa.float64(), "of the name, by its namer, 0 to 1", nullable=True),
            _field("band", pa.string(), "head: a second model was asked; tail: it was not", nullable=True),
            _field("p_yes", pa.float64(), "the second model's probability of yes, 0 to 1", nullable=True),
            _field("verifier_model", pa.string(), "model@revision of the second model", nullable=True),
            _field("verifier_prompt", pa.string(), "hash of the yes/no question", nullable=True),
            _field("screened_by", pa.string(), "people, expert, simulated (a program), or nobody", nullable=True),
            _field("votes_keep", pa.int32(), "screening verdicts for it", nullable=True),
            _field("votes_delete", pa.int32(), "screening verdicts against it", nullable=True),
            _field("votes_unsure", pa.int32(), "screening verdicts that say neither", nullable=True),
            _field("audited", pa.bool_(), "judged once more, blind, in the audit", nullable=True),
            _field("source", pa.string(), "run or data set that the row is from", nullable=True),
        ]
    ),
    "images": pa.schema(
        [
            _field("image_id", pa.int64(), "unique in the data set; the source's own id where it has one"),
            _field("file_name", pa.string(), "name of the image file, relative to the source's image folder"),
            _field("width", pa.int32(), "px"),
            _field("height", pa.int32(), "px"),
            _field("split", pa.string(), "as in instances"),
            _field("mini", pa.bool_(), "in the fixed small subset of the split"),
            _field("instances", pa.int32(), "how many instances show it in this data set"),
            _field("file_bytes", pa.int64(), "size of the image file", nullable=True),
            _field("sha256", pa.string(), "of the image file, hexadecimal", nullable=True),
            _field("dhash", pa.int64(), "64-bit difference hash; null: not computed", nullable=True),
            _field("shard", pa.string(), "SA-1B tar or folder that holds it, without .tar", nullable=True),
            _field("shard_offset", pa.int64(), "first byte of the image file in the tar; 0 in a folder", nullable=True),
            _field("source", pa.string(), "run or data set that the row is from", nullable=True),
            _field("image", _IMAGE, "the file's bytes, and its name; column absent: by reference only", nullable=True),
        ]
    ),
    "categories": pa.schema(
        [
            _field("category", pa.string(), "the name in normal form, one row each, ascending"),
            _field("coarse_primary", pa.string(), "first level of the coarse tree; null: not in it", nullable=True),
            _field("coarse_secondary", pa.string(), "second level of the coarse tree", nullable=True),
            _field("instances", pa.int64(), "how many"),
            _field("images", pa.int64(), "how many show it"),
            _field("frequency", pa.string(), "rare: 1–10 images, common: 11–100, frequent: more (LVIS)"),
            _field("aliases", _TEXTS, "other names that count as right"),
            _field("hypernyms", _TEXTS, "more general names, right but less than the category says"),
        ]
    ),
}

_STATISTICS = ["instance_id", "image_id", "category", "split", "mini", "area", "area_ratio", "shard"]
_HUGGING_FACE = msgspec.json.encode({"info": {"features": {"image": {"_type": "Image"}}}}).decode()
"""Tells the library `datasets` that the column `image` is one to decode; what it does not name it infers."""


def _stamped(name: Table, schema: pa.Schema) -> pa.Schema:
    marks = {"rr7k.regions": name, "rr7k.regions.version": str(VERSION)}
    return schema.with_metadata(marks | ({"huggingface": _HUGGING_FACE} if "image" in schema.names else {}))


def schema(name: Table, *, images: bool = False) -> pa.Schema:
    """Return the schema of a table as it is written; without the column `image` unless `images`."""
    fields = [field for field in SCHEMAS[name] if images or field.name != "image"]
    return _stamped(name, pa.schema(fields))


def from_rows(name: Table, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Build a table from dicts; keys left out are null. Raises `pa.ArrowInvalid`, `pa.ArrowTypeError`."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])


# --- writing ----------------------------------------------------------------------------------------------


class Written(msgspec.Struct, frozen=True):
    """A finished file."""

    name: str
    bytes: int
    sha256: str
    rows: int


class FileWriter:
    """Writes one file of a table, as a context manager; it has its name only once it is whole and on the disk."""

    def __init__(self, path: Path, name: Table, *, images: bool = False) -> None:
        self._path, self._name = path, name
        self._schema = schema(name, images=images)
        self._draft = path.with_name(f".{path.name}.part")
        self.rows = 0
        self._abandoned = False

    def __enter__(self) -> Self:
        self._draft.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._draft.open("wb")
        self._sink = files.HashingFile(self._file)
        leaves = [name for name in _STATISTICS if name in self._schema.names]
        texts = [field.name for field in self._schema if pa.types.is_string(field.type) and field.name != "sha256"]
        self._writer = parquet.writer(
            pa.PythonFile(self._sink, mode="w"),
            self._schema,
            compression={"image.bytes": "none"} | dict.fromkeys(_leaves(self._schema), "zstd"),
            use_dictionary=texts,
            write_statistics=leaves,
        )
        return self

    def write(self, table: pa.Table) -> None:
        """Append rows, in row groups of `_ROWS` and `_BYTES` at most. Raises `pa.ArrowInvalid` for other columns."""
        if table.num_rows:
            rows = min(_ROWS[self._name], max(1, _BYTES * table.num_rows // max(1, table.nbytes)))
            self._writer.write_table(table.select(self._schema.names).cast(self._schema), rows)
            self.rows += table.num_rows

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None and not self._abandoned:
            self._draft.replace(self._path)
        else:
            self._draft.unlink()

    def abandon(self) -> None:
        """Have the file not appear after all."""
        self._abandoned = True

    @property
    def written(self) -> Written:
        """The finished file."""
        return Written(self._path.name, self._sink.bytes, self._sink.sha256, self.rows)


def _leaves(found: pa.Schema) -> Iterator[str]:
    """List the Parquet columns by path, all but the images' bytes."""
    for field in found:
        if pa.types.is_struct(field.type):
            for inner in field.type:
                path = f"{field.name}.{inner.name}"
                if path != "image.bytes":
                    yield f"{path}.list.element" if pa.types.is_list(inner.type) else path
        else:
            yield f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name


def write(folder: Path, instances: pa.Table, images: pa.Table, categories: pa.Table | None = None) -> None:
    """Write a whole data set of a size that fits in memory; `categories` are counted where none are given.

    The rows may come in any order. Raises `UserError` for what `check` finds; nothing is written then.
    """
    if categories is None:
        categories = count_categories(instances)
    parts: list[tuple[Table, pa.Table]] = [
        ("instances", instances.sort_by([("category", "ascending"), ("instance_id", "ascending")])),
        ("images", images.sort_by("image_id")),
        ("categories", categories),
    ]
    check(instances, images, str(folder))
    for name, table in parts:
        file = "categories.parquet" if name == "categories" else f"{name}-00000-of-00001.parquet"
        has_images = name == "images" and pc.any(pc.is_valid(table["image"])).as_py()
        with FileWriter(folder / "data" / file, name, images=bool(has_images)) as writer:
            writer.write(table)


def frequency(images: int) -> str:
    """Return the band of a category that so many images show: rare, common, frequent (LVIS)."""
    return FREQUENT if images > _FREQUENT_ABOVE else COMMON if images > _COMMON_ABOVE else RARE


def count_categories(
    instances: pa.Table, accepted: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None
) -> pa.Table:
    """Return the table `categories` of `instances` (category, image_id, coarse_primary, coarse_secondary).

    `accepted` gives the aliases and the hypernyms of a category.
    """
    kinds = ["category", "coarse_primary", "coarse_secondary"]
    counted = instances.group_by(kinds).aggregate([("image_id", "count"), ("image_id", "count_distinct")])
    rows = []
    for row in counted.sort_by("category").to_pylist():
        aliases, hypernyms = (accepted or {}).get(row["category"], ((), ()))
        counts = {"instances": row["image_id_count"], "images": row["image_id_count_distinct"]}
        names = {"aliases": list(aliases), "hypernyms": list(hypernyms)}
        known = {name: row[name] for name in kinds}
        rows.append({**known, **counts, "frequency": frequency(counts["images"]), **names})
    return from_rows("categories", rows)


# --- reading ----------------------------------------------------------------------------------------------


class RegionSamples:
    """A data set in this format; opening it reads the files' footers only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("instances", "images"):
            if not self.files(name):
                raise UserError(f"{folder}: no region samples there: data/{name}-*.parquet is missing.")

    def files(self, name: Table) -> list[Path]:
        """List the files of a table, by name."""
        return sorted((self.folder / "data").glob(f"{name}.parquet" if name == "categories" else f"{name}-*.parquet"))

    @cached_property
    def has_images(self) -> bool:
        """Whether the image files' bytes are here, or only where they lie."""
        return "image" in self.dataset("images").schema.names

    def dataset(self, name: Table) -> StoredTable:
        """Return a table, read lazily. Raises `UserError` for files that are damaged or not of this format."""
        found = parquet.opened(_stored(self.files(name)))
        _check_schema(found.schema, name, self.folder)
        return found

    def read(self, name: Table, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Return rows of a table; only row groups whose statistics allow `where` are read. Raises `UserError`."""
        return self.dataset(name).to_table(columns=list(columns) if columns else None, filter=where)


@contextmanager
def opened(path: Path) -> Iterator[pq.ParquetFile]:
    """Open one file of a table. Raises `UserError`, in the block as well, when it is missing or damaged."""
    files = _stored([path])
    with files.opened(files.paths[0]) as file:
        yield file


def _stored(paths: Sequence[Path]) -> parquet.Files:
    return parquet.Files([str(path) for path in paths], pafs.LocalFileSystem(), _remedy)


def _remedy(_: str) -> str:
    return "get or make this data set again."


def _check_schema(found: pa.Schema, name: Table, folder: Path) -> None:
    version = int((found.metadata or {}).get(b"rr7k.regions.version", b"0"))
    if version > VERSION:
        raise UserError(f"{folder}: {name} is of format version {version}, this rr7k reads up to {VERSION}. Update it.")
    missing = [field.name for field in SCHEMAS[name] if field.name not in found.names and not field.nullable]
    if missing:
        raise UserError(
            f"{folder}: data/{name}-*.parquet are no region samples: missing {', '.join(missing)}. "
            "Other layouts come in by rr7k import."
        )


# --- checking ---------------------------------------------------------------------------------------------

_SHOWN = 20


def check(instances: pa.Table, images: pa.Table, where: str) -> None:
    """Check a data set's rows against each other and every mask against its numbers.

    Raises `UserError` that lists the first mistakes by instance or image id, and how many more there are.
    """
    problems = [*_wrong_ids(instances, images), *_wrong_rows(instances), *_wrong_masks(instances)]
    if problems:
        more = [f"and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
        raise UserError("\n".join(f"{where}: {text}" for text in [*problems[:_SHOWN], *more]))


def _wrong_ids(instances: pa.Table, images: pa.Table) -> Iterator[str]:
    for table, key in ((instances, "instance_id"), (images, "image_id")):
        counts = table[key].value_counts().flatten() if len(table) else []
        for value in counts[0].filter(pc.greater(counts[1], 1)).to_pylist() if counts else []:
            yield f"{key} {value} is there more than once"
    lost = instances.filter(pc.invert(pc.is_in(instances["image_id"], images["image_id"].combine_chunks())))
    for row in lost.select(["instance_id", "image_id"]).to_pylist():
        yield f"instance {row['instance_id']}: image {row['image_id']} is not among the images"
    of_image = dict(zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True))
    columns = (instances[name].to_pylist() for name in ("instance_id", "image_id", "split"))
    for instance, image, split in zip(*columns, strict=True):
        if of_image.get(image, split) != split:
            yield f"instance {instance}: split {split!r}, but its image {image} is in {of_image[image]!r}"


def _wrong_rows(instances: pa.Table) -> Iterator[str]:
    names = {name: normalise(name) for name in instances["category"].unique().to_pylist()}
    columns = (instances[name].to_pylist() for name in ("instance_id", "category", "bbox_xywh"))
    for instance, category, box in zip(*columns, strict=True):
        if not category or names[category] != category:
            yield f"instance {instance}: category {category!r} is not in normal form ({names[category]!r})"
        if len(box) != 4:
            yield f"instance {instance}: bbox_xywh has {len(box)} numbers"


def _wrong_masks(instances: pa.Table) -> Iterator[str]:
    """Find masks whose run lengths are damaged or do not give the height, width and area stated."""
    from pipeline.masks import run_sums  # compiled with numba, which reading does not need

    masks = instances["segmentation"].combine_chunks()
    sizes = masks.field("size").to_pylist()
    sums = run_sums(masks.field("counts"))
    columns = zip(instances["instance_id"].to_pylist(), instances["area"].to_pylist(), strict=True)
    for place, ((instance, area), size) in enumerate(zip(columns, sizes, strict=True)):
        if len(size) != 2:
            yield f"instance {instance}: segmentation.size has {len(size)} numbers"
        elif sums.malformed[place]:
            yield f"instance {instance}: segmentation.counts is no COCO RLE"
        elif sums.total[place] != size[0] * size[1]:
            yield f"instance {instance}: its run lengths sum to {sums.total[place]}, not {size[0]} × {size[1]}"
        elif sums.area[place] != area:
            yield f"instance {instance}: area {area}, but its run lengths give {sums.area[place]}"
