"""Source files -> image refs: formats by name, readers that can be left and taken up at any row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from pipeline.codec.refs.byte_stream import open_bytes
from pipeline.codec.refs.guess import check_is_text, encoding_of
from pipeline.codec.refs.packed import ENDINGS, UNREAD
from pipeline.codec.refs.rows import Block, BlockReader, Cursor, RefReader, Rejected, Taken
from pipeline.codec.refs.rules import Rules, null_forms
from pipeline.codec.refs.separated import Header, csv_blocks, read_header
from pipeline.codec.refs.text import Keys, json_blocks, json_names, url_blocks
from pipeline.errors import ConfigError
from pipeline.settings import NULL_WORDS, Columns, Format, Text

__all__ = ["Cursor", "Format", "How", "RefReader", "Rejected", "Taken", "detect", "open_refs"]


@dataclass(frozen=True, slots=True)
class How:
    """How a source's files are read, beyond their format and columns."""

    text: Text = field(default_factory=Text)
    null_words: tuple[str, ...] = NULL_WORDS
    as_written: bool = False
    """External ids are hashed byte by byte, not normalised."""
    null_partner: bool = False
    """The file's folder says that its rows have no partner."""
    keep: tuple[str, ...] = ()
    """Further columns that come along with the refs: `Taken.kept`."""


def detect(name: str) -> Format:
    """The format that a file's name tells; what packs it may follow, except for Parquet, ORC and Avro.

    Raises ConfigError.
    """
    path = PurePosixPath(name.lower())
    packed = path.suffix in ENDINGS
    found = _ENDINGS.get(PurePosixPath(path.stem).suffix if packed else path.suffix)
    if found is not None and not (packed and FORMATS[found].compresses):
        return found
    known = f"known endings: {' '.join(_ENDINGS)}; {' '.join(ENDINGS)} may follow, except after Parquet, ORC and Avro"
    if path.suffix in UNREAD:
        known = f"{path.suffix} is {UNREAD[path.suffix]}, which Hathi does not read; {known}"
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


def column_names(file: BinaryIO, name: str, format: Format, columns: Columns, how: How) -> list[str]:
    """The names of all columns of a file; none of a format without columns.  Closes the file.

    Raises FormatError where the file as a whole is not what it should be.
    """
    with file:
        return FORMATS[format].names(_Asked(file, name, format, columns, Rules(), Cursor(0, 0), how.text, how.keep))


def _blocks(
    file: BinaryIO, name: str, format: Format, columns: Columns, partner_id: int | None, at: Cursor, how: How
) -> Iterator[Block]:
    kind = FORMATS[format]
    rules = Rules(
        partner_id,
        optional_id=kind.optional_id,
        offsets=not kind.compresses,
        nulls=null_forms(how.null_words),
        as_written=how.as_written,
        null_partner=how.null_partner,
        of_images=columns.of_images,
    )
    return kind.blocks(_Asked(file, name, format, columns, rules, at, how.text, how.keep))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A file, and from where on which columns of it are read by which rules."""

    file: BinaryIO
    name: str
    format: Format
    columns: Columns
    rules: Rules
    at: Cursor
    text: Text
    keep: tuple[str, ...]

    def checked_encoding(self) -> str:
        """Of a text.  Raises FormatError for what is none."""
        encoding = encoding_of(open_bytes(self.file, self.name, 0), self.text)
        check_is_text(open_bytes(self.file, self.name, 0, encoding), self.name)
        return encoding


def _of_arrow(asked: _Asked) -> Iterator[Block]:
    from pipeline.codec.refs.arrow import arrow_blocks, opened  # pyarrow takes a while to import

    table = opened(asked.file, asked.format, asked.name)
    return arrow_blocks(table, asked.name, asked.columns, asked.rules, asked.at, asked.keep)


def _names_of_arrow(asked: _Asked) -> list[str]:
    from pipeline.codec.refs.arrow import arrow_names

    return arrow_names(asked.file, asked.format, asked.name)


def _of_protobuf(asked: _Asked) -> Iterator[Block]:
    from pipeline.codec.refs.protobuf import protobuf_blocks

    return protobuf_blocks(open_bytes(asked.file, asked.name, asked.at.position), asked.rules, asked.at)


def _of_urls(asked: _Asked) -> Iterator[Block]:
    encoding = asked.checked_encoding()
    return url_blocks(open_bytes(asked.file, asked.name, asked.at.position, encoding), asked.rules, asked.at)


def _of_json(asked: _Asked) -> Iterator[Block]:
    encoding = asked.checked_encoding()
    keys = Keys(open_bytes(asked.file, asked.name, 0, encoding), asked.columns, asked.name)
    data = open_bytes(asked.file, asked.name, asked.at.position, encoding)
    return json_blocks(data, keys, asked.rules, asked.at, asked.keep)


def _names_of_json(asked: _Asked) -> list[str]:
    return json_names(open_bytes(asked.file, asked.name, 0, asked.checked_encoding()), asked.keep)


def _of_csv(asked: _Asked) -> Iterator[Block]:
    header, encoding = _header_of(asked)
    if header.found is not None:
        header = replace(header, found=header.found.keeping(header.names, asked.keep))
    start = Cursor(max(asked.at.position, header.end), asked.at.row)
    return csv_blocks(open_bytes(asked.file, asked.name, start.position, encoding), header, asked.rules, start)


def _names_of_csv(asked: _Asked) -> list[str]:
    return list(_header_of(asked)[0].names)


def _header_of(asked: _Asked) -> tuple[Header, str]:
    """Of a table of separated values; and its encoding."""
    encoding = asked.checked_encoding()
    kind: Literal["csv", "tsv"] = "tsv" if asked.format == "tsv" else "csv"
    data = open_bytes(asked.file, asked.name, 0, encoding)
    return read_header(data, kind, asked.text, asked.columns, asked.name), encoding


def _no_names(asked: _Asked) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class _Kind:
    """One format: how the names of its files end, what reads them, and what names their columns.

    compresses: it packs its own content, so that nothing is to be packed around it, and rows have no offsets.
    optional_id: a row without an id takes its URL as one, even where other rows have ids.
    """

    endings: tuple[str, ...]
    blocks: Callable[[_Asked], Iterator[Block]]
    names: Callable[[_Asked], list[str]] = _no_names
    compresses: bool = False
    optional_id: bool = False


FORMATS: dict[Format, _Kind] = {
    "csv": _Kind((".csv",), _of_csv, _names_of_csv),
    "tsv": _Kind((".tsv", ".tab"), _of_csv, _names_of_csv),
    "jsonl": _Kind((".jsonl", ".ndjson", ".json"), _of_json, _names_of_json),
    "parquet": _Kind((".parquet", ".pq"), _of_arrow, _names_of_arrow, compresses=True),
    "orc": _Kind((".orc",), _of_arrow, _names_of_arrow, compresses=True),
    "avro": _Kind((".avro",), _of_arrow, _names_of_arrow, compresses=True),
    "text": _Kind((".txt", ".urls", ".lst"), _of_urls),
    "protobuf": _Kind((".pb", ".protobuf", ".delimited"), _of_protobuf, optional_id=True),
}
_ENDINGS: dict[str, Format] = {ending: name for name, kind in FORMATS.items() for ending in kind.endings}
