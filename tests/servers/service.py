"""An API server of the service over a test's database, by real sockets, in a thread of the tests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests

from pipeline.clock import Clock
from pipeline.fetch.fetcher import Fetcher
from pipeline.service import blobs, queue, tenants
from pipeline.service.database.statements import Database
from pipeline.service.fetching import Accept, fetcher_for, file_fetcher_for
from pipeline.service.http import judged
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.overview import Overview
from pipeline.service.promotion import Promoter
from pipeline.service.queue import Chunk, Snapshot
from pipeline.service.scaling import NOBODY, Rules
from pipeline.service.serving.parent import Sizes
from pipeline.service.specification.judging import judge
from pipeline.service.specification.words import Asked, Judged
from pipeline.service.words import PLATFORM, Actor, Ending, Role, Slot, State
from pipeline.service.work.preparing import EVALUATION, SERVING
from pipeline.settings import Fetch
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Store
from tests.servers.databases import Site, sites_of
from tests.servers.demand import until

SOLVER = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 20 display: 5 snapshot: 10 random_seed: 1'
NET = """layer { name: "data" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param { source: "train" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SERVED = {
    "format": 1, "net": "", "input": "data", "shape": [3, 4, 4], "blob": "prob", "classes": 2, "probabilities": True,
    "pictures": {"channels": 3, "size": [4, 4], "crop": 0, "scale": 1.0, "mean": None},
}  # fmt: skip
"""How the net of a job that nobody trained serves, as its child would have told."""
WEIGHTS = "net.caffemodel"
HOLD_SECONDS = 1e6
"""So long what a test left as a worker leaves it is nobody else's, however slow the machine is."""


def evaluation(mark: str) -> dict[str, Any]:
    """What a test of two examples says, of which one is taken for the other's label."""
    mistake = {"name": mark, "label": 1, "of_label": 0.1, "likeliest": [{"label": 0, "score": 0.9}], "picture": ""}
    scores = [{"label": 0, "examples": 1, "recall": 1.0, "precision": 0.5},
              {"label": 1, "examples": 1, "recall": 0.0, "precision": None}]  # fmt: skip
    return {"name": "test", "iteration": 10, "examples": 2, "right": 1, "classes": 2, "left_out": 0,
            "probabilities": True, "shown": [0, 1], "matrix": [[1, 0], [1, 0]],
            "pairs": [{"label": 1, "predicted": 0, "examples": 1}], "scores": scores, "mistakes": [mistake],
            "why": ""}  # fmt: skip


@dataclass
class Person:
    """A member of a tenant who talks to the API."""

    url: str
    token: str = ""
    tenant: str = ""
    user: str = ""
    session: requests.Session = field(default_factory=requests.Session)
    usual: str = ""
    """The solver of jobs that name none."""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """headers: with underscores where they have dashes."""
        found = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            found.setdefault("Authorization", f"Bearer {self.token}")
        given = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        return self.session.request(
            method, self.url + path, headers=found, timeout=120, stream=path.endswith("/events"), **given
        )

    def got(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What a good answer says.  Raises AssertionError for another one."""
        answer = self.ask(method, path, body, **headers)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def datafile(self, content: bytes, name: str = "data") -> str:
        made = self.got("POST", "/v1/datafiles", {"name": name, "size": len(content)})
        self.got("PUT", f"/v1/datafiles/{made['id']}/content", content)
        return str(made["id"])

    def solver(self, solver: str = SOLVER, net: str = NET, name: str = "solver") -> str:
        return str(self.got("POST", "/v1/solvers", {"name": name, "solver": solver, "net": net})["id"])

    def job(self, name: str = "job", **more: Any) -> str:
        """Of the usual solver, and a datafile of its own."""
        if "solver_id" not in more:
            self.usual = self.usual or self.solver()
        given = {"solver_id": self.usual, "name": name, **more}
        given.setdefault("inputs", {"train": self.datafile(b"content")})
        return str(self.got("POST", "/v1/training-jobs", given)["id"])


@dataclass
class Stand:
    """A server, and how to make people.  said: what it told its operator."""

    url: str
    site: Site
    store: Store
    said: list[str]
    folder: Path

    def person(self, tenant: str, user: str, role: Role = Role.ADMIN, *, platform: bool = False) -> Person:
        """A member of a tenant, both made where they are missing."""

        async def made(database: Database) -> Person:
            async with database.transaction(PLATFORM) as statements:
                if await statements.row("select id from tenants where name = $1", tenant) is None:
                    await tenants.add_tenant(statements, tenant, Clock(), running=10)
            user_id, tenant_id = await tenants.join(database, tenant, user, role, Clock())
            actor = Actor(tenant_id, user_id, "", role, platform)
            token = await tenants.grant(database, actor, f"of {user}", Clock())
            return Person(self.url, token, tenant_id, user_id)

        return self.site.run(made(self.site.open()))

    def trained(
        self, who: Person, job: str, mark: str = "", given: Mapping[str, bytes] | None = None, *, over: bool = False
    ) -> None:
        """What a worker leaves of a job that is the next in the queue: metrics, a log, a snapshot at iteration 10.

        given: the snapshot's files, where somebody wants them to serve.  over: the job has succeeded; else it runs.
        """

        async def left(database: Database) -> None:
            worker = new_id(Kind.WORKER, time.time())
            await queue.enlist(database, worker, "here", Slot.TRAIN)
            held = await queue.claim(database, worker, HOLD_SECONDS)
            assert held is not None
            assert held.id == job
            keys = TenantKeys(who.tenant)
            rows = [{"step": 5, "time": 1.0, "kind": "train", "values": {f"train/{mark}": 2.5}},
                    {"step": 10, "time": 2.0, "kind": "test", "values": {f"test/{mark}": 0.5}}]  # fmt: skip
            for kind, text in (("metrics", "\n".join(map(json.dumps, rows))), ("log", f"{mark} in the log")):
                key = keys.chunk(job, 1, kind, 1)
                self.store.put(key, text.encode() + b"\n")
                assert await queue.ship(database, held, Chunk(kind, 5, 10, len(text) + 1, key))
            files = []
            usual = {WEIGHTS: f"{mark} weights".encode(), SERVING: json.dumps(SERVED).encode()}
            for name, content in (given or usual).items():
                key = keys.snapshot(job, 1, 10, name)
                self.store.put(key, content)
                files.append({"name": name, **blobs.described(key, content)})
            assert await queue.keep(database, held, Snapshot(10, files))
            judged_so = json.dumps({"format": 1, "tests": [evaluation(mark)]}).encode()
            key = keys.snapshot(job, 1, 10, EVALUATION)
            self.store.put(key, judged_so)
            told = {"name": EVALUATION, **blobs.described(key, judged_so)}
            result = {"iteration": 10, "files": [one["name"] for one in files], "evaluation": told}
            if over:
                assert await queue.finish(database, held, Ending(State.SUCCEEDED, result=result))
                return
            await self.site.bare(f"update @work set result = '{json.dumps(result)}' where id = '{job}'")
            # nobody beats for it, and the next one that claims would get it on a slow machine
            await self.site.bare(f"update @work set lease_until = lease_until + 86400 where id = '{job}'")

        self.site.run(left(self.site.open()))

    def dataset(self, who: Person, datafile: str, mark: str) -> str:
        """One whose archive nobody read: what a worker leaves of it."""
        name = str(who.got("POST", "/v1/datasets", {"name": mark, "datafile_id": datafile})["id"])

        async def left(database: Database) -> None:
            worker = new_id(Kind.WORKER, time.time())
            await queue.enlist(database, worker, "here", Slot.LIGHT)
            held = await queue.claim(database, worker, HOLD_SECONDS)
            assert held is not None
            assert held.id == name
            rejected = json.dumps({"number": 1, "name": mark, "reason": "not_image", "detail": mark})
            files = []
            for file, text in ((WEIGHTS, mark), ("rejected.jsonl", rejected)):
                key = TenantKeys(who.tenant).snapshot(name, 1, 1, file)
                self.store.put(key, text.encode())
                files.append({"name": file, **blobs.described(key, text.encode())})
            assert await queue.keep(database, held, Snapshot(1, files))
            sides = {side: {"examples": 1, "labels": {mark: 1}} for side in ("train", "test")}
            data = {"labels": 1, "channels": 3, "height": 8, "width": 8, "sides": {"train": 1, "test": 1}}
            result = {"entries": 3, "examples": 2, "duplicates": 0, "rejected": {"not_image": 1}, "labels": {mark: 2},
                      "classes": [mark], "sides": sides, "warnings": [mark], "digest": "0", "data": data}  # fmt: skip
            assert await queue.finish(database, held, Ending(State.SUCCEEDED, result=result))

        self.site.run(left(self.site.open()))
        return name

    def nobody(self) -> Person:
        return Person(self.url)


@contextlib.contextmanager
def _judged_once() -> Iterator[None]:
    """The same specification is judged by one child for all tests of a server."""
    known: dict[str, Judged] = {}

    def remembered(asked: Asked) -> Judged:
        if repr(asked) not in known:
            known[repr(asked)] = judge(asked)
        return known[repr(asked)]

    with mock.patch.object(judged, "judge", remembered):
        yield


@contextlib.contextmanager
def standing(
    site: Site,
    folder: Path,
    sizes: Sizes | None = None,
    fetcher: Callable[[], Fetcher] | None = None,
    files: Callable[[Accept, int], Fetcher] | None = None,
    rules: Rules = NOBODY,
    promoter: Promoter | None = None,
    overview: Overview | None = None,
) -> Iterator[Stand]:
    """A server that ends with the block.  fetcher, files: of URLs; by default they reach public addresses alone.

    promoter: of models; overview: of the pipeline.
    """
    from pipeline.service.http.server import Server, bound, serve

    fetcher, sizes = fetcher or fetcher_for(Fetch()), sizes or Sizes()
    files = files or file_fetcher_for(Fetch())
    store, said, ready, ending = LocalStore(folder / "bucket", fsync=False), [], [], threading.Event()
    failed: list[BaseException] = []
    server = Server(
        site.url, store, Clock(), said.append, ending.is_set, ready.append, folder / "state", fetcher, files,
        sizes, rules=rules, promoter=promoter, overview=overview,
    )  # fmt: skip

    def run() -> None:
        try:
            serve(server, bound("127.0.0.1:0"))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="api", daemon=True)
    thread.start()
    until(lambda: bool(ready or failed), "the API answers")
    assert not failed, failed
    try:
        with _judged_once():
            yield Stand(ready[0], site, store, said, folder)
    finally:
        ending.set()
        thread.join(30)
        assert not thread.is_alive()


def stood(request: pytest.FixtureRequest, folder: Path) -> Iterator[Stand]:
    """A server over the database whose kind is the parameter of a fixture; its operator is told nothing."""
    for site in sites_of(request, folder):
        with standing(site, folder) as stand:
            yield stand
            assert stand.said == [], "nothing that an operator has to know of"
