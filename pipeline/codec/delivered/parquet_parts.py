"""A delivered table that grows by row groups and goes on in a further part when it gets large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec.hashed_file import HashedFile, Written

PART_BYTES = 2**30
"""A part that has reached this size is followed by another."""
_KEYS = ["partner_id", "item_id"]


class Parts:
    """New files part-00000.parquet, part-00001.parquet, ... in a folder; none where there are no rows."""

    def __init__(self, folder: Path, schema: pa.Schema, repeated: Sequence[str], part_bytes: int = PART_BYTES) -> None:
        """repeated: columns with few different values, which are written by dictionary."""
        self._folder = folder
        self._schema = schema
        self._repeated = list(repeated)
        self._part_bytes = part_bytes
        self._part: _Part | None = None
        self._done: list[tuple[Path, Written]] = []

    def write(self, columns: Mapping[str, Sequence[object] | pa.Array]) -> None:
        """Adds a row group, from the schema's columns."""
        if self._part is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"part-{len(self._done):05d}.parquet"
            self._part = _Part(path, self._schema, self._repeated)
        self._part.write(columns)
        if self._part.size >= self._part_bytes:
            self._end_part()

    def close(self) -> list[tuple[Path, Written]]:
        """All parts, in order."""
        self._end_part()
        return self._done

    def abandon(self) -> None:
        """Closes a part that will not be used."""
        if self._part is not None:
            self._part.abandon()

    def _end_part(self) -> None:
        if self._part is not None:
            self._done.append((self._part.path, self._part.close()))
            self._part = None


class _Part:
    def __init__(self, path: Path, schema: pa.Schema, repeated: list[str]) -> None:
        self.path = path
        self._schema = schema
        self._file = HashedFile(path)
        self._rows = 0
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", compression_level=1, use_dictionary=repeated, write_statistics=_KEYS
        )

    @property
    def size(self) -> int:
        return self._file.size

    def write(self, columns: Mapping[str, Sequence[object] | pa.Array]) -> None:
        arrays = [
            cells if isinstance(cells, pa.Array) else pa.array(cells, self._schema.field(name).type)
            for name, cells in columns.items()
        ]
        table = pa.table(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._rows += len(table)

    def close(self) -> Written:
        self._writer.close()
        self._file.close()
        return self._file.written(self._rows)

    def abandon(self) -> None:
        with suppress(OSError, ValueError):  # what it still wants to write goes nowhere
            self._writer.close()
        self._file.close()
