"""Brings a database's tables and its wall to what this version wants: numbered files, each once, only forwards."""

from __future__ import annotations

import contextlib
import re
from importlib.resources import files
from pathlib import Path

from pipeline.errors import ConfigError, TemporaryError
from pipeline.service.database import sqlite, wall

_MARK = re.compile(r"@(\w+)")
_CLOCK = """create or replace function instant() returns double precision language sql volatile as
    'select extract(epoch from clock_timestamp())::double precision'"""
_DONE = "create table if not exists migrations (number bigint primary key)"
_WALLED = """select relname as name from pg_class
    where relforcerowsecurity and relnamespace = current_schema()::regnamespace"""
_ALONE = 0x4861746D
TO_MIGRATE = "hathi service migrate"


def numbered() -> list[tuple[int, str]]:
    """Number and text of each migration, in order."""
    folder = files("pipeline.service.database") / "migrations"
    found = [(int(one.name.split(".")[0]), one.read_text()) for one in folder.iterdir() if one.name.endswith(".sql")]
    return sorted(found)


def wanted() -> int:
    """The number that a database of this version has."""
    return numbered()[-1][0]


def statements(text: str, bare: str) -> list[str]:
    """The statements of a file.  bare: what a bare table's name begins with."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    found = [one.strip() for one in _MARK.sub(rf"{bare}\1", "\n".join(lines)).split(";\n")]
    return [one.removesuffix(";") for one in found if one]


def migrate_sqlite(path: Path, until: int | None = None) -> list[int]:
    """The migrations that were made; the file is made where it is missing.  until: no newer ones.

    Raises PipelineError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite.connected(path)) as connection:
        try:
            connection.execute("begin immediate")
        except Exception as error:
            raise TemporaryError("the database is locked by another process", str(error)) from error
        try:
            connection.execute(_DONE)
            done = {row["number"] for row in connection.execute("select number from migrations")}
            left = _left(done, until)
            _refuse_newer(done)
            for number, text in left:
                for statement in statements(text, wall.BARE):
                    connection.execute(statement)
                connection.execute("insert into migrations values (?)", (number,))
            for statement in wall.counting().values() if until is None else ():
                connection.execute(statement)
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")
        return [number for number, _ in left]


async def migrate_postgres(url: str, until: int | None = None) -> list[int]:
    """The migrations that were made; the wall is built anew.  url: of the tables' owner.

    until: no newer ones, and no wall, for whoever fills the tables and then makes the rest.  Raises PipelineError.
    """
    from pipeline.service.database import postgres  # asyncpg, which SQLite does without

    connection = await postgres.connected(url)
    try:
        with postgres.typed():
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", _ALONE)
                await connection.execute(_DONE)
                done = {row["number"] for row in await connection.fetch("select number from migrations")}
                left = _left(done, until)
                _refuse_newer(done)
                await connection.execute(_CLOCK)
                for row in await connection.fetch(_WALLED) if left else ():  # a migration reads rows; the wall follows
                    await connection.execute(f"alter table {row['name']} no force row level security")
                for number, text in left:
                    for statement in statements(text, ""):
                        await connection.execute(statement)
                    await connection.execute("insert into migrations values ($1)", number)
                for statement in wall.postgres() if until is None else ():
                    await connection.execute(statement)
        return [number for number, _ in left]
    finally:
        await connection.close()


def _left(done: set[int], until: int | None) -> list[tuple[int, str]]:
    last = wanted() if until is None else until
    return [(number, text) for number, text in numbered() if number not in done and number <= last]


def _refuse_newer(done: set[int]) -> None:
    if max(done, default=0) > wanted():
        says = f"the database is at migration {max(done)}, and this version knows {wanted()}"
        raise ConfigError(says, "a newer Hathi has migrated it", "use that version, or restore a backup")
