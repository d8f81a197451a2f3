"""A whole service for crash tests: PostgreSQL with fsync, S3 behind a proxy, API servers, workers, and a client that
asks again until it has an answer.  All of them are processes, and may be killed.

The database notes each change of state or epoch of work (table `storm`), whoever made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from pipeline.clock import Clock
from pipeline.service import queue, tenants
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import PLATFORM, Actor, Role
from pipeline.service.work.worker import names_of
from tests.servers import postgres, s3
from tests.servers import tiny_training as tiny
from tests.servers.databases import Site, sites
from tests.servers.demand import Server, accepts, free_port, until
from tests.servers.proxy import Proxy

ROOT = Path(__file__).parents[2]
NOTED = """
create table storm (n bigserial, at double precision, work text, was text, now text, was_epoch int, now_epoch int,
                    was_worker text, now_worker text, was_lease double precision, behind int, reached int);
create function storm_note() returns trigger language plpgsql security definer set search_path = public as $$ begin
    if (old.state, old.epoch) is distinct from (new.state, new.epoch) then
        insert into storm (at, work, was, now, was_epoch, now_epoch, was_worker, now_worker, was_lease, behind, reached)
        select instant(), new.id, old.state, new.state, old.epoch, new.epoch, old.worker_id,
               new.worker_id, old.lease_until,
               (select count(*) from work w where w.state = 'running' and w.slot = new.slot and w.id <> new.id
                and w.lease_until < instant() - 1.0),
               (select coalesce(max(iteration), 0) from snapshots s where s.work_id = new.id);
    end if;
    return new; end $$;
create trigger storm_note after update on work for each row execute function storm_note();
create table strays (what text, work text, epoch int);
create function storm_stray() returns trigger language plpgsql security definer set search_path = public as $$ begin
    if not exists (select from work where id = new.work_id and epoch = new.epoch and state = 'running') then
        insert into strays values (tg_table_name, new.work_id, new.epoch);
    end if;
    return new; end $$;
create trigger storm_stray after insert on chunks for each row execute function storm_stray();
create trigger storm_stray after insert on snapshots for each row execute function storm_stray();
"""


@dataclass
class Worker:
    """A worker process.  name: as the queue knows it, without its slots."""

    name: str
    server: Server


@dataclass
class Whole:
    """All of it.  postgres_line, s3_line: the proxies between the service and its servers."""

    folder: Path
    bucket: s3.S3Server
    postgres_line: Proxy
    s3_line: Proxy
    database: postgres.Postgres
    site: Site
    engine: str = "small"
    servers: list[Server] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    database_server: Server | None = None
    token: str = ""
    tenant: str = ""
    told: dict[str, str] = field(default_factory=dict)
    """By Idempotency-Key, the job that a client was told of."""

    @property
    def computed(self) -> Path:
        return self.folder / "tmp/computed"

    def configuration(self) -> Path:
        path = self.folder / "etc/service.toml"
        if not path.exists():
            path.parent.mkdir()
            url = self.database.url(self.site.url.rpartition("/")[2])
            url = url.replace(f":{self.database.port}/", f":{self.postgres_line.port}/")
            path.write_text(
                f'state = "{self.folder}/state"\nlogs.folder = "{self.folder}/logs"\n[bucket]\nurl = "s3://shared"\n'
                f'endpoint = "http://127.0.0.1:{self.s3_line.port}"\nregion = "us-east-1"\n'
                f'access_key = "{self.bucket.access_key}"\nsecret_key = "{self.bucket.secret_key}"\nretry_seconds = 5\n'
                f'[service]\ndatabase = "{url}"\n'
            )
        return path

    def environ(self, **more: str) -> dict[str, str]:
        (self.folder / "tmp").mkdir(exist_ok=True)
        return {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1", **more}  # fmt: skip

    def serve(self, at: int) -> None:
        """Begins an API server, or begins it anew, at its address."""
        while len(self.urls) <= at:
            self.urls.append(f"http://127.0.0.1:{free_port()}")
        command: list[str | Path] = [
            sys.executable, "-m", "pipeline.cli.main", "service", "serve", "--config", self.configuration(),
        ]  # fmt: skip
        environ = self.environ(HATHI_SERVICE__LISTEN=self.urls[at].removeprefix("http://"))
        server = Server.start(command, log=self.folder / f"api-{at}.log", env=environ)
        self.servers[at : at + 1] = [server]

    def begin(self, freeze: str = "") -> Worker:
        """Begins a worker."""
        name = new_id(Kind.WORKER, time.time())
        command: list[str | Path] = [
            sys.executable, "-m", "tests.crash.service_worker", self.configuration(), name, self.engine, freeze,
        ]  # fmt: skip
        server = Server.start(command, log=self.folder / f"worker-{name}.log", env=self.environ())
        self.workers.append(Worker(name, server))
        return self.workers[-1]

    def end(self, worker: Worker, *, seen: bool) -> None:
        """kill -9.  seen: its parent lives and says so, as that of a local pool does."""
        self.workers.remove(worker)
        worker.server.thaw()
        worker.server.kill()
        if seen:
            self.orphaned(worker)

    def tend(self) -> None:
        """Begins anew what ended by itself, as a service manager does: whoever finds no database at its start ends."""
        for at, server in enumerate(self.servers):
            if not server.runs:
                self.ended[_last_line(server)] += 1
                self.serve(at)
        for worker in [one for one in self.workers if not one.server.runs]:
            self.ended[_last_line(worker.server)] += 1
            self.workers.remove(worker)
            self.begin()

    def orphaned(self, worker: Worker) -> None:
        async def said() -> None:
            database = self.site.open()
            for name in names_of(worker.name).values():
                await queue.orphan(database, name)

        self.site.run(said())

    def restart_database(self) -> None:
        """After a kill -9 of PostgreSQL: as soon as its last process has let go of the folder."""

        def begun() -> bool:
            try:
                self.database_server, _ = postgres.start(self.database.folder, fsync=True, port=self.database.port)
            except RuntimeError:  # its orphans still hold the shared memory
                return False
            return True

        until(begun, "PostgreSQL is there again")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return asyncio.run(self.site.bare(sql))

    # --- the client ---

    def ask(self, method: str, path: str, body: Any = None, key: str = "", seconds: float = 900.0) -> Any:
        """The answer of any API server, asked again after any error that may pass."""
        ends, turn = time.monotonic() + seconds, 0
        headers = {"Authorization": f"Bearer {self.token}", **({"Idempotency-Key": key} if key else {})}
        given = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        while True:
            turn += 1
            try:
                url = self.urls[turn % len(self.urls)]
                answer = requests.request(method, url + path, headers=headers, timeout=90, **given)  # type: ignore[arg-type]
            except OSError as error:
                said = str(error)
            else:
                if answer.ok:
                    return answer.json() if answer.content else None
                said = f"{answer.status_code} {answer.text}"
                if answer.status_code not in (409, 429, 500, 503):
                    raise AssertionError(f"{method} {path}: {said}")
                if answer.status_code == 500:
                    self.mistakes.append(f"{method} {path}: {said}")
            if time.monotonic() > ends:
                raise TimeoutError(f"{method} {path}: {said}")
            time.sleep(0.2)

    def once(self, method: str, path: str) -> requests.Response:
        """The first answer of one server."""
        return requests.request(
            method, self.urls[0] + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=90
        )  # fmt: skip

    ended: Counter[str] = field(default_factory=Counter)
    """The last words of those that `tend` began anew."""
    mistakes: list[str] = field(default_factory=list)
    """Answers 500, of which none is right, and what ended a client."""

    def solver(self, iterations: int, snapshot: int) -> str:
        body = {"name": "tiny", "solver": tiny.solver(iterations, snapshot), "net": tiny.NET}
        return str(self.ask("POST", "/v1/solvers", body)["id"])

    def datafile(self, content: bytes) -> str:
        made = self.ask("POST", "/v1/datafiles", {"name": "data", "size": len(content)})
        self.ask("PUT", f"/v1/datafiles/{made['id']}/content", content)
        return str(made["id"])

    def job(self, key: str, solver: str, inputs: dict[str, str], seed: int, name: str = "job") -> str:
        body = {"name": name, "solver_id": solver, "inputs": inputs, "seed": seed}
        self.told[key] = str(self.ask("POST", "/v1/training-jobs", body, key)["id"])
        return self.told[key]

    # --- what is left ---

    def objects(self) -> set[str]:
        """Keys of all objects of trainings in the bucket."""
        top = self.bucket.place("shared")
        return {str(path.relative_to(top)) for path in (top / "s").rglob("*") if path.is_file() and "/j/" in str(path)}

    def named(self) -> set[str]:
        """Keys that rows name."""
        keys = {row["key"] for row in self.rows("select key from chunks")}
        for row in self.rows("select files from snapshots"):
            keys.update(one["key"] for one in json.loads(row["files"]))
        return keys

    def weights(self, job: str) -> str:
        """The SHA-256 of the last weights, of what is really in the bucket."""
        rows = self.rows(f"select files from snapshots where work_id = '{job}' order by iteration desc limit 1")
        (file,) = [one for one in json.loads(rows[0]["files"]) if one["name"] == "net.caffemodel"]
        content = self.bucket.place("shared", file["key"]).read_bytes()
        assert len(content) == file["size"]
        return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def whole(folder: Path, *, servers: int = 2, engine: str = "small") -> Iterator[Whole]:
    """All but workers."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres.running(fsync=True))
        bucket = stack.enter_context(s3.running())
        (site,) = sites("postgres", folder, database)
        site.run(_noted(site))
        lines = [Proxy(port) for port in (database.port, bucket.port)]
        for line in lines:
            stack.callback(line.close)
        made = Whole(folder, bucket, lines[0], lines[1], database, site, engine)
        stack.callback(_ended, made)
        site.run(_person(made))
        for at in range(servers):
            made.serve(at)
        for one in made.urls:
            until(lambda one=one: accepts(int(one.rpartition(":")[2])), "an API server answers", 120)  # type: ignore[misc]
        yield made


def _last_line(server: Server) -> str:
    lines = server.last_words().strip().splitlines()
    return f"exit code {server.process.returncode}: {lines[-1] if lines else ''}"


async def _noted(site: Site) -> None:
    import asyncpg

    held = await asyncpg.connect(site.bare_url)
    try:
        await held.execute(NOTED)
    finally:
        await held.close()


async def _person(made: Whole) -> None:
    database = made.site.open()
    async with database.transaction(PLATFORM) as statements:
        await tenants.add_tenant(statements, "ayes", Clock(), running=100)
    user, made.tenant = await tenants.join(database, "ayes", "ann", Role.ADMIN, Clock())
    made.token = await tenants.grant(database, Actor(made.tenant, user, "", Role.ADMIN, False), "storm", Clock())


def _ended(made: Whole) -> None:
    everybody: Sequence[Server | None] = [*(one.server for one in made.workers), *made.servers, made.database_server]
    for server in everybody:
        if server is not None and server.runs:
            server.thaw()
            server.kill()
