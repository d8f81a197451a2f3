"""Solvers: the texts of a solver and of its net, as Caffe reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import Given, Name, SolverId, Told, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.removing import remove
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent

router = APIRouter(prefix="/v1/solvers", tags=["solvers"])
Text = Annotated[str, Field(min_length=1, max_length=2**20)]
_LISTED = "id, name, created_at, version"


class SolverGiven(Given):
    name: Name
    solver: Annotated[Text, Field(description="A SolverParameter as text; it names no net and no files")]
    net: Annotated[Text, Field(description="A NetParameter as text; a data layer's source is a name of `inputs`")]


class SolverShort(Told):
    id: str
    name: str
    created_at: float


class Solver(SolverShort):
    solver: str
    net: str


class Solvers(Told):
    items: list[SolverShort]
    next: str | None


async def add(
    request: Request, service: Service, actor: Member, body: SolverGiven, key: IdempotencyKey = None
) -> Response:
    """Keeps the texts; they are read and judged by the child that trains, when a job begins."""

    async def make(statements: Statements) -> Made:
        name = new_id(Kind.SOLVER, service.clock.now())
        await statements.row(
            """insert into solvers (tenant_id, id, name, solver, net, created_at)
               values ($1, $2, $3, $4, $5, instant()) returning id""",
            actor.tenant, name, body.name, body.solver.replace("\0", ""), body.net.replace("\0", ""),
        )  # fmt: skip
        row = await statements.row("select * from solvers where id = $1", name)
        if row is None:
            raise absent()
        return Made(Solver(**row).model_dump(), f"/v1/solvers/{name}")

    return await create(request, service, actor.realm, key, make)


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
    if row is None:
        raise absent()
    tagged(request, response, row["version"])
    return Solver(**row)


async def removed(service: Service, actor: Member, solver: SolverId, match: IfMatch = None) -> Response:
    """It is gone."""
    return await remove(service, actor, ("solvers", solver), match, "training jobs use this solver")


router.add_api_route("", add, methods=["POST"], response_model=Solver, status_code=201, responses=problems())
router.add_api_route("", listed, methods=["GET"], response_model=Solvers, responses=problems())
router.add_api_route("/{solver}", one, methods=["GET"], response_model=Solver, responses=problems(304, 404))
router.add_api_route("/{solver}", removed, methods=["DELETE"], status_code=204, responses=problems(404, 409, 412, 428))
