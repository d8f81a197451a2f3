"""Backups of the service under load, restored elsewhere: from each of the two databases into the other one."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.clock import Clock
from pipeline.ledger.layout import version_of
from pipeline.service import blobs, queue
from pipeline.service.backup import LIST, back_up, lines_of, manifest_of, versions
from pipeline.service.database import copying
from pipeline.service.database.opening import open_database
from pipeline.service.database.statements import Database, Row
from pipeline.service.database.wall import DOORS
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.queue import Chunk, Snapshot
from pipeline.service.restoring import EPOCHS
from pipeline.service.words import Claimed, Ending, Slot, State
from pipeline.stores.local import LocalStore
from tests.servers.databases import KINDS, Site, empty, needs_the_extra, sites_of
from tests.servers.demand import until
from tests.servers.postgres import Postgres
from tests.servers.service import WEIGHTS, Person, Stand, standing

needs_the_extra()


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites_of(request, folder):
        with standing(site, folder) as stand:
            yield stand


@pytest.fixture
def stand(shared: Stand) -> Stand:
    empty(shared.site)
    shutil.rmtree(shared.folder / "bucket", ignore_errors=True)
    (shared.folder / "bucket").mkdir()
    return shared


@dataclass
class Elsewhere:
    """An empty place to restore into.  setting: its database."""

    config: Path
    setting: str
    bucket: LocalStore

    def hathi(self, *words: str) -> int:
        return main(["service", *words, "--config", str(self.config)])


def configured(folder: Path, setting: str, bucket: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "service.toml"
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{bucket}"\n'
        f'[service]\ndatabase = "{setting}"\n'
    )
    return config


def elsewhere(folder: Path, server: Postgres | None, name: str) -> Elsewhere:
    """server: None for SQLite."""
    setting = server.database(name) if server is not None else str(folder / "elsewhere.db")
    (folder / "elsewhere").mkdir(parents=True)
    bucket = folder / "elsewhere"
    return Elsewhere(configured(folder / "etc", setting, bucket), setting, LocalStore(bucket, fsync=False))


def other_kind(request: pytest.FixtureRequest, stand: Stand) -> Postgres | None:
    return request.getfixturevalue("postgres_server") if stand.site.kind == "sqlite" else None


class Load:
    """Tenants at work for as long as the block lasts: uploads, jobs, a worker that ships and ends them, deletions."""

    def __init__(self, stand: Stand, people: list[Person]) -> None:
        self.stand, self.people, self.rounds, self.failed = stand, people, 0, []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(one,)) for one in (self._clients, self._worker)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until(lambda: self.rounds > 1 or bool(self.failed), "load")
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.failed, self.failed

    def _go_on(self, work: Any) -> None:
        try:
            work()
        except BaseException as error:
            self.failed.append(error)

    def _clients(self) -> None:
        while not self._ending.is_set():
            for person in self.people:
                name = person.datafile(f"round {self.rounds} of {person.tenant}".encode() * 50)
                job = person.job(inputs={"train": name})
                gone = person.datafile(b"nobody needs it")
                person.ask("DELETE", f"/v1/datafiles/{gone}", If_Match="*")
                if self.rounds % 3 == 0:
                    person.ask("POST", f"/v1/training-jobs/{job}/cancel")
            self.rounds += 1

    def _worker(self) -> None:
        database = Site(self.stand.site.kind, self.stand.site.url, self.stand.site.path).open()

        async def works() -> None:
            worker = new_id(Kind.WORKER, time.time())
            await queue.enlist(database, worker, "here", Slot.TRAIN)
            while not self._ending.is_set():
                held = await queue.claim(database, worker)
                if held is None:
                    await asyncio.sleep(0.01)
                    continue
                keys = TenantKeys(held.tenant)
                for number in range(1, 4):
                    text = json.dumps({"step": number, "time": 1.0, "values": {"train/loss": 1.0}}).encode() + b"\n"
                    key = keys.chunk(held.id, held.epoch, "metrics", number)
                    self.stand.store.put(key, text)
                    await queue.ship(database, held, Chunk("metrics", number, number, len(text), key))
                key, content = keys.snapshot(held.id, held.epoch, 10, WEIGHTS), held.id.encode() * 1000
                self.stand.store.put(key, content)
                await queue.keep(database, held, Snapshot(10, [{"name": WEIGHTS, **blobs.described(key, content)}]))
                await queue.finish(database, held, Ending(State.SUCCEEDED, result={"iteration": 10}))
            await database.close()

        asyncio.run(works())


def rows_of(setting: str) -> dict[str, list[dict[str, Any]]]:
    """All rows, by table, in an order of their own."""

    async def read() -> dict[str, list[dict[str, Any]]]:
        async with copying.snapshot(setting) as found:
            return {
                table: sorted([dict(row) async for row in found.rows(table)], key=lambda row: json.dumps(row))
                for table in DOORS
            }

    return asyncio.run(read())


def a_whole_tenant(stand: Stand) -> Person:
    """With a row in each table but those of work that runs."""
    stand.site.run(stand.site.bare("insert into @secrets (name, value) values ('cursors', 'ab')"))
    ann = stand.person("ayes", "ann", platform=True)
    job = ann.job()
    stand.trained(ann, job, "mark")
    over = "state = 'succeeded', worker_id = null, lease_until = null, finished_at = 1.5"
    stand.site.run(stand.site.bare(f"update @work set {over} where id = '{job}' returning id"))
    model = ann.got("POST", "/v1/models", {"name": "spots"})["id"]
    ann.got("POST", f"/v1/models/{model}/versions", {"training_job_id": job, "iteration": 10})
    ann.got("PUT", f"/v1/models/{model}/aliases/best", {"version": 1}, If_None_Match="*")
    ann.got("POST", "/v1/classifiers", {"name": "c", "training_job_id": job, "labels": ["a", "b"]})
    stand.dataset(ann, ann.datafile(b"archive"), "mark")
    ann.got("POST", "/v1/datafiles", {"name": "once", "size": 5}, Idempotency_Key="key-1")
    return ann


def test_a_backup_under_load_is_restored_into_the_other_database_with_all_that_its_rows_name(
    stand: Stand, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, ben = a_whole_tenant(stand), stand.person("bees", "ben")
    backups = LocalStore(tmp_path / "backups", fsync=False)
    here = configured(tmp_path / "here", stand.site.url, stand.folder / "bucket")
    with Load(stand, [ann, ben]) as load:
        made = []
        for _ in range(2):
            before = load.rounds
            assert main(["service", "backup", str(tmp_path / "backups"), "--config", str(here), "--json"]) == 0
            made.append(json.loads(capsys.readouterr().out))
            until(lambda before=before: load.rounds > before + 1, "more is posted meanwhile")
            until(lambda made=made: version_of(time.time()) > made[-1]["version"], "the next second")
    assert [one["absent"] for one in made] == [[], []]
    assert made[0]["objects"] < made[1]["objects"]
    lists = [lines_of(backups, manifest_of(backups, one["version"]), LIST) for one in made]
    keys = {f"objects/{said['key']}" for said in chain.from_iterable(lists)}
    assert {entry.key for entry in backups.list("objects/")} == keys, "each object is there once"
    for number, one in enumerate(made):
        there = elsewhere(tmp_path / str(number), other_kind(request, stand), f"restored-{number}-{stand.folder.name}")
        assert there.hathi("restore", str(tmp_path / "backups"), "--version", one["version"]) == 0
        assert f"backup {one['version']} is restored" in capsys.readouterr().out
        assert there.hathi("check", "--hashes", "--json") == 0
        checked = json.loads(capsys.readouterr().out)
        assert (checked["missing"], checked["objects"]) == ([], one["objects"])
        restored = rows_of(there.setting)
        assert {table: len(rows) for table, rows in restored.items()} == {**one["rows"], "workers": 0}
        trained = {row["id"] for row in restored["work"] if row["kind"] == "train"}
        assert trained <= {row["work_id"] for row in restored["inputs"]}, "rows of one transaction are there together"
        assert there.hathi("restore", str(tmp_path / "backups")) == 2, "it is not empty any more"
        assert "not empty" in capsys.readouterr().err
        assert rows_of(there.setting) == restored
    stored = {table for table, rows in restored.items() if rows}
    whole = {"tenants", "users", "members", "tokens", "audit", "datafiles", "solvers", "work", "inputs", "chunks"}
    whole |= {"snapshots", "datasets", "judgements", "models", "model_versions", "model_aliases", "model_history"}
    assert stored >= whole | {"classifiers", "turns", "answers", "secrets"}, "what the test says that it covers"


def test_what_was_restored_goes_on_and_nobody_of_before_changes_it(
    stand: Stand, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same tokens, cursors and answers; work that ran is queued, and its old worker is fenced there, too."""
    ann = a_whole_tenant(stand)
    first = ann.datafile(b"content")
    job = ann.job(inputs={"train": first})
    begun = ann.got("POST", "/v1/datafiles", {"name": "half", "size": 10})["id"]

    async def claimed(database: Database) -> Claimed:
        worker = new_id(Kind.WORKER, time.time())
        await queue.enlist(database, worker, "here", Slot.TRAIN)
        held = await queue.claim(database, worker)
        assert held is not None
        assert held.id == job
        return held

    held = stand.site.run(claimed(stand.site.open()))
    before = rows_of(stand.site.url)
    backups = LocalStore(tmp_path / "backups", fsync=False)
    asyncio.run(back_up(stand.site.url, stand.store, backups, Clock(), copy=True, told=lambda done, to_do: None))
    there = elsewhere(tmp_path, other_kind(request, stand), f"goes-on-{stand.folder.name}")
    assert there.hathi("restore", str(tmp_path / "backups")) == 0
    after = rows_of(there.setting)
    same = set(DOORS) - {"work", "workers", "datafiles"}
    assert {table: after[table] for table in same} == {table: before[table] for table in same}
    over = [row for row in before["work"] if row["id"] != job]
    assert [row for row in after["work"] if row["id"] != job] == over
    mine = next(row for row in after["work"] if row["id"] == job)
    assert (mine["state"], mine["epoch"], mine["worker_id"]) == ("queued", held.epoch + EPOCHS, None)
    half = next(row for row in after["datafiles"] if row["id"] == begun)
    assert half["epoch"] == EPOCHS

    async def goes_on() -> None:
        database = await open_database(there.setting)
        try:
            assert await queue.beat(database, held, {}) is None
            assert await queue.finish(database, held, Ending(State.FAILED)) is None
            worker = new_id(Kind.WORKER, time.time())
            await queue.enlist(database, worker, "there", Slot.TRAIN)
            again = await queue.claim(database, worker)
            assert again is not None
            assert (again.id, again.epoch) == (job, held.epoch + EPOCHS + 1)
        finally:
            await database.close()

    asyncio.run(goes_on())
    kind = "sqlite" if stand.site.kind == "postgres" else "postgres"
    site = Site(kind, there.setting, Path(there.setting))
    with standing(site, tmp_path / "served") as served:
        again = Person(served.url, ann.token)
        assert again.got("GET", f"/v1/training-jobs/{job}")["state"] == "running"
        told = again.got("POST", "/v1/datafiles", {"name": "once", "size": 5}, Idempotency_Key="key-1")
        assert told["id"] in {row["id"] for row in before["datafiles"]}, "a key means what it meant"


def test_a_list_alone_is_restored_over_the_same_bucket_and_names_what_the_bucket_has_lost(
    stand: Stand, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    a_whole_tenant(stand)
    here = configured(tmp_path / "here", stand.site.url, stand.folder / "bucket")
    folder = tmp_path / "backups"
    assert main(["service", "backup", str(folder), "--without-objects", "--config", str(here)]) == 0
    assert "listed, not copied" in capsys.readouterr().out
    assert not (folder / "objects").exists()
    there = elsewhere(tmp_path / "1", other_kind(request, stand), f"listed-{stand.folder.name}")
    shutil.copytree(stand.folder / "bucket", there.bucket.root, dirs_exist_ok=True)
    lost = next(entry.key for entry in there.bucket.list("s/") if "/s-" in entry.key)
    content = there.bucket.get(lost)
    there.bucket.delete(lost)
    assert there.hathi("restore", str(folder)) == 1
    said = capsys.readouterr().err
    assert "no row was restored" in said
    assert lost in said
    there.bucket.put(lost, content)
    assert there.hathi("restore", str(folder)) == 0
    assert there.hathi("check", "--hashes") == 0
    there.bucket.put(lost, b"x" * len(content))
    capsys.readouterr()
    assert there.hathi("check") == 0, "of the right size"
    assert there.hathi("check", "--hashes") == 1
    assert f"missing: {lost}" in capsys.readouterr().out


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_what_is_damaged_is_named_and_restores_nothing(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_whole_tenant(stand)
    here = configured(tmp_path / "here", stand.site.url, stand.folder / "bucket")
    folder = tmp_path / "backups"
    torn = next(entry.key for entry in stand.store.list("s/") if "/s-" in entry.key)
    content = stand.store.get(torn)
    stand.store.put(torn, content + b"more")
    assert main(["service", "backup", str(folder), "--config", str(here)]) == 1
    assert f"missing: {torn}" in capsys.readouterr().out
    stand.store.put(torn, content)
    version = next(folder.glob("2*"))
    cases = {
        "tenants.jsonl.gz": "changed after it was written",
        "objects.jsonl.gz": "changed after it was written",
        "manifest.json": "cannot be read",
    }
    for name, said in cases.items():
        whole = (version / name).read_bytes()
        (version / name).write_bytes(whole[:-4])
        there = elsewhere(tmp_path / name, None, "")
        assert there.hathi("restore", str(folder)) != 0
        assert said in capsys.readouterr().err
        assert not Path(there.setting).exists()
        (version / name).write_bytes(whole)
    manifest = json.loads((version / "manifest.json").read_text())
    for changed, said in (({"format": 2}, "format 2"), ({"migration": 99}, "a newer Hathi wrote it")):
        (version / "manifest.json").write_text(json.dumps({**manifest, **changed}))
        assert elsewhere(tmp_path / said.replace(" ", "-"), None, "").hathi("restore", str(folder)) != 0
        assert said in capsys.readouterr().err
    assert elsewhere(tmp_path / "none", None, "").hathi("restore", str(tmp_path / "empty")) != 0
    assert "there is no backup" in capsys.readouterr().err


class Stops(Exception):
    """The process is gone at this instant."""


def test_a_restore_that_is_killed_between_any_two_steps_is_done_again(
    stand: Stand, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Killed after each object and before each table: no row is seen before all are there, and the next one ends it."""
    a_whole_tenant(stand)
    backups = LocalStore(tmp_path / "backups", fsync=False)
    asyncio.run(back_up(stand.site.url, stand.store, backups, Clock(), copy=True, told=lambda done, to_do: None))
    there = elsewhere(tmp_path, other_kind(request, stand), f"killed-{stand.folder.name}")
    manifest = manifest_of(backups, versions(backups)[0])
    tables = copying.tables_until(manifest.migration)
    for killed in (tables[0], tables[len(tables) // 2], tables[-1]):

        def rows(table: str, killed: str = killed) -> Iterator[Row]:
            if table == killed:
                raise Stops
            return lines_of(backups, manifest, f"{table}.jsonl.gz")

        with pytest.raises(Stops):
            asyncio.run(copying.load(there.setting, manifest.migration, rows))
        assert asyncio.run(copying.is_empty(there.setting))
    assert there.hathi("restore", str(tmp_path / "backups")) == 0
    assert there.hathi("check", "--hashes") == 0
