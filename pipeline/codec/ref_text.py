"""Ref files whose rows are single lines: plain lists of URLs, and JSON objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.codec.ref_bytes import RefBytes
from pipeline.codec.ref_columns import Found, find_columns
from pipeline.codec.ref_lines import Lines, read_lines
from pipeline.codec.ref_rows import Block, Cursor, Rejected, sample_of
from pipeline.codec.ref_rules import Cell, RawRows, Rules, is_unicode, judge
from pipeline.errors import FormatError
from pipeline.settings import Columns

_PROBED_OBJECTS = 100
_PROBED_LINES = 1000


def url_blocks(data: RefBytes, rules: Rules, at: Cursor) -> Iterator[Block]:
    """One URL a line, white space around it dropped; blank lines are no rows."""
    row = at.row
    for lines in read_lines(data, at.position):
        if broken := unread(lines, row):
            row += 1
            yield judge(RawRows((), ()), rules, broken, Cursor(lines.offsets[-1], row))
            continue
        stripped = [line.strip() for line in lines.texts]
        urls = [line for line in stripped if line]
        positions = [offset for offset, line in zip(lines.offsets, stripped, strict=False) if line]
        rows = range(row, row + len(urls))
        row += len(urls)
        yield judge(RawRows(positions, rows, url=urls), rules, (), Cursor(lines.offsets[-1], row))


def json_blocks(data: RefBytes, keys: Keys, rules: Rules, at: Cursor) -> Iterator[Block]:
    """One JSON object a line; blank lines are no rows."""
    row = at.row
    for lines in read_lines(data, at.position):
        broken = unread(lines, row)
        objects: list[dict[str, Any]] = []
        positions: list[int] = []
        rows: list[int] = []
        if broken:
            row += 1
        else:
            for text, offset in zip(lines.texts, lines.offsets, strict=False):
                if text.isspace() or not text:
                    continue
                read = _json_object(text)
                if isinstance(read, str):
                    broken.append(Rejected(row, offset, read, sample_of(text)))
                else:
                    objects.append(read)
                    positions.append(offset)
                    rows.append(row)
                row += 1
        yield judge(keys.rows(objects, positions, rows), rules, broken, Cursor(lines.offsets[-1], row))


class Keys:
    """The keys of a JSON file's objects that hold an image ref, from the first hundred objects."""

    def __init__(self, data: RefBytes, columns: Columns, file: str) -> None:
        names: dict[str, None] = {}
        objects = lines = 0
        texts = (text for piece in read_lines(data, 0) for text in piece.texts if text.strip())
        for text in islice(texts, _PROBED_LINES):
            lines += 1
            read = _json_object(text)
            if isinstance(read, dict):
                objects += 1
                names.update(dict.fromkeys(read))
                if objects == _PROBED_OBJECTS:
                    break
        self._names = list(names)
        self._found: Found | None = None
        if objects:
            self._found = find_columns(self._names, columns, file)
        elif lines:
            raise FormatError(
                f"{file} holds no JSON objects",
                f"none of its first {lines} lines is one",
                "write one JSON object on each line, or set the source's format",
            )

    def rows(self, objects: Sequence[dict[str, Any]], positions: Sequence[int], rows: Sequence[int]) -> RawRows:
        def column(place: int) -> list[Cell]:
            name = self._names[place]
            return [read.get(name) for read in objects]

        if self._found is None:
            return RawRows(positions, rows)
        return self._found.raw_rows(positions, rows, column)


def unread(lines: Lines, row: int) -> list[Rejected]:
    """The one rejected entry for a line that was passed over, or for a rest that cannot be read; else none."""
    at = lines.offsets[0]
    if lines.lost:
        return [Rejected(row, at, f"{lines.lost}: what follows byte {at} cannot be read and counts as one", "")]
    if lines.passed_over:
        return [Rejected(row, at, f"a line of {lines.passed_over} bytes", sample_of(lines.texts[0]))]
    return []


def _json_object(text: str) -> dict[str, Any] | str:
    """The object, or why there is none."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return "no JSON" if is_unicode(text) else "not UTF-8"
    return read if isinstance(read, dict) else "no JSON object"
