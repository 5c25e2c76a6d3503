"""The data folder of a local Label Studio: who uses it, its secrets, and copies of its database to put back.

The database is a file there, SQLite's, unless the environment names a PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from pipeline.decoding import decoded
from pipeline.errors import BusyError, UsageError, UserError

DATABASE = "label_studio.sqlite3"
SECRETS = "secrets.json"
_BESIDE = ("-wal", "-shm", "-journal")
"""SQLite's files beside a database: they belong to it alone, and spoil another put in its place."""
_EMAIL = "operator@localhost"
_POSTGRESQL = tuple(f"POSTGRE_{name}" for name in ("HOST", "PORT", "USER", "PASSWORD", "NAME"))
"""Label Studio's own names (its core/settings/base.py)."""


class Secrets(msgspec.Struct, frozen=True):
    """What opens the server. `key` signs sessions and access tokens."""

    email: str
    password: str
    token: str  # 40 hexadecimal digits, the longest that the server's table holds
    key: str

    def __repr__(self) -> str:
        return f"Secrets({self.email})"

    def hidden(self, text: str) -> str:
        """Return `text` without the secrets, PostgreSQL's password included."""
        for secret in (self.password, self.token, self.key, postgresql().get("POSTGRE_PASSWORD", "")):
            text = text.replace(secret, "…") if secret else text
        return text


def postgresql() -> dict[str, str]:
    """Return how the environment names a PostgreSQL, in Label Studio's own words; nothing where the database is SQLite.

    DJANGO_DB=default chooses it. Raises `UsageError` for another choice, or when one of POSTGRE_HOST, _PORT, _USER,
    _PASSWORD and _NAME is missing: Label Studio would take a value of its own.
    """
    kind = os.environ.get("DJANGO_DB", "sqlite")
    if kind == "sqlite":
        return {}
    if kind != "default":
        raise UsageError(f"DJANGO_DB is {kind!r}: only default (PostgreSQL) and sqlite are supported.")
    if missing := [name for name in _POSTGRESQL if not os.environ.get(name)]:
        raise UsageError(f"DJANGO_DB=default asks for PostgreSQL, and {', '.join(missing)} are not set. Set them too.")
    return {"DJANGO_DB": kind, **{name: os.environ[name] for name in _POSTGRESQL}}


def _refuse_postgresql() -> None:
    if known := postgresql():
        where = f"-h {known['POSTGRE_HOST']} -p {known['POSTGRE_PORT']} -U {known['POSTGRE_USER']}"
        raise UsageError(
            f"the database is PostgreSQL's, which has its own tools. Copy it, and {SECRETS}, which opens it, with: "
            f"pg_dump -Fc {where} -f FILE {known['POSTGRE_NAME']}; put it back with: "
            f"pg_restore --clean --if-exists {where} -d {known['POSTGRE_NAME']} FILE"
        )


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep others off a data folder, which is made if need be. Raises `BusyError`, `UsageError`."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "server.lock").open("w")
    except OSError as error:
        raise UsageError(f"{data_dir}: cannot write there ({error.strerror}). Choose another data folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{data_dir}: a server is running on it. Stop that one first.") from None
        yield


def keys(data_dir: Path) -> Secrets:
    """Return the secrets of a data folder; those of a new one are made, in a file that only its owner can read.

    Raises `UsageError` when others can read the file, or when the database is there without it: the server takes a
    token only together with a new user (label_studio.md §1).
    """
    path = data_dir / SECRETS
    if not path.exists():
        if (data_dir / DATABASE).exists():
            raise UsageError(f"{path}: missing, and the database beside it opens to no other. Restore a backup.")
        made = Secrets(_EMAIL, secrets.token_urlsafe(24), secrets.token_hex(20), secrets.token_urlsafe(48))
        _write(path, msgspec.json.encode(made))
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path}: others can read it. Give it to its owner alone: chmod 600 {path}")
    return decoded(path.read_bytes(), Secrets, f"{path}", "Restore a backup.", UsageError)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def backup(data_dir: Path, to: Path) -> None:
    """Copy database and secrets into the new folder `to`, also while the server runs.

    Label Studio lets every annotator change and delete everything (label_studio.md §4): copy often. The copy opens the
    server, so it is its owner's alone. Raises `UsageError` when there is no database, or `to` exists already, or the
    database is PostgreSQL's.
    """
    _refuse_postgresql()
    if not (data_dir / DATABASE).exists():
        raise UsageError(f"{data_dir}: no database of Label Studio there.")
    if to.exists():
        raise UsageError(f"{to}: exists already. Give the backup a folder of its own.")
    draft = to.with_name(f".{to.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    _write(draft / SECRETS, msgspec.json.encode(keys(data_dir)))
    _copy(data_dir / DATABASE, draft / DATABASE)
    draft.rename(to)


def restore(copy: Path, data_dir: Path) -> None:
    """Put a backup into a data folder that has no database, for the next start.

    Raises `UsageError` when there is a database already, which is never overwritten, or `copy` is no backup, or the
    database is PostgreSQL's; `BusyError` while a server runs there.
    """
    _check_copy(copy)
    with alone(data_dir):
        if there := _files(data_dir):
            raise UsageError(f"{there[0]}: is there already. Move it away first, or choose another folder.")
        _put(copy, _drafted(copy, data_dir), data_dir)


def go_back(copy: Path, data_dir: Path) -> Path | None:
    """Put a backup into a data folder in place of what is there, and return where that is now; None: nothing was.

    It is moved into `backups`, named by the time, and can be put back as any other. Raises as `restore`.
    """
    _check_copy(copy)
    with alone(data_dir):
        draft = _drafted(copy, data_dir)
        aside = _move_aside(data_dir)
        _put(copy, draft, data_dir)
    return aside


def _check_copy(copy: Path) -> None:
    _refuse_postgresql()
    if not ((copy / DATABASE).exists() and (copy / SECRETS).exists()):
        raise UsageError(f"{copy}: not a backup; it should hold {DATABASE} and {SECRETS}.")


def _files(data_dir: Path) -> list[Path]:
    """Return the files of a database that are there."""
    return [path for end in ("", *_BESIDE) if (path := data_dir / f"{DATABASE}{end}").exists()]


def _move_aside(data_dir: Path) -> Path | None:
    """Move database and secrets into a folder of backups; one that was killed over it is gone on with."""
    draft = data_dir / "backups" / ".aside.part"
    if not _files(data_dir) and not draft.exists():
        return None
    draft.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (data_dir / SECRETS).exists() and not (draft / SECRETS).exists():
        _write(draft / SECRETS, (data_dir / SECRETS).read_bytes())
    for path in _files(data_dir):
        path.rename(draft / path.name)
    aside = draft.with_name(f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-replaced")
    draft.rename(aside)
    return aside


def _drafted(copy: Path, data_dir: Path) -> Path:
    """Copy the database, whole and sound, to where it can be renamed. Raises `UserError` for a damaged one."""
    draft = data_dir / f".{DATABASE}.part"
    draft.unlink(missing_ok=True)
    _copy(copy / DATABASE, draft)
    return draft


def _put(copy: Path, draft: Path, data_dir: Path) -> None:
    _write(data_dir / SECRETS, msgspec.json.encode(keys(copy)))
    draft.rename(data_dir / DATABASE)


def _copy(database: Path, to: Path) -> None:
    """Copy by SQLite's own backup, which waits for writers and sees whole transactions. Raises `UserError`."""
    to.touch(0o600)
    try:
        with (
            closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
            (verdict,) = target.execute("PRAGMA quick_check").fetchone()
    except sqlite3.Error as error:
        raise UserError(f"{database}: cannot be copied ({error}).") from error
    if verdict != "ok":
        raise UserError(f"{database}: damaged ({verdict}). Go back to an older backup.")
