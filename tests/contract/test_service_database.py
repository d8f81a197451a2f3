"""The wall between tenants and the migrations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, Denied, PermanentError
from pipeline.service import queue
from pipeline.service.database.copying import load
from pipeline.service.database.migrating import numbered, wanted
from pipeline.service.database.opening import file_of, migrate, open_database
from pipeline.service.database.statements import Database, Statements, Taken, Violated
from pipeline.service.database.wall import COUNTED, DOORS, TENANT
from pipeline.service.queue import Chunk, Snapshot, Submission
from pipeline.service.words import PLATFORM, WORKER, Part, Realm, Slot, scope
from tests.servers.databases import KINDS, Site, a_tenant, empty, sites, sites_of
from tests.servers.postgres import Postgres

SOLVER = """insert into solvers (tenant_id, id, name, solver, net, created_at)
            values ($1, $2, $3, '', '', instant()) returning id"""
DATAFILE = """insert into datafiles (tenant_id, id, name, size, created_at) values ($1, $2, '', $3, instant())
              returning id"""


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from sites_of(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def site(shared: Site) -> Site:
    empty(shared)
    return shared


async def two(site: Site) -> tuple[Database, str, str]:
    """A database with two tenants, each with one solver."""
    database = site.open()
    names = [await a_tenant(database, name) for name in ("a", "b")]
    for name in names:
        async with database.transaction(scope(name)) as statements:
            await statements.row(SOLVER, name, f"so_of_{name}", "mine")
            made = await statements.row("select version, price from solvers")
            assert made == {"version": 1, "price": "{}"}, "defaults are those of the table"
    return database, *names


async def refused(database: Database, realm: Realm, sql: str, *values: object) -> type[BaseException]:
    with pytest.raises(PermanentError) as told:
        async with database.transaction(realm) as statements:
            await statements.rows(sql, *values)
    return told.type


def test_a_tenant_sees_and_changes_its_own_rows_and_no_others(site: Site) -> None:
    async def look() -> None:
        database, a, b = await two(site)
        async with database.transaction(scope(a)) as statements:
            assert [row["tenant_id"] for row in await statements.rows("select * from solvers")] == [a]
            assert (await statements.row("select count(*) as n from solvers"))["n"] == 1
            theirs = "where tenant_id = $1 returning id"
            assert await statements.rows(f"update solvers set name = 'x' {theirs}", b) == []
            assert await statements.rows(f"delete from solvers {theirs}", b) == []
            assert await statements.rows("select id from tenants") == [{"id": a}]
            mine = await statements.row("update solvers set name = 'y' returning name, tenant_id, net")
            assert mine == {"name": "y", "tenant_id": a, "net": ""}
        async with database.reading(scope(b)) as statements:
            assert (await statements.row("select name from solvers"))["name"] == "mine"

    site.run(look())


def test_a_row_of_another_tenant_cannot_be_made_nor_given_away(site: Site) -> None:
    async def look() -> None:
        database, a, b = await two(site)
        for sql, values in ((SOLVER, (b, "so_x", "x")), ("update solvers set tenant_id = $1", (b,))):
            assert await refused(database, scope(a), sql, *values) in (Denied, Violated)
        rows = await site.bare("select tenant_id from @solvers order by tenant_id")
        assert [row["tenant_id"] for row in rows] == sorted([a, b])

    site.run(look())


def test_a_row_cannot_point_across(site: Site) -> None:
    async def look() -> None:
        database, a, b = await two(site)
        sql = """insert into work (tenant_id, id, kind, slot, state, body, max_seconds, created_at, solver_id)
                 values ($1, 'tj_1', 'train', 'train', 'queued', '{}', 1.0, instant(), $2) returning id"""
        assert await refused(database, scope(a), sql, a, f"so_of_{b}") is Violated
        async with database.transaction(scope(a)) as statements:
            assert await statements.row(sql, a, f"so_of_{a}") == {"id": "tj_1"}

    site.run(look())


def test_without_a_tenant_there_is_no_row_and_nothing_stays_after_a_transaction(site: Site) -> None:
    async def look() -> None:
        database, a, _ = await two(site)
        nobody = Realm(Part.TENANT)
        async with database.transaction(scope(a)) as statements:
            assert len(await statements.rows("select id from solvers")) == 1
        for _ in range(12):
            async with database.reading(nobody) as statements:
                assert await statements.rows("select id from solvers") == []
        assert await refused(database, nobody, SOLVER, "", "so_x", "x") in (Denied, Violated)
        with pytest.raises(ValueError, match="tenant"):
            scope("")

    site.run(look())


def test_who_reads_for_no_tenant_sees_what_its_part_sees_and_changes_nothing(site: Site) -> None:
    """Again and again, and after an error: on PostgreSQL such a connection keeps its role, and has no transaction."""

    async def look() -> None:
        database, a, b = await two(site)
        for _ in range(3):
            async with database.reading(PLATFORM) as statements:
                rows = await statements.rows("select id from tenants order by id")
                assert [row["id"] for row in rows] == sorted([a, b])
            with contextlib.suppress(PermanentError):
                async with database.reading(PLATFORM) as statements:
                    await statements.rows("update tenants set name = 'x' where id = $1 returning id", a)
            with pytest.raises(PermanentError, match=r"the database refuses a statement|the wall"):
                async with database.reading(PLATFORM) as statements:
                    await statements.rows("select key from chunks")
        names = {row["name"] for row in await site.bare("select name from @tenants")}
        assert names == {"a", "b"}

    site.run(look())


@pytest.mark.parametrize("part", list(Part), ids=lambda part: part.name.lower())
def test_each_part_may_do_what_the_wall_names_and_nothing_else(site: Site, part: Part) -> None:
    """Asked of the database itself, for each table and verb: the statement is refused, or it finds no row."""

    async def look() -> None:
        database = site.open()
        for table, doors in DOORS.items():
            named = {"secrets": "name", "throttles": "name", "passwords": "user_id", "tallies": "name"}
            column = named.get(table, "id" if table in ("tenants", "users", "workers") else TENANT)
            asks = {
                "select": f"select {column} from {table} where 1 = 0",
                "update": f"update {table} set {column} = {column} where 1 = 0",
                "delete": f"delete from {table} where 1 = 0",
                "insert": f"insert into {table} ({column}) select {column} from {table} where 1 = 0",
            }
            for verb, sql in asks.items():
                if part in doors and verb in doors[part].verbs:
                    async with database.transaction(Realm(part, "te_x")) as statements:
                        assert await statements.rows(sql) == []
                else:
                    await refused(database, Realm(part, "te_x"), sql)

    site.run(look())


def test_every_table_is_behind_the_wall(site: Site) -> None:
    async def look() -> None:
        names = (
            "select name from sqlite_master where type = 'table'"
            if site.kind == "sqlite"
            else "select tablename as name from pg_tables where schemaname = 'public' and rowsecurity"
        )
        found = {row["name"].removeprefix("bare_") for row in await site.bare(names)}
        assert found - {"migrations"} == set(DOORS)
        for table, doors in DOORS.items():
            door = doors.get(Part.TENANT)
            assert door is None or door.column == ("id" if table == "tenants" else TENANT)

    site.run(look())


def test_what_a_tenant_writes_points_to_nothing_of_another_tenant(site: Site) -> None:
    """A foreign key that leaves the tenant out would say which ids others have, and give them away."""

    async def look() -> None:
        mine = {table: doors[Part.TENANT].verbs for table, doors in DOORS.items() if Part.TENANT in doors}
        written = [table for table, verbs in mine.items() if "insert" in verbs]
        seen = 0
        for table in written:
            for key in await _foreign_keys(site, table):
                seen += 1
                if key["to"] != "tenants":
                    assert TENANT in key["columns"], f"{table} points to {key['to']} by {key['columns']} alone"
        assert seen >= 7

    site.run(look())


async def _foreign_keys(site: Site, table: str) -> list[dict[str, Any]]:
    if site.kind == "sqlite":
        found: dict[int, dict[str, Any]] = {}
        for row in await site.bare(f"pragma foreign_key_list(@{table})"):
            one = found.setdefault(row["id"], {"to": row["table"].removeprefix("bare_"), "columns": []})
            one["columns"].append(row["from"])
        return list(found.values())
    sql = f"""select confrelid::regclass::text as "to", (select array_agg(attname::text) from pg_attribute
              where attrelid = conrelid and attnum = any (conkey)) as columns
              from pg_constraint where contype = 'f' and conrelid = '{table}'::regclass"""
    return [dict(row) for row in await site.bare(sql)]


HOLES = {
    "the table": "select * from @solvers",
    "its count": "select count(*) from @solvers",
    "with its schema": "select * from {schema}.@solvers",
    "a union": "select id from solvers union select id from @solvers",
    "a subquery": "select (select count(*) from @solvers) from solvers",
    "a common table": "with solvers as (select * from @solvers) select * from solvers",
    "an update": "update @solvers set name = 'x'",
    "a deletion": "delete from @solvers",
    "quoted": 'select * from "@solvers"',
    "a view": "create temp view z as select * from @solvers",
    "the schema": "select sql from sqlite_master",
    "another file": "attach ':memory:' as z",
    "a setting": "pragma foreign_keys",
}


@pytest.mark.parametrize("hole", sorted(HOLES))
def test_sqlite_refuses_what_goes_around_its_views(tmp_path: Path, hole: str) -> None:
    for site in sites("sqlite", tmp_path, None):

        async def look(site: Site = site) -> None:
            database, a, _ = await two(site)
            sql = HOLES[hole].replace("{schema}", "main").replace("@", "bare_")
            assert await refused(database, scope(a), sql) is Denied
            assert {row["name"] for row in await site.bare("select name from @solvers")} == {"mine"}

        site.run(look())


def test_sqlites_authorizer_alone_refuses_the_bare_tables(tmp_path: Path) -> None:
    """Though the text of a statement is looked at as well."""
    for site in sites("sqlite", tmp_path, None):

        async def look(site: Site = site) -> None:
            database, a, _ = await two(site)
            async with database.transaction(scope(a)) as statements:
                for sql in ("select * from bare_solvers", "select count(*) from main.bare_solvers"):
                    with pytest.raises(Exception, match=r"authorized|prohibited"):
                        statements._db.execute(sql)  # type: ignore[attr-defined]

        site.run(look())


BEYOND = ("reset role; select 1", "select * from pg_authid", "alter table solvers owner to hathi_tenant")


@pytest.mark.parametrize("hole", BEYOND)
def test_postgres_roles_reach_nothing_else(postgres_server: object, tmp_path: Path, hole: str) -> None:
    for site in sites("postgres", tmp_path, postgres_server):  # type: ignore[arg-type]

        async def look(site: Site = site) -> None:
            database, a, _ = await two(site)
            await refused(database, scope(a), hole)

        site.run(look())


def test_what_fails_changes_nothing_and_a_name_is_taken_once(site: Site) -> None:
    async def look() -> None:
        database, a, _ = await two(site)
        assert await refused(database, scope(a), SOLVER, a, f"so_of_{a}", "again") is Taken

        async def broken() -> None:
            async with database.transaction(scope(a)) as statements:
                await statements.row(SOLVER, a, "so_2", "x")
                raise RuntimeError("on the way")

        with pytest.raises(RuntimeError, match="on the way"):
            await broken()
        async with database.reading(scope(a)) as statements:
            assert len(await statements.rows("select id from solvers")) == 1

    site.run(look())


def test_transactions_of_many_at_once_lose_nothing(site: Site) -> None:
    async def add(database: Database, a: str, times: int) -> None:
        for _ in range(times):
            async with database.transaction(scope(a)) as statements:
                await raised(statements)

    async def raised(statements: Statements) -> None:
        row = await statements.row("select version from solvers" + (" for update" if site.kind == "postgres" else ""))
        await asyncio.sleep(0)
        await statements.rows("update solvers set version = $1 returning id", row["version"] + 1)

    async def look() -> None:
        database, a, _ = await two(site)
        other = site.open()
        await asyncio.gather(*(add(one, a, 10) for one in (database, other, database)))
        async with database.reading(scope(a)) as statements:
            assert (await statements.row("select version from solvers"))["version"] == 31

    site.run(look())


def test_who_gives_up_within_a_transaction_leaves_none_open(site: Site) -> None:
    """A task is cancelled anywhere, also while its transaction begins: nobody gets a connection within another's."""

    async def look() -> None:
        database, a, _ = await two(site)

        async def hold() -> None:
            async with database.transaction(scope(a)) as statements:
                await statements.row("update solvers set name = 'given up' returning id")
                await asyncio.sleep(60)

        for turns in range(40):
            task = asyncio.ensure_future(hold())
            for _ in range(turns):
                await asyncio.sleep(0 if turns % 2 else 0.0005)
            task.cancel()
            await asyncio.wait([task])
            async with database.transaction(scope(a)) as statements:
                kept = await statements.row("select name from solvers")
                assert kept == {"name": "mine"}, f"given up after {turns} turns"

    site.run(look())


def test_who_gives_up_while_its_transaction_begins_leaves_a_connection_that_serves_others(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stands within the statements of a beginning, and there is one connection.

    asyncpg undoes what it gets back open, and tells the loop of a mistake: nothing is left to it.
    """
    from pipeline.service.database import postgres

    (site,) = sites("postgres", tmp_path, postgres_server)
    stands = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

    async def look() -> None:
        database = postgres.PostgresDatabase(site.url, 1)
        site.opened.append(database)
        a = await a_tenant(database, "a")
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))

        async def begin() -> None:
            async with database.transaction(scope(a)):
                pass

        with monkeypatch.context() as patch:
            begins = f"{postgres._set(scope(a))}, pg_sleep(60)"
            patch.setattr(postgres, "_set", lambda _: begins)
            task = asyncio.ensure_future(begin())
            while not await site.bare(f"select 1 as one {stands} and wait_event = 'PgSleep'"):
                assert not task.done()
            task.cancel()
            await asyncio.wait([task])
        assert await site.bare(f"select 1 as one {stands} and state like 'idle in transaction%'") == []
        async with database.transaction(scope(a)) as statements:
            assert await statements.row("select name from tenants") == {"name": "a"}
        assert told == []

    site.run(look())


def test_what_a_tenant_keeps_is_counted_with_each_row_that_comes_or_goes(site: Site) -> None:
    async def look() -> None:
        database, *tenants = await two(site)

        async def kept() -> list[int]:
            counts = await site.bare("select tenant_id, bytes from @usage")
            by = {row["tenant_id"]: int(row["bytes"]) for row in counts}
            for tenant in tenants:
                rows = [await site.bare(f"select size from @{table} where tenant_id = '{tenant}'") for table in COUNTED]
                assert by.get(tenant, 0) == sum(int(row["size"]) for found in rows for row in found)
            return [by.get(tenant, 0) for tenant in tenants]

        realms = [scope(tenant) for tenant in tenants]
        for realm, sizes in zip(realms, ((5, 7), (100,)), strict=True):
            async with database.transaction(realm) as statements:
                for n, size in enumerate(sizes):
                    await statements.row(DATAFILE, realm.tenant, f"df_{n}", size)
                await queue.submit(statements, realm, Submission(f"tj_{realm.tenant}", "train", Slot.TRAIN, {}))
        assert await kept() == [12, 100]
        await queue.enlist(database, "w", "here", Slot.TRAIN)
        for _ in tenants:
            held = await queue.claim(database, "w")
            assert held is not None
            for _ in range(2):  # the second time the first one's answer was lost
                assert await queue.ship(database, held, Chunk("log", 0, 9, 30, "k1"))
                assert await queue.keep(database, held, Snapshot(1, [{"size": 200}, {"size": 300}]))
        assert await kept() == [542, 630]

        async def one_too_many() -> None:
            async with database.transaction(realms[0]) as statements:
                for name in ("df_2", "df_0"):
                    await statements.row(DATAFILE, tenants[0], name, 1000)

        with pytest.raises(Taken):
            await one_too_many()
        assert await kept() == [542, 630], "what is undone counts no more"
        async with database.transaction(realms[0]) as statements:
            assert len(await statements.rows("delete from datafiles where size < 1000 returning id")) == 2
            await statements.rows("delete from snapshots where work_id = $1 returning work_id", f"tj_{tenants[0]}")
            assert await statements.rows("select * from usage") == [{"tenant_id": tenants[0], "bytes": 30}]
        assert await kept() == [30, 630]

    site.run(look())


def test_what_was_kept_before_it_was_counted_is_counted_by_the_migration(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    before = next(number for number, text in numbered() if "create table @usage" in text) - 1
    for kind in KINDS:
        path = tmp_path / f"{kind}.db"
        url = request.getfixturevalue("postgres_server").database("counted") if kind == "postgres" else str(path)
        tables = ("tenants", "datafiles")

        def rows(table: str) -> Iterator[dict[str, object]]:
            if table == "tenants":
                yield from ({"id": f"te_{n}", "name": f"{n}", "running": 1, "created_at": 1.0} for n in range(2))
            elif table == "datafiles":
                yield from ({"tenant_id": "te_1", "id": f"df_{n}", "name": "", "size": n, "created_at": 1.0}
                            for n in range(1, 5))  # fmt: skip

        counts = asyncio.run(load(url, before, rows))
        assert [counts[table] for table in tables] == [2, 4]

        async def counted(url: str = url) -> list[object]:
            database = await open_database(url)
            try:
                async with database.transaction(scope("te_1")) as statements:
                    await statements.row(DATAFILE, "te_1", "df_9", 1000)
                async with database.reading(WORKER) as statements:
                    return await statements.rows("select * from usage order by tenant_id")
            finally:
                await database.close()

        wants = [{"tenant_id": "te_0", "bytes": 0}, {"tenant_id": "te_1", "bytes": 1010}]
        assert asyncio.run(counted()) == wants


def test_a_migrated_database_is_left_as_it_is_and_one_that_is_behind_is_refused(site: Site) -> None:
    async def look() -> None:
        assert await migrate(site.url) == []
        site.opened.append(await open_database(site.url))
        await a_tenant(site.opened[-1], "still here")
        await site.bare(f"update migrations set number = -1 where number = {wanted()}")
        with pytest.raises(ConfigError, match=f"wants {wanted()}"):
            await open_database(site.url)
        await site.bare(f"update migrations set number = {wanted() + 1} where number = -1")
        site.opened.append(await open_database(site.url))
        with pytest.raises(ConfigError, match="this version knows"):
            await migrate(site.url)
        await site.bare(f"update migrations set number = {wanted()} where number = {wanted() + 1}")

    site.run(look())


def test_a_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        asyncio.run(open_database(f"{tmp_path}/none.db"))
    assert "hathi service migrate" in str(told.value)
    with pytest.raises(ConfigError, match="no database"):
        file_of("mysql://x")


def test_a_worker_sees_all_tenants_work_and_no_tokens(site: Site) -> None:
    async def look() -> None:
        database, _, _ = await two(site)
        async with database.reading(WORKER) as statements:
            assert len(await statements.rows("select id from solvers")) == 2
        assert await refused(database, WORKER, "select digest from tokens") in (Denied, PermanentError)
        assert await refused(database, PLATFORM, "select id from solvers") in (Denied, PermanentError)

    site.run(look())
