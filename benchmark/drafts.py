"""A folder that appears whole or not at all, made beside its place; a killed try is gone on with.

A record of every finished data file, with its hash, lies in the draft and is written last; the next try of the same
work keeps these files and makes the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pipeline import files, locks
from pipeline.decoding import decoded
from pipeline.errors import UsageError
from pipeline.regions import Written

_LOCKS, _RECORDS, _PLANNED = ".locks", ".written", ".planned"


@contextmanager
def made(out: Path) -> Iterator[tuple[Path, locks.Lock]]:
    """Yield the draft of `out` and its lock; when the block ends well, the draft takes the name `out`.

    Raises `UsageError` when `out` is there, `BusyError` while another process makes it.
    """
    if out.exists():
        raise UsageError(f"{out}: is there already. A release is never changed: choose another name or remove it.")
    draft = out.with_name(f".{out.name}.part")
    with locks.hold(files.Folder(str(draft / _LOCKS)), "release") as lock:
        yield draft, lock
    for left in (_LOCKS, _RECORDS):
        shutil.rmtree(draft / left)
    (draft / _PLANNED).unlink()
    draft.rename(out)


def begin(draft: Path, planned: str) -> None:
    """Keep what an earlier try has finished if it had the same plan, told by its hash; else clear it away."""
    mark = draft / _PLANNED
    if not mark.exists() or mark.read_text() != planned:
        for name in ("data", _RECORDS):
            shutil.rmtree(draft / name, ignore_errors=True)
        mark.write_text(planned)
    for name in ("data", _RECORDS):
        (draft / name).mkdir(exist_ok=True)
    for half in (draft / "data").glob(".*"):
        half.unlink()


def record(draft: Path, written: Written) -> None:
    """Note that a data file is whole."""
    files.Folder(str(draft / _RECORDS)).replace(f"{written.name}.json", msgspec.json.encode(written))


def finished(draft: Path) -> dict[str, Written]:
    """Return the data files that are whole, by name. Raises `UserError` for a damaged record."""
    records = (draft / _RECORDS).glob("*.json")
    remedy = "Delete it: that data file is then made again."
    found = [decoded(path.read_bytes(), Written, f"{path}", remedy) for path in sorted(records)]
    return {written.name: written for written in found if (draft / "data" / written.name).exists()}
