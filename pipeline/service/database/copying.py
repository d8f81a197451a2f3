"""All rows of a database as they were at one instant, and into an empty one: the same form for both databases.

What is written is rows, not a file of SQLite nor a dump of PostgreSQL's tools: no program has to be installed, and what
was taken from the one is put into the other.  Taking holds nobody up: a snapshot of SQLite's WAL, or PostgreSQL's
REPEATABLE READ with the roles of the wall.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

from pipeline.errors import ConfigError
from pipeline.process.lock import Held, locked
from pipeline.service.database import migrating, sqlite
from pipeline.service.database.opening import file_of
from pipeline.service.database.statements import Row
from pipeline.service.database.wall import BARE, DOORS
from pipeline.service.words import PLATFORM, Realm, scope

_CREATED = re.compile(r"create table @(\w+)")
_ALONE = 0x4861746F
"""The advisory lock of whoever copies or deletes what rows name."""
_TOGETHER = 500
Source = Callable[[str], Iterator[Row]]
"""The rows of a table, to be put into a database."""


class Rows(Protocol):
    """A database at one instant.  number: of its newest migration, 0 for none."""

    number: int

    def rows(self, table: str) -> AsyncIterator[Row]:
        """Every row of a table, of all tenants."""


def tables() -> list[str]:
    """All of them, each after those that its rows point to: in the order in which migrations made them."""
    return [name for _, text in migrating.numbered() for name in _CREATED.findall(text)]


@contextlib.asynccontextmanager
async def alone(setting: str) -> AsyncIterator[None]:
    """Nobody else copies or deletes the objects of this database meanwhile, on any host.

    Raises Held where somebody does; PipelineError.
    """
    busy = Held("a backup, a restore or a prune of this database is running", "", "wait until it has ended")
    path = file_of(setting)
    if path is not None:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(locked(path.parent, f"{path.name}.objects"))
            except Held as error:
                raise Held(busy.message, error.detail, busy.hint) from error
            yield
        return
    from pipeline.service.database import postgres

    connection = await postgres.connected(setting)
    try:
        with postgres.typed():
            if not await connection.fetchval("select pg_try_advisory_lock($1)", _ALONE):
                raise busy
        yield
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def snapshot(setting: str) -> AsyncIterator[Rows]:
    """The database as it is now, whatever is committed meanwhile.  Raises PipelineError."""
    path = file_of(setting)
    if path is None:
        async with _snapshot_of_postgres(setting) as found:
            yield found
        return
    if not path.is_file():
        raise ConfigError("the service's database is not there", str(path), migrating.TO_MIGRATE)
    with contextlib.closing(sqlite.connected(path)) as connection:
        with sqlite.typed():
            connection.execute("begin")
            there = connection.execute("select 1 from sqlite_master where name = 'migrations'").fetchone()
            number = connection.execute("select max(number) from migrations").fetchone()[0] if there else 0
        yield _OfSqlite(connection, number or 0)


class _OfSqlite:
    def __init__(self, connection: sqlite3.Connection, number: int) -> None:
        self._connection, self.number = connection, number

    async def rows(self, table: str) -> AsyncIterator[Row]:
        for row in self._connection.execute(f"select * from {BARE}{table}"):
            yield dict(row)


@contextlib.asynccontextmanager
async def _snapshot_of_postgres(url: str) -> AsyncIterator[Rows]:
    from pipeline.service.database import postgres

    connection = await postgres.connected(url)
    try:
        with postgres.typed():  # not about the yield: an error of whoever writes the rows is none of the database
            await connection.transaction(isolation="repeatable_read", readonly=True).start()
            there = await connection.fetchval("select to_regclass('migrations') is not null")
            number = await connection.fetchval("select max(number) from migrations") if there else 0
            walled = await connection.fetchval(
                "select coalesce(bool_or(relforcerowsecurity), false) from pg_class where oid = to_regclass('tenants')"
            )
        yield _OfPostgres(connection, number or 0, walled)
    finally:
        await connection.close()


class _OfPostgres:
    def __init__(self, connection: Any, number: int, walled: bool) -> None:
        """walled: False where a restore was killed before it built the wall; the owner sees all rows then."""
        self._connection, self.number, self._walled = connection, number, walled

    async def rows(self, table: str) -> AsyncIterator[Row]:
        from pipeline.service.database import postgres

        with postgres.typed():
            realms = await self._realms(table)
        for realm in realms:
            with postgres.typed():
                if realm is not None:
                    await self._as(str(realm.part), realm.tenant)
                cursor = await self._connection.cursor(f"select * from {table}")
            while True:
                with postgres.typed():
                    records = await cursor.fetch(_TOGETHER)
                for record in records:
                    yield dict(record)
                if len(records) < _TOGETHER:
                    break

    async def _realms(self, table: str) -> Sequence[Realm | None]:
        """Whose eyes see all rows of a table: a part that sees it whole, or each tenant's own; None: the owner's."""
        if not self._walled:
            return [None]
        for part, door in DOORS[table].items():
            if "select" in door.verbs and not door.column:
                return [Realm(part)]
        await self._as(str(PLATFORM.part), "")
        return [scope(row["id"]) for row in await self._connection.fetch("select id from tenants order by id")]

    async def _as(self, part: str, tenant: str) -> None:
        await self._connection.execute(
            "select set_config('role', $1, true), set_config('hathi.tenant', $2, true)", part, tenant
        )


async def is_empty(setting: str) -> bool:
    """Whether a database holds no tenant, and nothing else either.  Raises PipelineError."""
    path = file_of(setting)
    if path is not None and not path.is_file():
        return True
    async with snapshot(setting) as found:
        return not found.number or not [None async for _ in _first(found)]


async def _first(found: Rows) -> AsyncIterator[str]:
    for table in tables_until(found.number):
        async for _ in found.rows(table):
            yield table
            return


def tables_until(number: int) -> list[str]:
    """Those that a database of this migration has."""
    return [name for at, text in migrating.numbered() if at <= number for name in _CREATED.findall(text)]


async def load(setting: str, number: int, of: Source) -> dict[str, int]:
    """Puts rows of a database at that migration into an empty one, and brings it to what this version wants.

    All of them or none.  How many of each table.  Raises ConfigError for a database that is not empty, or that a newer
    Hathi has made; PipelineError.
    """
    path = file_of(setting)
    if path is None:
        await migrating.migrate_postgres(setting, number)
        counts = await _load_postgres(setting, number, of)
        await migrating.migrate_postgres(setting)
        return counts
    migrating.migrate_sqlite(path, number)
    with contextlib.closing(sqlite.connected(path)) as connection, sqlite.typed():
        connection.execute("begin immediate")
        connection.execute("pragma defer_foreign_keys = on")
        try:
            done = connection.execute("select max(number) from migrations").fetchone()[0]
            counts = {table: _load_sqlite(connection, table, of) for table in _tables_of(done, number)}
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")
    migrating.migrate_sqlite(path)
    return counts


def _tables_of(done: int, number: int) -> list[str]:
    """The tables of a database at migration `done`, which has to be that of the rows."""
    if done != number:
        says = f"the database is at migration {done}, and the backup at {number}"
        raise ConfigError(says, "nothing was restored", "restore into a database that nobody has migrated yet")
    return tables_until(number)


def _not_empty(table: str) -> ConfigError:
    hint = "a backup is restored into an empty database: give another service.database"
    return ConfigError("the database is not empty: nothing was restored", f"it has rows of {table}", hint)


def _load_sqlite(connection: sqlite3.Connection, table: str, of: Source) -> int:
    bare, number = f"{BARE}{table}", 0
    if connection.execute(f"select 1 from {bare} limit 1").fetchone():
        raise _not_empty(table)
    for row in of(table):
        names = list(row)
        places = ", ".join("?" * len(names))
        connection.execute(f"insert into {bare} ({', '.join(names)}) values ({places})", list(row.values()))
        number += 1
    return number


async def _load_postgres(url: str, number: int, of: Source) -> dict[str, int]:
    from pipeline.service.database import postgres

    connection, counts = await postgres.connected(url), {}
    try:
        with postgres.typed():
            async with connection.transaction():
                done = await connection.fetchval("select max(number) from migrations")
                for table in _tables_of(done, number):
                    held = await connection.fetchval(
                        "select relforcerowsecurity from pg_class where oid = $1::text::regclass", table
                    )
                    # The owner sees no row behind its own wall, and COPY does not go through one.
                    await connection.execute(f"alter table {table} no force row level security")
                    if await connection.fetchval(f"select exists (select from {table})"):
                        raise _not_empty(table)
                    counts[table] = await _copied(connection, table, of)
                    if held:
                        await connection.execute(f"alter table {table} force row level security")
        return counts
    finally:
        await connection.close()


async def _copied(connection: Any, table: str, of: Source) -> int:
    """One COPY of all rows: a row may point to another of its table, whichever comes first."""
    columns: list[str] = []
    number = 0

    def records() -> Iterator[Sequence[object]]:
        nonlocal number
        for row in rows:
            number += 1
            yield [row[name] for name in columns]

    rows = of(table)
    first = next(rows, None)
    if first is None:
        return 0
    columns = list(first)
    rows = _with(first, rows)
    await connection.copy_records_to_table(table, records=records(), columns=columns)
    return number


def _with(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest
