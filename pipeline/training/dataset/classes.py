"""Labels as people write them -> the numbers that a net is trained with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pipeline.errors import FormatError

MOST = 2**31 - 1
_WHOLE = re.compile(r"0|[1-9][0-9]{0,9}")


def numbers_of(names: Iterable[str], before: Mapping[str, int]) -> dict[str, int]:
    """The number of each name.  before: numbers that stand, by name; they stay.

    Where all are whole numbers they are what they say; else names have the numbers from 0 on, in their order, and new
    names those behind the greatest.  Raises FormatError for a number that no label can be.
    """
    new = sorted(set(names) - before.keys())
    whole = all(_WHOLE.fullmatch(name) for name in new) and all(str(number) == name for name, number in before.items())
    if whole:
        if great := next((name for name in new if int(name) > MOST), None):
            raise FormatError(f"the label {great} is too great", f"the greatest is {MOST}", "number the classes from 0")
        return {**before, **{name: int(name) for name in new}}
    first = max(before.values(), default=-1) + 1
    return {**before, **{name: first + at for at, name in enumerate(new)}}
