"""Attempts of a training that others begin anew: of two, the later one writes, wherever the earlier one still runs.

A node that its cluster has lost goes on computing; what it computes has the same bits, but it would clear and retire
files that the later attempt needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import TemporaryError

NAME = "attempt-"
"""Of an empty file beside the snapshots, with the attempt's number."""


def claim(beside: Callable[[str], Path], attempt: int) -> Callable[[int], None]:
    """Says that this attempt writes; what to call before each snapshot.

    beside: where a file of that name stands.  Both raise TemporaryError where a later attempt has claimed.
    """
    mine = beside(f"{NAME}{attempt}")

    def check(iteration: int) -> None:
        later = _latest(mine)
        if later > attempt:
            says = f"attempt {attempt} of this training has been given up, and attempt {later} writes its snapshots"
            raise TemporaryError(says, f"{mine.with_name(_named(mine, later))} is there", "nothing: this one ends")

    check(0)
    try:
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.touch()
    except OSError as error:
        raise TemporaryError("the folder of snapshots cannot be written", str(error)) from error
    for path in mine.parent.glob(_named(mine, "*")):
        number = _number(mine, path)
        if number is not None and number < attempt:
            path.unlink(missing_ok=True)
    return check


def _named(mine: Path, number: int | str) -> str:
    return f"{mine.name.rpartition('-')[0]}-{number}"


def _number(mine: Path, path: Path) -> int | None:
    text = path.name.removeprefix(_named(mine, ""))
    return int(text) if text.isdecimal() else None


def _latest(mine: Path) -> int:
    numbers = (_number(mine, path) for path in mine.parent.glob(_named(mine, "*")))
    return max((number for number in numbers if number is not None), default=-1)
