"""What the first bytes of a source file tell: its encoding, whether it is text, its format where the name is silent."""

from __future__ import annotations

import io
import json
import re

from pipeline.codec.refs.byte_stream import open_bytes
from pipeline.codec.refs.lines import BOM, Lines, read_lines
from pipeline.codec.refs.packed import Damaged, RefBytes
from pipeline.errors import FormatError
from pipeline.settings import Columns, Format, Text

PROBE = 4096
"""Bytes that are looked at; more of them tell no more."""

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://\S+")
TABLES: tuple[tuple[bytes, Format], ...] = ((b"PAR1", "parquet"), (b"ORC", "orc"), (b"Obj\x01", "avro"))
_NO_TEXT = {
    b"PAR1": "it is Parquet",
    b"PARE": "it is encrypted Parquet",
    b"Obj\x01": "it is Avro",
    b"SEQ\x04": "it is a sequence file of Hadoop",
    b"SEQ\x05": "it is a sequence file of Hadoop",
    b"SEQ\x06": "it is a sequence file of Hadoop",
    b"RCF": "it is an RCFile of Hive",
    b"PK\x03\x04": "it is a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "it is an old Excel workbook",
    b"\x04\x22\x4d\x18": "it is compressed by LZ4",
    b"\x89LZO": "it is compressed by LZO",
    b"7z\xbc\xaf": "it is a 7-Zip archive",
    b"\x1f\x9d": "it is compressed by compress (.Z)",
    b"%PDF": "it is a PDF",
    b"\x89PNG": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"GIF8": "it is a picture",
    b"ARROW1": "it is Arrow's file format",
    b"SQLite format 3": "it is a database",
}


def encoding_of(data: RefBytes, text: Text) -> str:
    """The encoding of a file that is read from its beginning, "" for UTF-8 (and for what cannot be read)."""
    if text.encoding != "auto":
        said = text.encoding.lower().replace("_", "-")
        return "" if said in ("utf-8", "utf8", "ascii", "us-ascii", "utf-8-sig") else text.encoding
    try:
        first = data.read(PROBE)
    except Damaged:
        return ""
    for mark, encoding in _MARKS:
        if first.startswith(mark):
            return encoding
    even, odd = first[0:64:2], first[1:64:2]
    if len(first) >= 8 and first.count(b"\0") >= len(first) // 3:  # no mark, but each other byte of the letters is 0
        if not any(odd) and all(even):
            return "utf-16-le"
        if not any(even) and all(odd):
            return "utf-16-be"
    return ""


def check_is_text(data: RefBytes, name: str) -> None:
    """Raises FormatError where a file's first bytes, in UTF-8, are no text at all."""
    try:
        first = data.read(PROBE)
    except Damaged as damage:
        raise FormatError(
            f"{name} cannot be read", str(damage), "compress the file again, or set text.encoding"
        ) from damage
    what = next((what for magic, what in _NO_TEXT.items() if first.startswith(magic)), "")
    line = first.removeprefix(BOM).lstrip(b"\r\n").partition(b"\n")[0].partition(b"\r")[0]
    if not what and b"\0" in line:
        what = "it holds zero bytes"
    if what:
        raise FormatError(f"{name} is not a text file", what, "set the source's format, or save it as UTF-8")


def guess(head: bytes, name: str, columns: Columns, text: Text, least: int = 1) -> Format | None:
    """The format of a file whose name tells none, from its first bytes (1 MiB will do); None where they do not tell.

    Packed or not: Parquet, ORC and Avro by their magic; JSON objects, URLs, or a header with a url column by the first
    lines.  Delimited protobuf cannot be told.  least: columns that a header has.
    """
    for magic, format in TABLES:
        if head.startswith(magic):
            return format
    try:
        encoding = encoding_of(open_bytes(io.BytesIO(head), "", 0), text)
        check_is_text(open_bytes(io.BytesIO(head), "", 0, encoding), name)
        piece = next(read_lines(open_bytes(io.BytesIO(head), "", 0, encoding), 0), Lines([], [0], []))
    except FormatError:
        return None
    lines = [line.strip() for line in piece.texts[:100] if line.strip()]
    if not lines:
        return None
    if lines[0].startswith("{"):
        return "jsonl" if _is_json(lines[0]) or any(map(_is_json, lines[1:])) else None
    if all(map(_URL.fullmatch, lines)):
        return "text"
    from pipeline.codec.refs.separated import read_header

    for kind in ("csv", "tsv"):
        try:
            header = read_header(open_bytes(io.BytesIO(head), "", 0, encoding), kind, text, columns, name)
        except FormatError:
            continue
        if header.found is not None and header.width >= least:
            return "tsv" if header.form.separator == "\t" else "csv"
    return None


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
