"""The service's two databases as tests have them: migrated, empty, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.clock import Clock
from pipeline.service.database.migrating import migrate_postgres, migrate_sqlite
from pipeline.service.database.sqlite import SqliteDatabase, connected
from pipeline.service.database.statements import Database
from pipeline.service.database.wall import BARE, DOORS
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import PLATFORM
from tests.servers.postgres import Postgres

T = TypeVar("T")
KINDS = ("sqlite", "postgres")
_CLOCK = """create or replace function instant() returns double precision language sql volatile as
    'select extract(epoch from clock_timestamp())::double precision + ahead from test_clock'"""


@dataclass
class Site:
    """One database.  url: as a configuration has it; ahead: seconds by which its clock is put forward."""

    kind: str
    url: str
    path: Path
    bare_url: str = ""
    """Of a user whom no wall holds."""
    ahead: float = 0.0
    opened: list[Database] = field(default_factory=list)

    def open(self) -> Database:
        """Of the running loop; closed by `run`."""
        if self.kind == "sqlite":
            self.opened.append(SqliteDatabase(self.path, Clock(lambda: time.time() + self.ahead)))
        else:
            from pipeline.service.database.postgres import PostgresDatabase

            self.opened.append(PostgresDatabase(self.url))
        return self.opened[-1]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """A test's own work, in a loop of its own."""

        async def closing() -> T:
            try:
                return await work
            finally:
                while self.opened:
                    await self.opened.pop().close()

        with ThreadPoolExecutor(1) as apart:  # playwright has a loop in the thread of its tests
            return apart.submit(asyncio.run, closing()).result()

    async def pass_by(self, seconds: float) -> None:
        """The database's clock goes on so much at once."""
        self.ahead += seconds
        await self.bare(f"update test_clock set ahead = {self.ahead}", sqlite=False)

    async def bare(self, sql: str, *, sqlite: bool = True) -> list[dict[str, Any]]:
        """A statement of the tables' owner, behind the wall; `@name` is a bare table.  sqlite: there, too."""
        if self.kind == "sqlite":
            if not sqlite:
                return []
            connection = connected(self.path)
            connection.execute("pragma busy_timeout = 10000")  # a worker may be writing just now
            try:
                return [dict(row) for row in connection.execute(sql.replace("@", BARE))]
            finally:
                connection.close()
        import asyncpg

        held = await asyncpg.connect(self.bare_url)
        try:
            return [dict(row) for row in await held.fetch(sql.replace("@", ""))]
        finally:
            await held.close()


def sites(kind: str, folder: Path, server: Postgres | None) -> Iterator[Site]:
    """A migrated database of a kind."""
    needs_the_extra()
    path = folder / "service.db"
    if kind == "sqlite":
        migrate_sqlite(path)
        yield Site(kind, str(path), path)
        return
    assert server is not None
    name = f"t{secrets.token_hex(6)}"
    site = Site(kind, server.database(name), path, server.url(name, "postgres"))
    asyncio.run(migrate_postgres(site.url))
    asyncio.run(site.bare("create table test_clock as select 0.0::double precision as ahead", sqlite=False))
    asyncio.run(site.bare("grant select on test_clock to public", sqlite=False))
    asyncio.run(site.bare(_CLOCK, sqlite=False))
    yield site


def sites_of(request: pytest.FixtureRequest, folder: Path) -> Iterator[Site]:
    """The database whose kind is the parameter of a fixture."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    yield from sites(request.param, folder, server)


def empty(site: Site) -> None:
    """Nothing is in any table any more, and the clock is right."""

    async def clear() -> None:
        site.ahead = 0.0
        if site.kind == "sqlite":
            connection = connected(site.path)
            connection.execute("pragma foreign_keys = off")
            for table in DOORS:
                connection.execute(f"delete from {BARE}{table}")
            connection.close()
        else:
            await site.bare(f"truncate {', '.join(DOORS)} cascade")
            await site.pass_by(0.0)

    asyncio.run(clear())


async def a_tenant(database: Database, name: str, *, weight: int = 1, running: int = 1000) -> str:
    """Its id."""
    tenant = new_id(Kind.TENANT, time.time())
    async with database.transaction(PLATFORM) as statements:
        await statements.row(
            """insert into tenants (id, name, weight, running, created_at)
               values ($1, $2, $3, $4, instant()) returning id""",
            tenant, name, weight, running,
        )  # fmt: skip
    return tenant


def needs_the_extra() -> None:
    """A module of tests that needs what scripts/service.sh installs."""
    pytest.importorskip("asyncpg", reason="LEFT OUT: the service: scripts/service.sh installs what it needs")
    pytest.importorskip("fastapi", reason="LEFT OUT: the service: scripts/service.sh installs what it needs")
