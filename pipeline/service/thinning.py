"""Many points as few: the smallest and the greatest of each stretch of steps stay, so that a spike is seen.

Stretches begin at multiples of their width, and what stays of a stretch is the same in whatever order its points came,
and however often: so what was thinned finely can be thinned again, and nobody can tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[int, float, float]
"""(step, seconds since 1970, value); a value that is not finite is infinite."""
Columns = tuple[list[int], list[float], list[float]]
"""The same of many points: their steps, their seconds, their values."""
WIDTHS = tuple(16 * 8**level for level in range(9))
"""Steps of a stretch at each level of the summaries that are kept."""
FINER = 2
"""So many stretches of a summary are at least in one of those that are wanted, which begin where they do."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A chunk of rows as the database names it.  until: its rows from this step on were computed anew later."""

    number: int
    epoch: int
    first: int
    last: int
    until: int | None = None


def effective(chunks: Sequence[Stretch]) -> list[Stretch]:
    """The chunks in their order, each with the step from which a later attempt went over it."""
    begins: dict[int, int] = {}
    for one in chunks:
        begins[one.epoch] = min(one.first, begins.get(one.epoch, one.first))
    until: dict[int, int | None] = {}
    least: int | None = None
    for epoch in sorted(begins, reverse=True):
        until[epoch] = least
        least = begins[epoch] if least is None else min(least, begins[epoch])
    return [Stretch(one.number, one.epoch, one.first, one.last, until[one.epoch]) for one in chunks]


@dataclass(frozen=True, slots=True)
class Grid:
    """Stretches that cover some steps.  level: of the summaries that are fine enough for them, -1: none is."""

    level: int
    origin: int
    width: int


def grid(first: int, last: int, points: int) -> Grid:
    """The finest stretches of which two points each are at most so many."""
    most = max(1, points // 2)
    wide = -(-(last - first + 1) // most)
    level = sum(width * FINER <= wide for width in WIDTHS) - 1
    unit = WIDTHS[level] if level >= 0 else 1
    origin = first // unit * unit
    return Grid(level, origin, max(1, -(-(last + 1 - origin) // (most * unit))) * unit)


class Thinned:
    """What is left of points of many names."""

    def __init__(self, width: int, origin: int = 0) -> None:
        self._width, self._origin = width, origin
        self._kept: dict[str, dict[int, tuple[Point, Point]]] = {}

    def add(self, name: str, points: Iterable[Point]) -> None:
        """Points of a name."""
        stretches, width, origin = self._kept.setdefault(name, {}), self._width, self._origin
        for point in points:
            at, value = (point[0] - origin) // width, point[2]
            found = stretches.get(at)
            if found is None:
                stretches[at] = point, point
                continue
            least, most = found
            if value < least[2] or (value == least[2] and point < least):
                stretches[at] = point, most
            if value > most[2] or (value == most[2] and point < most):
                stretches[at] = stretches[at][0], point

    @property
    def stretches(self) -> int:
        """Of the name that has most."""
        return max(map(len, self._kept.values()), default=0)

    def points(self) -> dict[str, list[Point]]:
        """What is left, by name, in order of steps."""
        return {name: sorted({one for pair in some.values() for one in pair}) for name, some in
                sorted(self._kept.items()) if some}  # fmt: skip


def finite(value: Any) -> float:
    """A value as points have it; rows have what is not finite as a word.  Raises ValueError, TypeError."""
    found = float(value)
    return found if found - found == 0 else math.inf


def rows_of(text: bytes) -> list[dict[str, Any]]:
    """The rows of a chunk of metrics.  Raises ValueError."""
    found: list[dict[str, Any]] = json.loads(b"[%s]" % b",".join(text.splitlines()))
    return found


def points_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[Point]]:
    """The points of rows, by name."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        step, at = row["step"], row["time"]
        for name, value in row["values"].items():
            point = step, at, finite(value)
            if name in found:
                found[name].append(point)
            else:
                found[name] = [point]
    return found


def packed(points: dict[str, list[Point]]) -> str:
    """Points as a summary holds them."""
    columns = {name: list(zip(*some, strict=True)) for name, some in points.items()}
    return json.dumps(columns, separators=(",", ":"))


def unpacked(body: str) -> dict[str, Columns]:
    """The points of a summary, by name, in order of steps.  Raises ValueError."""
    found: dict[str, Columns] = json.loads(body)
    return found
