"""Work that waits for other work or for an upload, over both databases: ready, hopeless, and no wake-up lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.service import dependencies, pruning, queue
from pipeline.service.backlog import Took, read
from pipeline.service.database.statements import Database, Statements
from pipeline.service.ids import Kind, new_id
from pipeline.service.queue import Submission
from pipeline.service.words import WORKER, Claimed, Ending, Reason, Slot, State, scope
from tests.servers.databases import KINDS, Site, a_tenant, empty
from tests.servers.service import Person, Stand, stood

DONE = Ending(State.SUCCEEDED, result={"model": "m"})
BAD = Ending(State.FAILED, Reason.BAD_ARCHIVE)


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from stood(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def stand(shared: Stand) -> Stand:
    empty(shared.site)
    return shared


def announced(ann: Person, content: bytes = b"content") -> str:
    return str(ann.got("POST", "/v1/datafiles", {"name": "later.zip", "size": len(content)})["id"])


def state(ann: Person, where: str) -> tuple[str, str | None]:
    said = ann.got("GET", where)
    return said["state"], said["reason"]


def dataset(ann: Person, datafile: str, **more: Any) -> str:
    return str(ann.got("POST", "/v1/datasets", {"name": "spots", "datafile_id": datafile, **more})["id"])


def ends(stand: Stand, name: str, ending: Ending) -> None:
    """A worker has the work, which is the only one that is queued, and ends it so."""

    async def does(database: Database) -> None:
        worker = new_id(Kind.WORKER, time.time())
        await queue.enlist(database, worker, "here", Slot.LIGHT)
        held = await queue.claim(database, worker)
        assert held is not None
        assert held.id == name
        await queue.finish(database, held, ending)

    stand.site.run(does(stand.site.open()))


def test_what_names_an_upload_waits_for_it_and_is_queued_when_it_is_whole(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    later = announced(ann)
    first, job = dataset(ann, later), ann.job(inputs={"train": later})
    extended = dataset(ann, ann.datafile(b"more"), extends_id=first)
    shown = ann.got("GET", f"/v1/training-jobs/{job}")
    assert (shown["state"], shown["position"], shown["waits_for"]) == ("waiting", None, [later])
    assert ann.got("GET", f"/v1/datasets/{first}")["waits_for"] == [later]
    assert ann.got("GET", f"/v1/datasets/{extended}")["waits_for"] == [first]
    behind = ann.job("behind")
    assert ann.got("GET", f"/v1/training-jobs/{behind}")["position"] == 1, "what waits is before nobody"

    async def wanted(database: Database) -> dict[Slot, int]:
        loads = await read(database, Took())
        return {slot: sum(one.queued for one in load.queues) for slot, load in loads.items()}

    def waits() -> dict[Slot, int]:
        return stand.site.run(wanted(stand.site.open()))

    assert waits() == {Slot.TRAIN: 1, Slot.LIGHT: 0}, "no worker is wanted for what waits"
    ann.got("PUT", f"/v1/datafiles/{later}/content", b"content")
    assert state(ann, f"/v1/training-jobs/{job}") == ("queued", None)
    assert ann.got("GET", f"/v1/training-jobs/{job}")["position"] == 1, "it has the place of when it was asked for"
    assert (state(ann, f"/v1/datasets/{first}"), state(ann, f"/v1/datasets/{extended}")) == (
        ("queued", None), ("waiting", None),
    )  # fmt: skip
    assert waits() == {Slot.TRAIN: 2, Slot.LIGHT: 1}
    assert ann.got("GET", f"/v1/datasets/{first}")["waits_for"] == []
    ends(stand, first, DONE)
    assert state(ann, f"/v1/datasets/{extended}") == ("queued", None)


def test_a_classification_of_pictures_that_are_still_uploaded_waits_for_them(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    trained = ann.job()
    stand.trained(ann, trained, over=True)
    named = {"name": "c", "training_job_id": trained, "labels": ["a", "b"]}
    later, classifier = announced(ann), ann.got("POST", "/v1/classifiers", named)["id"]
    asked = {"name": "p", "classifier_id": classifier, "datafile_id": later}
    job = ann.got("POST", "/v1/classification-jobs", asked)["id"]
    shown = ann.got("GET", f"/v1/classification-jobs/{job}")
    assert (shown["state"], shown["waits_for"]) == ("waiting", [later])
    ann.got("PUT", f"/v1/datafiles/{later}/content", b"content")
    shown = ann.got("GET", f"/v1/classification-jobs/{job}")
    assert (shown["state"], shown["waits_for"]) == ("queued", [])


def test_what_waits_for_what_will_never_be_fails_and_so_does_what_waits_for_that(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    first = dataset(ann, ann.datafile(b"no archive"))
    second = dataset(ann, ann.datafile(b"more"), extends_id=first)
    third = dataset(ann, ann.datafile(b"and more"), extends_id=second)
    assert ann.ask("DELETE", f"/v1/datasets/{first}", If_Match="*").status_code == 409
    ends(stand, first, BAD)
    assert [state(ann, f"/v1/datasets/{one}") for one in (first, second, third)] == [
        ("failed", "bad_archive"), ("failed", "dependency_failed"), ("failed", "dependency_failed"),
    ]  # fmt: skip
    said = ann.got("GET", f"/v1/datasets/{third}")
    assert said["detail"] == f"{second}, which it waited for, is failed"
    assert said["finished_at"] is not None
    late = ann.ask("POST", "/v1/datasets", {"name": "n", "datafile_id": announced(ann), "extends_id": first})
    assert (late.status_code, late.json()["hint"]) == (409, "make another one")
    gone = [ann.ask("DELETE", f"/v1/datasets/{one}", If_Match="*").status_code for one in (third, second, first)]
    assert gone == [204, 204, 204]


def test_a_cancel_of_what_waits_is_immediate_and_an_upload_that_is_given_up_ends_what_waits(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    later = announced(ann)
    first, job, left = dataset(ann, later), ann.job(inputs={"train": later}), ann.job(inputs={"train": later})
    second = dataset(ann, ann.datafile(b"more"), extends_id=first)
    said = ann.ask("POST", f"/v1/training-jobs/{job}/cancel")
    assert (said.status_code, said.json()["state"], said.json()["finished_at"] is None) == (202, "cancelled", False)
    assert ann.ask("POST", f"/v1/datasets/{first}/cancel").json()["state"] == "cancelled"
    assert state(ann, f"/v1/datasets/{second}") == ("failed", "dependency_failed")
    assert ann.ask("DELETE", f"/v1/training-jobs/{job}", If_Match="*").status_code == 204

    async def prune() -> None:
        await stand.site.bare("update @datafiles set created_at = created_at - 8 * 86400")
        found = await pruning.prune(stand.site.url, stand.store, days=7.0, dry=False)
        assert "datafiles" not in found.rows, "what names it keeps the row"

    stand.site.run(prune())
    assert state(ann, f"/v1/training-jobs/{left}") == ("failed", "dependency_failed")
    assert later in ann.got("GET", f"/v1/training-jobs/{left}")["detail"]


class Two:
    """Two clients of one database, each with connections of its own."""

    def __init__(self, site: Site) -> None:
        self.site, self.one, self.other = site, site.open(), site.open()

    async def made(self) -> Two:
        self.tenant = await a_tenant(self.one, "t")
        self.realm = scope(self.tenant)
        self.worker = new_id(Kind.WORKER, time.time())
        await queue.enlist(self.one, self.worker, "here", Slot.LIGHT)
        return self

    def submission(self, needs: Sequence[str] = ()) -> Submission:
        return Submission(new_id(Kind.DATASET, time.time()), "import", Slot.LIGHT, {}, needs=needs)

    async def running(self) -> Claimed:
        """Work that the worker holds."""
        async with self.one.transaction(self.realm) as statements:
            await queue.submit(statements, self.realm, self.submission())
        held = await queue.claim(self.one, self.worker)
        assert held is not None
        return held

    async def submitted(self, database: Database, one: Submission) -> str:
        async with database.transaction(self.realm) as statements:
            await queue.submit(statements, self.realm, one)
        return one.id

    async def state(self, name: str) -> str:
        async with self.one.reading(WORKER) as statements:
            row = await statements.row("select state from work where id = $1", name)
        return str(row["state"]) if row is not None else "gone"


async def within(database: Database, realm: Any, does: Callable[[Statements], Awaitable[object]],
                 beside: Callable[[], Awaitable[object]], *, waits: bool = True) -> None:  # fmt: skip
    """does: in a transaction, and before it ends `beside` begins.  waits: whether that has to wait for its end."""
    async with database.transaction(realm) as statements:
        await does(statements)
        other = asyncio.ensure_future(beside())
        await asyncio.wait([other], timeout=0.3 if waits else None)
        assert other.done() != waits
    await other


def test_what_it_waits_for_ends_between_the_look_and_the_row_and_no_wake_up_is_lost(stand: Stand) -> None:
    async def look() -> None:
        two = await Two(stand.site).made()
        held = await two.running()
        one = two.submission([held.id])
        await within(
            two.one, two.realm, lambda statements: queue.submit(statements, two.realm, one),
            lambda: queue.finish(two.other, held, DONE),
        )  # fmt: skip
        assert await two.state(one.id) == "queued", "the end waited for the row, and saw it"

        held = await two.running()
        late = two.submission([held.id])
        await within(
            two.one, WORKER, lambda statements: queue._after(statements, held, f"state = 'failed', {queue._OVER}"),
            lambda: two.submitted(two.other, late),
        )  # fmt: skip
        assert await two.state(late.id) == "failed", "the row waited for the end, and saw it"

    stand.site.run(look())


def test_the_last_two_that_it_waits_for_end_at_the_same_time(stand: Stand) -> None:
    """Each of the two sees the other one's end, or is seen by it."""

    async def look() -> None:
        two = await Two(stand.site).made()
        first, second = await two.running(), await two.running()
        one = await two.submitted(two.one, two.submission([first.id, second.id]))
        await within(
            two.one, WORKER, lambda statements: queue._after(statements, first, f"state = 'succeeded', {queue._OVER}"),
            lambda: queue.finish(two.other, second, DONE),
        )  # fmt: skip
        assert await two.state(one) == "queued"

    stand.site.run(look())


@pytest.mark.parametrize("shared", ["postgres"], indirect=True)
@pytest.mark.parametrize("mistake", ["a look that holds nothing", "what waits is not held before it is judged"])
def test_a_planted_mistake_loses_a_wake_up(stand: Stand, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has one transaction at a time: there nothing comes between."""

    class Looking:
        """Statements that hold no row which they do not change."""

        def __init__(self, statements: Statements) -> None:
            self._statements = statements
            self.rows = statements.rows

        async def row(self, sql: str, *values: object) -> Any:
            if "set version = version where" in sql:
                table, more = sql.split()[1], sql.partition(" where ")[2].replace(" returning ", "|", 1)
                where, _, told = more.partition("|")
                sql = f"select {told or 'id'} from {table} where {where.strip()}"
            return await self._statements.row(sql, *values)

    name = "held" if mistake == "a look that holds nothing" else "judge"
    real = getattr(dependencies, name)
    monkeypatch.setattr(dependencies, name, lambda statements, *words: real(Looking(statements), *words))

    async def look() -> None:
        two = await Two(stand.site).made()
        first = await two.running()
        if name == "held":
            one = two.submission([first.id])
            does = lambda statements: queue.submit(statements, two.realm, one)  # noqa: E731
            await within(two.one, two.realm, does, lambda: queue.finish(two.other, first, DONE), waits=False)
        else:
            second = await two.running()
            one = two.submission([first.id, second.id])
            await two.submitted(two.one, one)
            over = f"state = 'succeeded', {queue._OVER}"
            does = lambda statements: queue._after(statements, first, over)  # noqa: E731
            await within(two.one, WORKER, does, lambda: queue.finish(two.other, second, DONE), waits=False)
        assert await two.state(one.id) == "waiting", "all that it waited for is over"
        monkeypatch.undo()
        await queue.enlist(two.one, new_id(Kind.WORKER, time.time()), "here", Slot.LIGHT)
        assert await two.state(one.id) == "queued", "what a Hathi ended that knew of no waiting a new worker sees"

    stand.site.run(look())


def test_a_training_that_goes_on_from_one_that_runs_waits_for_it(stand: Stand, tmp_path: Path) -> None:
    ann = stand.person("ayes", "ann")
    job = ann.job()
    stand.trained(ann, job, "mark")
    where = f"/v1/training-jobs/{job}"
    short = ann.ask("POST", f"{where}/resume", {})
    assert (short.status_code, short.json()["errors"][0]["pointer"]) == (422, "#/max_iter")
    more = ann.ask("POST", f"{where}/resume", {"max_iter": 40}, Idempotency_Key="k")
    assert (more.status_code, more.json()["state"]) == (201, "waiting")
    assert more.json()["resumes"] == {"training_job_id": job, "iteration": None}
    assert ann.ask("POST", f"{where}/resume", {"max_iter": 40}, Idempotency_Key="k").json() == more.json()
    at = ann.got("POST", f"{where}/resume", {"iteration": 10, "name": "at once", "priority": 3})
    assert (at["state"], at["name"], at["priority"], at["max_iter"]) == ("queued", "at once", 3, 20)
    assert at["resumes"] == {"training_job_id": job, "iteration": 10}
    for body in ({"iteration": 11}, {"max_iter": 10, "iteration": 10}, {"max_iter": 0}, {"seed": 3}):
        assert ann.ask("POST", f"{where}/resume", body).status_code == 422, body
    clone = ann.got("POST", f"{where}/clone", {"seed": 9, "max_iter": 30})
    assert {name: clone[name] for name in ("solver_id", "inputs", "max_iter", "resumes", "state")} == {
        **{name: at[name] for name in ("solver_id", "inputs")}, "max_iter": 30, "resumes": None, "state": "queued",
    }  # fmt: skip
    assert ann.got("POST", f"/v1/training-jobs/{clone['id']}/clone", {})["max_iter"] == 30
    never = ann.ask("POST", f"/v1/training-jobs/{clone['id']}/cancel").json()["id"]
    nothing = ann.ask("POST", f"/v1/training-jobs/{never}/resume", {})
    assert (nothing.status_code, "clone it" in nothing.json()["hint"]) == (409, True)
    ann.ask("POST", f"{where}/cancel")
    stand.site.run(stand.site.bare(f"update @work set lease_until = 0 where id = '{job}'"))

    async def claims(database: Database) -> None:
        worker = new_id(Kind.WORKER, time.time())
        await queue.enlist(database, worker, "here", Slot.TRAIN)
        assert await queue.claim(database, worker) is not None

    stand.site.run(claims(stand.site.open()))
    assert state(ann, where) == ("cancelled", None)
    assert state(ann, f"/v1/training-jobs/{more.json()['id']}") == ("failed", "dependency_failed")
    kept = ann.ask("DELETE", where, If_Match="*")
    assert (kept.status_code, "go on from them" in kept.json()["detail"]) == (409, True)
    after = ann.got("POST", f"{where}/resume", {})
    assert (after["state"], after["resumes"]["iteration"], after["max_iter"]) == ("queued", 10, 20)
