"""SQLite: one file, for one host.  Views stand where the tables' names are, and an authorizer before the tables.

A statement runs in the event loop: it takes microseconds, and a thread would take more.  Nothing waits for another
process within a statement: whoever finds the file locked lets the loop go on and comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import Denied, PermanentError, PipelineError, TemporaryError
from pipeline.process.host import stopped
from pipeline.service.database import wall
from pipeline.service.database.statements import LOCK_SECONDS, Row, Taken, Violated
from pipeline.service.words import Part, Realm

_AGAIN = (0.001, 0.02)
"""Seconds between two looks at a locked file."""
_OPENING_SECONDS = 5.0
"""So long the file may be wholly somebody's: whoever comes after a killed process brings its log in order first."""
_ALLOWED = frozenset({
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_RECURSIVE,
})  # fmt: skip
_TOUCHES = frozenset({sqlite3.SQLITE_READ, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})

_LOCKS, _WRITES = Path("/proc/locks"), 120
_TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)


class SqliteDatabase:
    """The file at a path, as one event loop has it.  The tables are there (`migrating.py`)."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path, self._clock = path, clock or Clock()
        self._open: dict[Part, _Connection] = {}
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def transaction(self, realm: Realm, *, serial: bool = False) -> AsyncIterator[_Connection]:
        """serial: every transaction that writes is alone here."""
        async with self._turn:
            connection = self._connection(realm)
            await self._begin(connection, "begin immediate")
            try:
                yield connection
            except BaseException:
                connection.end("rollback")
                raise
            connection.end("commit")

    @contextlib.asynccontextmanager
    async def reading(self, realm: Realm) -> AsyncIterator[_Connection]:
        async with self._turn:
            connection = self._connection(realm)
            await self._begin(connection, "begin")
            try:
                yield connection
            finally:
                connection.end("rollback")

    async def close(self) -> None:
        async with self._turn:
            while self._open:
                self._open.popitem()[1].close()

    def _connection(self, realm: Realm) -> _Connection:
        if realm.part not in self._open:
            with typed():
                self._open[realm.part] = _Connection(self._path, realm.part, self._clock)
        connection = self._open[realm.part]
        connection.tenant = realm.tenant
        return connection

    async def _begin(self, connection: _Connection, how: str) -> None:
        ends = self._clock.monotonic() + LOCK_SECONDS
        while True:
            try:
                return connection.end(how)
            except TemporaryError:
                if self._clock.monotonic() > ends:
                    raise _held_up(self._path) from None
            await asyncio.sleep(random.uniform(*_AGAIN))


def connected(path: Path) -> sqlite3.Connection:
    """A bare connection to the file, for who makes its tables.  Raises PipelineError."""
    with typed():
        connection = sqlite3.connect(path, timeout=_OPENING_SECONDS, isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode = wal", "synchronous = full", "foreign_keys = on", "trusted_schema = on", "busy_timeout = 0",
        ):  # fmt: skip
            connection.execute(f"pragma {pragma}")
        connection.row_factory = sqlite3.Row
        return connection


class _Connection:
    """Of one part.  tenant: whose rows it sees now."""

    def __init__(self, path: Path, part: Part, clock: Clock) -> None:
        self.tenant = ""
        self._db = connected(path)
        self._db.create_function("tenant", 0, lambda: self.tenant or None)
        self._db.create_function("instant", 0, clock.now)
        columns, keys = {}, {}
        for table in wall.DOORS:
            known = self._db.execute(f"pragma table_info({wall.BARE}{table})").fetchall()
            columns[table] = {one["name"]: one["dflt_value"] for one in known}
            keys[table] = [one["name"] for one in known if one["pk"]]
        self._made = set(wall.counting())
        for statement in wall.sqlite(part, columns, keys):
            self._db.execute(statement)
            self._made.add(statement.split()[3 if statement.split()[1] == "temp" else 2].lower())
        self._db.set_authorizer(self._judge)

    async def rows(self, sql: str, *values: object) -> list[Row]:
        if wall.BARE in sql.lower():
            raise Denied("a statement names a bare table", sql[:200], "this is a bug in Hathi: please report it")
        with typed():
            return [dict(row) for row in self._db.execute(sql, {str(n): one for n, one in enumerate(values, 1)})]

    async def row(self, sql: str, *values: object) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    def end(self, how: str) -> None:
        """Begins or ends a transaction."""
        if how == "rollback" and not self._db.in_transaction:  # what broke it has ended it
            return
        with typed():
            self._db.execute(how)

    def close(self) -> None:
        self._db.close()

    def _judge(self, action: int, first: str | None, second: str | None, _: str | None, within: str | None) -> int:
        """What a statement does to a bare table it does by a view or a trigger of the wall, or not at all."""
        if action not in _ALLOWED:
            return sqlite3.SQLITE_DENY
        table = (first or "").lower()
        if action in _TOUCHES and table.startswith("sqlite_"):
            return sqlite3.SQLITE_DENY
        if action in _TOUCHES and table.startswith(wall.BARE) and (within or "").lower() not in self._made:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise (Taken if error.sqlite_errorcode in _TAKEN else Violated)(
            "the database refuses a row", str(error)
        ) from error
    except sqlite3.DatabaseError as error:
        raise _of(error) from error


def writer_of(path: Path, locks: str) -> int:
    """The process that writes to a database just now; 0: none, or the system does not tell.

    locks: as the kernel lists them (/proc/locks).  SQLite's WAL is written by whoever has locked that byte of the
    shared memory (https://www.sqlite.org/walformat.html, "WAL locks").
    """
    try:
        node = Path(f"{path}-shm").stat().st_ino
    except OSError:
        return 0
    for line in locks.splitlines():
        words = line.split()  # number, kind, ADVISORY, WRITE, process, device:inode, first byte, last byte
        if len(words) != 8 or words[3] != "WRITE" or words[5].rpartition(":")[2] != str(node):
            continue
        if int(words[6]) <= _WRITES and (words[7] == "EOF" or int(words[7]) >= _WRITES):
            return int(words[4])
    return 0


def _held_up(path: Path) -> TemporaryError:
    try:
        writer = writer_of(path, _LOCKS.read_text())
    except OSError:
        writer = 0
    detail = f"process {writer} has written to it for {LOCK_SECONDS:.0f} s" if writer else ""
    hint = ""
    if writer and stopped(writer):
        detail, hint = f"{detail}; it is stopped (SIGSTOP)", f"kill -9 {writer}: what it was writing is undone"
    return TemporaryError("the database is locked by another process", detail, hint, 1.0)


def _of(error: sqlite3.DatabaseError) -> PipelineError:
    code = getattr(error, "sqlite_errorcode", None)
    base = code & 0xFF if code is not None else None
    if base in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TemporaryError("the database is locked by another process", str(error), "", 1.0)
    if base in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        hint = "make room where the database lies"
        return TemporaryError("the database's disk is full, or cannot be written", str(error), hint, 5.0)
    if base == sqlite3.SQLITE_AUTH or "prohibited" in str(error):
        return Denied("the wall between tenants refuses a statement", str(error))
    return PermanentError("the database refuses a statement", str(error), "this is a bug in Hathi: please report it")
