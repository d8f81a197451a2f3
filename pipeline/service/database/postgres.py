"""PostgreSQL: for many hosts.  Each transaction takes a role without ownership, and row level security holds it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg

from pipeline.errors import Denied, PermanentError, TemporaryError, Unknown
from pipeline.service.database.statements import LOCK_SECONDS, Row, Taken, Violated
from pipeline.service.words import Part, Realm

_SERIAL = 0x48617468
"""The advisory lock of serial transactions."""
_LOCK = f"; select pg_advisory_xact_lock({_SERIAL})"
_WORD = re.compile(r"[0-9A-Za-z_]*")
_MOST = 10
_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 5.0
"""So long a transaction may stand still: who is frozen within a claim holds up every other claim."""
_UNDO_SECONDS = 2.0
"""So long a transaction that failed may take to be undone; then its connection is cut, which undoes it as well."""
_AWAY = (
    OSError, asyncio.TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError, asyncpg.OperatorInterventionError, asyncpg.TransactionRollbackError,
    asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.InvalidCachedStatementError,
    asyncpg.InternalClientError, asyncpg.IdleInTransactionSessionTimeoutError,
)  # fmt: skip
"""What passes: the server is away, or gave up this time, or was migrated between two requests."""


_AWAY_HINT = "is PostgreSQL up, and does service.database lead to it? Servers and workers go on by themselves"


class PostgresDatabase:
    """A server by its URL, as one event loop has it.  The tables are there (`migrating.py`).

    Whoever reads for no tenant asks on a connection that has the part's role for good and may change nothing: there a
    statement is one question to the server, where a transaction of its own would be three.
    """

    def __init__(self, url: str, most: int = _MOST) -> None:
        self._changing = _Pool(url, most)
        self._looking = {part: _Pool(url, most, part) for part in Part if part is not Part.TENANT}

    def transaction(self, realm: Realm, *, serial: bool = False) -> AbstractAsyncContextManager[_Transaction]:
        return self._changing.transaction(f"begin; {_set(realm)}{_LOCK * serial}")

    def reading(self, realm: Realm) -> AbstractAsyncContextManager[_Transaction]:
        if realm.tenant or realm.part is Part.TENANT:
            return self._changing.transaction(f"begin read only; {_set(realm)}")
        return self._looking[realm.part].looking()

    async def close(self) -> None:
        for pool in (self._changing, *self._looking.values()):
            await pool.close()


class _Pool:
    """Connections that are made when they are needed.  part: whose role they have, and read; None: the owner's."""

    def __init__(self, url: str, most: int, part: Part | None = None) -> None:
        self._url, self._most, self._part = url, most, part
        self._made: asyncpg.Pool | None = None
        self._making = asyncio.Lock()
        self._used = 0

    @contextlib.asynccontextmanager
    async def transaction(self, begin: str) -> AsyncIterator[_Transaction]:
        """begin: all that comes before the first statement, which is one question to the server."""
        async with self._connection() as held:
            with _typed():
                await held.execute(begin)
            yield _Transaction(held)
            with _typed(ending=True):
                said = await held.execute("commit")
            if said != "COMMIT":
                raise PermanentError("the database undid a transaction that had failed before")

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[_Transaction]:
        """Each statement is a transaction of its own."""
        async with self._connection() as held:
            yield _Transaction(held)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """One for the caller alone; whatever an error left open on it is undone."""
        self._used += 1
        try:
            with _typed():
                pool = self._made or await self._pool()
                held = await pool.acquire(timeout=LOCK_SECONDS if self._used > self._most else None)
            over = False
            try:
                yield held
                over = True
            finally:
                if not over:
                    await _undo(held)
                with contextlib.suppress(*_AWAY):  # it is cut then
                    await pool.release(held, timeout=_UNDO_SECONDS)
        finally:
            self._used -= 1

    async def _pool(self) -> asyncpg.Pool:
        async with self._making:
            if self._made is None:
                self._made = await asyncpg.create_pool(
                    self._url, min_size=0, max_size=self._most, timeout=_CONNECT_SECONDS, command_timeout=LOCK_SECONDS,
                    reset=_nothing, init=self._begun, server_settings={
                        "application_name": "hathi", "lock_timeout": f"{LOCK_SECONDS:.0f}s",
                        "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS:.0f}s",
                    },
                )  # fmt: skip
            return self._made

    async def _begun(self, connection: Any) -> None:
        """The role of a new connection."""
        if self._part is not None:
            await connection.execute(f"set role {self._part}; set default_transaction_read_only = on")


def _set(realm: Realm) -> str:
    """The statement that takes a realm's role.  Raises ValueError for a tenant that is no word."""
    if _WORD.fullmatch(realm.tenant) is None:
        raise ValueError(f"{realm.tenant!r} is no name of a tenant")
    return f"select set_config('role', '{realm.part}', true), set_config('hathi.tenant', '{realm.tenant}', true)"


async def connected(url: str) -> asyncpg.Connection:
    """A connection of the tables' owner, for who makes them.  Raises PipelineError."""
    with _typed():
        return await asyncpg.connect(url, timeout=_CONNECT_SECONDS)


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """PostgreSQL's errors as ours."""
    with _typed():
        yield


async def _undo(held: Any) -> None:
    """Ends a transaction wherever it stood: nobody gets a connection within another's."""
    try:
        await held.execute("rollback", timeout=_UNDO_SECONDS)
    except BaseException as error:
        with contextlib.suppress(*_AWAY):  # it is gone already
            held.terminate()  # which undoes it as well
        if not isinstance(error, _AWAY):
            raise


async def _nothing(_: Any) -> None:
    """Role and tenant end with their transaction; nothing else is set."""


class _Transaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, sql: str, *values: object) -> list[Row]:
        with _typed():
            return [dict(row) for row in await self._connection.fetch(sql, *values)]

    async def row(self, sql: str, *values: object) -> Row | None:
        with _typed():
            found = await self._connection.fetchrow(sql, *values)
        return dict(found) if found is not None else None


@contextlib.contextmanager
def _typed(*, ending: bool = False) -> Iterator[None]:
    """ending: nobody knows whether a transaction that was being committed is."""
    try:
        yield
    except _AWAY as error:
        kind = Unknown if ending else TemporaryError
        raise kind("the database does not answer", str(error) or type(error).__name__, _AWAY_HINT) from error
    except asyncpg.UniqueViolationError as error:
        raise Taken("the database refuses a row", str(error)) from error
    except asyncpg.IntegrityConstraintViolationError as error:
        raise Violated("the database refuses a row", str(error)) from error
    except asyncpg.InsufficientPrivilegeError as error:
        hint = "where a role is missing: hathi service migrate"
        raise Denied("the wall between tenants refuses a statement", str(error), hint) from error
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise PermanentError("the database does not let Hathi in", str(error), "correct service.database") from error
    except asyncpg.PostgresError as error:
        raise PermanentError("the database refuses a statement", str(error), "has it been migrated?") from error
