"""Small tables and times for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.ledger.layout import FIRST_DUE, seconds_of
from pipeline.process import logs
from pipeline.times import DAY, HOUR, to_the_minute


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


def ago(seconds: float) -> str:
    """A length of time in one or two units: `40 s`, `12 min`, `5 h 10 min`, `3 d 4 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // HOUR), int(seconds // DAY)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"
