"""What makes a row of a source an image ref: which cell gives the id, and what is rejected.

Each column is looked at as a whole first, since nearly all are clean; only one that is not is gone through by row.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.codec.ref_rows import Block, Cursor, Rejected, sample_of
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID, item_id_of, item_id_of_url

MAX_CHARACTERS = 65_536
"""Of a URL or an external id; below that the fetcher judges a URL."""
MAX_CONTENT = 60 * 2**20
"""Bytes of an image that travels inline: it must fit into one record of a batch."""

NO_IMAGE = "no url and no content"
NO_ID = "the id is empty"
NO_PARTNER = "the partner id is empty"

Cell = str | int | bytes | None
"""As a file gives it: text (lone surrogates stand for bytes that are no UTF-8), a number, bytes, or nothing."""

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


@dataclass(frozen=True, slots=True)
class Rules:
    """How a source's rows are read."""

    partner_id: int | None = None
    """Of rows that name none."""
    optional_id: bool = False
    """A row without an id takes its URL as one, even where other rows have ids."""
    offsets: bool = True
    """Positions are byte offsets."""


def judge(raw: RawRows, rules: Rules, broken: Sequence[Rejected], end: Cursor) -> Block:
    """The rows as a block: refs, and those that are rejected, together with `broken` ones that never became cells."""
    count = len(raw.rows)
    bad: Bad = {}
    urls = _texts(raw.url, count, "url", bad)
    contents = _contents(raw.content, count, bad)
    if not all(urls):
        for at, (url, content) in enumerate(zip(urls, contents, strict=True)):
            if not url and not content:
                bad.setdefault(at, NO_IMAGE)
    partners = _partners(raw.partner_id, count, rules.partner_id, bad)
    externals, items = _ids(raw, urls, rules.optional_id, bad)
    if not bad:
        return Block(partners, items, externals, urls, contents, raw.positions, raw.rows, broken, end)
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
    )


def _ids(raw: RawRows, urls: Sequence[str], optional: bool, bad: Bad) -> tuple[Sequence[str], Sequence[int]]:
    """External ids and item ids: from item_id, else from external_id, else (where there are no ids at all) the URL."""
    count = len(urls)
    if raw.item_id is None and raw.external_id is None:
        return urls, [0 if at in bad else _id_of_url(at, url, bad) for at, url in enumerate(urls)]
    externals = _texts(raw.external_id, count, "external id", bad)
    items, missing = _numbers(raw.item_id, count, "item id", MAX_ITEM_ID, bad)
    if not missing:
        return externals, items
    if len(missing) == count and not bad and all(externals):
        return externals, list(map(item_id_of, externals))
    externals = list(externals)
    for at in missing:
        if at in bad:
            continue
        if externals[at]:
            items[at] = item_id_of(externals[at])
        elif optional:
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


def _partners(cells: Sequence[Cell] | None, count: int, default: int | None, bad: Bad) -> list[int]:
    if cells is None:
        return [default or 0] * count
    partners, missing = _numbers(cells, count, "partner id", MAX_PARTNER_ID, bad)
    for at in missing:
        if default is None:
            bad.setdefault(at, NO_PARTNER)
        else:
            partners[at] = default
    return partners


def _numbers(
    cells: Sequence[Cell] | None, count: int, name: str, greatest: int, bad: Bad
) -> tuple[list[int], Sequence[int]]:
    """The cells as unsigned numbers, and the places of those that are empty."""
    if cells is None:
        return [0] * count, range(count)
    numbers = _clean_numbers(cells, greatest)
    if numbers is not None:
        return numbers, ()
    numbers, missing = [0] * count, []
    for at, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            missing.append(at)
            continue
        number = cell if type(cell) is int else _decimal(cell)
        if number is None:
            bad.setdefault(at, f"the {name} is no integer")
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


def _texts(cells: Sequence[Cell] | None, count: int, name: str, bad: Bad) -> Sequence[str]:
    """The cells as text, "" for those that are empty or blank."""
    if cells is None:
        return [""] * count
    if _are_clean_texts(cells):
        return cells  # type: ignore[return-value]
    texts = [""] * count
    for at, cell in enumerate(cells):
        if type(cell) is int:
            cell = str(cell)
        if cell is None or cell == "":
            continue
        if not isinstance(cell, str):
            bad.setdefault(at, f"the {name} is no text")
        elif len(cell) > MAX_CHARACTERS:
            bad.setdefault(at, f"the {name} is longer than {MAX_CHARACTERS} characters")
        elif not is_unicode(cell):
            bad.setdefault(at, f"the {name} is not UTF-8")
        elif not cell.isspace():
            texts[at] = cell
    return texts


def _are_clean_texts(cells: Sequence[Cell]) -> bool:
    try:
        joined = "".join(cells)  # type: ignore[arg-type]
    except TypeError:
        return False
    return (
        is_unicode(joined)
        and max(map(len, cells), default=0) <= MAX_CHARACTERS  # type: ignore[arg-type]
        and not any(map(str.isspace, cells))  # type: ignore[arg-type]
    )


def is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form: no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _contents(cells: Sequence[Cell] | None, count: int, bad: Bad) -> Sequence[bytes]:
    if cells is None:
        return [b""] * count
    contents = [b""] * count
    for at, cell in enumerate(cells):
        if not cell:
            continue
        if isinstance(cell, str):
            try:
                cell = base64.b64decode(cell.encode("ascii"), validate=True)
            except (binascii.Error, UnicodeEncodeError):
                bad.setdefault(at, "the content is no base64")
                continue
        if not isinstance(cell, bytes):
            bad.setdefault(at, "the content is no bytes")
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
    shown = (f"{name}={str(column[at])[:1024]}" for name, column in cells.items() if column and column[at] is not None)
    return sample_of(" ".join(shown))
