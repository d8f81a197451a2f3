"""Models: a name, numbered versions that are snapshots of trainings, and aliases that say which one is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from pipeline.service.database.statements import Row, Statements, Taken, Violated
from pipeline.service.http import model_aliases
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.datasets import classes_of
from pipeline.service.http.documents import Given, ModelId, Name, ShortName, Told, id_in_body, problems
from pipeline.service.http.downloads import BINARY, FileName, download
from pipeline.service.http.figures import figures_of
from pipeline.service.http.job_records import SnapshotFile
from pipeline.service.http.model_aliases import noted
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.words import Actor

router = APIRouter(prefix="/v1/models", tags=["models"])
MOST_LABELS = 100_000
MOST_ALIASES = 1000
Number = Annotated[int, Path(ge=1, lt=2**31)]


class ModelGiven(Given):
    name: ShortName


class Model(Told):
    id: str
    name: str
    aliases: Annotated[dict[str, int], Field(description="The version that each alias names")]
    created_at: float


class Models(Told):
    items: list[Model]
    next: str | None


class VersionGiven(Given):
    training_job_id: Annotated[str, id_in_body(Kind.TRAINING_JOB)]
    iteration: Annotated[int | None, Field(ge=0, lt=2**31, description="Of a snapshot; the newest by default")] = None
    labels: Annotated[
        list[Name] | None, Field(max_length=MOST_LABELS, description="Of each class; the dataset's by default")
    ] = None  # fmt: skip
    note: Annotated[str, Field(max_length=2000)] = ""


class Lineage(Told):
    """What it was made of; each of these stays for as long as the version."""

    training_job_id: str
    iteration: int
    solver_id: str
    dataset_id: str | None
    inputs: dict[str, str]


class Version(Told):
    model_id: str
    number: int
    lineage: Lineage
    figures: Annotated[dict[str, float], Field(description="Of the job's own test at this iteration")]
    labels: list[str] | None
    note: str
    files: list[SnapshotFile]
    created_by: str
    created_at: float


class Versions(Told):
    items: list[Version]
    next: str | None


def _shown(row: Row, aliases: Sequence[Row]) -> dict[str, Any]:
    mine = {one["alias"]: one["number"] for one in aliases if one["model_id"] == row["id"]}
    return {**{name: row[name] for name in ("id", "name", "created_at")}, "aliases": mine}


async def add(
    request: Request, service: Service, actor: Member, body: ModelGiven, key: IdempotencyKey = None
) -> Response:
    """A model without a version."""

    async def make(statements: Statements) -> Made:
        name = new_id(Kind.MODEL, service.clock.now())
        if await statements.row("select id from models where name = $1", body.name) is not None:
            raise conflict(f"a model is called {body.name} already", "add a version to it, or choose another name")
        await statements.row(
            "insert into models (tenant_id, id, name, created_at) values ($1, $2, $3, instant()) returning id",
            actor.tenant, name, body.name,
        )  # fmt: skip
        await noted(statements, actor, service.clock, {"model_id": name, "action": "model added"})
        row = await statements.row("select * from models where id = $1", name)
        if row is None:
            raise absent()
        return Made(_shown(row, []), f"/v1/models/{name}")

    try:
        return await create(request, service, actor.realm, key, make)
    except Taken as error:
        raise conflict(f"a model is called {body.name} already", "add a version to it") from error


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Models:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            return await statements.rows("select * from models where id < $1 order by id desc limit $2", after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    async with service.database.reading(actor.realm) as statements:
        first, last = (found[-1]["id"], found[0]["id"]) if found else ("", "")
        aliases = await statements.rows(
            "select * from model_aliases where model_id >= $1 and model_id <= $2", first, last
        )  # fmt: skip
    return Models(items=[Model(**_shown(row, aliases)) for row in found], next=following)


async def one(request: Request, response: Response, service: Service, actor: Viewer, model: ModelId) -> Model:
    """One of them."""
    async with service.database.reading(actor.realm) as statements:
        row = await model_aliases.model_of(statements, model)
        aliases = await statements.rows(
            "select * from model_aliases where model_id = $1 order by alias limit $2", model, MOST_ALIASES
        )  # fmt: skip
    tagged(request, response, row["version"])
    return Model(**_shown(row, aliases))


async def version_of(statements: Statements, model: str, number: int) -> Row:
    """A version's row.  Raises Refused: 404."""
    row = await statements.row("select * from model_versions where model_id = $1 and number = $2", model, number)
    if row is None:
        raise absent()
    return row


async def _versions(statements: Statements, rows: Sequence[Row]) -> list[Version]:
    """With what they were made of."""
    found = []
    for row in rows:
        work = await statements.row(
            """select work.solver_id, work.body, judgements.dataset_id from work left join judgements
               on judgements.tenant_id = work.tenant_id and judgements.solver_id = work.solver_id where work.id = $1""",
            row["work_id"],
        )  # fmt: skip
        assert work is not None, "a job stays for as long as a version is made of it"
        lineage = Lineage(training_job_id=row["work_id"], iteration=row["iteration"], solver_id=work["solver_id"],
                          dataset_id=work["dataset_id"],
                          inputs=json.loads(work["body"])["inputs"])  # fmt: skip
        found.append(
            Version(
                model_id=row["model_id"], number=row["number"], lineage=lineage, figures=json.loads(row["figures"]),
                labels=json.loads(row["labels"]) if row["labels"] else None, note=row["note"],
                files=[SnapshotFile(**one) for one in json.loads(row["files"])], created_by=row["created_by"],
                created_at=row["created_at"],
            )
        )  # fmt: skip
    return found


async def _snapshot(service: Behind, actor: Actor, body: VersionGiven) -> Row:
    """What a version is made of.  Raises Refused: 422 where there is none such."""
    async with service.database.reading(actor.realm) as statements:
        job = await statements.row("select id from work where id = $1 and kind = 'train'", body.training_job_id)
        only = "" if body.iteration is None else "and iteration = $2"
        row = await statements.row(
            f"select * from snapshots where work_id = $1 {only} order by iteration desc limit 1",
            body.training_job_id, *([] if body.iteration is None else [body.iteration]),
        )  # fmt: skip
    if job is None:
        raise invalid("#/training_job_id", "there is no such training job", "list what is there")
    if row is None:
        says = "the job has no snapshot yet" if body.iteration is None else "the job has no snapshot of this iteration"
        raise invalid("#/training_job_id" if body.iteration is None else "#/iteration", says, "GET its snapshots")
    return row


async def add_version(
    request: Request, service: Service, actor: Member, model: ModelId, body: VersionGiven, key: IdempotencyKey = None
) -> Response:
    """The next version: a snapshot of a training job, which from then on cannot be deleted."""

    async def make(statements: Statements) -> Made:
        there = await statements.row(
            """update models set numbered = numbered + 1, version = version + 1 where tenant_id = $1 and id = $2
               returning numbered""",
            actor.tenant, model,
        )  # fmt: skip
        if there is None:
            raise absent()
        number = int(there["numbered"])
        labels = body.labels if body.labels is not None else await classes_of(statements, body.training_job_id)
        await statements.row(
            """insert into model_versions (tenant_id, model_id, number, work_id, iteration, files, labels, figures,
                   note, created_by, created_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, instant()) returning number""",
            actor.tenant, model, number, body.training_job_id, snapshot["iteration"], snapshot["files"],
            json.dumps(labels) if labels is not None else None, json.dumps(figures), body.note, actor.user,
        )  # fmt: skip
        of = {"model_id": model, "action": "version added", "number": number}
        await noted(statements, actor, service.clock, of)
        shown = await _versions(statements, [await version_of(statements, model, number)])
        return Made(shown[0].model_dump(), f"/v1/models/{model}/versions/{number}")

    async with service.database.reading(actor.realm) as statements:
        await model_aliases.model_of(statements, model)
    snapshot = await _snapshot(service, actor, body)
    figures = await figures_of(service, actor, body.training_job_id, snapshot["iteration"])
    return await create(request, service, actor.realm, key, make)


async def list_versions(
    request: Request, response: Response, service: Service, actor: Viewer, model: ModelId, paged: Paged
) -> Versions:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            await model_aliases.model_of(statements, model)
            sql = """select number as id, model_versions.* from model_versions where model_id = $1 and number < $2
                     order by number desc limit $3"""
            return await statements.rows(sql, model, int(after) if after.isdigit() else 2**31, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    async with service.database.reading(actor.realm) as statements:
        return Versions(items=await _versions(statements, found), next=following)


async def one_version(service: Service, actor: Viewer, model: ModelId, number: Number) -> Version:
    """One of them; it never changes."""
    async with service.database.reading(actor.realm) as statements:
        return (await _versions(statements, [await version_of(statements, model, number)]))[0]


async def artifact(service: Service, actor: Viewer, model: ModelId, number: Number, name: FileName) -> Response:
    """A file of a version."""
    async with service.database.reading(actor.realm) as statements:
        row = await version_of(statements, model, number)
    found = next((one for one in json.loads(row["files"]) if one["name"] == name), None)
    if found is None:
        raise absent()
    return download(service, found)


async def remove_version(service: Service, actor: Member, model: ModelId, number: Number) -> Response:
    """It is gone, and its number is not given again; refused while an alias or a classifier names it."""
    try:
        await _removed(service, actor, model, number)
    except Violated as error:
        raise conflict("classifiers answer with this version", "delete them before") from error
    return Response(status_code=204)


async def _removed(service: Behind, actor: Actor, model: str, number: int) -> None:
    async with service.database.transaction(actor.realm) as statements:
        await version_of(statements, model, number)
        named = await statements.row(
            "select alias from model_aliases where model_id = $1 and number = $2 order by alias", model, number
        )  # fmt: skip
        if named is not None:
            raise conflict(f"the alias {named['alias']} names this version", "let it name another one before")
        sql = "delete from model_versions where tenant_id = $1 and model_id = $2 and number = $3 returning number"
        await statements.rows(sql, actor.tenant, model, number)
        of = {"model_id": model, "action": "version removed", "number": number}
        await noted(statements, actor, service.clock, of)


def _add(path: str, route: object, method: str, model: type[Told] | None, **more: Any) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, **more)


_add("", add, "POST", Model, status_code=201, responses=problems(409))
_add("", listed, "GET", Models, responses=problems())
_add("/{model}", one, "GET", Model, responses=problems(304, 404))
_add("/{model}/versions", add_version, "POST", Version, status_code=201, responses=problems(404))
_add("/{model}/versions", list_versions, "GET", Versions, responses=problems(404))
_add("/{model}/versions/{number}", one_version, "GET", Version, responses=problems(404))
_add("/{model}/versions/{number}", remove_version, "DELETE", None, status_code=204, responses=problems(404, 409))
_add("/{model}/versions/{number}/artifacts/{name}", artifact, "GET", None,
     responses={**problems(404), 200: {"description": "As it is", "content": BINARY}})  # fmt: skip
model_aliases.add_to(router)
