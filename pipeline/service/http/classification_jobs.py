"""Classification jobs: more pictures than one request takes, by URLs or in an archive, answered by a worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import blobs, dependencies, queue
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.classifying import URL_LETTERS, Classified, Failed, Prediction
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import ClassificationJobId, Given, Name, Told, WaitsFor, id_in_body, problems
from pipeline.service.http.meaning import meant
from pipeline.service.http.paging import FIRST, Paged, page
from pipeline.service.http.removing import remove_work
from pipeline.service.http.training_jobs import within
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.queue import Submission
from pipeline.service.words import Actor, Slot, State
from pipeline.service.work.classifying import KIND, ROWS, results_of
from pipeline.times import HOUR

router = APIRouter(prefix="/v1/classification-jobs", tags=["classification jobs"])
MOST_URLS = 10_000
FILE_BYTES = 256 * 2**20
"""Of one file of results, of which one has 1,000 rows."""


class ClassificationJobGiven(Given):
    """Pictures by `urls`, or in an archive (tar, tar.gz, zip) that is a datafile."""

    name: Name
    classifier_id: Annotated[str, id_in_body(Kind.CLASSIFIER)]
    urls: Annotated[
        list[Annotated[str, Field(max_length=URL_LETTERS)]] | None, Field(min_length=1, max_length=MOST_URLS)
    ] = None
    datafile_id: Annotated[str | None, id_in_body(Kind.DATAFILE)] = None
    top: Annotated[int, Field(ge=1, le=100, description="Classes that are told of each picture")] = 5
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    max_seconds: Annotated[int, Field(ge=1, le=int(24 * HOUR))] = int(HOUR)


class ClassificationJob(Told):
    id: str
    name: str
    state: State
    reason: str | None
    detail: str
    classifier_id: str
    datafile_id: str | None
    top: int
    priority: int
    attempt: int
    progress: Annotated[dict[str, int], Field(description="`pictures` that were looked at, and those that `failed`")]
    result: dict[str, int] | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None


class ClassificationJobSeen(ClassificationJob):
    waits_for: WaitsFor


class ClassificationJobs(Told):
    items: list[ClassificationJob]
    next: str | None


class Result(Classified):
    number: int


class Results(Told):
    items: list[Result]
    next: str | None


def shown(row: Row) -> dict[str, Any]:
    """A job's row as a document."""
    body, progress = json.loads(row["body"]), json.loads(row["progress"])
    same = ("id", "state", "reason", "detail", "priority", "created_at", "started_at", "finished_at")
    return {
        **{name: row[name] for name in same},
        **{name: body[name] for name in ("name", "classifier_id", "datafile_id", "top")}, "attempt": row["epoch"],
        "progress": {name: progress.get(name, 0) for name in ("pictures", "failed")},
        "result": json.loads(row["result"]) if row["result"] else None,
        "cancel_requested": row["cancel_requested_at"] is not None,
    }  # fmt: skip


async def add(
    request: Request, service: Service, actor: Member, body: ClassificationJobGiven, key: IdempotencyKey = None
) -> Response:
    """Queues it; it is `waiting` while its datafile is uploaded.  An alias means the version that it names now."""
    found = await meant(service, actor, body.classifier_id)
    if (body.urls is None) == (body.datafile_id is None):
        raise invalid("#/urls", "a job has urls or a datafile", "give one of them")
    if not found.takes_pictures:
        raise conflict("this net learned from numbers, and nothing says how pictures become such")
    inputs = {"pictures": body.datafile_id} if body.datafile_id is not None else {}

    async def make(statements: Statements) -> Made:
        await _ready(statements, body.datafile_id)
        await within(statements)
        name = new_id(Kind.CLASSIFICATION_JOB, service.clock.now())
        wants = body.model_dump(include={"name", "classifier_id", "urls", "datafile_id", "top"})
        if found.number is not None:
            named = {"labels": list(found.labels), "probabilities": found.facts["probabilities"]}
            wants |= {"number": found.number, **named}
        work = Submission(name, KIND, Slot.LIGHT, wants, body.priority, body.max_seconds, inputs=inputs)
        await queue.submit(statements, actor.realm, work)
        row = await statements.row("select * from work where id = $1", name)
        if row is None:
            raise absent()
        told = ClassificationJob(**shown(row)).model_dump(mode="json")
        return Made(told, f"/v1/classification-jobs/{name}")

    return await create(request, service, actor.realm, key, make)


async def _ready(statements: Statements, datafile: str | None) -> None:
    if datafile is None:
        return
    if await statements.row("select 1 from datafiles where id = $1", datafile) is None:
        raise invalid("#/datafile_id", "there is no such datafile", "list what is there")


async def listed(
    request: Request, response: Response, service: Service, actor: Viewer, paged: Paged
) -> ClassificationJobs:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = f"select * from work where kind = '{KIND}' and id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return ClassificationJobs(items=[ClassificationJob(**shown(row)) for row in found], next=following)


async def _row(service: Behind, actor: Actor, job: str) -> Row:
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row(f"select * from work where id = $1 and kind = '{KIND}'", job)
    if row is None:
        raise absent()
    return row


async def one(
    request: Request, response: Response, service: Service, actor: Viewer, job: ClassificationJobId
) -> ClassificationJobSeen:
    """One of them."""
    row = await _row(service, actor, job)
    async with service.database.reading(actor.realm) as statements:
        waits = await dependencies.waited_for(statements, row)
    tagged(request, response, row["version"])
    return ClassificationJobSeen(**shown(row), waits_for=waits)


async def results(
    request: Request, response: Response, service: Service, actor: Viewer, job: ClassificationJobId, paged: Paged
) -> Results:
    """What the net said of each picture, in the order of the URLs or of the archive, once the job has succeeded."""
    row = await _row(service, actor, job)
    if row["state"] != State.SUCCEEDED:
        raise conflict(f"the job is {row['state']}: there are no results", "wait until it has succeeded")
    async with service.database.reading(actor.realm) as statements:
        kept = await statements.row("select files from snapshots where work_id = $1", job)
    files = {one["name"]: one for one in json.loads(kept["files"])} if kept is not None else {}

    async def rows(after: str, most: int) -> Sequence[Row]:
        first, found = 0 if after == FIRST else int(after) + 1, list[Row]()
        while len(found) < most and (file := files.get(results_of(first + len(found)))) is not None:
            at = (first + len(found)) % ROWS
            lines = (await blobs.get(service.store, file["key"], FILE_BYTES)).splitlines()
            some = [{**json.loads(line), "id": ""} for line in lines[at : at + most - len(found)]]
            if not some:
                break
            found += [{**one, "id": f"{one['number']:09d}"} for one in some]
        return found

    found, following = await page(request, response, service, actor.tenant, rows)
    return Results(items=[_result(one) for one in found], next=following)


def _result(said: Row) -> Result:
    failure = Failed(**said["failure"]) if said["failure"] else None
    predictions = [Prediction(**one) for one in said["predictions"]] if said["predictions"] is not None else None
    return Result(number=said["number"], name=said["name"], predictions=predictions, failure=failure)


async def cancel(service: Service, actor: Member, job: ClassificationJobId) -> ClassificationJob:
    """Ends it: at once where no worker has it, else within seconds."""
    async with service.database.transaction(actor.realm) as statements:
        there = await statements.row(f"select state from work where id = $1 and kind = '{KIND}'", job)
        if there is None:
            raise absent()
        row = await queue.cancel(statements, actor.realm, job)
    if row is None:
        raise conflict("the job is over already", "GET it: its state says how it ended")
    return ClassificationJob(**shown(row))


async def remove(service: Service, actor: Member, job: ClassificationJobId, match: IfMatch = None) -> Response:
    """What is over is forgotten, with its results."""
    return await remove_work(service, actor, (KIND, job), match, "something uses its results")


def _add(path: str, route: object, method: str, model: type[Told] | None, **more: Any) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, **more)


_add("", add, "POST", ClassificationJob, status_code=201, responses=problems(404, 409))
_add("", listed, "GET", ClassificationJobs, responses=problems())
_add("/{job}", one, "GET", ClassificationJobSeen, responses=problems(304, 404))
_add("/{job}", remove, "DELETE", None, status_code=204, responses=problems(404, 409, 412, 428))
_add("/{job}/cancel", cancel, "POST", ClassificationJob, status_code=202, responses=problems(404, 409))
_add("/{job}/results", results, "GET", Results, responses=problems(404, 409))
