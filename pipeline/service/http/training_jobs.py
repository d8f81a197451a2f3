"""Training jobs: asked for, listed, looked at, cancelled, deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from pipeline.service import dependencies, queue, quotas, states
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http import job_records
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, stale, tagged, wanted
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import Given, JobId, Name, Told, WaitsFor, id_in_body, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.removing import remove_work
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid, over
from pipeline.service.queue import Submission
from pipeline.service.quotas import Quotas
from pipeline.service.specification import length
from pipeline.service.specification.words import INPUT_NAME, Limits
from pipeline.service.words import Actor, Slot, State
from pipeline.times import DAY

router = APIRouter(prefix="/v1/training-jobs", tags=["training jobs"])
KIND = "train"
_SLOTS = ", ".join(f"'{slot}'" for slot in Slot)
InputName = Annotated[str, Field(pattern=f"^{INPUT_NAME}$")]
Inputs = dict[InputName, Annotated[str, id_in_body(Kind.DATAFILE)]]
Seed = Annotated[int | None, Field(ge=0, lt=2**31)]
Threads = Annotated[int, Field(ge=1, le=64)]
Priority = Annotated[int, Field(ge=-100, le=100)]
MaxSeconds = Annotated[int, Field(ge=1, le=int(30 * DAY))]
MaxIter = Annotated[int | None, Field(ge=1, le=length.MOST, description="In place of the solver's")]


class JobGiven(Given):
    name: Name
    solver_id: Annotated[str, id_in_body(Kind.SOLVER)]
    inputs: Annotated[
        Inputs,
        Field(default_factory=dict, max_length=16, description="Datafiles, by the name that a data layer has"),
    ]  # fmt: skip
    seed: Seed = None
    threads: Threads = 1
    priority: Priority = 0
    max_seconds: MaxSeconds = int(DAY)
    max_iter: MaxIter = None


class JobChanges(Given):
    priority: Priority | None = None
    max_seconds: MaxSeconds | None = None


class Resumes(Told):
    training_job_id: str
    iteration: Annotated[int | None, Field(description="Of its snapshot; null: its newest, once it has succeeded")]


class Job(Told):
    id: str
    name: str
    state: State
    reason: str | None
    detail: str
    solver_id: str
    inputs: dict[str, str]
    max_iter: int | None
    resumes: Resumes | None
    priority: int
    max_seconds: float
    attempt: int
    progress: dict[str, Any]
    result: dict[str, Any] | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None


class JobSeen(Job):
    position: Annotated[int | None, Field(description="Among the tenant's own jobs that are queued; 1 is next")]
    waits_for: WaitsFor


class Jobs(Told):
    items: list[Job]
    next: str | None


def shown(row: Row) -> dict[str, Any]:
    """A job's row as a document."""
    body = json.loads(row["body"])
    return {
        **{name: row[name] for name in Job.model_fields if name in row},
        "name": body["name"], "inputs": body["inputs"], "attempt": row["epoch"],
        "max_iter": body.get("max_iter"), "resumes": body.get("resumes"),
        "progress": json.loads(row["progress"]), "result": _result(row["result"]),
        "cancel_requested": row["cancel_requested_at"] is not None,
    }  # fmt: skip


def _result(said: str | None) -> dict[str, Any] | None:
    """Without where the evaluation lies, which has a route of its own."""
    return {name: of for name, of in json.loads(said).items() if name != "evaluation"} if said else None


async def _ready(statements: Statements, body: JobGiven) -> None:
    """Raises Refused where the solver or a datafile is not there."""
    judgement = await judged(statements, "#/solver_id", body.solver_id)
    if judgement["dataset_id"] is not None and body.inputs:
        raise invalid("#/inputs", "the solver was judged for a dataset, which the job reads", "leave inputs out")
    reads = json.loads(judgement["inputs"])
    if missing := sorted(set(reads) - set(body.inputs)):
        says = f"the net reads {', '.join(reads)}, and there is no {', '.join(missing)}"
        raise invalid("#/inputs", says, "give a datafile for each name")
    for name, datafile in sorted(body.inputs.items()):
        if await statements.row("select id from datafiles where id = $1", datafile) is None:
            raise invalid(f"#/inputs/{name}", "there is no such datafile", "list what is there")
    if body.max_iter is not None:
        says = length.refused(judgement["solver"], json.loads(judgement["price"]), body.max_iter, Limits())
        if says:
            raise invalid("#/max_iter", says, "make max_iter smaller")


async def judged(statements: Statements, pointer: str, solver: str) -> Row:
    """What a solver was rebuilt to.  Raises Refused: 422."""
    judgement = await statements.row(
        """select judgements.* from solvers
           left join judgements on judgements.solver_id = solvers.id where solvers.id = $1""",
        solver,
    )
    if judgement is None:
        raise invalid(pointer, "there is no such solver", "list what is there")
    if judgement["solver_id"] is None:
        raise invalid(pointer, "an older Hathi took this solver unread", "post the solver again")
    return judgement


async def within(statements: Statements) -> None:
    """Raises Refused where a limit of the tenant stands in the way."""
    used = await statements.row(
        f"""select quotas, coalesce((select bytes from usage), 0) as stored,
            (select count(*) from work where finished_at is null and state in ('waiting', 'queued')
                and slot in ({_SLOTS})) as queued,
            (select count(*) from work where created_at > (select instant()) - 60) as submitted from tenants"""
    )
    if used is None:
        raise absent()
    most = Quotas.of(json.loads(used["quotas"]))
    for exceeded in (
        quotas.judge(most, "queued", used["queued"]),
        quotas.judge(most, "submitted", used["submitted"], frees=60.0),
        quotas.judge(most, "stored_bytes", int(used["stored"])),
    ):
        if exceeded is not None:
            raise over(exceeded)


async def add(
    request: Request, service: Service, actor: Member, body: JobGiven, key: IdempotencyKey = None
) -> Response:
    """Queues a training; it is `waiting` while a datafile of its inputs is still uploaded."""

    async def make(statements: Statements) -> Made:
        return await queued(statements, service, actor, body)

    return await create(request, service, actor.realm, key, make)


async def queued(
    statements: Statements, service: Behind, actor: Actor, body: JobGiven, resumes: tuple[str, int | None] | None = None
) -> Made:
    """A job, in the caller's transaction.  resumes: as `queue.Submission` has it.  Raises Refused."""
    await _ready(statements, body)
    await within(statements)
    name = new_id(Kind.TRAINING_JOB, service.clock.now())
    wants = body.model_dump(include={"name", "inputs", "seed", "threads"})
    if body.max_iter is not None:
        wants["max_iter"] = body.max_iter
    if resumes is not None:
        wants["resumes"] = {"training_job_id": resumes[0], "iteration": resumes[1]}
    needs = [resumes[0]] if resumes is not None and resumes[1] is None else []
    await queue.submit(statements, actor.realm, Submission(
        name, KIND, Slot.TRAIN, wants, body.priority, body.max_seconds, body.solver_id, body.inputs, needs, resumes,
    ))  # fmt: skip
    row = await statements.row("select * from work where id = $1", name)
    if row is None:
        raise absent()
    return Made(Job(**shown(row)).model_dump(mode="json"), f"/v1/training-jobs/{name}", row["version"])


async def listed(
    request: Request, response: Response, service: Service, actor: Viewer, paged: Paged,
    state: Annotated[State | None, Query()] = None,
) -> Jobs:  # fmt: skip
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            only = "and state = $3" if state is not None else ""
            sql = f"select * from work where kind = 'train' and id < $1 {only} order by id desc limit $2"
            return await statements.rows(sql, after, most, *([state] if state is not None else []))

    found, following = await page(request, response, service, actor.tenant, rows)
    return Jobs(items=[Job(**shown(row)) for row in found], next=following)


async def row_of(service: Behind, actor: Actor, job: str) -> Row:
    """A job's row.  Raises Refused: 404."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from work where id = $1 and kind = 'train'", job)
    if row is None:
        raise absent()
    return row


async def one(request: Request, service: Service, actor: Viewer, job: JobId) -> Response:
    """One of them, with its place in the queue."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from work where id = $1 and kind = 'train'", job)
        if row is None:
            raise absent()
        ahead = None
        waits = await dependencies.waited_for(statements, row)
        if row["state"] == State.QUEUED:
            ahead = await statements.row(
                """select count(*) as n from work where state = 'queued' and slot = $1 and (priority > $2
                   or (priority = $2 and (created_at < $3 or (created_at = $3 and id < $4))))""",
                row["slot"], row["priority"], row["created_at"], row["id"],
            )  # fmt: skip
    seen = {"position": ahead["n"] + 1 if ahead is not None else None, "waits_for": waits}
    answer = JSONResponse({**shown(row), **seen})
    tagged(request, answer, row["version"])
    return answer


async def change(
    response: Response, service: Service, actor: Member, job: JobId, body: JobChanges, match: IfMatch = None
) -> Job:
    """Its priority among the tenant's own, and its time."""
    version = wanted(match)
    async with service.database.transaction(actor.realm) as statements:
        row = await statements.row("select * from work where id = $1 and kind = 'train'", job)
        if row is None:
            raise absent()
        if State(row["state"]) in states.TERMINAL:
            raise conflict("the job is over", "submit another one")
        changed = await statements.row(
            """update work set priority = $3, max_seconds = $4, version = version + 1
               where tenant_id = $1 and id = $2 and version = $5 returning *""",
            actor.tenant, job, row["priority"] if body.priority is None else body.priority,
            float(row["max_seconds"] if body.max_seconds is None else body.max_seconds),
            row["version"] if version is None else version,
        )  # fmt: skip
    if changed is None:
        raise stale()
    response.headers["ETag"] = f'"{changed["version"]}"'
    return Job(**shown(changed))


async def cancel(service: Service, actor: Member, job: JobId) -> Job:
    """Ends it: at once where nobody trains it, else within seconds; from this answer on it never succeeds."""
    async with service.database.transaction(actor.realm) as statements:
        there = await statements.row("select state from work where id = $1 and kind = 'train'", job)
        if there is None:
            raise absent()
        row = await queue.cancel(statements, actor.realm, job)
    if row is None:
        raise conflict("the job is over already", "GET it: its state says how it ended")
    return Job(**shown(row))


async def removed(service: Service, actor: Member, job: JobId, match: IfMatch = None) -> Response:
    """What is over is forgotten, with its metrics, log and snapshots."""
    used = "model versions or classifiers are made of this job's snapshots, or other trainings go on from them"
    return await remove_work(service, actor, (KIND, job), match, used)


def _add(path: str, route: object, method: str, model: type[Told] | None, **more: Any) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, **more)


_add("", add, "POST", Job, status_code=201, responses=problems(409))
_add("", listed, "GET", Jobs, responses=problems())
_add("/{job}", one, "GET", JobSeen, responses=problems(304, 404))
_add("/{job}", change, "PATCH", Job, responses=problems(404, 409, 412, 428))
_add("/{job}", removed, "DELETE", None, status_code=204, responses=problems(404, 409, 412, 428))
_add("/{job}/cancel", cancel, "POST", Job, status_code=202, responses=problems(404, 409))
job_records.add_to(router, row_of, shown)
