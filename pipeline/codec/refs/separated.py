"""Ref files with separated values, in the dialects of ref_dialect.py: quotes, newlines within quotes, any line end.

A quote that is never closed costs the line that opens it and nothing else: reading goes on with the line after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.codec.refs.byte_stream import RefBytes
from pipeline.codec.refs.columns import Found, find_columns
from pipeline.codec.refs.dialect import Dialect, Form, form, separators, unescaped
from pipeline.codec.refs.grid import columns_of
from pipeline.codec.refs.lines import Lines, read_lines
from pipeline.codec.refs.rows import Block, Cursor, Rejected, sample_of
from pipeline.codec.refs.rules import Cell, RawRows, Rules, judge, values_of
from pipeline.codec.refs.text import unread
from pipeline.errors import FormatError
from pipeline.settings import Columns, Text

MAX_BEYOND = 2**20
"""Characters that a record may go on for beyond its first line; a quote still open there counts as not closed."""
MAX_COLUMNS = 4096
OPEN = "a quote is not closed"
STRAY = "text follows a closing quote"

_EXCEL = re.compile(r"sep=(.)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line of a file says; found is None where the file has no line at all."""

    form: Form
    width: int
    found: Found | None
    end: int
    """Offset of the first row."""
    names: tuple[str, ...] = ()
    """Of all columns."""


def read_header(data: RefBytes, kind: Literal["csv", "tsv"], text: Text, columns: Columns, file: str) -> Header:
    """The header of a file that is read from its beginning.  Raises FormatError."""
    separator = ""
    for piece in read_lines(data, 0):
        if piece.lost or piece.passed_over:
            raise FormatError(f"the header of {file} cannot be read", piece.lost or "its first line is too long")
        page = _Page(piece, iter(()))
        for at, line in enumerate(page.texts):
            if not line.strip():
                continue
            if text.header and not separator and (excel := _EXCEL.fullmatch(line)):
                separator = excel[1]  # Excel says so in a line of its own
                continue
            candidates = (separator,) if separator else separators(kind, text)
            top = _Top(page, at, kind, candidates, text, columns, file)
            return _header(top) if text.header else _first_row(top)
    return Header(form(kind, text), 0, None, 0)


@dataclass(frozen=True, slots=True)
class _Top:
    """The first line of a file that is not blank, and what it may be read by.

    candidates: the separators that may part its cells, the likeliest first.
    """

    page: _Page
    at: int
    kind: Literal["csv", "tsv"]
    candidates: tuple[str, ...]
    text: Text
    columns: Columns
    file: str


def _header(top: _Top) -> Header:
    """The line as a header, by the first separator under which it has a url column."""
    refused: FormatError | None = None
    for separator in top.candidates:
        how = form(top.kind, top.text, separator)
        cells, following, _ = _parse(top.page, top.at, how.dialects[0], MAX_COLUMNS)
        if isinstance(cells, list) and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells):
            how = form(top.kind, top.text, separator, quoted_header=True)
            cells, following, _ = _parse(top.page, top.at, how.dialects[0], MAX_COLUMNS)
        try:
            if isinstance(cells, str):
                raise FormatError(
                    f"the header of {top.file} cannot be read",
                    f"{cells}: {sample_of(top.page.texts[top.at])}",
                    "the first line names columns",
                )
            names = [cell.strip() for cell in cells]
            found = find_columns(names, top.columns, top.file)
            return Header(how, len(names), found, top.page.offsets[following], tuple(names))
        except FormatError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _first_row(top: _Top) -> Header:
    """Of a file without a header: its first row says how many columns there are."""
    rows = []
    for separator in top.candidates:
        how = form(top.kind, top.text, separator)
        cells, *_ = _parse(top.page, top.at, how.dialects[0], MAX_COLUMNS)
        rows.append((how, len(cells) if isinstance(cells, list) else 0))
    wanted = len(top.text.names)
    how, width = next((row for row in rows if (row[1] == wanted if wanted else row[1] > 1)), rows[0])
    names = list(top.text.names) + [str(number + 1) for number in range(wanted, width)]
    found = find_columns(names, top.columns, top.file)
    return Header(how, max(wanted, width), found, top.page.offsets[top.at], tuple(names))


def csv_blocks(data: RefBytes, header: Header, rules: Rules, at: Cursor) -> Iterator[Block]:
    """The rows from a cursor on, at or behind the header's end; blank lines are no rows."""
    pieces = read_lines(data, at.position)
    row = at.row
    piece = next(pieces, None)
    while piece is not None:
        broken = unread(piece, row)
        row += len(broken)
        page = _Page(Lines([], piece.offsets, []) if broken else piece, pieces)
        columns = columns_of(page.texts, header.width, header.form)
        if columns is not None:
            count = len(page.texts)
            raw = _raw(columns.__getitem__, page.offsets[:-1], range(row, row + count), header, rules)
            row += count
        else:
            raw, row = _by_line(page, row, header, broken, rules)
        yield judge(raw, rules, broken, Cursor(page.offsets[-1], row))
        piece = page.unread or next(pieces, None)


def _by_line(page: _Page, row: int, header: Header, broken: list[Rejected], rules: Rules) -> tuple[RawRows, int]:
    """The records that begin on a page, and the row after them; what is none is added to the broken ones."""
    width, separator = header.width, header.form.separator
    quote, escape, tail = header.form.signs
    records: list[list[str]] = []
    positions: list[int] = []
    rows: list[int] = []
    place = 0
    while place < len(page.texts):
        text = page.texts[place]
        offset = page.offsets[place]
        if quote not in text and escape not in text and not text.endswith(tail):
            cells: list[str] | str = text.split(separator)
            if len(cells) == width > 1:
                records.append(cells)  # type: ignore[arg-type]  # a list it is
                positions.append(offset)
                rows.append(row)
                place += 1
                row += 1
                continue
        if not text.strip(" "):
            place += 1
            continue
        cells, following = _record(page, place, header)
        if isinstance(cells, str):
            broken.append(Rejected(row, offset, cells, sample_of(text)))
        else:
            records.append(cells)
            positions.append(offset)
            rows.append(row)
        place = following
        row += 1
    return _raw(lambda place: [record[place] for record in records], positions, rows, header, rules), row


def _raw(
    cells_of: Callable[[int], list[str]], positions: Sequence[int], rows: Sequence[int], header: Header, rules: Rules
) -> RawRows:
    """Rows whose columns stand there as text."""
    if header.found is None:
        return RawRows(positions, rows)

    found, form = header.found, header.form

    def column(place: int) -> list[Cell]:
        cells = cells_of(place)
        if form.unescapes and "\\" in "".join(cells):
            cells = [unescaped(cell, form.separator) for cell in cells]
        if form.quoted_urls and place == found.url and '"' in "".join(cells):
            cells = [_bare_url(cell) if cell[:1] == '"' else cell for cell in cells]
        return cells  # type: ignore[return-value]  # a list of texts is one of cells

    return found.raw_rows(positions, rows, column, lambda place: values_of(column(place), rules.nulls))


def _bare_url(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[-1] == '"' else cell


def _record(page: _Page, place: int, header: Header) -> tuple[list[str] | str, int]:
    """The cells of the record that begins on a line, or why it is none; and the line where the next one begins.

    By the first of the form's dialects under which it has as many cells as the header.  A record that is none costs
    its first line; lines that an escape joins cost each other, so that none is looked at again and again.
    """
    line = page.texts[place]
    cells: list[str] | str
    first = header.form.dialects[0]
    if first.quote and first.quote in line:
        cells, following, looked = _parse(page, place, first, header.width, header.found)
        if len(cells) == header.width and isinstance(cells, list):
            return cells, following
    others = list(header.form.dialects[1:])
    if others and not first.quote and _goes_on(line, len(line), others[0].escape):
        first, others = others[0], [first, *others[1:]]
    if (not first.quote or first.quote not in line) and (not first.escape or first.escape not in line):
        cells = line.split(first.separator)
        following = looked = place + 1
    elif not first.quote or first.quote not in line:
        cells, following, looked = _parse(page, place, first, header.width, header.found)
    if isinstance(cells, list) and len(cells) == header.width:
        return cells, following
    joined = looked if first.escape and not first.quote else 0
    for dialect in others:
        sign = dialect.escape or dialect.quote
        if not sign and (plain := line.split(dialect.separator)) and len(plain) == header.width:
            return plain, place + 1
        if sign and any(sign in text for text in page.texts[place:looked]):
            found, behind, last = _parse(page, place, dialect, header.width, header.found)
            if isinstance(found, list) and len(found) == header.width:
                return found, behind
            if dialect.escape and not dialect.quote:
                joined = last
    if isinstance(cells, list):
        cells = f"the row has {len(cells)} cells, the header {header.width}"
    return cells, max(place + 1, joined - 1)


def _parse(
    page: _Page, place: int, dialect: Dialect, width: int, found: Found | None = None
) -> tuple[list[str] | str, int, int]:
    """The cells of the record that begins on a line as one dialect has them, the line after it, and the line after
    those that were looked at.

    Looking for the end of a record ends with the width, so that a file full of open quotes takes linear time.
    """
    pattern = dialect.patterns
    quote, escape, separator = dialect.quote, dialect.escape, dialect.separator
    doubled = quote + quote
    body = page.texts[place]
    cells: list[str] = []
    last = place
    at = beyond = 0
    while True:
        if quote and body.startswith(quote, at):
            closed = pattern.quoted.match(body, at + 1)
            if closed:
                cell = closed[1]
            else:
                parts = [body[at + 1 :]]
                while not closed:
                    last += 1
                    if beyond > MAX_BEYOND or len(cells) >= width or not page.has(last):
                        return OPEN, place + 1, last
                    body = page.texts[last]
                    beyond += len(body) + 1
                    closed = pattern.quoted.match(body)
                    inside = closed[1] if closed else body
                    if _is_row(inside, separator, width, found):
                        return OPEN, place + 1, last + 1
                    parts += (page.ends[last - 1], inside)
                cell = "".join(parts)
            cells.append(_unescaped(cell, pattern.escaped) if escape else cell.replace(doubled, quote))
            at = closed.end()
        elif not escape:
            end = body.find(separator, at)
            end = len(body) if end < 0 else end
            cells.append(body[at:end])
            at = end
        else:
            bare = _bare(pattern.bare, body, at)
            parts = [bare[0]]
            while not quote and _goes_on(body, bare.end(), escape) and beyond <= MAX_BEYOND and page.has(last + 1):
                last += 1
                body = page.texts[last]
                beyond += len(body) + 1
                bare = _bare(pattern.bare, body, 0)
                parts += (page.ends[last - 1], bare[0])
            cell = "".join(parts)
            cells.append(_unescaped(cell, pattern.escaped) if quote else cell)
            at = bare.end()
            if len(cells) > width:
                return cells, place + 1, last + 1
        if at == len(body):
            return cells, last + 1, last + 1
        if body[at] != separator:
            return STRAY, place + 1, last + 1
        at += 1


def _bare(pattern: re.Pattern[str], body: str, at: int) -> re.Match[str]:
    found = pattern.match(body, at)
    assert found is not None  # it matches nothing as well
    return found


def _unescaped(cell: str, escaped: re.Pattern[str]) -> str:
    return escaped.sub(lambda found: found[1] or found[2], cell)


def _goes_on(body: str, end: int, escape: str) -> bool:
    """Whether the line's end is escaped: an odd number of escapes stands before it."""
    return (
        bool(escape) and end == len(body) and body.endswith(escape) and (len(body) - len(body.rstrip(escape))) % 2 == 1
    )


def _is_row(text: str, separator: str, width: int, found: Found | None) -> bool:
    """Whether a line within quotes is rather a row of its own: it has the header's cells, and a URL in its place.
    The quote then stands there by mistake, and would take the rows up to the next one with it."""
    if found is None or found.url is None or width < 2 or text.count(separator) != width - 1:
        return False
    return "://" in text.split(separator)[found.url]


class _Page:
    """Lines being parsed; more of them are added where a record goes on beyond the last."""

    def __init__(self, piece: Lines, further: Iterator[Lines]) -> None:
        self.texts = piece.texts
        self.offsets = piece.offsets
        self.ends = piece.ends
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
                self.ends.extend(piece.ends)
        return place < len(self.texts)
