"""Every table of a run: its columns, with units and ranges, and the checks on write and read.

A table is a folder of Parquet files. Which files count is said by the commit records of `pipeline.run`.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import UserError

VERSION = 2
"""Version of the schemas below, written into every file; raised when a column changes.

2: names got `score` and `iou`. A file of an older version opens: what it lacks is null."""


def _field(name: str, kind: pa.DataType, meaning: str, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"meaning": meaning})


_LABEL = pa.dictionary(pa.int32(), pa.string())  # few distinct values, one per row

SCHEMAS: dict[str, pa.Schema] = {
    "shards": pa.schema(
        [
            _field("shard", pa.string(), "name of the tar or folder, without .tar; unique in the run"),
            _field("uri", pa.string(), "where it was read from"),
            _field("kind", pa.string(), "tar or folder"),
            _field("bytes", pa.int64(), "size of the tar, or of all files of the folder"),
            _field("identity", pa.string(), "hash of size and samples of the content: tells a changed shard"),
            _field("sha256", pa.string(), "of the whole tar, where a .sha256 file lies beside it", nullable=True),
            _field("state", pa.string(), "whole, truncated, or unreadable"),
            _field("images", pa.int64(), "images found, usable or not"),
            _field("other_members", pa.int64(), "files that are neither sa_N.jpg nor sa_N.json"),
        ]
    ),
    "images": pa.schema(
        [
            _field("image_id", pa.int64(), "N of sa_N.jpg, SA-1B's own id"),
            _field("shard", _LABEL, "key into shards"),
            _field("file_name", pa.string(), "member name in the tar, or file name in the folder"),
            _field("jpg_offset", pa.int64(), "first byte of the JPEG in the tar; 0 in a folder"),
            _field("jpg_bytes", pa.int64(), "length of the JPEG"),
            _field("json_offset", pa.int64(), "first byte of the annotation JSON; 0 in a folder"),
            _field("json_bytes", pa.int64(), "length of the annotation JSON"),
            _field("width", pa.int32(), "px, as the JPEG's own header says"),
            _field("height", pa.int32(), "px, as the JPEG's own header says"),
        ]
    ),
    "masks": pa.schema(
        [
            _field("mask_id", pa.int64(), "SA-1B's annotation id"),
            _field("image_id", pa.int64(), "key into images; rows of one image are adjacent"),
            _field("shard", _LABEL, "key into shards"),
            _field("jpg_offset", pa.int64(), "first byte of the image's JPEG in the shard"),
            _field("jpg_bytes", pa.int64(), "length of that JPEG"),
            _field("width", pa.int32(), "px"),
            _field("height", pa.int32(), "px"),
            _field("rle_counts", pa.string(), "COCO compressed run lengths, size [height, width]"),
            _field("area", pa.int64(), "px, equal to the run lengths' sum"),
            _field("area_ratio", pa.float64(), "area / (width × height), in (0, 1]"),
            _field("bbox_x", pa.float64(), "px, left"),
            _field("bbox_y", pa.float64(), "px, top"),
            _field("bbox_w", pa.float64(), "px, xmax − xmin: one less than the columns covered (SA-1B's convention)"),
            _field("bbox_h", pa.float64(), "px, ymax − ymin"),
            _field("predicted_iou", pa.float64(), "SAM's own estimate, may exceed 1"),
            _field("stability_score", pa.float64(), "SAM's own estimate, 0 to 1"),
            _field("fingerprint", _LABEL, "hash of the shard's identity, the rules and the step's version"),
        ]
    ),
    "names": pa.schema(
        [
            _field("mask_id", pa.int64(), "key into masks"),
            _field("image_id", pa.int64(), "key into images"),
            _field("namer", _LABEL, "who named it: vlm, grounded-sam, or another; one row per mask and namer"),
            _field("outcome", _LABEL, "named, or why there is no category (stages/answers.py)"),
            _field("category", pa.string(), "the name, normalised (pipeline/labels.py)", nullable=True),
            _field("raw", pa.large_string(), "the whole answer; of a prompt about several regions as well"),
            _field("logprob", pa.float64(), "log probability of the generated text, where told", nullable=True),
            _field("score", pa.float64(), "a detector's confidence in its box and phrase, 0 to 1", nullable=True),
            _field("iou", pa.float64(), "of the detector's mask and this one, 0 to 1", nullable=True),
            _field("prompt_tokens", pa.int64(), "of the prompt, divided by its regions", nullable=True),
            _field("cached_tokens", pa.int64(), "of those, taken from the engine's prefix cache", nullable=True),
            _field("generated_tokens", pa.int64(), "of the answer, divided by the prompt's regions", nullable=True),
            _field("seconds", pa.float64(), "from asking to answer, divided by the prompt's regions", nullable=True),
            _field("engine", _LABEL, "kind of engine: embedded, transformers, openai, vllm, detector"),
            _field("model", _LABEL, "name of the model; of a detector and a segmenter, joined by +"),
            _field("revision", _LABEL, "its revision, empty if not known"),
            _field("layout", _LABEL, "how the region was shown; of a detector, where its phrase is from"),
            _field("prompt", _LABEL, "hash of the question's text"),
            _field("fingerprint", pa.int64(), "hash of mask, prompt, model, decoding and renderer"),
        ]
    ),
    "phrases": pa.schema(
        [
            _field("image_id", pa.int64(), "key into images; one row per image"),
            _field("mask_id", pa.int64(), "the image's first mask, which stood for it when it was asked about"),
            _field("outcome", _LABEL, "listed, or none: no name in the answer"),
            _field("phrases", pa.list_(pa.string()), "the names listed, normalised, distinct, in their order"),
            _field("raw", pa.large_string(), "the whole answer"),
            _field("engine", _LABEL, "kind of engine"),
            _field("model", _LABEL, "name of the model"),
            _field("revision", _LABEL, "its revision, empty if not known"),
            _field("prompt", _LABEL, "hash of the question's text"),
            _field("fingerprint", pa.int64(), "hash of the first mask, question, model, decoding and renderer"),
        ]
    ),
    "pairs": pa.schema(
        [
            _field("mask_id", pa.int64(), "key into masks; one row per mask that has a category"),
            _field("image_id", pa.int64(), "key into images"),
            _field("category", pa.string(), "the canonical name (pipeline/categories.py)"),
            _field("namer", _LABEL, "whose name it is"),
            _field("namers", pa.list_(pa.string()), "all who named the mask, the most trusted first"),
            _field("raw_names", pa.list_(pa.string()), "their names, as in names"),
            _field("names", pa.list_(pa.string()), "the same, canonical"),
            _field("agreement", _LABEL, "same, synonym, related (hypernym or part), different, only-one"),
            _field("similarity", pa.float64(), "cosine of the first two names, -1 to 1", nullable=True),
            _field("confidence", pa.float64(), "of the name chosen, by its namer, 0 to 1", nullable=True),
            _field("score", pa.float64(), "the detector's, where it named the mask", nullable=True),
            _field("iou", pa.float64(), "the detector's, where it named the mask", nullable=True),
            _field("rule", _LABEL, "the rule of the configuration that decided"),
            _field("flagged", pa.bool_(), "to be shown to people first"),
            _field("engines", pa.list_(pa.string()), "kinds of engine behind the names"),
            _field("fingerprint", pa.int64(), "hash of the names' fingerprints, the rules and the category table"),
        ]
    ),
    "bands": pa.schema(
        [
            _field("category", pa.string(), "one row per category that has pairs"),
            _field("pairs", pa.int64(), "how many, 1 or more"),
            _field("band", _LABEL, "head or tail"),
        ]
    ),
    "requests": pa.schema(
        [
            _field("request_id", pa.int64(), "hash of mask, role and category asked; one row per yes/no question"),
            _field("mask_id", pa.int64(), "key into masks"),
            _field("image_id", pa.int64(), "key into images"),
            _field("role", _LABEL, "pair: its own category is asked; control: a wrong one"),
            _field("category", pa.string(), "what is asked"),
            _field("pair_category", pa.string(), "the pair's, when this was planned"),
            _field("kind", _LABEL, "of a control: co-occurring or sibling; of a pair: own"),
        ]
    ),
    "checks": pa.schema(
        [
            _field("request_id", pa.int64(), "key into requests; one row per answered request"),
            _field("mask_id", pa.int64(), "key into masks"),
            _field("image_id", pa.int64(), "key into images"),
            _field("role", _LABEL, "pair or control, as in requests"),
            _field("category", pa.string(), "what was asked"),
            _field("outcome", _LABEL, "yes, no, or unclear"),
            _field("evidence", _LABEL, "logprobs: the probabilities below; text: the answer's words alone"),
            _field(
                "p_yes", pa.float64(), "summed over the variants of yes, 0 to 1; null without logprobs", nullable=True
            ),
            _field("p_no", pa.float64(), "summed over the variants of no, 0 to 1", nullable=True),
            _field(
                "leftover", pa.float64(), "1 - p_yes - p_no: everything else the model might have said", nullable=True
            ),
            _field("raw", pa.large_string(), "the whole answer"),
            _field("prompt_tokens", pa.int64(), "of the prompt", nullable=True),
            _field("cached_tokens", pa.int64(), "of those, taken from the engine's prefix cache", nullable=True),
            _field("generated_tokens", pa.int64(), "of the answer", nullable=True),
            _field("seconds", pa.float64(), "from asking to answer", nullable=True),
            _field("engine", _LABEL, "kind of engine: embedded, transformers, openai, vllm"),
            _field("model", _LABEL, "name of the model"),
            _field("revision", _LABEL, "its revision, empty if not known"),
            _field("layout", _LABEL, "how the region was shown"),
            _field("prompt", _LABEL, "hash of the question's text, category left out"),
            _field("fingerprint", pa.int64(), "hash of mask, request, prompt, model, decoding and renderer"),
        ]
    ),
    "verdicts": pa.schema(
        [
            _field("mask_id", pa.int64(), "key into pairs; one row per pair that needs no answer or has one"),
            _field("image_id", pa.int64(), "key into images"),
            _field("category", pa.string(), "the pair's"),
            _field("band", _LABEL, "head or tail"),
            _field(
                "score",
                pa.float64(),
                "p_yes / (p_yes + p_no), 0 to 1; 1 or 0 where only text; null: not asked",
                nullable=True,
            ),
            _field("p_yes", pa.float64(), "as in checks", nullable=True),
            _field("p_no", pa.float64(), "as in checks", nullable=True),
            _field("leftover", pa.float64(), "as in checks", nullable=True),
            _field("evidence", _LABEL, "logprobs, text, or none: not asked"),
            _field("threshold", pa.float64(), "the score has to be above it, 0 to 1; null in the tail", nullable=True),
            _field("kept", pa.bool_(), "goes on to people"),
            _field("reason", _LABEL, "yes, tail: kept; no, unclear: dropped"),
            _field("engine", _LABEL, "kind of engine that answered; empty: not asked"),
            _field("fingerprint", pa.int64(), "hash of the pair, its check and the threshold"),
        ]
    ),
    "queue": pa.schema(
        [
            _field("page_id", pa.string(), "of the page it is shown on; ours, and the same whenever it is made again"),
            _field("place", pa.int32(), "on the page, from 0"),
            _field("view", _LABEL, "page: up to 24 tiles; single: one region, large"),
            _field("round", _LABEL, "screening, audit (blind judging again), conflict, or qualification"),
            _field("mask_id", pa.int64(), "key into pairs; once in every round, gold more often"),
            _field("image_id", pa.int64(), "key into images"),
            _field("category", pa.string(), "what it is said to show"),
            _field(
                "why",
                _LABEL,
                "tail, head, flagged, dropped (a sample of stage 2's), kept (audit), conflict, gold, recovered",
            ),
            _field("error", pa.float64(), "expected chance that it is wrong, 0 to 1: worst first", nullable=True),
            _field(
                "inclusion_probability", pa.float64(), "chance with which it was drawn, (0, 1]; 1: all of its kind are"
            ),
            _field("stratum", pa.string(), "of a sample; empty where all are taken"),
            _field("gold", pa.string(), "keep or delete where the answer is known; never sent", nullable=True),
            _field("crop", pa.string(), "file name of the marked picture among the crops"),
            _field("raw", pa.string(), "file name of the same without the mark"),
        ]
    ),
    "screenings": pa.schema(
        [
            _field("mask_id", pa.int64(), "what was judged"),
            _field("category", pa.string(), "what it was said to show"),
            _field("page_id", pa.string(), "key into queue"),
            _field("round", _LABEL, "as in queue"),
            _field("annotator", _LABEL, "pseudonym, stable in the run; simulated: no person"),
            _field("annotation_id", pa.int64(), "Label Studio's"),
            _field("verdict", _LABEL, "keep, delete, private, or unsure"),
            _field("seconds", pa.float64(), "spent on the page, divided by its regions", nullable=True),
            _field("page_seconds", pa.float64(), "spent on the page", nullable=True),
            _field("submitted_at", pa.string(), "UTC, ISO 8601: when the annotation was last changed"),
            _field("server", pa.string(), "name and project, as in label-studio-0123abcd/projects/3"),
        ]
    ),
    "decisions": pa.schema(
        [
            _field("mask_id", pa.int64(), "one row per mask that needs no further look"),
            _field("image_id", pa.int64(), "key into images"),
            _field("category", pa.string(), "the pair's"),
            _field("decision", _LABEL, "release, delete, private, or uncertain: people could not tell"),
            _field("by", _LABEL, "people, expert, or simulated"),
            _field("keep", pa.int32(), "votes"),
            _field("delete", pa.int32(), "votes"),
            _field("private", pa.int32(), "votes"),
            _field("unsure", pa.int32(), "votes"),
        ]
    ),
    "failures": pa.schema(
        [
            _field("mask_id", pa.int64(), "the mask that was asked about, to be asked again"),
            _field("namer", _LABEL, "who was asked"),
            _field("fingerprint", pa.int64(), "as in names: what was asked"),
            _field("error", pa.large_string(), "why there was no answer"),
            _field("made_at", pa.string(), "UTC, ISO 8601"),
        ]
    ),
    "quarantine": pa.schema(
        [
            _field("step", pa.string(), "which step refused the input"),
            _field(
                "input", pa.string(), "shard, image, mask or request, as in `shard:sa_000000`, `image:5`, `mask:12`"
            ),
            _field("shard", pa.string(), "key into shards"),
            _field("image_id", pa.int64(), "where known", nullable=True),
            _field("place", pa.string(), "file or tar member, and the field, as in `sa_1.json $.annotations[3].area`"),
            _field("reason", pa.string(), "short code, counted in the funnel"),
            _field("error", pa.string(), "what is wrong and what to do"),
        ]
    ),
}


def stamped(name: str) -> pa.Schema:
    """Return the schema of table `name` with its name and version in the metadata, as written to files."""
    return SCHEMAS[name].with_metadata({"rr7k.table": name, "rr7k.version": str(VERSION)})


def check(schema: pa.Schema, name: str, where: str) -> None:
    """Raise `UserError` unless `schema`, read from the file `where`, is table `name` in this version."""
    found = int((schema.metadata or {}).get(b"rr7k.version", b"0"))
    if found > VERSION:
        raise UserError(
            f"{where}: table {name} has schema version {found}, this rr7k reads up to {VERSION}. Update rr7k."
        )
    missing = [field.name for field in SCHEMAS[name] if field.name not in schema.names and not field.nullable]
    if missing:
        raise UserError(f"{where}: not a {name} table of version {VERSION}: missing {', '.join(missing)}.")


def from_rows(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Build table `name` from a list of dicts, for tables with few rows. Raises `pa.ArrowInvalid`."""
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name])
