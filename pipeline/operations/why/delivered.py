"""The delivered rows of an item, from Parquet (by the statistics of its row groups) or, without it, from text."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.forms import is_failures, is_table, is_text, text_form_of
from pipeline.errors import FormatError
from pipeline.operations.why.story import Outcome
from pipeline.records import signed, unsigned

_COLUMNS = ("item_id", "external_id", "url", "reason", "retriable", "detail", "fetched_at", "content_sha256")


def rows_of(names: Iterable[str], open_file: Callable[[str], BinaryIO], items: Iterable[int]) -> list[Outcome]:
    """The item's rows in one partner's delivered files.

    names: relative to the partner's folder.  items: unsigned.  Memory: one row group's ids.
    Raises NotFound when a file is gone, FormatError when one is damaged.
    """
    wanted = list(items)
    found: list[Outcome] = []
    names = sorted(names)
    for name in names:
        if is_table(name) or is_failures(name):
            found += _parquet(name, open_file, wanted)
    texts = [name for name in names if is_text(name)]
    if texts and not any(is_table(name) for name in names):
        found += _text(texts[0], open_file, wanted)
    return found


def urls_of(names: Iterable[str], open_file: Callable[[str], BinaryIO], urls: Sequence[str]) -> Iterator[int]:
    """The items (unsigned) whose delivered URL is one of these."""
    for name in sorted(names):
        if not (is_table(name) or is_failures(name)):
            continue
        try:
            with open_file(name) as stream:
                file = pq.ParquetFile(stream)
                for group in range(file.metadata.num_row_groups):
                    table = file.read_row_group(group, columns=["item_id", "url"], use_threads=False)
                    ids, texts = table.column("item_id").to_pylist(), table.column("url").to_pylist()
                    yield from (unsigned(item) for item, text in zip(ids, texts, strict=True) if text in urls)
        except ARROW_ERRORS as error:
            raise FormatError("a delivered file is damaged", f"{name}: {damage_of(error)}", "hathi verify") from error


def _parquet(name: str, open_file: Callable[[str], BinaryIO], items: Sequence[int]) -> list[Outcome]:
    kind = "feature" if is_table(name) else "failure"
    wanted = {signed(item) for item in items}
    found = []
    try:
        with open_file(name) as stream:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            columns = [column for column in _COLUMNS if column in names]
            for group in range(file.metadata.num_row_groups):
                if not _may_hold(file.metadata.row_group(group).column(names.index("item_id")), wanted):
                    continue
                ids = file.read_row_group(group, columns=["item_id"], use_threads=False).column(0).to_pylist()
                places = [place for place, item in enumerate(ids) if item in wanted]
                if places:
                    table = file.read_row_group(group, columns=columns, use_threads=False).take(places)
                    found += [_outcome(kind, row) for row in table.to_pylist()]
    except ARROW_ERRORS as error:
        raise FormatError("a delivered file is damaged", f"{name}: {damage_of(error)}", "hathi verify") from error
    return found


def _may_hold(column: Any, wanted: set[int]) -> bool:
    statistics = column.statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return any(statistics.min <= item <= statistics.max for item in wanted)


def _outcome(kind: str, row: dict[str, Any]) -> Outcome:
    fetched, sha256 = row.get("fetched_at"), row.get("content_sha256")
    return Outcome(
        kind=kind,
        url=row["url"],
        external_id=row["external_id"],
        item_id=unsigned(row["item_id"]),
        reason=row.get("reason", ""),
        retriable=row.get("retriable", False),
        detail=row.get("detail", ""),
        fetched_at=fetched.strftime("%Y-%m-%d %H:%M:%S") if fetched else "",
        content_sha256=sha256.hex() if sha256 else "",
    )


def _text(name: str, open_file: Callable[[str], BinaryIO], items: Sequence[int]) -> list[Outcome]:
    """Formats without Parquet: a line says which item it is of, and nothing else."""
    word = text_form_of(name).item_word
    wanted = {b"%d" % item: item for item in items}
    try:
        with open_file(name) as stream, gzip.open(stream) as lines:
            ids = (line.split(None, 2)[word] for line in lines)
            return [Outcome("feature", item_id=wanted[one]) for one in ids if one in wanted]
    except (EOFError, gzip.BadGzipFile, zlib.error, IndexError) as error:
        raise FormatError("a delivered file is damaged", f"{name}: {error}", "hathi verify") from error
