"""One step of an upgrade, both ways: an older database under this code, and this code over one a step ahead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from pipeline.errors import ConfigError
from pipeline.service import queue
from pipeline.service.database import migrating, sqlite
from pipeline.service.database.migrating import migrate_postgres, migrate_sqlite, numbered, wanted
from pipeline.service.database.one_host import file_system_of, refuse_network, refuse_other_host
from pipeline.service.database.opening import migrate, open_database
from pipeline.service.words import PLATFORM, Slot
from tests.servers.databases import KINDS, Site, empty, needs_the_extra, sites_of
from tests.servers.service import Stand, standing

needs_the_extra()
NEXT = """alter table @datafiles add column colour text not null default 'grey';
create table @colours (tenant_id text not null, id text not null, primary key (tenant_id, id));
create index datafiles_by_colour on @datafiles (tenant_id, colour);
"""
"""What a next version may do within a minor version: it adds."""


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from sites_of(request, tmp_path_factory.mktemp("service"))


def columns(text: list[tuple[int, str]]) -> dict[str, set[tuple[str, str, int, str | None]]]:
    """Of each table of SQLite after these migrations."""
    with contextlib.closing(sqlite.connected(Path(":memory:"))) as connection:
        for _, one in text:
            for statement in migrating.statements(one, "bare_"):
                connection.execute(statement)
        names = [row["name"] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return {
            name: {(row["name"], row["type"], row["notnull"], row["dflt_value"])
                   for row in connection.execute(f"pragma table_info({name})")}
            for name in names
        }  # fmt: skip


def test_each_migration_only_adds_and_what_it_adds_older_code_need_not_know() -> None:
    for number in range(1, len(numbered())):
        before, after = columns(numbered()[:number]), columns(numbered()[: number + 1])
        for table, known in before.items():
            assert known <= after[table], f"{numbered()[number][0]} changes {table}"
            for name, _, needed, usual in after[table] - known:
                assert not needed or usual is not None, f"{table}.{name} has no default: older code cannot insert"


def test_a_database_of_the_step_before_is_refused_until_it_is_migrated_and_keeps_its_rows(
    site: Site, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres_server") if site.kind == "postgres" else None
    url = server.database(f"before-{tmp_path.name}") if server is not None else str(tmp_path / "before.db")

    async def looked() -> None:
        made = await migrate_postgres(url, wanted() - 1) if server else migrate_sqlite(Path(url), wanted() - 1)
        assert made[-1] == wanted() - 1
        with pytest.raises(ConfigError, match=f"is at migration {wanted() - 1}, and this version wants {wanted()}"):
            await open_database(url)
        assert await migrate(url) == [wanted()]
        assert await migrate(url) == []
        database = await open_database(url)
        async with database.reading(PLATFORM) as statements:
            assert await statements.rows("select id from tenants") == []
        await database.close()

    asyncio.run(looked())


def test_this_code_serves_over_a_database_one_step_ahead_and_no_further(site: Site, tmp_path: Path) -> None:
    """An API server that runs while the next version migrates goes on: at most one answer says to ask again."""
    empty(site)
    ahead = [*numbered(), (wanted() + 1, NEXT)]
    with standing(site, tmp_path) as stand:
        ann = stand.person("ayes", "ann")
        first = ann.datafile(b"before")
        for _ in range(3):
            assert ann.got("GET", f"/v1/datafiles/{first}")["name"] == "data"
        with mock.patch.object(migrating, "numbered", return_value=ahead):
            assert asyncio.run(migrate(site.url)) == [ahead[-1][0]]
        statuses = [ann.ask("GET", f"/v1/datafiles/{first}").status_code for _ in range(30)]
        assert set(statuses) <= {200, 503}, "a server that read the tables before says to ask again"
        assert statuses[-10:] == [200] * 10
        goes_on(stand)
        assert stand.site.run(site.bare("select distinct colour from @datafiles")) == [{"colour": "grey"}]
    with standing(site, tmp_path / "anew") as stand:
        goes_on(stand)
    for number in (wanted() + 2, wanted() + 9):
        site.run(site.bare(f"update {'migrations'} set number = {number} where number > {wanted()}"))
        with pytest.raises(ConfigError, match=f"is at migration {number}, and this version knows {wanted()}"):
            asyncio.run(open_database(site.url))
        with pytest.raises(ConfigError, match="knows"):
            asyncio.run(migrate(site.url))


def goes_on(stand: Stand) -> None:
    """What clients and workers do with the tables that the next version has changed."""
    ann = stand.person("bees", "ben")
    job = ann.job()
    stand.trained(ann, job, "mark")
    assert ann.got("GET", f"/v1/training-jobs/{job}")["state"] == "running"
    assert ann.got("POST", f"/v1/training-jobs/{job}/cancel")["cancel_requested"]
    held = ann.datafile(b"more")
    assert ann.ask("DELETE", f"/v1/datafiles/{held}", If_Match="*").status_code == 204
    stand.site.run(stand.site.bare("update @work set state = 'cancelled', worker_id = null, lease_until = null"))


def test_sqlite_on_a_network_file_system_or_of_another_host_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    lines = "22 1 0:21 / / rw shared:1 - ext4 /dev/vda rw\n36 22 0:33 / {} rw,nosuid shared:9 - {} server:/x rw\n"
    (tmp_path / "with space").mkdir()
    path = tmp_path / "with space" / "service.db"
    point = str(tmp_path / "with space").replace(" ", "\\040")
    for kind, refused in (("nfs4", True), ("nfs", True), ("cifs", True), ("fuse.sshfs", True), ("xfs", False)):
        mounts.write_text(lines.format(point, kind))
        assert file_system_of(path, mounts.read_text()) == kind
        assert file_system_of(tmp_path / "with", mounts.read_text()) == "ext4"
        if refused:
            with pytest.raises(ConfigError, match=f"network file system .{kind}"):
                refuse_network(path, mounts)
        else:
            refuse_network(path, mounts)
    refuse_network(path, tmp_path / "absent")
    migrate_sqlite(path)
    mounts.write_text(lines.format(point, "nfs4"))
    with (
        mock.patch("pipeline.service.database.opening.refuse_network", lambda found: refuse_network(found, mounts)),
        pytest.raises(ConfigError, match="nfs4"),
    ):
        asyncio.run(open_database(str(path)))

    async def hosts() -> None:
        database = await open_database(str(path))
        try:
            await queue.enlist(database, "wk_1", "other-host", Slot.TRAIN)
            await refuse_other_host(database, "other-host")
            with pytest.raises(ConfigError, match="in use on another host"):
                await refuse_other_host(database, "this-host")
        finally:
            await database.close()

    asyncio.run(hosts())
