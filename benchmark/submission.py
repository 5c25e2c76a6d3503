"""A submission: predictions, what the model is and where it ran, in one zip file that anybody can score again.

    submission.json         `Submission`
    predictions/NAME        the predictions, byte for byte as they were scored

A submission comes from somebody else: names, number and sizes of its members are checked before anything is read, and
nothing is unpacked under a name that is not plain.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmark import scorecard
from benchmark.leaderboard import Row
from benchmark.predictions import Predictions, read
from benchmark.presets import PRESETS, find
from benchmark.records import read_bytes
from benchmark.scorecard import Scorecard
from benchmark.similarity import Similarity
from benchmark.truth import Truth
from pipeline.decoding import UNDECODABLE
from pipeline.errors import UsageError, UserError
from pipeline.files import Folder, sha256
from pipeline.run import version

FORMAT = 1

_FILE, _FOLDER = "submission.json", "predictions/"
_MEMBERS, _BYTES, _SAID = 1000, 1 << 30, 1 << 22
"""Most files, bytes of all of them unpacked, and of submission.json: 200,000 predictions have some ten million."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.(?:parquet|csv|json|jsonl)")
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(NotImplementedError, EOFError, RuntimeError, OSError, ValueError),
)
"""What the standard library raises for damaged archives, encrypted ones among them."""

_TOLERANCE = 1e-4
"""Difference of a claimed score from the one found that other versions of numerical libraries explain."""


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a submission says of itself."""

    format: int
    model: str
    facts: dict[str, str]
    """Of the model: parameters, training data, address, whatever its makers tell."""
    environment: dict[str, str]
    """In which it was packed."""
    form: str
    """Of the predictions (benchmark/predictions.py)."""
    files: dict[str, str]
    """SHA-256 by name."""
    claims: list[Row]
    """What it scored, in every protocol that can score it."""
    made_by: str


class Packed(NamedTuple):
    """A submission that was written."""

    submission: Submission
    left_out: dict[str, str]
    """Protocols that cannot score these predictions, and why."""


class Validated(NamedTuple):
    """A submission scored from scratch."""

    submission: Submission
    cards: list[Scorecard]
    differences: list[str]
    """Where a claim is not what was found; none: it holds."""


def pack(predictions: Predictions, truth: Truth, facts: Mapping[str, str], similarity: Similarity, out: Path) -> Packed:
    """Score predictions in every protocol, and write all as the file `out`.

    The same input gives the same bytes. Raises `UsageError` when the model has no name or `out` cannot be written,
    `UserError` when not even our own protocol can score them.
    """
    if not predictions.model:
        raise UsageError("a submission needs the model's name: --model NAME")
    claims, left_out = [], {}
    for preset in PRESETS.values():
        try:
            claims.append(scorecard.make(predictions, truth, preset, similarity).row)
        except UserError as error:
            if not preset.published:
                raise
            left_out[preset.name] = str(error)
    data = {path.name: read_bytes(path) for path in _paths(predictions.path)}
    if wrong := [name for name in data if not _NAME.fullmatch(name)]:
        raise UsageError(f"{wrong[0]!r}: rename the file; letters, digits, . _ - and a known ending make a name.")
    made = Submission(
        format=FORMAT,
        model=predictions.model,
        facts=dict(facts),
        environment=scorecard.environment(),
        form=predictions.form,
        files={name: sha256(content) for name, content in data.items()},
        claims=claims,
        made_by=version(),
    )
    try:
        Folder(str(out.absolute().parent)).replace(out.name, _zipped(made, data))
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror}).") from error
    return Packed(made, left_out)


def _paths(path: Path) -> Sequence[Path]:
    return sorted(path.glob("subset_*.json")) if path.is_dir() else [path]


def _zipped(made: Submission, data: Mapping[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(_FILE), msgspec.json.format(msgspec.json.encode(made)))  # the date is fixed
        for name, content in data.items():
            archive.writestr(zipfile.ZipInfo(_FOLDER + name), content, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def unpack(path: Path) -> tuple[Submission, dict[str, bytes]]:
    """Read a submission: what it says, and its files by name.

    Raises `UserError` for what is no submission, is larger than one can be, or does not hold what it says it does.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            members = _members(path, archive)
            made = msgspec.json.decode(_content(path, archive, members.pop(_FILE)), type=Submission)
            data = {name.removeprefix(_FOLDER): _content(path, archive, info) for name, info in members.items()}
    except UNDECODABLE as error:
        raise UserError(f"{path}: {_FILE}: {error}") from error
    except _DAMAGE as error:
        raise UserError(f"{path}: no submission: not a zip file as rr7k submit writes it ({error})") from error
    if made.format != FORMAT:
        raise UserError(f"{path}: a submission of format {made.format}; this rr7k reads {FORMAT}. Update it.")
    if made.files != {name: sha256(content) for name, content in data.items()}:
        raise UserError(f"{path}: its files are not those that {_FILE} lists: damaged, or changed since.")
    return made, data


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name. Raises `UserError` before anything is unpacked."""
    infos = archive.infolist()
    if len(infos) > _MEMBERS or sum(info.file_size for info in infos) > _BYTES:
        raise UserError(f"{path}: more than {_MEMBERS:,} files or {_BYTES >> 30} GiB unpacked: no submission")
    for info in infos:
        plain = info.filename.removeprefix(_FOLDER) if info.filename.startswith(_FOLDER) else ""
        if info.compress_type not in _KINDS or (info.filename != _FILE and not _NAME.fullmatch(plain)):
            raise UserError(f"{path}: holds {info.filename!r:.150}, which no submission has")
    found = {info.filename: info for info in infos}
    if len(found) < len(infos) or len(found) < 2 or _FILE not in found or found[_FILE].file_size > _SAID:
        raise UserError(f"{path}: no submission: it needs {_FILE}, of some kilobytes, and predictions, each once")
    return found


def _content(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise UserError(f"{path}: {info.filename} is not as long as it says")
    return data


def validate(path: Path, truth: Truth, similarity: Similarity, folder: Path) -> Validated:
    """Score a submission from scratch in every protocol it claims; `folder`, an empty one, is used for its files.

    Raises `UserError` for what `unpack` and the scorer refuse, and for claims about another benchmark.
    """
    made, data = unpack(path)
    for name, content in data.items():
        (folder / name).write_bytes(content)
    predictions = read(folder if len(data) > 1 else folder / next(iter(data)), made.form, made.model)
    other = next((row for row in made.claims if row.fingerprint != truth.fingerprint or row.split != truth.split), None)
    if other is not None:
        raise UserError(
            f"{path}: scored on {other.benchmark}, split {other.split} ({other.fingerprint[:12]}…); here is "
            f"{truth.name}, split {truth.split} ({truth.fingerprint[:12]}…)."
        )
    cards = [scorecard.make(predictions, truth, find(row.preset), similarity) for row in made.claims]
    differences = [text for card, row in zip(cards, made.claims, strict=True) for text in _differences(card.row, row)]
    return Validated(made, cards, differences)


def _differences(found: Row, claimed: Row) -> list[str]:
    told = [
        f"{found.preset}: {name} is {getattr(found, name)}, claimed {getattr(claimed, name)}"
        for name in ("model", "instances", "counted", "outcomes", "predictions", "embedding_weights")
        if getattr(found, name) != getattr(claimed, name)
    ]
    for kind in ("scores", "macro"):
        ours, theirs = getattr(found, kind), getattr(claimed, kind)
        for name in sorted(ours.keys() | theirs.keys()):
            values = [of[name].value if name in of else None for of in (ours, theirs)]
            if not _same(*values):
                told.append(f"{found.preset}: {kind} {name} is {_shown(values[0])}, claimed {_shown(values[1])}")
    return told


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _TOLERANCE


def _shown(value: float | None) -> str:
    return "not there" if value is None else f"{value:.6f}"
