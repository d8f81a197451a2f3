"""A job's metrics from a step on, as few points as are wanted: out of summaries, and of rows where there are none.

What is read is decided by a pure function.  What is read twice changes nothing (`thinning.py`), so that parts may
overlap; what no whole stretch of a summary covers, at both ends and behind the newest, is read as rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.errors import FormatError
from pipeline.service.database.statements import Database, Row, Statements
from pipeline.service.thinning import (
    WIDTHS,
    Columns,
    Point,
    Stretch,
    Thinned,
    effective,
    grid,
    points_of,
    rows_of,
    unpacked,
)
from pipeline.service.words import Realm
from pipeline.stores.store import Store

CHUNK_BYTES = 64 * 2**20
TOGETHER = 4 * 2**20
"""Bytes of summaries that are in memory at a time."""
ROWS, LOOSE = -1, -2
"""Below all levels: rows of chunks that summaries cover, and of those that none does."""
_FEW = 16
"""Chunks that are read before somebody else may."""
_ENDLESS = 2**62
_OF_JOB = "select * from chunks where work_id = $1 and kind = 'metrics'"


@dataclass(frozen=True)
class Wanted:
    """names: None for all; first: the first step; points: of each name at most."""

    names: frozenset[str] | None
    first: int
    points: int

    def has(self, name: str) -> bool:
        return self.names is None or name in self.names


@dataclass(frozen=True, slots=True)
class Part:
    """Steps from `first` up to `end`, without it, of one attempt's summaries of a level, or of its rows."""

    level: int
    epoch: int
    first: int
    end: int

    def holds(self, row: Row) -> bool:
        """Whether some of the part may be in that row's chunks."""
        return bool(row["epoch"] == self.epoch and row["last"] >= self.first and row["first"] < self.end)


@dataclass(frozen=True)
class Known:
    """What the database names of a job.  summaries: without their bodies; loose: the chunks that none covers."""

    summaries: Sequence[Row]
    loose: Sequence[Row]

    def attempts(self) -> list[Stretch]:
        """Each, with its first and last step, and the one from which a later attempt went over it."""
        whole: dict[int, Stretch] = {}
        for row in [*self.loose, *(row for row in self.summaries if row["level"] == 0)]:
            epoch, first, last = row["epoch"], row["first"], row["last"]
            before = whole.get(epoch, Stretch(0, epoch, first, last))
            whole[epoch] = Stretch(0, epoch, min(first, before.first), max(last, before.last))
        return effective([whole[epoch] for epoch in sorted(whole)])

    def covered(self) -> dict[tuple[int, int], int]:
        """By attempt and level the last step that has a summary."""
        return {(row["epoch"], row["level"]): row["last"] for row in self.summaries}

    @property
    def newest(self) -> int:
        """The number of the last chunk, 0 without one."""
        return max((row["number"] for row in [*self.summaries, *self.loose]), default=0)


def planned(known: Known, level: int, first: int) -> Iterator[Part]:
    """What is read for stretches that are fine enough at a level.  first: the first step that is wanted."""
    covered = known.covered()
    for attempt in known.attempts():
        end = _ENDLESS if attempt.until is None else attempt.until
        begins = first if first > attempt.first else 0
        if begins < end:
            yield Part(LOOSE, attempt.epoch, begins, end)
            yield from _summed(Part(level, attempt.epoch, begins, end), covered)


def _summed(part: Part, covered: dict[tuple[int, int], int]) -> Iterator[Part]:
    """The whole stretches of a level, and what is left at both ends from the levels below.

    A level is made of the one below: what it covers not yet, that one may, and what none covers is loose.
    """
    if part.level == ROWS:
        yield part
        return
    level, width, last = part.level, WIDTHS[part.level], covered.get((part.epoch, part.level), -1)
    first = -(-part.first // width) * width
    end = part.end // width * width if last >= part.end else last + 1
    if first >= end:
        yield from _summed(replace(part, level=level - 1), covered)
        return
    yield replace(part, first=first, end=end)
    if part.first < first:
        yield from _summed(replace(part, level=level - 1, end=first), covered)
    if last >= part.end > end:
        yield from _summed(replace(part, level=level - 1, first=end), covered)
    elif last < part.end and level:
        again = last // WIDTHS[level - 1] * WIDTHS[level - 1]
        yield from _summed(replace(part, level=level - 1, first=again), covered)


async def known_of(statements: Statements, job: str) -> Known:
    """What is named of a job's metrics."""
    summaries = await statements.rows(
        """select level, number, epoch, since, first, last, size from summaries where work_id = $1
           order by level, number""",
        job,
    )  # fmt: skip
    loose: list[Row] = []
    before = 0
    for row in (row for row in summaries if row["level"] == 0):
        if row["since"] > before + 1:
            loose += await statements.rows(f"{_OF_JOB} and number > $2 and number < $3", job, before, row["since"])
        before = max(before, row["number"])
    loose += await statements.rows(f"{_OF_JOB} and number > $2 order by number", job, before)
    return Known(summaries, loose)


@dataclass(frozen=True)
class Curves:
    """The metrics of a tenant's jobs."""

    database: Database
    store: Store
    realm: Realm

    async def of(self, job: str, wanted: Wanted) -> tuple[dict[str, list[Point]], int]:
        """Points by name, and the number of the job's newest chunk.

        Raises FormatError where a chunk is damaged; NotFound, PipelineError.
        """
        async with self.database.reading(self.realm) as statements:
            known = await known_of(statements, job)
        ends = [one.last if one.until is None else min(one.last, one.until - 1) for one in known.attempts()]
        fine = grid(wanted.first, max([wanted.first, *ends]), wanted.points)
        thinned = Thinned(fine.width, fine.origin)
        for part in planned(known, fine.level, wanted.first):
            if part.level >= 0:
                rows = [row for row in known.summaries if row["level"] == part.level and part.holds(row)]
                for some in _together(rows):
                    bodies = await self._bodies(job, part, some)
                    await asyncio.to_thread(_add_bodies, bodies, part, wanted, thinned)
            else:
                chunks = known.loose if part.level == LOOSE else await self._chunks(job, known, part)
                keys = [row["key"] for row in chunks if part.holds(row)]
                for at in range(0, len(keys), _FEW):
                    await asyncio.to_thread(_add_chunks, self.store, keys[at : at + _FEW], part, wanted, thinned)
        return thinned.points(), known.newest

    async def _bodies(self, job: str, part: Part, rows: Sequence[Row]) -> list[str]:
        async with self.database.reading(self.realm) as statements:
            found = await statements.rows(
                """select body from summaries where work_id = $1 and level = $2 and epoch = $3
                   and number between $4 and $5""",
                job, part.level, part.epoch, rows[0]["number"], rows[-1]["number"],
            )  # fmt: skip
        return [row["body"] for row in found]

    async def _chunks(self, job: str, known: Known, part: Part) -> list[Row]:
        found: list[Row] = []
        async with self.database.reading(self.realm) as statements:
            for row in known.summaries:
                if row["level"] == 0 and part.holds(row):
                    sql = f"{_OF_JOB} and number between $2 and $3"
                    found += await statements.rows(sql, job, row["since"], row["number"])
        return found


def _together(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows in such heaps as are in memory at a time."""
    some: list[Row] = []
    held = 0
    for row in rows:
        if some and held + row["size"] > TOGETHER:
            yield some
            some, held = [], 0
        some.append(row)
        held += row["size"]
    if some:
        yield some


def _add_bodies(bodies: Iterable[str], part: Part, wanted: Wanted, thinned: Thinned) -> None:
    for body in bodies:
        for name, columns in unpacked(body).items():
            if wanted.has(name):
                thinned.add(name, _within(columns, part))


def _within(columns: Columns, part: Part) -> Iterator[Point]:
    points = zip(*columns, strict=True)
    if columns[0] and part.first <= columns[0][0] and columns[0][-1] < part.end:
        return points
    return (point for point in points if part.first <= point[0] < part.end)


def _add_chunks(store: Store, keys: Iterable[str], part: Part, wanted: Wanted, thinned: Thinned) -> None:
    for key in keys:
        text = store.get(key, CHUNK_BYTES)
        try:
            rows = [row for row in rows_of(text) if part.first <= row["step"] < part.end]
        except ValueError as error:
            raise FormatError("a chunk of metrics cannot be read", key, "tell an operator") from error
        for name, points in points_of(rows).items():
            if wanted.has(name):
                thinned.add(name, points)
