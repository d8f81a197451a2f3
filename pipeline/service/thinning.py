"""Many points as few: the smallest and the greatest of each stretch of steps stay, so that a spike is seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[int, float, float]
"""(step, seconds since 1970, value)."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A chunk of rows as the database names it.  until: its rows from this step on were computed anew later."""

    number: int
    epoch: int
    first: int
    last: int
    until: int | None = None


def effective(chunks: Sequence[Stretch]) -> list[Stretch]:
    """The chunks in order of number, each with the step from which a later attempt went over it."""
    found, first = [], None
    begins: dict[int, int] = {}
    for one in chunks:
        begins[one.epoch] = min(one.first, begins.get(one.epoch, one.first))
    for one in chunks:
        first = min((step for epoch, step in begins.items() if epoch > one.epoch), default=None)
        found.append(Stretch(one.number, one.epoch, one.first, one.last, first))
    return found


class Thinned:
    """Points of many names between two steps, at most so many of each name."""

    def __init__(self, first: int, last: int, points: int) -> None:
        self._first, self._stretches = first, max(1, points // 2)
        self._width = max(1, -(-(last - first + 1) // self._stretches))
        self._kept: dict[str, dict[int, tuple[Point, Point]]] = {}

    def add(self, name: str, point: Point) -> None:
        """A point; those that are not finite count as the greatest."""
        at = (point[0] - self._first) // self._width
        stretches = self._kept.setdefault(name, {})
        least, most = stretches.get(at, (point, point))
        if point[2] < least[2]:
            least = point
        if not point[2] <= most[2]:
            most = point
        stretches[at] = least, most

    def points(self) -> dict[str, list[Point]]:
        """What is left, by name, in order of steps."""
        return {name: _ordered(stretches.values()) for name, stretches in sorted(self._kept.items())}


def _ordered(pairs: Iterable[tuple[Point, Point]]) -> list[Point]:
    return sorted({point for pair in pairs for point in pair})
