"""Source files -> image refs: formats by name, readers that can be left and taken up at any row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from pipeline.codec.refs.byte_stream import open_bytes
from pipeline.codec.refs.guess import check_is_text, encoding_of
from pipeline.codec.refs.packed import ENDINGS, UNREAD
from pipeline.codec.refs.rows import Block, BlockReader, Cursor, RefReader, Rejected, Taken
from pipeline.codec.refs.rules import Rules, null_forms
from pipeline.codec.refs.separated import csv_blocks, read_header
from pipeline.codec.refs.text import Keys, json_blocks, url_blocks
from pipeline.errors import ConfigError
from pipeline.settings import NULL_WORDS, Columns, Text

__all__ = ["Cursor", "Format", "How", "RefReader", "Rejected", "Taken", "detect", "open_refs"]

Format = Literal["csv", "tsv", "jsonl", "parquet", "orc", "avro", "text", "protobuf"]

_IN_BLOCKS = ("parquet", "orc", "avro")
"""Formats that compress inside: nothing is to be packed around them."""

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
    ".avro": "avro",
    ".txt": "text",
    ".urls": "text",
    ".lst": "text",
    ".pb": "protobuf",
    ".protobuf": "protobuf",
    ".delimited": "protobuf",
}


@dataclass(frozen=True, slots=True)
class How:
    """How a source's files are read, beyond their format and columns."""

    text: Text = field(default_factory=Text)
    null_words: tuple[str, ...] = NULL_WORDS
    as_written: bool = False
    """External ids are hashed byte by byte, not normalised."""
    null_partner: bool = False
    """The file's folder says that its rows have no partner."""


def detect(name: str) -> Format:
    """The format that a file's name tells; what packs it may follow, except for Parquet, ORC and Avro.

    Raises ConfigError.
    """
    path = PurePosixPath(name.lower())
    packed = path.suffix in ENDINGS
    found = _EXTENSIONS.get(PurePosixPath(path.stem).suffix if packed else path.suffix)
    if found is not None and not (packed and found in _IN_BLOCKS):
        return found
    known = f"known are {' '.join(_EXTENSIONS)}, and {' '.join(ENDINGS)} behind those that are not Parquet, ORC or Avro"
    if path.suffix in UNREAD:
        known = f"{path.suffix} is {UNREAD[path.suffix]}, which is not read; {known}"
    raise ConfigError(
        f"the format of {name} cannot be told from its name",
        known,
        "rename the file, or set the source's format",
    )


def open_refs(
    file: BinaryIO,
    name: str,
    format: Format,
    columns: Columns,
    partner_id: int | None,
    at: Cursor,
    how: How = How(),  # frozen
) -> RefReader:
    """A reader of the file's refs from a cursor on; the file must seek, and closing the reader closes it.

    partner_id: of refs that name none.  Raises FormatError where the file as a whole is not what it should be;
    an empty file is well formed in each format but Parquet, ORC and Avro, and has no rows.
    """
    return BlockReader(_blocks(file, name, format, columns, partner_id, at, how), file, at)


def _blocks(
    file: BinaryIO, name: str, format: Format, columns: Columns, partner_id: int | None, at: Cursor, how: How
) -> Iterator[Block]:
    rules = Rules(
        partner_id,
        optional_id=format == "protobuf",
        offsets=format not in _IN_BLOCKS,
        nulls=null_forms(how.null_words),
        as_written=how.as_written,
        null_partner=how.null_partner,
    )
    if format == "parquet" or format == "orc" or format == "avro":
        from pipeline.codec.refs.arrow import arrow_blocks  # pyarrow takes a while to import

        return arrow_blocks(file, format, name, columns, rules, at)
    if format == "protobuf":
        from pipeline.codec.refs.protobuf import protobuf_blocks

        return protobuf_blocks(open_bytes(file, name, at.position), rules, at)
    encoding = encoding_of(open_bytes(file, name, 0), how.text)
    check_is_text(open_bytes(file, name, 0, encoding), name)
    if format == "text":
        return url_blocks(open_bytes(file, name, at.position, encoding), rules, at)
    if format == "jsonl":
        keys = Keys(open_bytes(file, name, 0, encoding), columns, name)
        return json_blocks(open_bytes(file, name, at.position, encoding), keys, rules, at)
    header = read_header(open_bytes(file, name, 0, encoding), format, how.text, columns, name)
    start = Cursor(max(at.position, header.end), at.row)
    return csv_blocks(open_bytes(file, name, start.position, encoding), header, rules, start)
