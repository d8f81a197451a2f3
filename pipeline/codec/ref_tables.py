"""Source files -> image refs: formats by name, readers that can be left and taken up at any row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from pipeline.codec.ref_bytes import open_bytes
from pipeline.codec.ref_csv import csv_blocks, read_header
from pipeline.codec.ref_lines import check_is_text
from pipeline.codec.ref_protobuf import protobuf_blocks
from pipeline.codec.ref_rows import Block, BlockReader, Cursor, RefReader, Rejected, Taken
from pipeline.codec.ref_rules import Rules
from pipeline.codec.ref_text import Keys, json_blocks, url_blocks
from pipeline.errors import ConfigError
from pipeline.settings import Columns

__all__ = ["Cursor", "Format", "RefReader", "Rejected", "Taken", "detect", "open_refs"]

Format = Literal["csv", "tsv", "jsonl", "parquet", "orc", "text", "protobuf"]

_EXTENSIONS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".orc": "orc",
    ".txt": "text",
    ".urls": "text",
    ".lst": "text",
    ".pb": "protobuf",
    ".protobuf": "protobuf",
    ".delimited": "protobuf",
}
_SEPARATORS = {"csv": ",", "tsv": "\t"}


def detect(name: str) -> Format:
    """The format that a file's name tells; .gz may follow except for Parquet and ORC.  Raises ConfigError."""
    path = PurePosixPath(name.lower())
    compressed = path.suffix == ".gz"
    found = _EXTENSIONS.get(PurePosixPath(path.stem).suffix if compressed else path.suffix)
    if found is None or (compressed and found in ("parquet", "orc")):
        raise ConfigError(
            f"the format of {name} cannot be told from its name",
            f"known are {' '.join(_EXTENSIONS)}, and .gz behind those that are not Parquet or ORC",
            "rename the file, or set the source's format",
        )
    return found


def open_refs(
    file: BinaryIO, name: str, format: Format, columns: Columns, partner_id: int | None, at: Cursor
) -> RefReader:
    """A reader of the file's refs from a cursor on; the file must seek, and closing the reader closes it.

    partner_id: of refs that name none.  Raises FormatError where the file as a whole is not what it should be;
    an empty file is well formed in each format but Parquet and ORC, and has no rows.
    """
    return BlockReader(_blocks(file, name, format, columns, partner_id, at), file, at)


def _blocks(
    file: BinaryIO, name: str, format: Format, columns: Columns, partner_id: int | None, at: Cursor
) -> Iterator[Block]:
    if format in ("parquet", "orc"):
        from pipeline.codec.ref_arrow import arrow_blocks  # pyarrow takes a while to import

        rules = Rules(partner_id, offsets=False)
        return arrow_blocks(file, format, name, columns, rules, at)
    rules = Rules(partner_id, optional_id=format == "protobuf")
    if format == "protobuf":
        return protobuf_blocks(open_bytes(file, name, at.position), rules, at)
    check_is_text(open_bytes(file, name, 0), name)
    if format == "text":
        return url_blocks(open_bytes(file, name, at.position), rules, at)
    if format == "jsonl":
        keys = Keys(open_bytes(file, name, 0), columns, name)
        return json_blocks(open_bytes(file, name, at.position), keys, rules, at)
    header = read_header(open_bytes(file, name, 0), _SEPARATORS[format], columns, name)
    start = Cursor(max(at.position, header.end), at.row)
    return csv_blocks(open_bytes(file, name, start.position), header, rules, start)
