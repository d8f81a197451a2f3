"""Promotions: a version of a model goes into use in the lake, for a feature set that was granted to the tenant."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import queue
from pipeline.service.auth import tokens
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Behind, Operator, Service, Viewer
from pipeline.service.http.creating import IdempotencyKey, Made, create, told_before
from pipeline.service.http.documents import Given, PromotionId, ShortName, Told, id_in_body, problems
from pipeline.service.http.meaning import origin_of
from pipeline.service.http.model_aliases import noted
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.training_jobs import within
from pipeline.service.ids import Kind, new_id
from pipeline.service.preparation import differences
from pipeline.service.problems import Problem, Refused, absent, conflict, invalid
from pipeline.service.promotion import KIND, Promoter, Requested, beside, granted, lakes_of
from pipeline.service.queue import Submission
from pipeline.service.words import Actor, Slot, State
from pipeline.settings import FeatureSet
from pipeline.times import HOUR

router = APIRouter(prefix="/v1/promotions", tags=["promotions"])
Number = Annotated[int | None, Field(ge=1, lt=2**31)]


class PromotionGiven(Given):
    """A model's version or alias; or the number of an older promotion of the set's model: the way back."""

    feature_set: ShortName
    model_id: Annotated[str | None, id_in_body(Kind.MODEL)] = None
    version: Number = None
    alias: Annotated[
        str | None, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="The version that it names now")
    ] = None  # fmt: skip
    number: Annotated[int | None, Field(ge=1, le=9_999_999_999)] = None
    lake: Annotated[ShortName | None, Field(description="Each that the set takes, by default")] = None
    blob: Annotated[
        str | None, Field(max_length=200, description="Refused where the set has another; the set's by default")
    ] = None  # fmt: skip
    backfill: Annotated[bool, Field(description="Also computes anew what the set has delivered before")] = False
    why: Annotated[str, Field(max_length=2000)] = ""


class InUse(Told):
    lake: str
    model: Annotated[str, Field(description="The name that the set follows in the lake")]
    number: Annotated[int, Field(description="Of the promotion, in that lake")]
    new: Annotated[bool, Field(description="Whether these files were not in use before")]
    fingerprint: Annotated[str, Field(description="Of the set's features from now on")]
    before: Annotated[str, Field(description="Until now; empty where there was none")]


class BackFill(Told):
    """Of the newest snapshot of each source.  Failures that may go away are tried again."""

    snapshots: int
    delivered: Annotated[int, Field(description="Snapshots whose features are in the lake")]
    refs: Annotated[int, Field(description="Image refs, as far as they were read before or now")]
    computed: int
    features: int
    failures: int


class Promotion(Told):
    id: str
    state: State
    reason: str | None
    detail: str
    feature_set: str
    model_id: str | None
    version: Annotated[int | None, Field(description="Of the model; with an alias the one that it named then")]
    alias: str | None
    number: Annotated[int | None, Field(description="The older promotion that comes back")]
    lake: str | None
    backfill: bool
    why: str
    asked_by: str
    attempt: int
    in_use: Annotated[list[InUse] | None, Field(description="By lake, once it has succeeded")]
    created_at: float
    started_at: float | None
    finished_at: float | None


class PromotionSeen(Promotion):
    progress: Annotated[BackFill | None, Field(description="Of the back-fill, where one was asked for")]


class Promotions(Told):
    items: list[Promotion]
    next: str | None


def shown(row: Row) -> dict[str, Any]:
    """A promotion's row as a document."""
    body, result = json.loads(row["body"]), json.loads(row["result"]) if row["result"] else {}
    same = ("id", "state", "reason", "detail", "created_at", "started_at", "finished_at")
    asked = ("feature_set", "model_id", "version", "alias", "number", "backfill", "why")
    return {
        **{name: row[name] for name in same}, **{name: body[name] for name in asked}, "lake": body["lake"] or None,
        "asked_by": body["by"], "attempt": row["epoch"], "in_use": result.get("in_use"),
    }  # fmt: skip


def _nobody() -> Refused:
    return invalid("#/feature_set", "there is no such feature set, or it is not granted to your tenant",
                   "an operator of the installation grants it: [service.promotion]")  # fmt: skip


async def _granted(service: Behind, actor: Actor, name: str) -> tuple[Promoter, FeatureSet]:
    """The set, where it may be promoted to.  Raises Refused: 422, 409."""
    async with service.database.reading(actor.realm) as statements:
        tenant = await statements.row("select name from tenants")
    promoter = service.promoter
    one = granted(promoter.settings, tenant["name"], name) if promoter is not None and tenant is not None else None
    if promoter is None or tenant is None or one is None:
        raise _nobody()
    if beside(promoter.settings, tenant["name"], one):
        raise conflict("other feature sets follow the same model, and are not granted to your tenant",
                       "an operator of the installation grants all of them, or none")  # fmt: skip
    return promoter, one


async def _wanted(service: Behind, actor: Actor, body: PromotionGiven) -> dict[str, Any]:
    """What the work says.  Raises Refused for what cannot be promoted, before anything is queued."""
    found, version = None, None
    if (body.model_id is None) == (body.number is None):
        raise invalid("#/model_id", "a promotion is of a model, or of an older number", "give one of the two")
    if body.model_id is not None:
        said = body.model_dump(include={"model_id", "version", "alias"})
        found = await origin_of(service, actor, said)
        version = found.number
    elif body.version is not None or body.alias is not None:
        raise invalid("#/number", "an older promotion has its files already", "leave out version and alias")
    promoter, one = await _granted(service, actor, body.feature_set)
    lakes = lakes_of(promoter.settings, one)
    if body.lake is not None and body.lake not in lakes:
        raise invalid("#/lake", f"set {body.feature_set} takes no lake {body.lake}", f"it takes {', '.join(lakes)}")
    if body.number is not None and body.lake is None and len(lakes) > 1:
        raise invalid("#/lake", "a number is another promotion in each lake", f"name one: {', '.join(lakes)}")
    if body.blob is not None and body.blob != one.blob:
        said_blob = f"blob is {one.blob} in set {body.feature_set}, and {body.blob} was asked for"
        raise invalid("#/blob", said_blob, "the blob is a setting of the set, on gateways and boxes alike")
    if found is not None and (wrong := differences(body.feature_set, one, found.facts)):
        raise _unlike(wrong)
    return {
        **body.model_dump(include={"feature_set", "model_id", "alias", "number", "backfill", "why"}),
        "version": version, "lake": body.lake or "", "by": actor.user,
    }  # fmt: skip


def _unlike(wrong: Sequence[str]) -> Refused:
    """The accuracy would not be the one that the job said."""
    errors = tuple({"pointer": "#/feature_set", "detail": one} for one in wrong)
    hint = "an operator changes [sets.NAME.preprocess], on gateways and boxes alike; or train as the set prepares"
    says = "the set prepares pictures in another way than the test of the job: its accuracy would be another one"
    return Refused(Problem(422, says, hint, "preparation", errors=errors))


async def add(
    request: Request, service: Service, actor: Operator, body: PromotionGiven, key: IdempotencyKey = None
) -> Response:
    """A worker puts it into use; with `backfill` the set's older features are then computed anew."""
    before = await told_before(request, service, actor.realm, key)
    if before is not None:
        return before
    wants = await _wanted(service, actor, body)

    async def make(statements: Statements) -> Made:
        await within(statements)
        name = new_id(Kind.PROMOTION, service.clock.now())
        await queue.submit(statements, actor.realm, Submission(name, KIND, Slot.LIGHT, wants, max_seconds=HOUR))
        await _told(statements, service, actor, (name, wants))
        row = await statements.row("select * from work where id = $1", name)
        if row is None:
            raise absent()
        return Made(Promotion(**shown(row)).model_dump(mode="json"), f"/v1/promotions/{name}", 0)

    return await create(request, service, actor.realm, key, make)


async def _told(statements: Statements, service: Behind, actor: Actor, of: tuple[str, Mapping[str, Any]]) -> None:
    """Audit, and the model's own history.  of: the promotion and what it wants."""
    name, wants = of
    what = f"{wants['model_id']} {wants['version']}" if wants["model_id"] else f"number {wants['number']}"
    detail = f"{what} for {wants['feature_set']}"
    await tokens.note(statements, actor.realm, actor.user, "promotion", (name, detail, service.clock.now()))
    if wants["model_id"] is not None:
        happened = {"model_id": wants["model_id"], "action": f"promoted for {wants['feature_set']}",
                    "number": wants["version"], "alias": wants["alias"]}  # fmt: skip
        await noted(statements, actor, service.clock, happened)


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Promotions:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            sql = f"select * from work where kind = '{KIND}' and id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Promotions(items=[Promotion(**shown(row)) for row in found], next=following)


async def one(service: Service, actor: Viewer, promotion: PromotionId) -> PromotionSeen:
    """One of them, and how far its back-fill is."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row(f"select * from work where id = $1 and kind = '{KIND}'", promotion)
    if row is None:
        raise absent()
    asked = json.loads(row["result"])["backfill"] if row["result"] else None
    progress = None
    if asked is not None and service.promoter is not None:
        shipments = [Requested(**said) for said in asked]
        async with service.looking:
            far = await asyncio.to_thread(service.promoter.progress, shipments)
        progress = BackFill(**{name: getattr(far, name) for name in BackFill.model_fields})
    return PromotionSeen(**shown(row), progress=progress)


def _add(path: str, route: object, method: str, model: type[Told], **more: Any) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, **more)


_add("", add, "POST", Promotion, status_code=201, responses=problems(409))
_add("", listed, "GET", Promotions, responses=problems())
_add("/{promotion}", one, "GET", PromotionSeen, responses=problems(404))
