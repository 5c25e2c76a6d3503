"""The run folder: tables made of parts, commit records that say which parts count, one writer per step.

    runs/NAME/
        commits/STEP/KEY.json          one per finished piece of work, written last and atomically
        TABLE/STEP.KEY-TOKEN.parquet   parts; one that no commit names does not exist for a reader
        plans/STEP.json                what the step was last asked to do
        locks/                         who is writing

A piece of work that is killed leaves at most parts without a commit; the next run does that piece again
and sweeps them away. There is no other state.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import locks, parquet, tables
from pipeline.decoding import decoded
from pipeline.errors import BusyError, UserError
from pipeline.files import Folder, HashingFile, absolute, join
from pipeline.parquet import StoredTable

T = TypeVar("T")

_READERS = 16  # threads for small files: on an object store each costs a round trip
_CHUNK = 1 << 20  # bytes
_SHOWN = 20  # files in a message


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a piece of work is done: what it made, from what, and what became of its rows."""

    key: str
    fingerprint: str
    parts: dict[str, str]
    """Table name to part file name."""
    rows: dict[str, int]
    """Table name to rows in the part."""
    sha256: dict[str, str] = {}
    """Table name to the part's hash, hexadecimal; a part of an older rr7k has none."""
    counts: dict[str, int]
    """Funnel counts, as in `images.kept` or `masks.dropped.tiny`."""
    facts: dict[str, Any]
    """What the step itself wants to remember."""
    made_at: str
    made_by: str


@cache
def version() -> str:
    """Return rr7k's version, as recorded in everything it makes."""
    try:
        return f"rr7k {importlib.metadata.version('rr7k')}"
    except importlib.metadata.PackageNotFoundError:  # a bare checkout shipped to a Ray worker
        return "rr7k (not installed)"


class PartWriter:
    """Writes one part of one table, batch by batch; memory is bounded by a batch."""

    def __init__(self, name: str, file_name: str, sink: Any) -> None:
        self.file_name = file_name
        self.rows = 0
        self._table = name
        labels = [f.name for f in tables.SCHEMAS[name] if pa.types.is_dictionary(f.type)]
        self._sink = HashingFile(sink)
        self._writer = parquet.writer(pa.PythonFile(self._sink, "w"), tables.stamped(name), use_dictionary=labels)

    def write(self, table: pa.Table) -> None:
        """Append rows as one row group. Raises `pa.ArrowInvalid` when the columns are not the table's."""
        if table.num_rows:
            self._writer.write_table(table.cast(tables.SCHEMAS[self._table]))
            self.rows += table.num_rows

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    @property
    def sha256(self) -> str:
        """The hash of the closed file, hexadecimal."""
        return self._sink.sha256


class Run:
    """A run folder, local or on an object store. Cheap to make: opening reads nothing.

    `lease` is the name of the lock under which a task works; its commits are refused once that lock is gone.
    """

    def __init__(self, uri: str, lease: str = "") -> None:
        self.folder = Folder(absolute(uri))
        self._lease = lease

    @contextmanager
    def lock(self, step: str) -> Iterator[locks.Lock]:
        """Be the only writer of `step`. Raises `BusyError` or `UsageError`."""
        with locks.hold(self.folder.sub("locks"), step) as lock:
            yield lock

    # --- writing ---

    @contextmanager
    def part(self, step: str, table: str, key: str) -> Iterator[PartWriter]:
        """Write a part of `table`; it counts once a commit names it."""
        name = f"{step}.{key}-{secrets.token_hex(4)}.parquet"
        with self.folder.sub(table).create(name) as sink:
            writer = PartWriter(table, name, sink)
            try:
                yield writer
            except BaseException:
                with suppress(OSError, ValueError):
                    writer.close()  # or its destructor complains
                raise
            writer.close()

    def commit(
        self,
        step: str,
        key: str,
        parts: dict[str, PartWriter],
        *,
        fingerprint: str,
        counts: dict[str, int],
        facts: dict[str, Any],
    ) -> Commit:
        """Make finished parts count, all at once; replaces an earlier commit of the same key.

        Raises `BusyError` when the lock of the driver that ordered the work is gone: it died, and another run
        may be doing the same work.
        """
        if self._lease and not self.folder.sub("locks").exists(self._lease):
            raise BusyError(f"{self.folder.uri}: the run that ordered {key} has ended; nothing was committed")
        record = Commit(
            key=key,
            fingerprint=fingerprint,
            counts=counts,
            facts=facts,
            parts={table: writer.file_name for table, writer in parts.items()},
            rows={table: writer.rows for table, writer in parts.items()},
            sha256={table: writer.sha256 for table, writer in parts.items()},
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            made_by=version(),
        )
        self._record(step, record)
        return record

    def _record(self, step: str, record: Commit) -> None:
        self.folder.sub("commits", step).replace(f"{record.key}.json", msgspec.json.encode(record))

    def forget(self, step: str, key: str) -> None:
        """Make a commit's parts not count any more."""
        self.folder.sub("commits", step).delete(f"{key}.json")

    def discard(self, step: str, table: str, column: str = "", values: pa.Array | None = None) -> None:
        """Take the rows of `table` that `step` made out of what counts: all, or those with `column` in `values`."""
        for record in self.commits(step).values():
            if table not in record.parts:
                continue
            kept = None if values is None else self._without(table, record.parts[table], column, values)
            if kept is not None and kept.num_rows == record.rows[table]:
                continue
            parts, rows, hashes = ({**known} for known in (record.parts, record.rows, record.sha256))
            for known in (parts, rows, hashes):
                known.pop(table, None)
            if kept is not None and kept.num_rows:
                with self.part(step, table, record.key) as part:
                    part.write(kept)
                parts[table], rows[table], hashes[table] = part.file_name, part.rows, part.sha256
            self._record(step, msgspec.structs.replace(record, parts=parts, rows=rows, sha256=hashes))

    def _without(self, table: str, part: str, column: str, values: pa.Array) -> pa.Table:
        with self.opened(table, part) as file:
            rows = file.read()
        return rows.filter(pc.invert(pc.is_in(rows[column], values)))

    def sweep(self, step: str, table_names: list[str]) -> None:
        """Delete the step's parts that no commit names; only for the holder of the lock under which it writes."""
        for table in table_names:
            named = set(self.parts(table))
            folder = self.folder.sub(table)
            for name in folder.names(".parquet"):
                if name.startswith(f"{step}.") and name not in named:
                    folder.delete(name)

    def save_plan(self, step: str, plan: msgspec.Struct) -> None:
        """Remember what `step` was asked to do."""
        self.folder.sub("plans").replace(f"{step}.json", msgspec.json.encode(plan))

    def replace_table(self, table: str, rows: list[dict[str, object]]) -> None:
        """Rewrite a derived table whole, as the single file `TABLE.parquet`."""
        sink = pa.BufferOutputStream()
        pq.write_table(tables.from_rows(table, rows).cast(tables.stamped(table)), sink, compression="zstd")
        self.folder.replace(f"{table}.parquet", sink.getvalue().to_pybytes())

    # --- reading ---

    def next_key(self, step: str) -> str:
        """Return the key for the next commit of a step that numbers its commits; for the holder of its lock."""
        return f"{max((int(key) for key in self.commits(step)), default=-1) + 1:08d}"

    def plan(self, step: str, kind: type[T]) -> T | None:
        """Return what `step` was last asked to do, or None."""
        folder = self.folder.sub("plans")
        if not folder.exists(f"{step}.json"):
            return None
        return _decode(folder, f"{step}.json", kind)

    def commits(self, step: str) -> dict[str, Commit]:
        """Return the finished pieces of `step` by key. Raises `UserError` for a damaged record."""
        folder = self.folder.sub("commits", step)
        names = folder.names(".json")
        with ThreadPoolExecutor(_READERS) as pool:
            records = pool.map(lambda name: _decode(folder, name, Commit), names)
            return {record.key: record for record in records}

    def steps(self) -> list[str]:
        """List the steps that have committed anything."""
        import pyarrow.fs as pafs

        place = self.folder.sub("commits")
        infos = place.filesystem.get_file_info(pafs.FileSelector(place.path, allow_not_found=True, recursive=True))
        return sorted({i.path.split("/")[-2] for i in infos if i.extension == "json"})

    def parts(self, table: str, step: str | None = None) -> list[str]:
        """List the files of `table` that count, by name; of one step, or of all."""
        records = [r for name in ([step] if step else self.steps()) for r in self.commits(name).values()]
        return sorted(r.parts[table] for r in records if table in r.parts)

    def dataset(self, table: str, step: str | None = None) -> StoredTable:
        """Return `table`, read lazily from its committed parts (of `step`, or of all), empty if there are none.

        Raises `UserError`, while reading as well, when a part is missing, damaged or of another schema version.
        """
        names = self.parts(table, step)
        if not names:
            return parquet.empty(tables.SCHEMAS[table])
        stored = parquet.opened(self._files(table, names))
        tables.check(stored.schema, table, self.folder.sub(table).uri)
        return stored.read_as(tables.SCHEMAS[table])

    @contextmanager
    def opened(self, table: str, part: str) -> Iterator[pq.ParquetFile]:
        """Open one part. Raises `UserError`, in the block as well, when it is missing or damaged."""
        files = self._files(table, [part])
        with files.opened(files.paths[0]) as file:
            yield file

    def verify(self, start: Callable[[int], None], advance: Callable[[int], None]) -> None:
        """Compare every part that counts with the hash recorded when it was written; parts of an older rr7k have none.

        `start` is given the bytes of all, `advance` those of each that is done. Raises `UserError` with all that are
        missing or not as they were written.
        """
        hashes = {
            f"{self.folder.sub(table).path}/{record.parts[table]}": sha256
            for step in self.steps()
            for record in self.commits(step).values()
            for table, sha256 in record.sha256.items()
        }
        sizes = [info.size or 0 for info in self.folder.filesystem.get_file_info(list(hashes))]
        start(sum(sizes))
        wrong = []
        with ThreadPoolExecutor(_READERS) as pool:
            for (path, wanted), size, found in zip(hashes.items(), sizes, pool.map(self._sha256, hashes), strict=True):
                if found != wanted:
                    what = "not as it was written" if found else "missing"
                    wrong.append(f"{path}: {what}; {self._remedy(path)}")
                advance(size)
        if wrong:
            more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
            raise UserError("\n".join(wrong[:_SHOWN] + more))

    def _sha256(self, path: str) -> str:
        """Hash a file, in memory bounded by a chunk; empty if there is none."""
        digest = hashlib.sha256()
        try:
            with self.folder.filesystem.open_input_stream(path) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except FileNotFoundError:
            return ""
        return digest.hexdigest()

    def _files(self, table: str, names: Sequence[str]) -> parquet.Files:
        folder = self.folder.sub(table)
        return parquet.Files([f"{folder.path}/{name}" for name in names], folder.filesystem, self._remedy)

    def _remedy(self, part: str) -> str:
        step, _, rest = part.rpartition("/")[2].removesuffix(".parquet").partition(".")
        record = join(self.folder.uri, "commits", step, f"{rest.rpartition('-')[0]}.json")
        return f"delete {record}; that piece is then done again."

    def rows_on_disk(self, table: str) -> int:
        """Count the rows of a table by the footers of its parts, not by what was recorded of them."""
        return int(self.dataset(table).count_rows())


def _decode(folder: Folder, name: str, kind: type[T]) -> T:
    return decoded(folder.read(name), kind, f"{folder.uri}/{name}", "Delete it: that piece is then done again.")
