"""Ref files whose rows are single lines: plain lists of URLs, and JSON objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from pipeline.codec.refs.byte_stream import RefBytes
from pipeline.codec.refs.columns import Found, find_columns, place_of
from pipeline.codec.refs.lines import Lines, read_lines
from pipeline.codec.refs.rows import UNREADABLE, Block, Cursor, Rejected, sample_of
from pipeline.codec.refs.rules import Cell, RawRows, Rules, is_unicode, judge
from pipeline.errors import FormatError
from pipeline.settings import Columns

TWICE = "a key stands twice"
_PROBED = 1000
_NESTED = frozenset({dict, list})
_DECODER = json.JSONDecoder()
_ONE_EACH = "write one JSON object on each line, or set the source's format"


def url_blocks(data: RefBytes, rules: Rules, at: Cursor) -> Iterator[Block]:
    """One URL a line, white space around it dropped; blank lines are no rows."""
    row = at.row
    for lines in read_lines(data, at.position):
        if broken := unread(lines, row):
            row += 1
            yield judge(RawRows((), ()), rules, broken, Cursor(lines.offsets[-1], row))
            continue
        stripped = [line.strip() for line in lines.texts]
        urls, positions = stripped, lines.offsets[:-1]
        if not all(stripped):
            urls = [line for line in stripped if line]
            positions = [offset for offset, line in zip(positions, stripped, strict=True) if line]
        rows = range(row, row + len(urls))
        row += len(urls)
        yield judge(RawRows(positions, rows, url=urls), rules, (), Cursor(lines.offsets[-1], row))


def json_blocks(data: RefBytes, keys: Keys, rules: Rules, at: Cursor, keep: Sequence[str] = ()) -> Iterator[Block]:
    """One JSON object a line; blank lines are no rows.  keep: further keys, whose values stay what they are."""
    row = at.row
    if keys.without_ids:
        rules = replace(rules, optional_id=True)
    for lines in read_lines(data, at.position):
        broken = unread(lines, row)
        objects: list[dict[str, Any]] = []
        positions: list[int] = []
        rows: list[int] = []
        texts: list[str] = []
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
                    texts.append(text)
                row += 1
        present = keys.present(objects)
        for place in reversed(_ambiguous(objects, texts, present)):
            broken.append(Rejected(rows[place], positions[place], TWICE, sample_of(texts[place])))
            del objects[place], positions[place], rows[place]
        broken.sort(key=lambda one: one.row)
        raw = keys.rows(objects, positions, rows, present, rules)
        if keep:
            raw = replace(raw, kept=tuple(_values(objects, name) for name in keep))
        yield judge(raw, rules, broken, Cursor(lines.offsets[-1], row))


def json_names(data: RefBytes, wanted: Sequence[str]) -> list[str]:
    """The keys of a file's objects: those of its beginning, and as far as the last one that is wanted first appears."""
    names: dict[str, None] = {}
    texts = (text for piece in read_lines(data, 0) for text in piece.texts if text.strip())
    for looked, text in enumerate(texts, 1):
        read = _json_object(text)
        if isinstance(read, dict):
            names.update(dict.fromkeys(read))
        if looked >= _PROBED and all(place_of(list(names), name) is not None for name in wanted):
            break
    return list(names)


class Keys:
    """The keys of a JSON file's objects that hold an image ref.

    What the first thousand objects have is settled for the whole file, as a table's columns are.  What they lack is
    looked for in each object: writers leave out a key that has no value, so it may come late.
    """

    def __init__(self, data: RefBytes, columns: Columns, file: str) -> None:
        names: dict[str, None] = {}
        objects = lines = 0
        ended = True
        for text in (text for piece in read_lines(data, 0) for text in piece.texts if text.strip()):
            if lines == _PROBED:
                ended = False
                break
            if not lines and text.lstrip().startswith("["):
                raise FormatError(f"{file} holds no JSON objects", "it is a JSON array", _ONE_EACH)
            lines += 1
            read = _json_object(text)
            if isinstance(read, dict):
                objects += 1
                names.update(dict.fromkeys(read))
        if lines and not objects:
            raise FormatError(
                f"{file} holds no JSON objects", f"none of its first {lines} lines is a JSON object", _ONE_EACH
            )
        found = Found(None, None, None, None, None)
        try:
            if objects:
                found = find_columns(list(names), columns, file)
        except FormatError:
            if ended:
                raise
        self._wanted: dict[str, list[str]] = {}
        """For each column the names that are looked for."""
        for column in Columns.model_fields:
            place = getattr(found, column)
            self._wanted[column] = getattr(columns, column) if place is None else [list(names)[place]]
        self._url_first = not columns.content_is_configured
        self._partner_is_settled = found.partner_id is not None
        self.without_ids = found.item_id is None and found.external_id is None
        """The first objects have no ids: an object without one takes its URL."""

    def rows(
        self,
        objects: Sequence[dict[str, Any]],
        positions: Sequence[int],
        rows: Sequence[int],
        present: dict[str, list[str]],
        rules: Rules,
    ) -> RawRows:
        """Objects in columns, by the keys that are present."""
        cells = {column: _cells(objects, names) for column, names in present.items()}
        partners = cells["partner_id"]
        if partners is not None and not self._partner_is_settled and not rules.null_partner:
            cells["partner_id"] = [(rules.partner_id or 0) if cell is None else cell for cell in partners]
        return RawRows(
            positions,
            rows,
            partner_id=cells["partner_id"],
            item_id=cells["item_id"],
            external_id=cells["external_id"],
            url=cells["url"],
            content=cells["content"],
            url_first=self._url_first,
        )

    def present(self, objects: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
        """For each column the keys of these objects that may hold it, in the order in which they are asked."""
        keys = sorted(set().union(*objects))
        folded = [key.casefold() for key in keys]
        found = {}
        for column, names in self._wanted.items():
            asked = [[name, *(key for key, low in zip(keys, folded, strict=True) if low == name.casefold())]
                     for name in names]  # fmt: skip
            has = set(keys)
            found[column] = [key for key in dict.fromkeys(key for some in asked for key in some) if key in has]
        return found


def _ambiguous(objects: Sequence[dict[str, Any]], texts: Sequence[str], present: dict[str, list[str]]) -> list[int]:
    """The places of objects in which a key that is wanted stands twice."""
    joined = "".join(texts)
    keys = joined.count('":')
    # No blank stands before a colon, so that no key is missed: where as many stand there as the objects have, none
    # stands twice.
    if (keys == sum(map(len, objects)) or keys == _keys_within(objects)) and "\t" not in joined and " :" not in joined:
        return []
    wanted = {name for names in present.values() for name in names}
    if "\\u" not in joined and all(
        joined.count(f'"{name}"') == sum(map(dict.__contains__, objects, repeat(name))) for name in wanted
    ):
        return []
    return [at for at, text in enumerate(texts) if _has_twice(text, wanted)]


def _cells(objects: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[Cell] | None:
    """Each object's value of the first of the keys that it has one of; None where no object has any."""
    if not keys:
        return None
    cells: list[Cell] = [read.get(keys[0]) for read in objects]
    if len(keys) > 1:
        for at, cell in enumerate(cells):
            if cell is None:
                values = (objects[at].get(key) for key in keys[1:])
                cells[at] = next((value for value in values if value is not None), None)
    return cells


def _values(objects: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Each object's value of a key, in its own letter case or else in any."""
    folded = name.casefold()
    others = [key for key in dict.fromkeys(key for one in objects for key in one)
              if key != name and key.casefold() == folded]  # fmt: skip
    return [next((one[key] for key in (name, *others) if key in one), None) for one in objects]


def _keys_within(objects: Sequence[dict[str, Any]]) -> int:
    """The number of keys that objects have, and the objects within them."""
    keys = 0
    dicts: list[dict[str, Any]] = list(objects)
    lists: list[list[Any]] = []
    while dicts or lists:
        keys += sum(map(len, dicts))
        inner = [value for one in dicts for value in one.values() if type(value) in _NESTED]
        inner += [value for one in lists for value in one if type(value) in _NESTED]
        dicts = [value for value in inner if type(value) is dict]
        lists = [value for value in inner if type(value) is list]
    return keys


def _has_twice(text: str, wanted: set[str]) -> bool:
    """Whether the object on a line has one of these keys twice."""
    counts: list[Counter[str]] = []

    def count(pairs: list[tuple[str, Any]]) -> None:
        counts.append(Counter(key for key, _ in pairs))

    json.loads(text, object_pairs_hook=count)
    return any(counts[-1][name] > 1 for name in wanted)  # the outermost object ends last


def unread(lines: Lines, row: int) -> list[Rejected]:
    """The one rejected entry for a line that was passed over, or for a rest that cannot be read; else none."""
    at = lines.offsets[0]
    if lines.lost:
        return [Rejected(row, at, f"{lines.lost}: the rest from byte {at} on {UNREADABLE}", "")]
    if lines.passed_over:
        return [Rejected(row, at, f"a line of {lines.passed_over} bytes", sample_of(lines.texts[0]))]
    return []


def _json_object(text: str) -> dict[str, Any] | str:
    """The object, or why there is none."""
    try:
        read = _json_value(text)
    except (ValueError, RecursionError) as error:
        if not is_unicode(text):
            return "not UTF-8"
        return "more than one JSON value on a line" if getattr(error, "msg", "") == "Extra data" else "no JSON"
    return read if isinstance(read, dict) else "not a JSON object"


def _json_value(text: str) -> Any:
    """What json.loads makes of it, in less time where nothing stands around an object."""
    if text.startswith("{"):
        read, end = _DECODER.raw_decode(text)
        if end == len(text):
            return read
    return json.loads(text)
