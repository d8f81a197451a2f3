"""Classifiers: a job's snapshot, a model's version or an alias, with labels: made, listed, looked at, deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import classifying
from pipeline.service.database.statements import Row, Statements, Violated
from pipeline.service.http import removing
from pipeline.service.http.asking import Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import ClassifierId, Given, Name, Told, id_in_body, problems
from pipeline.service.http.meaning import Origin, named, origin_of
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, conflict, invalid

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
    """Of a training job, or of a model with one of version and alias."""

    name: Name
    training_job_id: Annotated[str | None, id_in_body(Kind.TRAINING_JOB)] = None
    iteration: Annotated[int | None, Field(ge=0, lt=2**31, description="Of a snapshot; the newest by default")] = None
    model_id: Annotated[str | None, id_in_body(Kind.MODEL)] = None
    version: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    alias: Annotated[
        str | None, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="It answers with what this names then")
    ] = None  # fmt: skip
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
    """Made of a training job, or of a model's version or alias."""

    id: str
    name: str
    training_job_id: str | None
    iteration: int | None
    model_id: str | None
    version: int | None
    alias: str | None
    created_at: float


class Classifier(ClassifierShort):
    """With an alias: of the version that it names now."""

    classes: int
    labels: list[str]
    shape: Annotated[list[int], Field(description="Of one example, as the net takes it")]
    pictures: Pictures | None
    preprocessing: Preprocessing | None
    probabilities: Annotated[bool, Field(description="Whether the net's values are such; else they are scores")]


class Classifiers(Told):
    items: list[ClassifierShort]
    next: str | None


def _short(row: Row) -> dict[str, Any]:
    same = ("id", "name", "iteration", "model_id", "alias", "created_at")
    return {**{name: row[name] for name in same}, "training_job_id": row["job_id"], "version": row["number"]}


def _shown(row: Row, found: classifying.Classifier) -> dict[str, Any]:
    facts = found.facts
    return {
        **_short(row), **{name: facts[name] for name in ("classes", "shape", "pictures", "probabilities")},
        "labels": list(found.labels), "preprocessing": dict(found.model.given) or None,
    }  # fmt: skip


def _labels(body: ClassifierGiven, origin: Origin) -> list[str] | None:
    """Raises Refused where they are not one for each class."""
    if body.labels is None:
        return None if body.alias is not None else origin.labels
    if body.alias is not None:
        raise invalid("#/labels", "an alias names versions, and these say their labels", "leave them out")
    classes = origin.facts["classes"]
    if len(body.labels) != classes:
        raise invalid("#/labels", f"there are {len(body.labels)} labels, and the net has {classes} classes")
    return list(body.labels)


def _given(body: ClassifierGiven, facts: dict[str, Any]) -> dict[str, Any]:
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
    """How pictures are prepared comes from the job that trained the net."""
    origin = await origin_of(service, actor, body.model_dump())
    labels, given = _labels(body, origin), _given(body, origin.facts)
    fixed = body.alias is None

    async def make(statements: Statements) -> Made:
        name = new_id(Kind.CLASSIFIER, service.clock.now())
        await statements.row(
            """insert into classifiers (tenant_id, id, name, job_id, iteration, model_id, number, alias, labels, given,
                   facts, files, created_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, instant()) returning id""",
            actor.tenant, name, body.name, body.training_job_id, origin.iteration if body.training_job_id else None,
            body.model_id, body.version, body.alias, json.dumps(labels) if labels is not None else None,
            json.dumps(given), json.dumps(origin.facts) if fixed else None,
            json.dumps(origin.files) if fixed else None,
        )  # fmt: skip
        row = await statements.row("select * from classifiers where id = $1", name)
        if row is None:
            raise absent()
        return Made(Classifier(**_shown(row, named(row, origin))).model_dump(), f"/v1/classifiers/{name}")

    try:
        return await create(request, service, actor.realm, key, make)
    except Violated as error:
        raise conflict("what the classifier is made of was deleted meanwhile", "take another one") from error


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Classifiers:
    """All of them, the newest first, without their labels."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = "select * from classifiers where id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Classifiers(items=[ClassifierShort(**_short(row)) for row in found], next=following)


async def one(
    request: Request, response: Response, service: Service, actor: Viewer, classifier: ClassifierId
) -> Classifier:
    """One of them."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from classifiers where id = $1", classifier)
    if row is None:
        raise absent()
    if row["alias"] is None:
        tagged(request, response, row["version"])
        return Classifier(**_shown(row, classifying.Classifier.of(row)))
    origin = await origin_of(service, actor, _short(row))
    response.headers["ETag"] = f'"{row["version"]}"'
    return Classifier(**_shown(row, named(row, origin)))


async def remove(service: Service, actor: Member, classifier: ClassifierId, match: IfMatch = None) -> Response:
    """It is gone; the job's snapshot stays."""
    return await removing.remove(service, actor, ("classifiers", classifier), match, "jobs use this classifier")


router.add_api_route("", add, methods=["POST"], response_model=Classifier, status_code=201, responses=problems(409))
router.add_api_route("", listed, methods=["GET"], response_model=Classifiers, responses=problems())
router.add_api_route(
    "/{classifier}", one, methods=["GET"], response_model=Classifier, responses=problems(304, 404, 409)
)  # fmt: skip
router.add_api_route(
    "/{classifier}", remove, methods=["DELETE"], status_code=204, responses=problems(404, 409, 412, 428)
)  # fmt: skip
