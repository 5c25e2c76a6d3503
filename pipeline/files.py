"""Files on a local disk or an object store, behind one small interface: list, read, create, replace.

Nothing here needs a rename, because object stores have none: a file gets its final name once, and only
the commit records of `pipeline.run` say which files count.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow.fs as pafs

from pipeline.errors import UsageError, UserError

_REMOTE_WINDOW = 16 << 20
"""Bytes a sequential read fetches at once from an object store: a request costs tens of milliseconds."""


def is_remote(uri: str) -> bool:
    """Say whether `uri` names an object store (`s3://`, `gs://`) rather than a local path."""
    return "://" in uri and not uri.startswith("file://")


def resolve(uri: str) -> tuple[Any, str]:
    """Return the pyarrow filesystem and the path in it that `uri` or a local path names.

    Raises `UsageError` when the scheme is unknown or the address cannot be read.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{uri}: not a path that can be opened ({error}). Use a local path, s3://bucket/path or gs://bucket/path."
        ) from error
    return filesystem, path


def absolute(uri: str) -> str:
    """Return `uri` so that it means the same in every folder and on every node that sees the disk."""
    return uri if is_remote(uri) else str(Path(uri.removeprefix("file://")).absolute())


def split_query(uri: str) -> tuple[str, str]:
    """Split the `?endpoint_override=…` off an object store's address; a local path has none."""
    head, mark, query = uri.partition("?") if is_remote(uri) else (uri, "", "")
    return head, mark + query


def join(uri: str, *names: str) -> str:
    """Append path segments to `uri`."""
    head, query = split_query(uri)
    return "/".join([head.rstrip("/"), *names]) + query


def parent(uri: str) -> str:
    """Return the folder that holds `uri`."""
    head, query = split_query(uri)
    return (head.rpartition("/")[0] or ("/" if head.startswith("/") else ".")) + query


def base_name(uri: str) -> str:
    """Return the last path segment of `uri`."""
    return split_query(uri)[0].rstrip("/").rpartition("/")[2]


@contextmanager
def open_sequential(uri: str) -> Iterator[IO[bytes]]:
    """Open a file for reading from front to back; seeking forward costs nothing on a local disk."""
    if not is_remote(uri):
        with Path(uri.removeprefix("file://")).open("rb") as file:
            yield file
        return
    import io

    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as raw, io.BufferedReader(raw, _REMOTE_WINDOW) as file:
        yield file


@contextmanager
def open_ranges(uri: str) -> Iterator[Any]:
    """Open a file whose `read_at(size, offset)` reads byte ranges."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_file(path) as file:
        yield file


def sha256(*chunks: bytes) -> str:
    """Return the hexadecimal SHA-256 of the concatenated `chunks`."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


class HashingFile:
    """A file for writing whose SHA-256 is known once the last byte is written, without reading it again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Append bytes, or anything with a buffer."""
        view = memoryview(data)
        self._digest.update(view)
        self._file.write(view)
        self.bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self.bytes

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def close(self) -> None:
        """Leave the file to its owner, who opened it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """The hash of all that was written, hexadecimal."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class Folder:
    """A folder on a local disk or an object store. It need not exist before the first write."""

    uri: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return resolve(self.uri)

    @property
    def filesystem(self) -> Any:
        """The pyarrow filesystem the folder lives on."""
        return self._place[0]

    @property
    def path(self) -> str:
        """The folder's path within `filesystem`."""
        return self._place[1]

    def sub(self, *names: str) -> Folder:
        """Return a folder below this one."""
        return Folder(join(self.uri, *names))

    def names(self, suffix: str = "") -> list[str]:
        """List the files in the folder (not below it) that end in `suffix`, sorted; empty if it is absent."""
        return [name for name in self.sizes() if name.endswith(suffix)]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file in the folder (not below it), by name, sorted; none if it is absent.

        Raises `UserError` for a name that is not UTF-8.
        """
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        try:
            return dict(sorted((info.base_name, info.size) for info in infos if info.type == pafs.FileType.File))
        except UnicodeDecodeError as error:
            name = error.object.decode(errors="replace")
            raise UserError(f"{self.uri}: holds a file whose name is not UTF-8, {name!r}. Rename it.") from error

    def exists(self, name: str) -> bool:
        """Say whether the folder holds a file of that name."""
        return bool(self.filesystem.get_file_info(f"{self.path}/{name}").type == pafs.FileType.File)

    def read(self, name: str) -> bytes:
        """Return a file's bytes. Raises `FileNotFoundError`."""
        with self.filesystem.open_input_file(f"{self.path}/{name}") as file:
            return bytes(file.read())

    def delete(self, name: str) -> None:
        """Delete a file. Raises `FileNotFoundError`."""
        self.filesystem.delete_file(f"{self.path}/{name}")

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Write a new file that is on the disk, not in a cache, when the block ends.

        A process killed inside the block leaves a partial file on a local disk and nothing on an object
        store; so the name must be one that nobody reads before it is committed.
        """
        if is_remote(self.uri):
            with self.filesystem.open_output_stream(f"{self.path}/{name}") as sink:
                yield sink
            return
        Path(self.path).mkdir(parents=True, exist_ok=True)
        with Path(self.path, name).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def replace(self, name: str, data: bytes) -> None:
        """Write a small file so that readers see the old content or the new, never a part."""
        if is_remote(self.uri):  # a PUT is atomic
            with self.create(name) as sink:
                sink.write(data)
            return
        draft = f".{name}.{secrets.token_hex(4)}"
        with self.create(draft) as file:
            file.write(data)
        Path(self.path, draft).replace(Path(self.path, name))
