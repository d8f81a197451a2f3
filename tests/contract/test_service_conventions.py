"""How the API speaks: problems, ETags, Idempotency-Keys, cursors, uploads that go on, events; on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from pipeline.service import blobs, queue
from pipeline.service.database.statements import Statements
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.queue import Chunk
from pipeline.service.words import Claimed, Ending, Slot, State
from tests.servers.databases import KINDS, empty
from tests.servers.demand import until
from tests.servers.service import NET, SOLVER, Person, Stand, stood


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from stood(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def stand(shared: Stand) -> Stand:
    empty(shared.site)
    return shared


@pytest.fixture
def ann(stand: Stand) -> Person:
    return stand.person("ayes", "ann")


def claimed(stand: Stand) -> Claimed:
    async def look() -> Claimed:
        database = stand.site.open()
        worker = new_id(Kind.WORKER, time.time())
        await queue.enlist(database, worker, "here", Slot.TRAIN)
        held = await queue.claim(database, worker)
        assert held is not None
        return held

    return stand.site.run(look())


def test_a_lost_answer_makes_nothing_twice(stand: Stand, ann: Person) -> None:
    body = {"name": "s", "size": 5}
    first = ann.ask("POST", "/v1/datafiles", body, Idempotency_Key="k1")
    again = ann.ask("POST", "/v1/datafiles", body, Idempotency_Key="k1")
    assert (first.status_code, first.content, first.headers["Location"]) == (
        201,
        again.content,
        again.headers["Location"],
    )
    other = ann.ask("POST", "/v1/datafiles", {**body, "name": "t"}, Idempotency_Key="k1")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency")
    ben = stand.person("bees", "ben")
    assert ben.ask("POST", "/v1/datafiles", body, Idempotency_Key="k1").json()["id"] != first.json()["id"]
    refused = {**body, "size": 0}
    assert ann.ask("POST", "/v1/datafiles", refused, Idempotency_Key="k2").status_code == 422
    assert ann.ask("POST", "/v1/datafiles", body, Idempotency_Key="k2").status_code == 201, "a refusal keeps no key"
    assert len(ann.got("GET", "/v1/datafiles")["items"]) == 2


def test_a_key_given_by_eight_at_once_makes_one_thing(stand: Stand, ann: Person) -> None:
    body = {"name": "s", "size": 5}

    def post(_: int) -> str:
        who = Person(ann.url, ann.token)
        return str(who.got("POST", "/v1/datafiles", body, Idempotency_Key="once")["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(post, range(8)))) == 1
    assert len(ann.got("GET", "/v1/datafiles")["items"]) == 1


def test_a_key_given_twice_at_once_is_told_the_same_although_the_first_took_the_last_place(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked for the key before the first was there, and at the limits after it."""
    from pipeline.service.http import training_jobs

    ann = stand.person("ayes", "ann", platform=True)
    where = f"/v1/tenants/{ann.tenant}"
    version = ann.ask("GET", where).headers["ETag"]
    assert ann.ask("PATCH", where, {"quotas": {"queued": 1}}, If_Match=version).ok
    body = {"name": "j", "solver_id": ann.solver(), "inputs": {"train": ann.datafile(b"x")}}
    real, turns = training_jobs.within, itertools.count()

    async def within(statements: Statements) -> None:
        await asyncio.sleep(0.3 * next(turns))
        await real(statements)

    monkeypatch.setattr(training_jobs, "within", within)

    def post(_: int) -> str:
        return str(Person(ann.url, ann.token).got("POST", "/v1/training-jobs", body, Idempotency_Key="once")["id"])

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(post, range(2)))) == 1


def test_a_solver_is_judged_when_it_is_posted_and_every_problem_has_its_place(stand: Stand, ann: Person) -> None:
    body = {"name": "s", "solver": SOLVER, "net": NET}
    first = ann.ask("POST", "/v1/solvers", body, Idempotency_Key="k")
    made = first.json()
    assert (made["inputs"], made["price"]) == (["train"], None)
    assert made["warnings"] == ["random_seed of the solver is left out: the job has a seed of its own"]
    assert ann.ask("POST", "/v1/solvers", body, Idempotency_Key="k").json() == made
    assert ann.got("GET", f"/v1/solvers/{made['id']}") == made
    wrong = {**body, "solver": "base_lr: 0.1\nmax_iterr: 3", "net": NET.replace('"train"', '"/etc/passwd"')}
    refused = ann.ask("POST", "/v1/solvers", wrong, Idempotency_Key="other")
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/specification")
    places = {one["pointer"]: (one.get("line"), one.get("column")) for one in refused.json()["errors"]}
    assert places == {"#/solver": ("2", "1"), "#/net/layer/0": (None, None)}
    assert "'/etc/passwd', is no name of an input" in refused.text
    assert len(ann.got("GET", "/v1/solvers")["items"]) == 1
    job = {"name": "j", "solver_id": made["id"], "inputs": {"trian": ann.datafile(b"x")}}
    missing = ann.ask("POST", "/v1/training-jobs", job).json()["errors"][0]
    assert (missing["pointer"], "there is no train" in missing["detail"]) == ("#/inputs", True)
    assert ann.ask("DELETE", f"/v1/solvers/{made['id']}", If_Match="*").status_code == 204
    assert ann.ask("GET", f"/v1/solvers/{made['id']}").status_code == 404


def test_two_tabs_do_not_overwrite_each_other(stand: Stand, ann: Person) -> None:
    where = f"/v1/training-jobs/{ann.job()}"
    tag = ann.ask("GET", where).headers["ETag"]
    assert ann.ask("GET", where, If_None_Match=tag).status_code == 304
    assert ann.ask("PATCH", where, {"priority": 5}).status_code == 428
    changed = ann.ask("PATCH", where, {"priority": 5}, If_Match=tag)
    assert changed.json()["priority"] == 5
    stale = ann.ask("PATCH", where, {"priority": 7}, If_Match=tag)
    assert (stale.status_code, stale.json()["title"]) == (412, "It has changed since it was read")
    assert ann.ask("GET", where, If_None_Match=tag).headers["ETag"] == changed.headers["ETag"]
    assert ann.ask("DELETE", where, If_Match=changed.headers["ETag"]).status_code == 409, "it is not over"
    assert ann.ask("POST", f"{where}/cancel").status_code == 202
    assert ann.ask("POST", f"{where}/cancel").status_code == 409
    assert ann.ask("DELETE", where, If_Match="*").status_code == 204
    assert ann.ask("GET", where).status_code == 404


def test_a_list_is_whole_while_things_come_and_go(stand: Stand, ann: Person) -> None:
    made = [ann.datafile(b"x", f"d{n}") for n in range(25)]
    seen, following = [], "/v1/datafiles?limit=10"
    while following:
        answer = ann.ask("GET", following)
        seen += [one["id"] for one in answer.json()["items"]]
        ann.datafile(b"x", "newer")
        following = answer.links["next"]["url"] if "next" in answer.links else ""
        assert bool(following) == (answer.json()["next"] is not None)
    assert seen == sorted(made, reverse=True)
    for cursor in ("x", "A" * 40, following or "e30"):
        assert ann.ask("GET", f"/v1/datafiles?cursor={cursor}").status_code == 422
    for limit in ("0", "201", "x"):
        assert ann.ask("GET", f"/v1/datafiles?limit={limit}").status_code == 422
    other = ann.ask("GET", "/v1/datafiles?limit=1").json()["next"]
    assert ann.ask("GET", f"/v1/solvers?limit=1&cursor={other}").status_code == 422, "of another list"


def half(content: bytes, sent: int, goes_on: threading.Event) -> Iterator[bytes]:
    """A body whose sender stops after so many bytes, and whose connection stands until it is told."""
    yield content[:sent]
    assert goes_on.wait(60)
    raise ConnectionError("cut")


@pytest.mark.parametrize("seen", ["while the first still holds it", "after the first has broken"])
def test_an_upload_goes_on_where_it_broke(stand: Stand, ann: Person, seen: str) -> None:
    """The second request has the upload from then on, whenever the server sees that the first is gone."""
    content = bytes(range(256)) * 80_000  # 20 MB: three pieces
    size = len(content)
    made = ann.got("POST", "/v1/datafiles", {"name": "big", "size": size})
    where = f"/v1/datafiles/{made['id']}"
    breaks, cut = threading.Event(), Person(ann.url, ann.token)
    headers = {"Authorization": f"Bearer {ann.token}"}

    def first() -> None:
        with pytest.raises(Exception, match="cut"):
            cut.session.put(f"{ann.url}{where}/content", data=half(content, 9_000_000, breaks), headers=headers)

    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(first)
        until(lambda: ann.got("GET", where)["received"] > 0, "a piece has come")
        got = ann.got("GET", where)["received"]
        assert got == blobs.PIECE, "the rest of what was sent is no piece yet"
        if seen == "after the first has broken":
            breaks.set()
            broken.result()
            until(lambda: ann.got("GET", where)["received"] == 9_000_000, "the rest is kept")
        job = {"name": "j", "solver_id": ann.solver(), "inputs": {"train": made["id"]}}
        assert ann.got("POST", "/v1/training-jobs", job)["state"] == "waiting", "it is not whole yet"
        odd = ann.ask("PUT", f"{where}/content", content[100:], Content_Range=f"bytes 100-{size - 1}/{size}")
        here = ann.got("GET", where)["received"]
        assert (odd.status_code, odd.json()["hint"]) == (416, f"Content-Range: bytes {here}-{size - 1}/{size}")
        ranged = f"bytes {got}-{size - 1}/{size}"  # as it was told, whatever has come since
        done = ann.got("PUT", f"{where}/content", content[got:], Content_Range=ranged)
        assert (done["received"], done["complete"]) == (size, True)
        breaks.set()
        broken.result()
    named = json.loads(stand.site.run(stand.site.bare("select chunks from @datafiles"))[0]["chunks"])
    assert b"".join(stand.store.get(one["key"]) for one in named) == content
    for ranged, body in ((f"bytes {size}-{size + 3}/{size}", b"more"), (f"bytes 0-{size - 1}/{size}", content)):
        again = ann.ask("PUT", f"{where}/content", body, Content_Range=ranged)
        assert (again.status_code, again.json()["hint"]) == (416, "nothing is missing")
    assert ann.got("GET", where) == done, "what is whole never changes"


def test_of_two_uploads_at_once_the_newest_has_it_and_bytes_are_never_mixed(stand: Stand, ann: Person) -> None:
    size = 2 * blobs.PIECE + 1000
    made = ann.got("POST", "/v1/datafiles", {"name": "big", "size": size})
    where, goes_on = f"/v1/datafiles/{made['id']}", threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"a" * (blobs.PIECE + 10)
        assert goes_on.wait(60)
        yield b"a" * (size - blobs.PIECE - 10)

    def first() -> int:
        other = Person(ann.url, ann.token)
        headers = {"Authorization": f"Bearer {ann.token}"}
        return other.session.put(f"{ann.url}{where}/content", data=slow(), headers=headers).status_code

    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(first)
        until(lambda: ann.got("GET", where)["received"] == blobs.PIECE, "a piece has come")
        assert ann.got("PUT", f"{where}/content", b"b" * size)["complete"], "from the beginning"
        goes_on.set()
        assert older.result() == 409
    named = json.loads(stand.site.run(stand.site.bare("select chunks from @datafiles"))[0]["chunks"])
    assert b"".join(stand.store.get(one["key"]) for one in named) == b"b" * size


def test_limits_are_named_with_what_is_used_and_allowed(stand: Stand) -> None:
    admin = stand.person("ayes", "ann", platform=True)
    tenant = admin.ask("GET", f"/v1/tenants/{admin.tenant}")
    quotas = {"queued": 1, "stored_bytes": 100}
    where = f"/v1/tenants/{admin.tenant}"
    assert admin.ask("PATCH", where, {"quotas": quotas}, If_Match=tenant.headers["ETag"]).ok
    refused = admin.ask("POST", "/v1/datafiles", {"name": "x", "size": 101})
    assert refused.status_code == 429
    assert refused.headers["Retry-After"]
    assert {"limit": "stored_bytes", "used": 0, "allowed": 100}.items() <= refused.json().items()
    admin.job()
    given = {"name": "j", "solver_id": admin.solver(), "inputs": {"train": admin.datafile(b"c")}}
    assert admin.ask("POST", "/v1/training-jobs", given).json()["limit"] == "queued"
    wrong = admin.ask("PATCH", where, {"quotas": {"nonsense": 1}}, If_Match="*")
    assert wrong.json()["errors"][0]["pointer"] == "#/quotas"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b'{"name": 3}', b"\xff\xfe", b"[" * 50_000])
def test_a_body_that_is_none_is_a_problem(stand: Stand, ann: Person, body: bytes) -> None:
    for path in ("/v1/solvers", "/v1/training-jobs", "/v1/datafiles", "/v1/tokens"):
        answer = ann.ask("POST", path, body, Content_Type="application/json")
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "instance"} <= set(answer.json())


def test_events_come_as_they_happen_and_go_on_by_their_id(stand: Stand, ann: Person) -> None:
    job = ann.job()
    held = claimed(stand)
    key = TenantKeys(ann.tenant).chunk(job, 1, "metrics", 1)
    rows = [{"step": step, "time": 1.0, "kind": "train", "values": {"train/loss": 5.0 - step}} for step in range(3)]
    stand.store.put(key, "".join(json.dumps(row) + "\n" for row in rows).encode())

    async def end() -> None:
        database = stand.site.open()
        assert await queue.ship(database, held, Chunk("metrics", 0, 2, 10, key))
        assert await queue.finish(database, held, Ending(State.SUCCEEDED, result={}))

    stand.site.run(end())
    text = ann.ask("GET", f"/v1/training-jobs/{job}/events").text
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert kinds == ["metrics", "job", "end"]
    last = [line.removeprefix("id: ") for line in text.splitlines() if line.startswith("id: ")][-1]
    again = ann.ask("GET", f"/v1/training-jobs/{job}/events", Last_Event_ID=last).text
    assert "event: metrics" not in again
    assert "event: end" in again
    shown = ann.got("GET", f"/v1/training-jobs/{job}/metrics")["metrics"]
    assert shown == {"train/loss": [[0, 1.0, 5.0], [1, 1.0, 4.0], [2, 1.0, 3.0]]}
    assert ann.ask("GET", f"/v1/training-jobs/{job}/events", Last_Event_ID="x").status_code == 422


def test_an_operator_brings_a_user_into_a_tenant_and_its_admin_does_not(stand: Stand, ann: Person) -> None:
    """Nobody's id says to another tenant that it is there, and nobody is made a member by whoever knows the id."""
    ben, oscar = stand.person("bees", "ben"), stand.person("bees", "oscar", platform=True)
    body = {"user_id": ben.user, "role": "viewer"}
    assert ann.ask("POST", "/v1/members", body).status_code == 405
    where = f"/v1/tenants/{ann.tenant}/members"
    assert ann.ask("POST", where, body).status_code == 403
    assert ben.ask("POST", where, {"user_id": ben.user}).status_code == 403, "nor makes anybody themselves one"
    assert oscar.got("POST", where, body)["role"] == "viewer"
    assert oscar.ask("POST", where, body).status_code == 409
    assert oscar.ask("POST", where, {"user_id": new_id(Kind.USER, 1.0)}).json()["errors"][0]["pointer"] == "#/user_id"
    missing = f"/v1/tenants/{new_id(Kind.TENANT, 1.0)}/members"
    assert oscar.ask("POST", missing, body).status_code == 404
    assert {one["user_id"] for one in ann.got("GET", "/v1/members")["items"]} == {ann.user, ben.user}
    assert ann.got("GET", "/v1/audit")["items"] != []


def test_a_connection_that_was_idle_is_still_there(stand: Stand) -> None:
    """uvicorn closes one after 5 s; a client that asks in that moment, a load balancer above all, gets no answer."""
    address = urlsplit(stand.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        opened = connection.sock
        time.sleep(6)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        assert connection.sock is opened, "the same one"


def test_a_removed_member_is_nobody_at_the_next_request(stand: Stand, ann: Person) -> None:
    ben = stand.person("ayes", "ben")
    assert ben.ask("GET", "/v1/me").ok
    assert ann.ask("DELETE", f"/v1/members/{ben.user}", If_Match="*").status_code == 204
    assert ben.ask("GET", "/v1/me").status_code == 401
    assert ann.ask("DELETE", f"/v1/members/{ann.user}", If_Match="*").status_code == 409
    token = ann.got("POST", "/v1/tokens", {"name": "t", "role": "viewer", "days": 1})
    other = Person(ann.url, token["token"])
    assert other.got("GET", "/v1/me")["role"] == "viewer"
    assert ann.ask("DELETE", f"/v1/tokens/{token['id']}").status_code == 204
    assert other.ask("GET", "/v1/me").status_code == 401
    actions = [one["action"] for one in ann.got("GET", "/v1/audit")["items"]]
    assert actions[:3] == ["token revoked", "token added", "member removed"]
    assert token["token"] not in json.dumps(ann.got("GET", "/v1/audit") | ann.got("GET", "/v1/tokens"))


def test_a_method_that_a_path_has_not_is_told_which_it_has(stand: Stand, ann: Person) -> None:
    for path, allowed in (("/v1/training-jobs", "GET, POST"), (f"/v1/training-jobs/{new_id(Kind.TRAINING_JOB, 1.0)}",
                          "DELETE, GET, PATCH"), ("/v1/session", "DELETE, POST")):  # fmt: skip
        answer = ann.ask("PUT", path, {})
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed), path


def test_a_whole_number_is_an_integer_however_it_is_written(stand: Stand, ann: Person) -> None:
    assert ann.got("POST", "/v1/datafiles", b'{"name": "a", "size": 3.0}', Content_Type="application/json")["size"] == 3
    for written in (b"3.5", b'"3"', b"true", b"1e999", b"NaN"):
        body = b'{"name": "a", "size": ' + written + b"}"
        assert ann.ask("POST", "/v1/datafiles", body, Content_Type="application/json").status_code == 422, written
