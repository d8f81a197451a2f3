"""Solvers: the texts of a solver and of its net, as Caffe reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service.database.statements import Row, Statements, Violated
from pipeline.service.http.asking import Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create, told_before
from pipeline.service.http.datasets import made
from pipeline.service.http.documents import Given, Name, SolverId, Told, id_in_body, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.removing import remove
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, invalid
from pipeline.service.specification.words import Asked, Data

router = APIRouter(prefix="/v1/solvers", tags=["solvers"])
Text = Annotated[str, Field(min_length=1, max_length=2**20)]
_LISTED = "id, name, created_at, version"


class SolverGiven(Given):
    name: Name
    solver: Annotated[Text, Field(description="A SolverParameter as text; what it says of files and devices is ours")]
    net: Annotated[
        Text,
        Field(description="A NetParameter as text; without dataset_id a data layer's source is a job's input"),
    ]  # fmt: skip
    dataset_id: Annotated[str | None, id_in_body(Kind.DATASET)] = None


class SolverShort(Told):
    id: str
    name: str
    created_at: float


class Solver(SolverShort):
    solver: str
    net: str
    dataset_id: str | None
    inputs: Annotated[list[str], Field(description="The names that a job has to give in its `inputs`")]
    price: Annotated[
        dict[str, Any] | None,
        Field(description="What a training takes, as `hathi train price` says it; null where its data is not known"),
    ]  # fmt: skip
    warnings: Annotated[list[str], Field(description="What was left out or changed")]


class Solvers(Told):
    items: list[SolverShort]
    next: str | None


def _shown(row: Row, judgement: Row | None) -> dict[str, Any]:
    said = judgement or {"dataset_id": None, "inputs": "[]", "price": "{}", "warnings": "[]"}
    return {
        **{name: row[name] for name in ("id", "name", "created_at", "solver", "net")},
        "dataset_id": said["dataset_id"], "inputs": json.loads(said["inputs"]),
        "price": json.loads(said["price"]) or None, "warnings": json.loads(said["warnings"]),
    }  # fmt: skip


async def add(
    request: Request, service: Service, actor: Member, body: SolverGiven, key: IdempotencyKey = None
) -> Response:
    """Reads and judges the texts in a process of their own, rebuilds them from what is known, and says the price."""
    if (before := await told_before(request, service, actor.realm, key)) is not None:
        return before
    data = None
    if body.dataset_id is not None:
        async with service.database.reading(actor.realm) as statements:
            data = Data(**(await made(statements, "#/dataset_id", body.dataset_id))["data"])
    judged = await service.judges.judge(Asked(body.solver, body.net, data))

    async def make(statements: Statements) -> Made:
        name = new_id(Kind.SOLVER, service.clock.now())
        await statements.row(
            """insert into solvers (tenant_id, id, name, solver, net, created_at)
               values ($1, $2, $3, $4, $5, instant()) returning id""",
            actor.tenant, name, body.name, body.solver, body.net,
        )  # fmt: skip
        judgement = {"dataset_id": body.dataset_id, "price": json.dumps(judged.price),
                     "warnings": json.dumps(judged.warnings), "inputs": json.dumps(judged.inputs)}  # fmt: skip
        await statements.row(
            """insert into judgements (tenant_id, solver_id, solver, net, dataset_id, price, warnings, inputs)
               values ($1, $2, $3, $4, $5, $6, $7, $8) returning solver_id""",
            actor.tenant, name, judged.solver, judged.net, *judgement.values(),
        )  # fmt: skip
        row = await statements.row("select * from solvers where id = $1", name)
        if row is None:
            raise absent()
        return Made(_shown(row, judgement), f"/v1/solvers/{name}")

    try:
        return await create(request, service, actor.realm, key, make)
    except Violated as error:
        raise invalid("#/dataset_id", "the dataset was deleted meanwhile", "list what is there") from error


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Solvers:
    """All of them, the newest first, without their texts."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = f"select {_LISTED} from solvers where id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Solvers(items=[SolverShort(**row) for row in found], next=following)


async def one(request: Request, response: Response, service: Service, actor: Viewer, solver: SolverId) -> Solver:
    """One of them."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from solvers where id = $1", solver)
        judgement = await statements.row("select * from judgements where solver_id = $1", solver)
    if row is None:
        raise absent()
    tagged(request, response, row["version"])
    return Solver(**_shown(row, judgement))


async def removed(service: Service, actor: Member, solver: SolverId, match: IfMatch = None) -> Response:
    """It is gone."""
    part = ("judgements", "solver_id")
    return await remove(service, actor, ("solvers", solver), match, "training jobs use this solver", part)


router.add_api_route("", add, methods=["POST"], response_model=Solver, status_code=201, responses=problems(409))
router.add_api_route("", listed, methods=["GET"], response_model=Solvers, responses=problems())
router.add_api_route("/{solver}", one, methods=["GET"], response_model=Solver, responses=problems(304, 404))
router.add_api_route("/{solver}", removed, methods=["DELETE"], status_code=204, responses=problems(404, 409, 412, 428))
