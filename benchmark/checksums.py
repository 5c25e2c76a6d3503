"""`checksums.txt`: the SHA-256 of every file of a release, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import UserError
from pipeline.regions import Written

FILE = "checksums.txt"
_FIGURES = "figures"
"""Stands outside: pictures differ between versions of fonts and of what draws them."""


def of(folder: Path, known: Mapping[str, Written]) -> str:
    """Return the content of the file; `known` has the hashes of data files, which are not read again."""
    lines = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        digest = known[path.name].sha256 if path.parent.name == "data" and path.name in known else _sha256(path)
        lines.append(f"{digest}  {name}\n")
    return "".join(lines)


def verify(folder: Path) -> list[str]:
    """Hash every file again; return what is missing, changed, or not listed. Raises `UserError` without a list."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{folder / FILE}: cannot be read ({error.strerror}).") from error
    stated = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    wrong = [f"{name}: missing" for name in stated if name not in there]
    wrong += [f"{name}: not listed" for name in there if name not in stated]
    return wrong + [f"{n}: changed" for n, path in there.items() if n in stated and _sha256(path) != stated[n]]


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder).parts
        if path.is_file() and inner[0] != _FIGURES and inner != (FILE,) and not inner[0].startswith("."):
            yield path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
