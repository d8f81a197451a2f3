"""Classifiers: a snapshot of a training with its labels, made, listed, looked at, deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import blobs
from pipeline.service.classifying import FACTS_BYTES, facts_of
from pipeline.service.database.statements import Row, Statements, Violated
from pipeline.service.http import removing
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import ClassifierId, Given, Name, Told, id_in_body, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.serving.parent import files_of
from pipeline.service.words import Actor
from pipeline.service.work.preparing import SERVING

router = APIRouter(prefix="/v1/classifiers", tags=["classifiers"])
MOST_LABELS = 100_000


class Preprocessing(Given):
    """How pictures become the numbers that the job's own data files held: (value - mean) * scale."""

    channel_order: Literal["bgr", "rgb"] = "bgr"
    mean: Annotated[list[float], Field(max_length=3, description="0 to 255: none, one, or one for each channel")] = (
        Field(default_factory=list)
    )
    scale: Annotated[float, Field(gt=-1e6, lt=1e6)] = 1.0


class ClassifierGiven(Given):
    name: Name
    training_job_id: Annotated[str, id_in_body(Kind.TRAINING_JOB)]
    iteration: Annotated[int | None, Field(ge=0, lt=2**31, description="Of a snapshot; the newest by default")] = None
    labels: Annotated[
        list[Name] | None, Field(max_length=MOST_LABELS, description="A name for each class, in the net's order")
    ] = None  # fmt: skip
    preprocessing: Annotated[
        Preprocessing | None, Field(description="For a net that learned from numbers (HDF5Data), and for no other")
    ] = None  # fmt: skip


class Pictures(Told):
    """As the job's data layer made numbers of pictures: what a classifier does as well."""

    channels: int
    size: Annotated[list[int], Field(description="Height and width to which a picture is resized")]
    crop: Annotated[int, Field(description="The middle of it; 0: all")]
    scale: float
    mean: Annotated[list[float] | Literal["image"] | None, Field(description="`image`: a mean image of the job")]


class ClassifierShort(Told):
    id: str
    name: str
    training_job_id: str
    iteration: int
    classes: int
    created_at: float


class Classifier(ClassifierShort):
    labels: list[str]
    shape: Annotated[list[int], Field(description="Of one example, as the net takes it")]
    pictures: Pictures | None
    preprocessing: Preprocessing | None
    probabilities: Annotated[bool, Field(description="Whether the net's values are such; else they are scores")]


class Classifiers(Told):
    items: list[ClassifierShort]
    next: str | None


@dataclass(frozen=True)
class _Snapshot:
    """What a classifier is made from."""

    iteration: int
    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]


def _shown(row: Row) -> dict[str, Any]:
    facts = json.loads(row["facts"])
    return {
        **{name: row[name] for name in ("id", "name", "iteration", "created_at")}, "training_job_id": row["job_id"],
        **{name: facts[name] for name in ("classes", "shape", "pictures", "probabilities")},
        "labels": json.loads(row["labels"]), "preprocessing": json.loads(row["given"]) or None,
    }  # fmt: skip


async def _snapshot(service: Behind, actor: Actor, body: ClassifierGiven) -> _Snapshot:
    """Raises Refused where there is no such snapshot, or one that classifies nothing."""
    async with service.database.reading(actor.realm) as statements:
        job = await statements.row("select id from work where id = $1 and kind = 'train'", body.training_job_id)
        only = "" if body.iteration is None else "and iteration = $2"
        row = await statements.row(
            f"""select iteration, files from snapshots where work_id = $1 {only} order by iteration desc limit 1""",
            body.training_job_id, *([] if body.iteration is None else [body.iteration]),
        )  # fmt: skip
    if job is None:
        raise invalid("#/training_job_id", "there is no such training job", "list what is there")
    if row is None and body.iteration is not None:
        raise invalid("#/iteration", "the job has no such snapshot", "GET its snapshots")
    if row is None:
        raise conflict("the job has no snapshot yet", "wait until it has one, or let its solver write them sooner")
    files = files_of(json.loads(row["files"]))
    if not files:
        raise conflict("this snapshot does not say how its net serves", "train the job again")
    said = files[SERVING]
    facts = facts_of(await blobs.get(service.store, said["key"], min(int(said["size"]), FACTS_BYTES)))
    if "refused" in facts:
        raise conflict("the net of this job classifies nothing", facts["refused"])
    return _Snapshot(row["iteration"], files, facts)


def _labels(body: ClassifierGiven, classes: int) -> list[str]:
    if body.labels is None:
        return [str(number) for number in range(classes)]
    if len(body.labels) != classes:
        raise invalid("#/labels", f"there are {len(body.labels)} labels, and the net has {classes} classes")
    return list(body.labels)


def _judge(body: ClassifierGiven, facts: dict[str, Any]) -> dict[str, Any]:
    """What the maker says of pictures.  Raises Refused where the job says it, or the net takes none."""
    if body.preprocessing is None:
        return {}
    if facts["pictures"] is not None:
        says = "the job's data layer says how pictures are prepared, and that is what the net learned with"
        raise invalid("#/preprocessing", says, "leave it out")
    shape = facts["shape"]
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise invalid("#/preprocessing", f"the net takes no pictures, but {shape}", "leave it out, and send numbers")
    if len(body.preprocessing.mean) not in (0, 1, shape[0]):
        raise invalid("#/preprocessing/mean", f"give none, one, or one for each of {shape[0]} channels")
    return body.preprocessing.model_dump()


async def add(
    request: Request, service: Service, actor: Member, body: ClassifierGiven, key: IdempotencyKey = None
) -> Response:
    """Of a job's snapshot; how pictures are prepared comes from the job."""

    async def make(statements: Statements) -> Made:
        name = new_id(Kind.CLASSIFIER, service.clock.now())
        await statements.row(
            """insert into classifiers (tenant_id, id, name, job_id, iteration, labels, given, facts, files, created_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, instant()) returning id""",
            actor.tenant, name, body.name, body.training_job_id, found.iteration, json.dumps(labels),
            json.dumps(given), json.dumps(found.facts), json.dumps(found.files),
        )  # fmt: skip
        row = await statements.row("select * from classifiers where id = $1", name)
        if row is None:
            raise absent()
        return Made(Classifier(**_shown(row)).model_dump(), f"/v1/classifiers/{name}")

    found = await _snapshot(service, actor, body)
    labels, given = _labels(body, found.facts["classes"]), _judge(body, found.facts)
    try:
        return await create(request, service, actor.realm, key, make)
    except Violated as error:
        raise conflict("the snapshot was deleted meanwhile", "take another one") from error


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Classifiers:
    """All of them, the newest first, without their labels."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = "select * from classifiers where id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Classifiers(items=[ClassifierShort(**_shown(row)) for row in found], next=following)


async def one(
    request: Request, response: Response, service: Service, actor: Viewer, classifier: ClassifierId
) -> Classifier:
    """One of them."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from classifiers where id = $1", classifier)
    if row is None:
        raise absent()
    tagged(request, response, row["version"])
    return Classifier(**_shown(row))


async def remove(service: Service, actor: Member, classifier: ClassifierId, match: IfMatch = None) -> Response:
    """It is gone; the job's snapshot stays."""
    return await removing.remove(service, actor, ("classifiers", classifier), match, "jobs use this classifier")


router.add_api_route("", add, methods=["POST"], response_model=Classifier, status_code=201, responses=problems(409))
router.add_api_route("", listed, methods=["GET"], response_model=Classifiers, responses=problems())
router.add_api_route("/{classifier}", one, methods=["GET"], response_model=Classifier, responses=problems(304, 404))
router.add_api_route("/{classifier}", remove, methods=["DELETE"], status_code=204, responses=problems(404, 412, 428))
