"""The product's SQLite behind a gate: each statement and each commit may be lost, as of a server over a network."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import TemporaryError
from pipeline.service.database.sqlite import SqliteDatabase, _Connection
from pipeline.service.database.statements import Row
from pipeline.service.words import Part, Realm
from tests.faults.gate import Gate

IDLE_SECONDS = 30.0


class Connections:
    """All that lead to the file.  ends_idle: a transaction that does nothing for long is undone, as a server does."""

    def __init__(self, path: Path, clock: Clock, ends_idle: bool) -> None:
        self.path, self.clock, self.ends_idle = path, clock, ends_idle
        self._free: dict[Part, list[_Connection]] = {}
        self._held: list[Held] = []

    def take(self, part: Part, gate: Gate, committed: Callable[[], None]) -> Held:
        free = self._free.setdefault(part, [])
        real = free.pop() if free else _Connection(self.path, part, self.clock)
        self._held.append(Held(self, part, real, gate, committed))
        return self._held[-1]

    def give(self, held: Held) -> None:
        """It is undone and free, whatever it was doing."""
        if held in self._held:
            self._held.remove(held)
            held.real.end("rollback")
            self._free[held.part].append(held.real)

    def undo_idle(self) -> None:
        for held in list(self._held):
            if self.ends_idle and held.open and self.clock.monotonic() - held.asked > IDLE_SECONDS:
                held.lose()

    @property
    def open(self) -> bool:
        """Whether a transaction is."""
        return any(held.open for held in self._held)

    def close(self) -> None:
        for held in list(self._held):
            self.give(held)
        for free in self._free.values():
            for real in free:
                real.close()


class Held:
    """A connection in the hands of one process."""

    def __init__(
        self, all_: Connections, part: Part, real: _Connection, gate: Gate, committed: Callable[[], None]
    ) -> None:
        self.part, self.real, self.lost = part, real, False
        self.asked = all_.clock.monotonic()
        self._all, self._gate, self._committed = all_, gate, committed

    @property
    def open(self) -> bool:
        return self.real._db.in_transaction

    @property
    def tenant(self) -> str:
        return self.real.tenant

    @tenant.setter
    def tenant(self, tenant: str) -> None:
        self.real.tenant = tenant

    async def rows(self, sql: str, *values: object) -> list[Row]:
        found = self._pass("statement", lambda: _at_once(self.real.rows(sql, *values)))
        assert isinstance(found, list)
        return found

    async def row(self, sql: str, *values: object) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    def end(self, how: str) -> None:
        if how == "commit":
            self._pass("commit", self._commit)
        elif how == "rollback":
            if not self.lost:
                self.real.end(how)
        else:
            self._pass("begin", lambda: self._begin(how))

    def lose(self) -> None:
        """Nobody hears of it any more; what it did is undone."""
        self.lost = True
        self._all.give(self)

    def _begin(self, how: str) -> None:
        try:
            self.real.end(how)
        except TemporaryError:
            self._all.undo_idle()
            raise

    def _commit(self) -> None:
        self.real.end("commit")
        self._committed()

    def _pass(self, verb: str, effect: Callable[[], object]) -> object:
        self.asked = self._all.clock.monotonic()
        reached = False

        def once() -> object:
            nonlocal reached
            if self.lost:  # it was undone meanwhile
                raise TemporaryError("the connection is gone")
            reached = True
            return effect()

        try:
            return self._gate(verb, "", once)
        except TemporaryError:
            if verb == "begin" and reached:  # locked
                raise
            self.lose()
            raise


class GatedDatabase(SqliteDatabase):
    """One process's."""

    def __init__(self, connections: Connections, gate: Gate, committed: Callable[[], None]) -> None:
        super().__init__(connections.path, connections.clock)
        self._all, self._gate, self._committed = connections, gate, committed

    def _connection(self, realm: Realm) -> Any:
        held: Any = self._open.get(realm.part)
        if held is None or held.lost:
            held = self._all.take(realm.part, self._gate, self._committed)
            self._open[realm.part] = held
        held.tenant = realm.tenant
        return held

    def leave(self) -> None:
        """The process has ended: what it was doing is undone."""
        for held in self._open.values():
            self._all.give(held)  # type: ignore[arg-type]


def _at_once(work: Coroutine[Any, Any, list[Row]]) -> list[Row]:
    """SQLite's statements wait for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        found: list[Row] = end.value
        return found
    raise AssertionError("a statement waits")
