"""A database by its setting: a file is SQLite's, `postgresql://...` a server's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.service.database import migrating, sqlite
from pipeline.service.database.one_host import refuse_network
from pipeline.service.database.statements import Database

POSTGRES = ("postgresql://", "postgres://")
AHEAD = 1
"""So many migrations more than its own an API server or a worker goes on with: they only add."""
_HINT = "a file, or postgresql://USER:PASSWORD@HOST/NAME"


def file_of(setting: str) -> Path | None:
    """The file of an SQLite database; None: it is a server's.  Raises ConfigError for a URL of another kind."""
    if setting.startswith(POSTGRES):
        return None
    if "://" in setting:
        raise ConfigError("service.database names no database that Hathi knows", setting.split("@")[-1], _HINT)
    return Path(setting)


async def migrate(url: str) -> list[int]:
    """Brings it to what this version wants; the migrations that were made.  Raises PipelineError."""
    path = file_of(url)
    if path is not None:
        refuse_network(path)
    return migrating.migrate_sqlite(path) if path is not None else await migrating.migrate_postgres(url)


async def open_database(url: str, clock: Clock | None = None) -> Database:
    """The database, which has been migrated.  clock: SQLite's.  Raises ConfigError where it was not."""
    path = file_of(url)
    if path is None:
        from pipeline.service.database import postgres

        connection = await postgres.connected(url)
        try:
            with postgres.typed():
                there = await connection.fetchval("select to_regclass('migrations') is not null")
                done = await connection.fetchval("select max(number) from migrations") if there else 0
        finally:
            await connection.close()
        _refuse(done)
        return postgres.PostgresDatabase(url)
    refuse_network(path)
    if not path.is_file():
        raise ConfigError("the service's database is not there", str(path), migrating.TO_MIGRATE)
    with contextlib.closing(sqlite.connected(path)) as bare:
        there = bare.execute("select 1 from sqlite_master where name = 'migrations'").fetchone()
        done = bare.execute("select max(number) from migrations").fetchone()[0] if there else 0
    _refuse(done)
    return sqlite.SqliteDatabase(path, clock)


def _refuse(done: int | None) -> None:
    """A database that is behind; one that is a step ahead serves us as well."""
    if (done or 0) < migrating.wanted():
        says = f"the service's database is at migration {done or 0}, and this version wants {migrating.wanted()}"
        raise ConfigError(says, "", migrating.TO_MIGRATE)
    if (done or 0) > migrating.wanted() + AHEAD:
        says = f"the service's database is at migration {done}, and this version knows {migrating.wanted()}"
        raise ConfigError(says, "a newer Hathi has migrated it", "use that version, or restore a backup")
