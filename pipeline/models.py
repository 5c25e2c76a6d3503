"""The models the pipeline uses: pinned in `data_manifests/models.toml`, fetched once, verified at any time.

A model lies in FOLDER/NAME/REVISION, with `rr7k-model.json` beside its files; that record is written last, so where it
is, the model is whole. Weights are fetched as safetensors only: pickled ones run code when they are read.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from pipeline.decoding import UNDECODABLE
from pipeline.errors import UsageError, UserError
from pipeline.files import Folder

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

_MANIFEST = Path(__file__).parent.parent / "data_manifests" / "models.toml"
_RECORD = "rr7k-model.json"
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]  # weights, settings, tokenizers
_AT_ONCE = 4  # files hashed at a time: hashing leaves Python's lock free, and disks are faster than one core


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a file."""

    size: int
    """bytes"""
    sha256: str


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `data_manifests/models.toml`, which describes the fields."""

    repo: Annotated[str, msgspec.Meta(pattern="^[^/]+/[^/]+$")]
    revision: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{40})?$")]
    licence: str
    used_for: str
    parameters: int
    runs_code: bool = False
    """It cannot be loaded without the Python files of its repository."""
    files: dict[str, File] = {}


class Record(msgspec.Struct, frozen=True):
    """What was downloaded: the content of `rr7k-model.json`; `files` by their path in the repository."""

    name: str
    repo: str
    revision: str
    files: dict[str, File]


def manifest() -> dict[str, Model]:
    """Read the pinned models, by name. Raises `UsageError` where the file is wrong."""
    try:
        return msgspec.toml.decode(_MANIFEST.read_bytes(), type=dict[str, Model])
    except (OSError, *UNDECODABLE) as error:
        raise UsageError(f"{_MANIFEST}: {error}") from error


def fetch(names: Iterable[str], folder: Path, revision: str = "") -> None:
    """Download what is missing or damaged in FOLDER/NAME/REVISION; nothing is asked of the hub for a whole model.

    Files that arrived whole are kept when a download is interrupted. A token is taken from where huggingface_hub looks
    for one (HF_TOKEN). `revision` replaces the pinned one of a single model. Raises `UsageError` before any download
    for an unknown name or a model without a revision; `UserError` when the hub refuses, breaks off, or sends anything
    other than it lists.
    """
    for name, model in _choose(names, revision).items():
        place = folder / name / model.revision
        record = _record(place)
        if record is None or _problems(place, record.files):
            _fetch(name, model, place)


def verify(names: Iterable[str], folder: Path, revision: str = "") -> list[str]:
    """Hash every file again and compare with what was downloaded; return a line per difference, none if all is well."""
    lines = []
    for name, model in _choose(names, revision).items():
        place = folder / name / model.revision
        record = _record(place)
        found = ["not fetched, or not to its end"] if record is None else _problems(place, record.files)
        lines += [f"{name}: {problem}" for problem in found]
    return lines


def local_path(name: str, folder: Path, revision: str = "") -> Path:
    """Return the folder from which an engine loads a model. Raises `UsageError` when it was not fetched."""
    place = folder / name / _choose([name], revision)[name].revision
    if _record(place) is None:
        raise UsageError(f"{name} is not in {folder}: rr7k models fetch {name} --to {folder}")
    return place


def _choose(names: Iterable[str], revision: str) -> dict[str, Model]:
    known = manifest()
    chosen = {name: _find(name, known) for name in names}
    if revision:
        if len(chosen) != 1 or not re.fullmatch("[0-9a-f]{40}", revision):
            raise UsageError("--revision takes one model's commit: 40 hexadecimal digits.")
        # What is known of the pinned revision's files says nothing of another's.
        return {n: msgspec.structs.replace(m, revision=revision, files={}) for n, m in chosen.items()}
    for name, model in chosen.items():
        if not model.revision:
            raise UsageError(f"{name}: no revision of {model.repo} is pinned; choose a commit with --revision.")
    return chosen


def _find(name: str, known: Mapping[str, Model]) -> Model:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0)
        raise UsageError(f"{name}: no such model; did you mean {close[0]}? Known are {', '.join(known)}.")
    return known[name]


def _record(place: Path) -> Record | None:
    """Read the record; None when it is absent or damaged."""
    try:
        return msgspec.json.decode((place / _RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, *UNDECODABLE):
        return None


# --- downloading ------------------------------------------------------------------------------------------


def _fetch(name: str, model: Model, place: Path) -> None:
    listed = _download(name, model, place)
    files = _hash(place, listed)
    wrong = [path for path, file in files.items() if not _as_listed(place / path, file, listed[path], model)]
    for path in wrong:
        (place / path).unlink()
    if wrong:
        raise UserError(f"{name}: not what was listed: {', '.join(wrong)}; deleted, run the same command to go on.")
    if unlisted := _unlisted_shards(place, files):
        raise UserError(f"{name}: {unlisted[0]} (the repository is incomplete).")
    record = Record(name, model.repo, model.revision, files)
    Folder(str(place)).replace(_RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
    # huggingface_hub's notes: without them, a file that changed later is compared and fetched anew, not trusted.
    shutil.rmtree(place / ".cache", ignore_errors=True)


def _download(name: str, model: Model, place: Path) -> dict[str, RepoFile]:
    """Download the wanted files and return what the hub lists of them, by path."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, XetDownloadError  # type: ignore[attr-defined]
    from huggingface_hub.hf_api import RepoFile

    patterns = [*_WANTED, *(["*.py"] if model.runs_code else [])]
    try:
        # Listed here as well: on its own, snapshot_download takes what lies in the folder when the hub is out of reach.
        tree = HfApi().list_repo_tree(model.repo, recursive=True, revision=model.revision)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        wanted = [path for path in files if any(fnmatch(path, pattern) for pattern in patterns)]
        if not any(path.endswith(".safetensors") for path in wanted):
            raise UserError(f"{name}: {model.repo} has no safetensors weights at {model.revision}.")
        snapshot_download(model.repo, revision=model.revision, local_dir=place, allow_patterns=patterns)
    except (HTTPError, XetDownloadError, OSError) as error:
        raise UserError(f"{name}: {_failure(model, error)}") from None
    return {path: files[path] for path in wanted}


def _failure(model: Model, error: Exception) -> str:
    """Describe a failure without the client's own message, which can hold a signed link."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return f"the hub refuses {model.repo} (HTTP {status}); set HF_TOKEN to a token that may read it."
    if status == 404:
        return f"the hub has no {model.repo} at {model.revision} (HTTP 404)."
    what = f"HTTP {status}" if status else f"{type(error).__name__} {getattr(error, 'strerror', None) or ''}".strip()
    return f"the download of {model.repo} broke off ({what}). What arrived is kept; run the same command to go on."


def _as_listed(path: Path, file: File, listed: RepoFile, model: Model) -> bool:
    """Compare a file with the hub's listing, by SHA-256 or, for small files, git's SHA-1; and with the manifest."""
    if listed.lfs is not None:
        same = file == File(listed.lfs.size, listed.lfs.sha256)
    else:
        blob = b"blob %d\0" % file.size + path.read_bytes()
        same = hashlib.sha1(blob, usedforsecurity=False).hexdigest() == listed.blob_id
    return same and file == model.files.get(str(listed.path), file)


# --- verifying --------------------------------------------------------------------------------------------


def _problems(place: Path, files: Mapping[str, File]) -> list[str]:
    sizes = {path: (place / path).stat().st_size for path in files if (place / path).is_file()}
    lines = [f"{path}: missing" for path in files if path not in sizes]
    for path, size in sizes.items():
        if size < files[path].size:
            lines.append(f"{path}: truncated, {size:,} of {files[path].size:,} bytes")
    for path, now in _hash(place, [path for path, size in sizes.items() if size >= files[path].size]).items():
        if now != files[path]:
            lines.append(f"{path}: changed, SHA-256 is {now.sha256}, was {files[path].sha256}")
    return lines or _unlisted_shards(place, files)


def _hash(place: Path, paths: Iterable[str]) -> dict[str, File]:
    paths = list(paths)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(paths, pool.map(lambda path: _digest(place / path), paths), strict=True))


def _digest(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path.stat().st_size, digest)


def _unlisted_shards(place: Path, files: Mapping[str, File]) -> list[str]:
    """Name the shards that an index of the weights speaks of and `files` lacks."""
    lines = []
    for path in files:
        if path.endswith(".safetensors.index.json"):
            index = msgspec.json.decode((place / path).read_bytes())
            folder = path[: path.rfind("/") + 1]
            named = {folder + shard for shard in index["weight_map"].values()}
            lines += [f"{shard}: missing, {path} names it" for shard in sorted(named - set(files))]
    return lines
