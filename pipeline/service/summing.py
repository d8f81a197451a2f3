"""A worker's summaries of the metrics that it ships: the same points, thinned at levels that grow coarser.

A summary covers whole chunks of one attempt and is named together with the last of them.  Each level is made of the
one below, so that a point costs the same however many levels there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.service.thinning import WIDTHS, Point, Thinned, packed

FULL = 128
"""So many stretches of a name fill a summary."""
CHUNKS = 64
"""So many chunks do, too: what has no summary yet is read chunk by chunk."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the attempt's newest chunks, so many.  first, last: their steps; body: as `thinning.packed` writes it."""

    level: int
    chunks: int
    first: int
    last: int
    body: str


@dataclass
class _Open:
    kept: Thinned
    chunks: int = 0
    steps: list[int] = field(default_factory=list)

    def add(self, points: Mapping[str, list[Point]], chunks: int, first: int, last: int) -> None:
        for name, some in points.items():
            self.kept.add(name, some)
        self.chunks += chunks
        self.steps = [min([first, *self.steps]), max([last, *self.steps])]


class Summing:
    """Of one attempt, whose steps never go back; where they do, nothing is summed any more."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._last: int | None = 0

    def add(self, points: Mapping[str, list[Point]], first: int, last: int) -> tuple[Summary, ...]:
        """A chunk, with its first and last step; the summaries that are full with it."""
        if self._last is None or first < self._last:
            self._last = None
            return ()
        self._last = last
        return tuple(self._added(0, points, (1, first, last)))

    def _added(self, level: int, points: Mapping[str, list[Point]], of: tuple[int, int, int]) -> list[Summary]:
        if level == len(WIDTHS):
            return []
        if level == len(self._open):
            self._open.append(_Open(Thinned(WIDTHS[level])))
        here = self._open[level]
        here.add(points, *of)
        if here.kept.stretches < FULL and (level or here.chunks < CHUNKS):
            return []
        self._open[level] = _Open(Thinned(WIDTHS[level]))
        left, (first, last) = here.kept.points(), here.steps
        summary = Summary(level, here.chunks, first, last, packed(left))
        return [summary, *self._added(level + 1, left, (here.chunks, first, last))]
