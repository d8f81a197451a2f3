"""The type of a column that comes from files of several kinds: Arrow's where they have types, else what values are."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec.refs.rules import well_formed

_AS_JSON = pa.struct([pa.field("json", pa.string())])
"""How values without a type wait on the disk until all of them were seen."""
_NO_TYPE = (pa.ArrowException, OverflowError, TypeError, ValueError)
"""What pyarrow raises for values that have no type in common."""


class Typed:
    """One column: grows with what is seen of it; `read` is for when all is seen."""

    def __init__(self) -> None:
        self._type: pa.DataType = pa.null()

    @property
    def type(self) -> pa.DataType:
        """Text where nothing had a value, or where values have no type in common or none that Parquet can hold."""
        return self._type if _writable(self._type) and not pa.types.is_null(self._type) else pa.string()

    def see(self, kind: pa.DataType) -> None:
        """A type that occurs."""
        try:
            one, other = pa.schema([pa.field("x", self._type)]), pa.schema([pa.field("x", kind)])
            self._type = pa.unify_schemas([one, other], promote_options="permissive").field("x").type
        except _NO_TYPE:
            self._type = pa.string()

    def stored(self, pieces: Sequence[Any]) -> pa.Array:
        """Pieces of the column as they wait on the disk; their types are seen."""
        if pieces and not isinstance(pieces[0], list):
            column = pa.concat_arrays(list(pieces))
            self.see(column.type)
            return column
        values = [value for piece in pieces for value in piece]
        try:
            self.see(pa.array(values).type)
        except _NO_TYPE:
            self.see(pa.string())
            self._type = pa.string()
        texts = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
        return pa.StructArray.from_arrays([texts], fields=list(_AS_JSON))

    def read(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """What waited, with the type of the whole."""
        return pa.chunked_array([self._read(chunk) for chunk in column.chunks], self.type)

    def _read(self, array: pa.Array) -> pa.Array:
        if array.type == _AS_JSON:
            values = [None if text is None else json.loads(text) for text in array.field(0).to_pylist()]
            if pa.types.is_string(self.type):
                return pa.array([_text(value) for value in values], pa.string())
            return pa.array(values, self.type)
        if array.type == self.type:
            return array
        try:
            return array.cast(self.type)
        except _NO_TYPE:
            return pa.array([_text(value) for value in array.to_pylist()], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else well_formed(value)
    return well_formed(json.dumps(value, default=str, ensure_ascii=False))


def _writable(kind: pa.DataType) -> bool:
    try:
        pq.ParquetWriter(io.BytesIO(), pa.schema([pa.field("x", kind)])).close()
    except _NO_TYPE:
        return False
    return True
