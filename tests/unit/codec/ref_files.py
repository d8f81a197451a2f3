"""Ref files in every format, for the tests of their readers."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.codec import image_refs_pb2 as messages
from pipeline.codec.refs.tables import Cursor, Format, How, RefReader, Taken, detect, open_refs
from pipeline.settings import Columns

Row = dict[str, Any]
"""Cells by column; None or a missing key for no value."""

EVERYTHING = 2**60
START = Cursor(0, 0)


def reader(data: bytes, name: str, partner_id: int | None = None, at: Cursor = START, **more: Any) -> RefReader:
    """An open reader of a file in memory."""
    format: Format = more.pop("format", None) or detect(name)
    how: How = more.pop("how", How())
    return open_refs(io.BytesIO(data), name, format, Columns(**more), partner_id, at, how)


def take_all(data: bytes, name: str, partner_id: int | None = None, **more: Any) -> Taken:
    """All of a file in one take."""
    taken = reader(data, name, partner_id, **more).take(EVERYTHING, EVERYTHING)
    assert taken.ended
    assert taken.rows == len(taken.refs) + taken.rejected
    return taken


def written(rows: Sequence[Row], name: str, columns: Sequence[str]) -> bytes:
    """The rows as a file of the format that the name tells."""
    if name.endswith(".gz"):
        return gzip.compress(written(rows, name.removesuffix(".gz"), columns), mtime=0)
    writers = {"csv": _separated, "tsv": _separated, "jsonl": _jsonl, "parquet": _arrow, "orc": _arrow}
    if detect(name) == "protobuf":
        return protobuf(rows)
    if detect(name) == "text":
        return "".join(f"{row['url']}\n" for row in rows).encode("utf-8", "surrogatepass")
    return writers[detect(name)](rows, name, columns)


def _separated(rows: Sequence[Row], name: str, columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t" if detect(name) == "tsv" else ",")
    writer.writerow(columns)
    writer.writerows([_text_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _text_cell(cell: Any) -> str:
    if cell is None:
        return ""
    return base64.b64encode(cell).decode() if isinstance(cell, bytes) else str(cell)


def _jsonl(rows: Sequence[Row], name: str, columns: Sequence[str]) -> bytes:
    lines = []
    for row in rows:
        cells = {column: row.get(column) for column in columns}
        lines.append(json.dumps({k: _text_cell(v) if isinstance(v, bytes) else v for k, v in cells.items()}))
    return "".join(f"{line}\n" for line in lines).encode()


def _arrow(rows: Sequence[Row], name: str, columns: Sequence[str]) -> bytes:
    arrays = []
    for column in columns:
        cells = [row.get(column) for row in rows]
        kind = pa.binary() if column == "content" else pa.string()
        arrays.append(pa.array(cells, pa.int64() if any(isinstance(cell, int) for cell in cells) else kind))
    table = pa.table(dict(zip(columns, arrays, strict=True)))
    buffer = io.BytesIO()
    if detect(name) == "orc":
        orc.write_table(table, buffer)
    else:
        pq.write_table(table, buffer, row_group_size=7)
    return buffer.getvalue()


def record(**cells: Any) -> bytes:
    """One ImageRef with its length in front."""
    return framed(messages.ImageRef(**cells).SerializeToString())


def framed(body: bytes) -> bytes:
    """Bytes with their length in front."""
    length, prefix = len(body), b""
    while length > 127:
        prefix += bytes([length & 127 | 128])
        length >>= 7
    return prefix + bytes([length]) + body


def protobuf(rows: Sequence[Row]) -> bytes:
    """The rows as delimited records."""
    return b"".join(record(**{name: cell for name, cell in row.items() if cell is not None}) for row in rows)
