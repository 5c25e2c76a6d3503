"""SA-1B shards: finding them, indexing them, reading byte ranges of their members.

A shard is a tar of `sa_N.jpg` and `sa_N.json` (the layout in which SA-1B is published), or a folder into
which such a tar was unpacked. Nothing is ever unpacked here: the index keeps byte ranges.
"""

from __future__ import annotations

import fnmatch
import re
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, Literal, NamedTuple, Self
from urllib.parse import quote

import numpy as np
import pyarrow.fs as pafs

from pipeline import files, images
from pipeline.errors import UsageError

_READERS = 16  # threads that look at shards; on an object store each look is a round trip
_SAMPLE = 64 << 10  # bytes of content hashed at the start, the middle and the end of a tar
_LONG_HEADER = 1 << 20  # how far to look for a JPEG's frame header behind profiles and thumbnails
_GZIP = b"\x1f\x8b"
_MEMBER = re.compile(r"sa_([0-9]{1,18})\.(jpg|json)")
_OCTAL = re.compile(rb"[0-7]+")
_MOST_HEADERS = 16 << 10
"""Bytes of headers that a member may have: 1 kB is usual. Much of what they say is kept, some of it many times over."""
_DAMAGE = (tarfile.TarError, OverflowError, ValueError, IndexError)  # what `tarfile` raises for damaged headers
_END_BLOCK = 512
"""A tar ends in two such blocks of zeros (POSIX.1-1988 ustar)."""


class Problem(NamedTuple):
    """An input that could not be used; becomes a row of `quarantine`."""

    input: str
    image_id: int | None
    place: str
    reason: str
    error: str


class Range(NamedTuple):
    """A member's bytes."""

    offset: int
    bytes: int


class IndexedImage(NamedTuple):
    """An image of a shard and where its two files lie."""

    image_id: int
    file_name: str
    jpg: Range
    json: Range
    width: int
    height: int


@dataclass(frozen=True)
class Shard:
    """One tar or unpacked folder. `identity` changes when its content does."""

    name: str
    uri: str
    kind: Literal["tar", "folder"]
    bytes: int
    identity: str

    @property
    def key(self) -> str:
        """The name in characters that are safe in a file name."""
        return shard_key(self.name)

    def member_uri(self, file_name: str) -> str:
        """Return the file that holds a member's byte range: the tar itself, or the file in the folder."""
        return self.uri if self.kind == "tar" else files.join(self.uri, file_name)


def shard_key(name: str) -> str:
    """Return a shard's name in characters that are safe in a file name."""
    return quote(name, safe="")


@dataclass
class ShardIndex:
    """What a shard holds. Every `sa_N` found is in `images` or named by a problem."""

    images: list[IndexedImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    state: Literal["whole", "truncated", "unreadable"] = "whole"
    found: int = 0
    other_members: int = 0


# --- finding ----------------------------------------------------------------------------------------------


def find_shards(paths: Iterable[str]) -> list[Shard]:
    """Find the shards that `paths` name, sorted by name.

    A path is a tar, a glob, a folder of tars, or an unpacked folder; local, `s3://` or `gs://`. Raises
    `UsageError` for a path that names no shard and for two shards of one name.
    """
    found: dict[str, Shard] = {}
    for path in paths:
        for shard in _expand(files.absolute(path)):
            other = found.setdefault(shard.name, shard)
            if other.uri != shard.uri:
                raise UsageError(
                    f"two shards are called {shard.name}: {other.uri} and {shard.uri}. Rename one: "
                    "tables refer to shards by name."
                )
    return [found[name] for name in sorted(found)]


def _expand(path: str) -> list[Shard]:
    name, parent = files.base_name(path), files.parent(path)
    filesystem, inner = files.resolve(path)
    if any(c in name for c in "*?["):
        tars = [n for n in files.Folder(parent).names() if fnmatch.fnmatchcase(n, name)]
        if not tars:
            raise UsageError(f"{path}: no file matches.")
        return _tars(parent, tars)
    kind = filesystem.get_file_info(inner).type
    if kind == pafs.FileType.File:
        return [_tar(path)]
    if kind == pafs.FileType.Directory:
        return _folder(path)
    raise UsageError(f"{path}: no such file or folder.")


def _folder(path: str) -> list[Shard]:
    folder = files.Folder(path)
    if tars := folder.names(".tar"):
        return _tars(path, tars)
    members = [(name, size) for name, size in folder.sizes().items() if _MEMBER.fullmatch(name)]
    if not members:
        raise UsageError(
            f"{path}: holds neither *.tar nor sa_N.jpg with sa_N.json. Name an SA-1B shard, a folder of "
            "them, or a folder into which one was unpacked."
        )
    listing = "".join(f"{name}\t{size}\n" for name, size in members).encode()
    return [Shard(files.base_name(path), path, "folder", sum(size for _, size in members), files.sha256(listing)[:16])]


def _tars(folder: str, names: list[str]) -> list[Shard]:
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_tar, [files.join(folder, name) for name in names]))


def _tar(uri: str) -> Shard:
    with files.open_ranges(uri) as file:
        size = file.size()
        starts = sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)})
        samples = [file.read_at(min(_SAMPLE, size - start), start) for start in starts]
    identity = files.sha256(str(size).encode(), *samples)[:16]
    return Shard(files.base_name(uri).removesuffix(".tar"), uri, "tar", size, identity)


# --- indexing ---------------------------------------------------------------------------------------------


@dataclass
class _Pair:
    """The files seen so far of one `sa_N`."""

    jpg: Range | None = None
    json: Range | None = None
    file_name: str = ""
    size: tuple[int, int] | None = None


class _Indexer:
    """Collects members into pairs, then sorts the pairs into usable images and problems."""

    def __init__(self, shard: Shard, max_pixels: int) -> None:
        self.shard = shard
        self.max_pixels = max_pixels
        self.index = ShardIndex()
        self.pairs: dict[int, _Pair] = {}
        self.refused: set[int] = set()

    def problem(self, image_id: int | None, place: str, reason: str, error: str) -> None:
        """Record a problem of one image, at most one each, or of the shard itself."""
        if image_id is None:
            self.index.problems.append(Problem(f"shard:{self.shard.name}", None, place, reason, error))
        elif image_id not in self.refused:
            self.refused.add(image_id)
            self.index.problems.append(Problem(f"image:{image_id}", image_id, place, reason, error))

    def add(self, name: str, where: Range, file: IO[bytes]) -> None:
        """Take in a member that lies whole in the open `file`."""
        match = _MEMBER.fullmatch(name.rpartition("/")[2])
        if not match:
            self.index.other_members += 1
            return
        image_id, suffix = int(match[1]), match[2]
        pair = self.pairs.setdefault(image_id, _Pair())
        if self.shard.kind == "folder" and name != f"sa_{image_id}.{suffix}":
            self.problem(image_id, name, "wrong-name", f"rename it to sa_{image_id}.{suffix}")
        elif getattr(pair, suffix) is not None:
            self.problem(image_id, name, "repeated-member", "the shard holds two files of this name")
        elif suffix == "json":
            pair.json = where
        else:
            pair.jpg, pair.file_name = where, name
            pair.size = _declared_size(file, where)

    def finish(self) -> ShardIndex:
        """Sort the pairs; every image found is either usable or has its problem."""
        for image_id in sorted(self.pairs):
            self._place(image_id, self.pairs[image_id])
        self.index.found = len(self.pairs | dict.fromkeys(self.refused))
        return self.index

    def _place(self, image_id: int, pair: _Pair) -> None:
        if image_id in self.refused:
            return
        jpg_name, json_name = f"sa_{image_id}.jpg", f"sa_{image_id}.json"
        if pair.jpg is None or pair.json is None:
            lone, lacking = (json_name, jpg_name) if pair.jpg is None else (jpg_name, json_name)
            self.problem(image_id, lone, "without-partner", f"the shard holds {lone} but not {lacking}")
        elif pair.jpg.bytes == 0 or pair.json.bytes == 0:
            empty = jpg_name if pair.jpg.bytes == 0 else json_name
            self.problem(image_id, empty, "empty-file", f"{empty} has zero bytes")
        elif pair.size is None:
            self.problem(image_id, jpg_name, "not-a-jpeg", f"{jpg_name} does not begin as a JPEG does")
        elif pair.size[0] * pair.size[1] > self.max_pixels:
            self.problem(
                image_id,
                jpg_name,
                "too-large",
                f"the JPEG declares {pair.size[0]}×{pair.size[1]} px, more "
                f"than manifest.max_pixels = {self.max_pixels}; raise that if the image is genuine",
            )
        else:
            self.index.images.append(IndexedImage(image_id, pair.file_name, pair.jpg, pair.json, *pair.size))


def _declared_size(file: IO[bytes], where: Range) -> tuple[int, int] | None:
    for reach in (images.HEADER_BYTES, _LONG_HEADER):
        file.seek(where.offset)
        head = file.read(min(where.bytes, reach))
        if size := images.jpeg_size(head):
            return size
        if not head.startswith(b"\xff\xd8") or where.bytes <= reach:
            return None
    return None


def index_shard(shard: Shard, max_pixels: int) -> ShardIndex:
    """Find every image of a shard, reading headers only and seeking over the payloads.

    Members may come in any order and carry `./`. `max_pixels` bounds the declared size of an image.
    Whatever cannot be used becomes a problem; raises `OSError` only when the shard cannot be read at all.
    """
    indexer = _Indexer(shard, max_pixels)
    if shard.kind == "folder":
        for name in files.Folder(shard.uri).names():
            with files.open_sequential(shard.member_uri(name)) as file:
                indexer.add(name, Range(0, file.seek(0, 2)), file)
    else:
        with files.open_sequential(shard.uri) as file:
            _index_tar(indexer, file)
    return indexer.finish()


class _PlainHeader(tarfile.TarInfo):
    """A header of the kind that SA-1B's members have, read in a third of the time; `tarfile` reads all others.

    Most of the time goes into the checksum, which `tarfile` sums in Python, once signed and once unsigned.
    """

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        """Read the 512 bytes of a header (POSIX.1-1988 ustar); raises as `tarfile` does."""
        block = bytes(buf)
        checksum, size = block[148:156].strip(b" \0"), block[124:136].strip(b" \0")
        plain = len(block) == tarfile.BLOCKSIZE and block[156:157] == tarfile.REGTYPE and not block[345]
        if not (plain and checksum.isdigit() and _OCTAL.fullmatch(size) and _sums_to(block, checksum)):
            return super().frombuf(buf, encoding, errors)
        member = cls(block[:100].partition(b"\0")[0].decode(encoding, errors))
        member.size = int(size, 8)
        return member


def _sums_to(header: bytes, checksum: bytes) -> bool:
    blanked = int(np.frombuffer(header, np.uint8).sum(dtype=np.int64)) - sum(header[148:156]) + 8 * ord(" ")
    return b"%o" % blanked == checksum.lstrip(b"0")


class _Headers:
    """The shard as `tarfile` reads it: so much of it for each member as headers should take, nothing behind its end."""

    def __init__(self, shard: Shard, file: IO[bytes]) -> None:
        self.left = _MOST_HEADERS
        self.tell = file.tell
        self._file, self._bytes = file, shard.bytes

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises `tarfile.ReadError` beyond what is left for this member."""
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"headers of more than {_MOST_HEADERS} bytes")
        self.left -= size
        return self._file.read(size)

    def seek(self, place: int) -> int:
        """Go to a byte. Raises `tarfile.ReadError` behind the end."""
        if place > self._bytes:
            raise tarfile.ReadError("unexpected end of data")
        return self._file.seek(place)


def _index_tar(indexer: _Indexer, file: IO[bytes]) -> None:
    if file.read(2) == _GZIP:
        indexer.index.state = "unreadable"
        indexer.problem(
            None,
            indexer.shard.uri,
            "gzip",
            f"the shard is gzip-compressed, so byte ranges cannot be read. Unpack it once: gunzip {indexer.shard.uri}",
        )
        return
    file.seek(0)
    headers: Any = _Headers(indexer.shard, file)
    try:
        archive = tarfile.TarFile(fileobj=headers, tarinfo=_PlainHeader, encoding="utf-8", errors="replace")
    except _DAMAGE as error:
        indexer.index.state = "unreadable"
        indexer.problem(
            None, indexer.shard.uri, "not-a-tar", f"the shard is not a tar archive ({error}). Fetch it again."
        )
        return
    with archive:
        for member in _members(indexer, archive, headers):
            _add_member(indexer, member, file)
        _check_end(indexer, archive, file)


def _members(indexer: _Indexer, archive: tarfile.TarFile, headers: _Headers) -> Iterator[tarfile.TarInfo]:
    end = 0
    while indexer.index.state == "whole":
        headers.left = _MOST_HEADERS
        try:
            member = archive.next()
        except _DAMAGE as error:
            _truncated(indexer, f"ends inside a member ({error})")
            return
        if member is None:
            return
        archive.members = []  # type: ignore[attr-defined]  # or memory would grow with the shard
        archive.pax_headers = {}  # nor is anything that is said of all members
        if member.size < 0 or archive.offset <= end:  # a sparse file has two sizes, and goes back by the second
            _truncated(indexer, f"member {member.name!r} has a negative size")
            return
        end = archive.offset
        yield member


def _add_member(indexer: _Indexer, member: tarfile.TarInfo, file: IO[bytes]) -> None:
    name = member.name.removeprefix("./")
    match = _MEMBER.fullmatch(name.rpartition("/")[2])
    image_id = int(match[1]) if match else None
    if name.startswith("/") or ".." in name.split("/"):
        indexer.problem(image_id, name, "unsafe-name", "member names must be relative and without `..`; not read")
    elif member.isdir():
        return
    elif not member.isreg() or member.issparse():
        indexer.problem(
            image_id, name, "not-a-file", "the member is a link, a device or sparse; only plain files are read"
        )
    elif member.offset_data + member.size > indexer.shard.bytes:
        if image_id is not None:
            indexer.problem(image_id, name, "truncated", "the shard ends inside this file")
        _truncated(indexer, f"ends inside {name}")
    else:
        indexer.add(name, Range(member.offset_data, member.size), file)


def _check_end(indexer: _Indexer, archive: tarfile.TarFile, file: IO[bytes]) -> None:
    """Tell a proper end from a corrupt header, which `tarfile` takes for an end as well."""
    if indexer.index.state != "whole":
        return
    file.seek(archive.offset)
    block = file.read(_END_BLOCK)
    if len(block) < _END_BLOCK:
        _truncated(indexer, "has no end-of-archive mark")
    elif block.strip(b"\0"):
        _truncated(indexer, f"has a damaged header at byte {archive.offset}")


def _truncated(indexer: _Indexer, what: str) -> None:
    indexer.index.state = "truncated"
    indexer.problem(
        None,
        indexer.shard.uri,
        "truncated",
        f"the shard {what}; images before that are used. Fetch it again, "
        "then run the same command: a changed shard is noticed.",
    )


# --- reading ----------------------------------------------------------------------------------------------


class MissingBytesError(Exception):
    """A shard no longer holds the bytes that its index promises: it was changed or cut."""


class ShardReader:
    """Reads members of one shard by byte range; open it once per task."""

    def __init__(self, shard: Shard, tar: object | None) -> None:
        self._shard = shard
        self._tar = tar

    def read(self, file_name: str, where: Range) -> bytes:
        """Return a member's bytes.

        Raises `MissingBytesError` when the shard does not hold them, `OSError` when it cannot be read.
        """
        if self._tar is None:
            with files.open_ranges(self._shard.member_uri(file_name)) as file:
                data = bytes(file.read_at(where.bytes, where.offset))
        else:
            data = bytes(self._tar.read_at(where.bytes, where.offset))  # type: ignore[attr-defined]
        if len(data) != where.bytes:
            raise MissingBytesError(
                f"{self._shard.uri}: {file_name}: {where.bytes} bytes expected at {where.offset}, {len(data)} found"
            )
        return data


@contextmanager
def open_shard(shard: Shard) -> Iterator[ShardReader]:
    """Open a shard for reading byte ranges. Raises `OSError`."""
    if shard.kind == "folder":
        yield ShardReader(shard, None)
        return
    with files.open_ranges(shard.uri) as file:
        yield ShardReader(shard, file)
