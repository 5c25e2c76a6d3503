"""Parquet files whose pages have checksums: verified whenever they are read; damage is told with the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import UserError

Remedy = Callable[[str], str]
"""Given the path of a damaged file: what to do, as the end of a sentence."""

_VERIFYING = pads.ParquetFileFormat(
    default_fragment_scan_options=pads.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def writer(sink: Any, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """Return a writer of pages with checksums; `options` as pyarrow's."""
    return pq.ParquetWriter(sink, schema, write_page_checksum=True, **{"compression": "zstd", **options})


class Files(NamedTuple):
    """Where the files of a table lie, and what to do about a damaged one."""

    paths: Sequence[str]
    filesystem: pafs.FileSystem
    remedy: Remedy

    @contextmanager
    def opened(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open one of the files. Raises `UserError`, in the block as well, where it cannot be read."""
        with self.told([path]), self._open(path) as file:
            yield file

    @contextmanager
    def told(self, paths: Sequence[str]) -> Iterator[None]:
        """Turn an error of Arrow in the block into a `UserError` about the first of `paths` that cannot be read."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            for path in paths:
                if wrong := self._wrong(path):
                    raise UserError(
                        f"{path}: cannot be read ({wrong}). If it is damaged: {self.remedy(path)}"
                    ) from error
            raise

    def _open(self, path: str) -> pq.ParquetFile:
        return pq.ParquetFile(path, filesystem=self.filesystem, page_checksum_verification=True)

    def _wrong(self, path: str) -> str:
        """Read a whole file; return what is wrong with it, or an empty text."""
        try:
            with self._open(path) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group).validate(full=True)
        except (OSError, pa.ArrowException) as error:
            return " ".join(str(error).split())
        return ""


class StoredTable:
    """A table read lazily from its files. Whatever reads raises `UserError` for a file that cannot be read."""

    def __init__(self, dataset: pads.Dataset, files: Files) -> None:
        self._dataset, self._files = dataset, files

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._dataset.schema

    def read_as(self, schema: pa.Schema) -> StoredTable:
        """Return the table with the columns of `schema`; what a file lacks is null."""
        return StoredTable(self._dataset.replace_schema(schema), self._files)

    def to_table(self, **options: Any) -> pa.Table:
        """Return rows; `options` as pyarrow's. Row groups whose statistics rule out a `filter` are not read."""
        with self._told():
            return self._dataset.to_table(**options)

    def to_batches(self, **options: Any) -> Iterator[pa.RecordBatch]:
        """Yield rows in batches; `options` as of `to_table`."""
        with self._told():
            yield from self._dataset.to_batches(**options)

    def head(self, rows: int, **options: Any) -> pa.Table:
        """Return the first rows; `options` as of `to_table`."""
        with self._told():
            return self._dataset.head(rows, **options)

    def count_rows(self, **options: Any) -> int:
        """Count rows, by the footers where there is no filter."""
        with self._told():
            return int(self._dataset.count_rows(**options))

    def _told(self) -> AbstractContextManager[None]:
        return self._files.told(self._files.paths)


def opened(files: Files) -> StoredTable:
    """Open a table by its first file's footer. Raises `UserError`."""
    with files.told(files.paths):
        return StoredTable(pads.dataset(list(files.paths), filesystem=files.filesystem, format=_VERIFYING), files)


def empty(schema: pa.Schema) -> StoredTable:
    """Return a table without files."""
    return StoredTable(pads.dataset(schema.empty_table()), Files((), pafs.LocalFileSystem(), str))
