"""Lines with separated values taken apart all at once, where each has as many cells as the header: as nearly all have.

What does not stand in such a grid is read line by line (ref_csv.py); what does would come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codec.refs.dialect import Form

_MARK = "\n"
"""What no line holds: a cell of its own between two lines, which shows that each line has the same number of cells."""


def columns_of(lines: Sequence[str], width: int, form: Form) -> list[list[str]] | None:
    """The columns, without their quotes; None where a line has another width, escapes, or quotes within a cell.

    A column is quoted in each line or in none.
    """
    first, separator, count = form.dialects[0], form.separator, len(lines)
    if width < 2 or not lines:
        return None
    text = f"{separator}{_MARK}{separator}".join(lines)
    if text.count(separator) != (width + 1) * count - 2 or (first.escape and first.escape in text):
        return None
    if form.tail and (f"{form.tail}{separator}{_MARK}" in text or text.endswith(form.tail)):
        return None
    cells = text.split(separator)
    if cells[width :: width + 1].count(_MARK) != count - 1:
        return None
    columns = [cells[place :: width + 1] for place in range(width)]
    return _unquoted(columns, first.quote, text.count(first.quote)) if first.quote and first.quote in text else columns


def _unquoted(columns: list[list[str]], quote: str, quotes: int) -> list[list[str]] | None:
    """The columns without the quotes around their cells; None where other quotes are among those that there are."""
    bare = []
    for column in columns:
        if column[0].startswith(quote):
            joined = _MARK.join(column)
            unquoted = joined[1:-1].split(f"{quote}{_MARK}{quote}")
            if len(unquoted) != len(column) or len(joined) < 2 or not joined.endswith(quote):
                return None
            quotes -= 2 * len(column)
            column = unquoted
        bare.append(column)
    return None if quotes else bare
