"""A training once more: `resume` goes on from a snapshot of it, `clone` begins it anew with changes.  Each is a job of
its own: what is over never changes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import states
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Member, Service
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import Given, JobId, Name, id_in_body, problems
from pipeline.service.http.training_jobs import (
    Inputs,
    Job,
    JobGiven,
    MaxIter,
    MaxSeconds,
    Priority,
    Seed,
    Threads,
    judged,
    queued,
)
from pipeline.service.ids import Kind
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.specification import length
from pipeline.service.words import State

router = APIRouter(prefix="/v1/training-jobs", tags=["training jobs"])


class Repeated(Given):
    """What is left out is as in the job."""

    name: Name | None = None
    threads: Threads | None = None
    priority: Priority | None = None
    max_seconds: MaxSeconds | None = None
    max_iter: MaxIter = None


class JobResumed(Repeated):
    iteration: Annotated[
        int | None, Field(ge=1, lt=2**31, description="Of the snapshot to go on from; the newest by default")
    ] = None  # fmt: skip


class JobCloned(Repeated):
    solver_id: Annotated[str | None, id_in_body(Kind.SOLVER)] = None
    inputs: Annotated[Inputs | None, Field(max_length=16, description="In place of all of the job's")] = None
    seed: Seed = None


async def _row(statements: Statements, job: str) -> Row:
    row = await statements.row("select * from work where id = $1 and kind = 'train'", job)
    if row is None:
        raise absent()
    return row


def _given(row: Row, body: Repeated, **more: Any) -> JobGiven:
    """What is asked for: the job as it was, with the changes."""
    before = json.loads(row["body"])
    same = {name: before[name] for name in ("name", "inputs", "seed", "threads", "max_iter") if name in before}
    same |= {"solver_id": row["solver_id"], "priority": row["priority"], "max_seconds": round(row["max_seconds"])}
    return JobGiven(**{**same, **body.model_dump(exclude_none=True, exclude={"iteration"}), **more})


async def resume(
    request: Request, service: Service, actor: Member, job: JobId, body: JobResumed, key: IdempotencyKey = None
) -> Response:
    """Queues a job that goes on from a snapshot of this one, bit for bit as if it had never ended.

    It has the same solver, inputs and seed; `max_iter` lets it train longer.  Without `iteration` it is `waiting` while
    this job is not over, and fails with it.
    """

    async def make(statements: Statements) -> Made:
        row = await _row(statements, job)
        solver = (await judged(statements, "#", row["solver_id"]))["solver"]
        ends = json.loads(row["body"]).get("max_iter") or length.iterations_of(solver)
        wanted = body.max_iter or ends
        if wanted != ends and length.decides_the_rate(solver):
            says = f"by lr_policy poly each rate follows from max_iter, which is {ends} in this job"
            raise invalid("#/max_iter", says, "leave it out, or clone the job: a clone begins at 0")
        at = await _snapshot(statements, row, body.iteration)
        if wanted <= (ends if at is None else at):
            says = f"it would go on at iteration {ends if at is None else at}, and end at {wanted}"
            raise invalid("#/max_iter", says, "give a greater max_iter")
        return await queued(statements, service, actor, _given(row, body, max_iter=wanted), (job, at))

    return await create(request, service, actor.realm, key, make)


async def _snapshot(statements: Statements, row: Row, wanted: int | None) -> int | None:
    """The iteration to go on from; None: the newest there is when the job has succeeded.  Raises Refused: 409, 422."""
    if wanted is not None:
        sql = "select 1 from snapshots where work_id = $1 and iteration = $2"
        if await statements.row(sql, row["id"], wanted) is None:
            hint = f"GET /v1/training-jobs/{row['id']}/snapshots lists what there is"
            raise invalid("#/iteration", f"the job has no snapshot of iteration {wanted}", hint)
        return wanted
    if State(row["state"]) not in states.TERMINAL:
        return None
    newest = await statements.row("select max(iteration) as at from snapshots where work_id = $1", row["id"])
    if newest is None or newest["at"] is None:
        raise conflict("the job has no snapshot to go on from", "clone it: a clone begins at 0")
    return int(newest["at"])


async def clone(
    request: Request, service: Service, actor: Member, job: JobId, body: JobCloned, key: IdempotencyKey = None
) -> Response:
    """Queues a job like this one, with the changes that are given; it begins at iteration 0."""

    async def make(statements: Statements) -> Made:
        return await queued(statements, service, actor, _given(await _row(statements, job), body))

    return await create(request, service, actor.realm, key, make)


for _path, _route in (("/{job}/resume", resume), ("/{job}/clone", clone)):
    router.add_api_route(
        _path, _route, methods=["POST"], response_model=Job, status_code=201, responses=problems(404, 409)
    )
