"""Datasets: what work of the light kind makes of a datafile that is an archive of pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import blobs, dependencies, queue, states
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import DatasetId, Given, Name, Told, WaitsFor, id_in_body, problems
from pipeline.service.http.downloads import BINARY, FileName, download
from pipeline.service.http.job_records import SnapshotFile
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.removing import remove_work
from pipeline.service.http.training_jobs import within
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.queue import Submission
from pipeline.service.specification.templates import templates
from pipeline.service.specification.words import Data
from pipeline.service.words import Actor, Slot, State
from pipeline.times import DAY

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])
KIND = "import"
AGAIN_SECONDS = 2
"""Until somebody asks again whether a dataset is made."""
REJECTED, LISTED, LIST_BYTES = "rejected.jsonl", 1000, 2**28
Share = Annotated[int, Field(ge=0, le=10**6)]
_SQL = """select datasets.name, datasets.datafile_id, datasets.extends_id, work.* from datasets
          join work on work.tenant_id = datasets.tenant_id and work.id = datasets.id"""


class SplitGiven(Given):
    """Shares of the sides; a side without one is not there."""

    train: Share
    test: Share
    validation: Share = 0


class DatasetGiven(Given):
    name: Name
    datafile_id: Annotated[str, id_in_body(Kind.DATAFILE)]
    split: Annotated[
        SplitGiven | None, Field(description="80/10/10 by default, or the folders train and test of the archive itself")
    ] = None  # fmt: skip
    by: Annotated[
        Literal["class", "content"], Field(description="class: each label has these shares; content: a picture's own")
    ] = "class"  # fmt: skip
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    two_labels: Annotated[
        Literal["refuse", "first", "last", "leave-out"], Field(description="What becomes of a picture with two labels")
    ] = "refuse"  # fmt: skip
    extends_id: Annotated[str | None, id_in_body(Kind.DATASET)] = None


class Side(Told):
    examples: int
    labels: dict[str, int]


class Contents(Told):
    """entries = examples + duplicates + rejected, where nothing is extended."""

    entries: int
    examples: int
    duplicates: int
    rejected: Annotated[dict[str, int], Field(description="By reason")]
    labels: dict[str, int]
    classes: Annotated[list[str], Field(description="The name of each class, in the net's order")]
    sides: dict[str, Side]
    warnings: list[str]
    digest: Annotated[str, Field(description="SHA-256 of its manifest")]


class Dataset(Told):
    id: str
    name: str
    datafile_id: str
    extends_id: str | None
    state: State
    reason: str | None
    detail: str
    progress: dict[str, Any]
    contents: Contents | None
    created_at: float
    finished_at: float | None


class DatasetSeen(Dataset):
    waits_for: WaitsFor


class Datasets(Told):
    items: list[Dataset]
    next: str | None


class Rejection(Told):
    number: int
    name: str
    reason: str
    detail: str


class Rejections(Told):
    counts: Annotated[dict[str, int], Field(description="Of all, by reason")]
    items: Annotated[list[Rejection], Field(description=f"The first {LISTED}; all of them: files/{REJECTED}")]


class Files(Told):
    items: list[SnapshotFile]


class TemplateShown(Told):
    """solver, net: texts for `POST /v1/solvers` with this dataset's id."""

    name: str
    about: str
    solver: str
    net: str


class Templates(Told):
    items: list[TemplateShown]


def _shown(row: Row) -> dict[str, Any]:
    result = json.loads(row["result"]) if row["result"] else None
    return {
        **{name: row[name] for name in Dataset.model_fields if name in row},
        "progress": json.loads(row["progress"]),
        "contents": {name: result[name] for name in Contents.model_fields} if result else None,
    }


async def row_of(statements: Statements, dataset: str) -> Row:
    """A dataset with its work.  Raises Refused: 404."""
    row = await statements.row(f"{_SQL} where datasets.id = $1", dataset)
    if row is None:
        raise absent()
    return row


async def there(statements: Statements, pointer: str, dataset: str) -> Row:
    """A dataset that a body names, which may not be made yet.  Raises Refused: 422; 409 where it never will be."""
    row = await statements.row(f"{_SQL} where datasets.id = $1", dataset)
    if row is None:
        raise invalid(pointer, "there is no such dataset", "list what is there")
    if State(row["state"]) in states.TERMINAL and row["state"] != State.SUCCEEDED:
        raise conflict(f"the dataset is {row['state']}", "make another one")
    return row


async def made(statements: Statements, pointer: str, dataset: str) -> dict[str, Any]:
    """What a dataset holds that a body names.  Raises Refused: 422 where there is none, 409 where it is not made."""
    row = await there(statements, pointer, dataset)
    if row["state"] != State.SUCCEEDED:
        raise conflict(f"the dataset is {row['state']}", "ask again once it has succeeded", AGAIN_SECONDS)
    found: dict[str, Any] = json.loads(row["result"])
    return found


async def classes_of(statements: Statements, job: str) -> list[str] | None:
    """The names of the classes of the dataset that a job trains on; None where it brings its inputs."""
    row = await statements.row(
        """select made.result from work join judgements
           on judgements.tenant_id = work.tenant_id and judgements.solver_id = work.solver_id
           join work made on made.tenant_id = judgements.tenant_id and made.id = judgements.dataset_id
           where work.id = $1""",
        job,
    )
    return list(json.loads(row["result"])["classes"]) if row is not None else None


async def add(
    request: Request, service: Service, actor: Member, body: DatasetGiven, key: IdempotencyKey = None
) -> Response:
    """Queues the import of an archive: tar, tar.gz or zip, of pictures in folders that are their labels.

    It is `waiting` while the archive is still uploaded, or the dataset that it extends is still imported.
    """

    async def make(statements: Statements) -> Made:
        datafile = await statements.row("select * from datafiles where id = $1", body.datafile_id)
        if datafile is None:
            raise invalid("#/datafile_id", "there is no such datafile", "list what is there")
        needs = [body.extends_id] if body.extends_id is not None else []
        for other in needs:
            await there(statements, "#/extends_id", other)
        await within(statements)
        name = new_id(Kind.DATASET, service.clock.now())
        wants = {**body.model_dump(include={"split", "by", "seed", "two_labels", "extends_id"}),
                 "archive": datafile["name"]}  # fmt: skip
        work = Submission(name, KIND, Slot.LIGHT, wants, 0, DAY, None, {"archive": body.datafile_id}, needs)
        await queue.submit(statements, actor.realm, work)
        await statements.row(
            """insert into datasets (tenant_id, id, name, datafile_id, extends_id, created_at)
               values ($1, $2, $3, $4, $5, instant()) returning id""",
            actor.tenant, name, body.name, body.datafile_id, body.extends_id,
        )  # fmt: skip
        shown = Dataset(**_shown(await row_of(statements, name)))
        return Made(shown.model_dump(mode="json"), f"/v1/datasets/{name}")

    return await create(request, service, actor.realm, key, make)


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Datasets:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = f"{_SQL} where datasets.id < $1 order by datasets.id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Datasets(items=[Dataset(**_shown(row)) for row in found], next=following)


async def one(request: Request, response: Response, service: Service, actor: Viewer, dataset: DatasetId) -> DatasetSeen:
    """One of them; `progress` says how far its import is, `contents` what it holds."""
    async with service.database.reading(actor.realm) as statements:
        row = await row_of(statements, dataset)
        waits = await dependencies.waited_for(statements, row)
    tagged(request, response, row["version"])
    return DatasetSeen(**_shown(row), waits_for=waits)


async def _files(service: Behind, actor: Actor, dataset: str) -> tuple[Row, dict[str, dict[str, Any]]]:
    async with service.database.reading(actor.realm) as statements:
        row = await row_of(statements, dataset)
        snapshot = await statements.row("select files from snapshots where work_id = $1", dataset)
    return row, {one["name"]: one for one in json.loads(snapshot["files"])} if snapshot is not None else {}


async def files(service: Service, actor: Viewer, dataset: DatasetId) -> Files:
    """Its shards and its manifest: a folder that `hathi train` takes."""
    _, found = await _files(service, actor, dataset)
    return Files(items=[SnapshotFile(**one) for one in found.values()])


async def file(service: Service, actor: Viewer, dataset: DatasetId, name: FileName) -> Response:
    """One of its files."""
    _, found = await _files(service, actor, dataset)
    if name not in found:
        raise absent()
    return download(service, found[name])


async def rejections(service: Service, actor: Viewer, dataset: DatasetId) -> Rejections:
    """The entries of the archive that are no example, each with its reason."""
    row, found = await _files(service, actor, dataset)
    if REJECTED not in found or not row["result"]:
        return Rejections(counts={}, items=[])
    text = await blobs.get(service.store, found[REJECTED]["key"], LIST_BYTES)
    items = [Rejection(**json.loads(line)) for line in text.splitlines()[:LISTED]]
    return Rejections(counts=json.loads(row["result"])["rejected"], items=items)


async def suited(service: Service, actor: Viewer, dataset: DatasetId) -> Templates:
    """Solvers to begin with, written for this dataset; the one to try first at the front."""
    async with service.database.reading(actor.realm) as statements:
        row = await row_of(statements, dataset)
    if not row["result"]:
        raise conflict(f"the dataset is {row['state']}", "templates are written for what it holds")
    data = Data(**json.loads(row["result"])["data"])
    return Templates(items=[TemplateShown(**asdict(one)) for one in templates(data)])


async def cancel(service: Service, actor: Member, dataset: DatasetId) -> Dataset:
    """Ends its import: at once where nobody does it, else within seconds."""
    async with service.database.transaction(actor.realm) as statements:
        await row_of(statements, dataset)
        if await queue.cancel(statements, actor.realm, dataset) is None:
            raise conflict("the import is over already", "GET it: its state says how it ended")
        return Dataset(**_shown(await row_of(statements, dataset)))


async def removed(service: Service, actor: Member, dataset: DatasetId, match: IfMatch = None) -> Response:
    """It is gone, with its files."""
    used = "solvers or other datasets use this dataset"
    return await remove_work(service, actor, (KIND, dataset), match, used, "datasets")


def _add(path: str, route: object, method: str, model: type[Told] | None, **more: Any) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, **more)


_add("", add, "POST", Dataset, status_code=201, responses=problems(409))
_add("", listed, "GET", Datasets, responses=problems())
_add("/{dataset}", one, "GET", DatasetSeen, responses=problems(304, 404))
_add("/{dataset}", removed, "DELETE", None, status_code=204, responses=problems(404, 409, 412, 428))
_add("/{dataset}/cancel", cancel, "POST", Dataset, status_code=202, responses=problems(404, 409))
_add("/{dataset}/rejections", rejections, "GET", Rejections, responses=problems(404))
_add("/{dataset}/templates", suited, "GET", Templates, responses=problems(404, 409))
_add("/{dataset}/files", files, "GET", Files, responses=problems(404))
_add("/{dataset}/files/{name}", file, "GET", None,
     responses={**problems(404), 200: {"description": "As it is", "content": BINARY}})  # fmt: skip
