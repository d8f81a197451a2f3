"""Small tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.ledger.layout import FIRST_DUE, seconds_of
from pipeline.process import logs
from pipeline.times import to_the_minute


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] | set[int] = frozenset()) -> Iterator[str]:
    """The rows, the first of them headings, each column as wide as it has to be.  right: columns with figures."""
    shown = [[logs.escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def when(version: str) -> str:
    """`20261120T185900Z` as people write it; a due of at once as `now`."""
    if version == FIRST_DUE:
        return "now"
    return to_the_minute(seconds_of(version))
