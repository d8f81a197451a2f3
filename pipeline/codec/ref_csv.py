"""Ref files with separated values (RFC 4180; tabs as well): quotes, newlines within quotes, any line end.

A quote that is never closed costs the line that opens it and nothing else: reading goes on with the line after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.codec.ref_bytes import RefBytes
from pipeline.codec.ref_columns import Found, find_columns
from pipeline.codec.ref_lines import Lines, read_lines
from pipeline.codec.ref_rows import Block, Cursor, Rejected, sample_of
from pipeline.codec.ref_rules import RawRows, Rules, judge
from pipeline.codec.ref_text import unread
from pipeline.errors import FormatError
from pipeline.settings import Columns

MAX_BEYOND = 2**20
"""Characters that a record may go on for beyond its first line; a quote still open there counts as not closed."""
MAX_COLUMNS = 4096
OPEN = "a quote is not closed"
STRAY = "text follows a closing quote"

_TO_CLOSING_QUOTE = re.compile(r'([^"]*+(?:""[^"]*+)*+)"')


@dataclass(frozen=True, slots=True)
class Header:
    """Of a file with separated values; found is None where the file has no line at all."""

    separator: str
    width: int
    found: Found | None
    end: int
    """Offset of the first row."""


def read_header(data: RefBytes, separator: str, columns: Columns, file: str) -> Header:
    """The header of a file that is read from its beginning.  Raises FormatError."""
    for piece in read_lines(data, 0):
        if piece.lost or piece.passed_over:
            raise FormatError(f"the header of {file} cannot be read", piece.lost or "its first line is too long")
        page = _Page(piece, iter(()))
        for at, text in enumerate(page.texts):
            if not text.strip():
                continue
            cells, following = _record(page, at, separator, MAX_COLUMNS)
            if isinstance(cells, str):
                raise FormatError(
                    f"the header of {file} cannot be read",
                    f"{cells}: {sample_of(text)}",
                    "the first line names columns",
                )
            names = [cell.strip() for cell in cells]
            return Header(separator, len(names), find_columns(names, columns, file), page.offsets[following])
    return Header(separator, 0, None, 0)


def csv_blocks(data: RefBytes, header: Header, rules: Rules, at: Cursor) -> Iterator[Block]:
    """The rows from a cursor on, at or behind the header's end; blank lines are no rows."""
    pieces = read_lines(data, at.position)
    row = at.row
    piece = next(pieces, None)
    while piece is not None:
        broken = unread(piece, row)
        row += len(broken)
        page = _Page(Lines([], piece.offsets) if broken else piece, pieces)
        records: list[list[str]] = []
        positions: list[int] = []
        rows: list[int] = []
        place = 0
        while place < len(page.texts):
            text = page.texts[place]
            if not text.strip(" \r"):
                place += 1
                continue
            offset = page.offsets[place]
            cells, following = _record(page, place, header.separator, header.width)
            if isinstance(cells, list) and len(cells) != header.width:
                cells = f"{len(cells)} cells where the header has {header.width}"
            if isinstance(cells, str):
                broken.append(Rejected(row, offset, cells, sample_of(text)))
                place += 1
            else:
                records.append(cells)
                positions.append(offset)
                rows.append(row)
                place = following
            row += 1
        yield judge(_columns(records, positions, rows, header.found), rules, broken, Cursor(page.offsets[-1], row))
        piece = page.unread or next(pieces, None)


def _columns(records: list[list[str]], positions: list[int], rows: list[int], found: Found | None) -> RawRows:
    if found is None:
        return RawRows(positions, rows)
    return found.raw_rows(positions, rows, lambda place: [cells[place] for cells in records])


def _record(page: _Page, place: int, separator: str, width: int) -> tuple[list[str] | str, int]:
    """The cells of the record that begins on a line, or why it has none; and the line after it.

    Looking for the end of a record ends with the width, so that a file full of open quotes takes linear time.
    """
    line = page.texts[place]
    body = line.removesuffix("\r")
    if '"' not in body:
        return body.split(separator), place + 1
    cells: list[str] = []
    last = place
    at = beyond = 0
    while True:
        if body.startswith('"', at):
            closed = _TO_CLOSING_QUOTE.match(body, at + 1)
            if closed:
                cell = closed[1]
            else:
                parts = [line[at + 1 :]]
                while not closed:
                    last += 1
                    if beyond > MAX_BEYOND or len(cells) >= width or not page.has(last):
                        return OPEN, place + 1
                    line = page.texts[last]
                    beyond += len(line) + 1
                    closed = _TO_CLOSING_QUOTE.match(line)
                    parts.append(closed[1] if closed else line)
                body = line.removesuffix("\r")
                cell = "\n".join(parts)
            cells.append(cell.replace('""', '"'))
            at = closed.end()
        else:
            end = body.find(separator, at)
            end = len(body) if end < 0 else end
            cells.append(body[at:end])
            at = end
        if at == len(body):
            return cells, last + 1
        if body[at] != separator:
            return STRAY, place + 1
        at += 1


class _Page:
    """Lines being parsed; more of them are added where a quoted cell goes on beyond the last."""

    def __init__(self, piece: Lines, further: Iterator[Lines]) -> None:
        self.texts = piece.texts
        self.offsets = piece.offsets
        self.unread: Lines | None = None
        self._further = further

    def has(self, place: int) -> bool:
        """Whether there is a line at that place."""
        while place >= len(self.texts) and self.unread is None:
            piece = next(self._further, None)
            if piece is None:
                return False
            if not piece.texts or piece.passed_over:
                self.unread = piece
            else:
                self.texts.extend(piece.texts)
                self.offsets[-1:] = piece.offsets
        return place < len(self.texts)
