"""What makes a row of a source an image ref: which cell gives the id, and what is rejected.

Each column is looked at as a whole first, since nearly all are clean; only one that is not is gone through by row.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.codec.refs.rows import Block, Cursor, Rejected, sample_of
from pipeline.process.redaction import redact_value
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID, item_id_as_written, item_id_of, item_id_of_url, item_ids_of
from pipeline.settings import NULL_WORDS

MAX_CHARACTERS = 65_536
"""Of a URL or an external id; below that the fetcher judges a URL."""
MAX_CONTENT = 60 * 2**20
"""Bytes of an image that travels inline: it must fit into one record of a batch."""

NO_IMAGE = "no url and no content"
NO_ID = "the id is empty"
NO_PARTNER = "the partner id is empty"

Cell = str | int | bytes | None
"""As a file gives it: text (lone surrogates stand for bytes that are no UTF-8), a number, bytes, or nothing."""


Kept = Any
"""A further column: an Arrow array where the format has types, else a list of what the file holds."""


def null_forms(words: Iterable[str]) -> frozenset[str]:
    """The words as they stand, in lower case, in capitals and capitalised: what a cell is compared with."""
    return frozenset(form for word in words for form in (word, word.lower(), word.upper(), word.capitalize()) if form)


Bad = dict[int, str]
"""Which rows of a block are rejected, and why; the first reason stands."""


@dataclass(frozen=True, slots=True)
class RawRows:
    """Consecutive rows in columns, as the file has them; a column that the file lacks is None."""

    positions: Sequence[int]
    rows: Sequence[int]
    partner_id: Sequence[Cell] | None = None
    item_id: Sequence[Cell] | None = None
    external_id: Sequence[Cell] | None = None
    url: Sequence[Cell] | None = None
    content: Sequence[Cell] | None = None
    """Bytes, or base64 where the format is text."""
    url_first: bool = False
    """The content is taken where a row has no url only; else it comes before the url."""
    kept: tuple[Kept, ...] = ()
    """Further columns that somebody wants beside the refs, in no ref."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a source's rows are read."""

    partner_id: int | None = None
    """Of rows that name none."""
    optional_id: bool = False
    """A row without an id takes its URL as one, even where other rows have ids."""
    offsets: bool = True
    """Positions are byte offsets."""
    nulls: frozenset[str] = null_forms(NULL_WORDS)
    """Cells that say, as an empty one does, that there is no value."""
    as_written: bool = False
    """External ids are hashed byte by byte."""
    null_partner: bool = False
    """The file's folder says that its rows have no partner: without the source's own they are rejected."""
    of_images: bool = True
    """A row without an image is rejected."""


def judge(raw: RawRows, rules: Rules, broken: Sequence[Rejected], end: Cursor) -> Block:
    """The rows as a block: refs, and those that are rejected, together with `broken` ones that never became cells."""
    count = len(raw.rows)
    bad: Bad = {}
    urls = _texts(raw.url, count, "url", rules.nulls, bad)
    contents = _contents(raw.content, urls if raw.url_first else [""] * count, rules.nulls, bad)
    if rules.of_images and not all(urls):
        for at, (url, content) in enumerate(zip(urls, contents, strict=True)):
            if not url and not content:
                bad.setdefault(at, NO_IMAGE)
    partners = _partners(raw.partner_id, count, rules, bad)
    externals, items = _ids(raw, urls, rules, bad)
    if not bad:
        return Block(partners, items, externals, urls, contents, raw.positions, raw.rows, broken, end, raw.kept)
    rejected = [
        Rejected(raw.rows[at], raw.positions[at] if rules.offsets else None, why, _sample(raw, at))
        for at, why in bad.items()
    ]
    good = [at for at in range(count) if at not in bad]
    return Block(
        [partners[at] for at in good],
        [items[at] for at in good],
        [externals[at] for at in good],
        [urls[at] for at in good],
        [contents[at] for at in good],
        [raw.positions[at] for at in good],
        [raw.rows[at] for at in good],
        sorted([*rejected, *broken], key=lambda entry: entry.row),
        end,
        tuple([column[at] for at in good] if isinstance(column, list) else column.take(good) for column in raw.kept),
    )


def _ids(raw: RawRows, urls: Sequence[str], rules: Rules, bad: Bad) -> tuple[Sequence[str], Sequence[int]]:
    """External ids and item ids: from item_id, else from external_id, else (where there are no ids at all) the URL."""
    count = len(urls)
    if raw.item_id is None and raw.external_id is None:
        if not bad and all(urls):
            return urls, list(map(item_id_of_url, urls))
        return urls, [0 if at in bad else _id_of_url(at, url, bad) for at, url in enumerate(urls)]
    hashed = item_id_as_written if rules.as_written else item_id_of
    externals = _texts(raw.external_id, count, "external id", rules.nulls, bad)
    items, missing = _numbers(raw.item_id, count, "item id", MAX_ITEM_ID, rules.nulls, bad)
    if not missing:
        return externals, items
    if len(missing) == count and not bad and all(externals):
        return externals, list(map(hashed, externals)) if rules.as_written else item_ids_of(externals)
    externals = list(externals)
    for at in missing:
        if at in bad:
            continue
        if externals[at]:
            items[at] = hashed(externals[at])
        elif rules.optional_id:
            externals[at] = urls[at]
            items[at] = _id_of_url(at, urls[at], bad)
        else:
            bad[at] = NO_ID
    return externals, items


def _id_of_url(at: int, url: str, bad: Bad) -> int:
    if url:
        return item_id_of_url(url)
    bad[at] = NO_ID
    return 0


def _partners(cells: Sequence[Cell] | None, count: int, rules: Rules, bad: Bad) -> list[int]:
    default = rules.partner_id
    if cells is None and not (default is None and rules.null_partner):
        return [default or 0] * count
    partners, missing = _numbers(cells, count, "partner id", MAX_PARTNER_ID, rules.nulls, bad)
    for at in missing:
        if default is None:
            bad.setdefault(at, NO_PARTNER)
        else:
            partners[at] = default
    return partners


def _numbers(
    cells: Sequence[Cell] | None, count: int, name: str, greatest: int, nulls: frozenset[str], bad: Bad
) -> tuple[list[int], Sequence[int]]:
    """The cells as unsigned numbers, and the places of those that are empty."""
    if cells is None:
        return [0] * count, range(count)
    numbers = _clean_numbers(cells, greatest)
    if numbers is not None:
        return numbers, ()
    numbers, missing = [0] * count, []
    for at, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and _is_null(cell, nulls)):
            missing.append(at)
            continue
        number = cell if type(cell) is int else _decimal(cell)
        if number is None:
            bad.setdefault(at, f"the {name} is not an integer")
        elif number < 0:
            bad.setdefault(at, f"the {name} is negative")
        elif number > greatest:
            bad.setdefault(at, f"the {name} is greater than {greatest}")
        else:
            numbers[at] = number
    return numbers, missing


def _clean_numbers(cells: Sequence[Cell], greatest: int) -> list[int] | None:
    """The cells as numbers if nothing is wrong with any of them."""
    kinds = set(map(type, cells))
    if kinds == {str} and all(map(str.isdecimal, cells)) and max(map(len, cells)) < 20:  # type: ignore[arg-type]
        numbers = list(map(int, cells))  # type: ignore[arg-type]
        clean = all(map(str.isascii, cells))  # type: ignore[arg-type]
    else:
        numbers = cells  # type: ignore[assignment]
        clean = kinds == {int}
    return list(numbers) if clean and min(numbers) >= 0 and max(numbers) <= greatest else None


def _decimal(cell: Cell) -> int | None:
    """The integer that a text writes in decimal digits; beyond 40 digits it is too great however it goes on."""
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    number = int(digits.lstrip("0")[:40] or "0")
    return -number if text[0] == "-" else number


def _texts(cells: Sequence[Cell] | None, count: int, name: str, nulls: frozenset[str], bad: Bad) -> Sequence[str]:
    """The cells as text, "" for those that are empty, blank or say that there is no value."""
    if cells is None:
        return [""] * count
    if _are_clean_texts(cells, nulls):
        return cells  # type: ignore[return-value]
    texts = [""] * count
    for at, cell in enumerate(cells):
        if type(cell) is int:
            cell = str(cell)
        if cell is None or cell == "":
            continue
        if not isinstance(cell, str):
            bad.setdefault(at, f"the {name} is not text")
        elif len(cell) > MAX_CHARACTERS:
            bad.setdefault(at, f"the {name} is longer than {MAX_CHARACTERS} characters")
        elif not is_unicode(cell):
            bad.setdefault(at, f"the {name} is not UTF-8")
        elif _is_null(cell, nulls):
            continue
        elif "\0" in cell:
            bad.setdefault(at, f"the {name} holds a zero byte")
        else:
            texts[at] = cell
    return texts


def values_of(cells: Sequence[Cell], nulls: frozenset[str]) -> list[str | None]:
    """Cells of a text as they are kept: None for one that says that there is no value, no lone surrogates."""
    told = [str(cell) for cell in cells]
    return [None if _is_null(cell, nulls) else cell if is_unicode(cell) else well_formed(cell) for cell in told]


def well_formed(text: str) -> str:
    """The text with a sign for whatever has no UTF-8 form."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_null(cell: str, nulls: frozenset[str]) -> bool:
    stripped = cell.strip()
    return not stripped or stripped in nulls


def _are_clean_texts(cells: Sequence[Cell], nulls: frozenset[str]) -> bool:
    """Whether they are texts of which none is empty of meaning, too long or damaged; "" is clean."""
    try:
        joined = "".join(cells)  # type: ignore[arg-type]
    except TypeError:
        return False
    texts: Sequence[str] = cells  # type: ignore[assignment]
    if max(map(len, texts), default=0) > MAX_CHARACTERS or "\0" in joined or not is_unicode(joined):
        return False
    stripped = list(map(str.strip, texts))
    if stripped.count("") != texts.count(""):
        return False
    return min(map(len, stripped), default=0) > _longest(nulls) or nulls.isdisjoint(stripped)


@lru_cache
def _longest(nulls: frozenset[str]) -> int:
    return max(map(len, nulls), default=0)


def is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form: no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _contents(cells: Sequence[Cell] | None, urls: Sequence[str], nulls: frozenset[str], bad: Bad) -> Sequence[bytes]:
    """The images; b"" for a row that has none, or a url that comes first."""
    contents = [b""] * len(urls)
    if cells is None:
        return contents
    for at, cell in enumerate(cells):
        if not cell or urls[at]:
            continue
        if isinstance(cell, str):
            if _is_null(cell, nulls):
                continue
            try:
                cell = base64.b64decode(cell.encode("ascii"), validate=True)
            except (binascii.Error, UnicodeEncodeError):
                bad.setdefault(at, "the content is not base64")
                continue
        if not isinstance(cell, bytes):
            bad.setdefault(at, "the content is not bytes")
        elif len(cell) > MAX_CONTENT:
            bad.setdefault(at, f"the content is longer than {MAX_CONTENT} bytes")
        else:
            contents[at] = cell
    return contents


def _sample(raw: RawRows, at: int) -> str:
    """The row's cells, those first that tell which row it is."""
    cells = {
        "partner_id": raw.partner_id,
        "item_id": raw.item_id,
        "external_id": raw.external_id,
        "url": raw.url,
    }
    shown = (
        f"{name}={redact_value(str(column[at]), 1024)}"
        for name, column in cells.items()
        if column and column[at] is not None
    )
    return sample_of(" ".join(shown))
