"""Aliases of a model's versions, and what happened to a model: written once, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import Field

from pipeline.clock import Clock
from pipeline.service.database.statements import Row, Statements, Taken
from pipeline.service.http.asking import Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, stale, tag_of, tagged, wanted
from pipeline.service.http.documents import Given, ModelId, Told, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind, new_id
from pipeline.service.problems import absent, invalid
from pipeline.service.words import Actor

AliasName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=200, description="`*`: only where there is no such alias yet")
]  # fmt: skip


class AliasGiven(Given):
    version: Annotated[int, Field(ge=1, lt=2**31)]


class Alias(Told):
    alias: str
    version: int


class Happened(Told):
    """before: the version that an alias named until then."""

    id: str
    at: float
    actor: str
    action: str
    version: int | None
    alias: str | None
    before: int | None


class History(Told):
    items: list[Happened]
    next: str | None


async def model_of(statements: Statements, model: str) -> Row:
    """A model's row.  Raises Refused: 404."""
    row = await statements.row("select * from models where id = $1", model)
    if row is None:
        raise absent()
    return row


async def noted(statements: Statements, actor: Actor, clock: Clock, of: Mapping[str, Any]) -> None:
    """Writes down what happened, in the caller's transaction.  of: model_id, action; number, alias, before."""
    await statements.row(
        """insert into model_history (tenant_id, id, model_id, at, actor, action, number, alias, before)
           values ($1, $2, $3, instant(), $4, $5, $6, $7, $8) returning id""",
        actor.tenant, new_id(Kind.EVENT, clock.now()), of["model_id"], actor.user, of["action"], of.get("number"),
        of.get("alias"), of.get("before"),
    )  # fmt: skip


async def _alias_of(statements: Statements, model: str, alias: str) -> Row | None:
    return await statements.row("select * from model_aliases where model_id = $1 and alias = $2", model, alias)


@dataclass(frozen=True)
class _Meant:
    """new: there has to be none yet; version: else the one that is changed, None for whichever is there."""

    new: bool
    version: int | None


async def _meant(match: IfMatch = None, no_match: IfNoneMatch = None) -> _Meant:
    """Raises Refused: 428 where a request says neither."""
    new = match is None and (no_match or "").strip() == "*"
    return _Meant(new, None if new else wanted(match))


async def put(
    service: Service, actor: Member, model: ModelId, alias: AliasName, body: AliasGiven,
    meant: Annotated[_Meant, Depends(_meant)],
) -> Response:  # fmt: skip
    """Names a version: another one with If-Match, a new alias with `If-None-Match: *`."""
    try:
        async with service.database.transaction(actor.realm) as statements:
            await model_of(statements, model)
            before = await _alias_of(statements, model, alias)
            if (before is None) != meant.new or (before and meant.version not in (None, before["version"])):
                raise stale()
            there = await statements.row(
                "select number from model_versions where model_id = $1 and number = $2", model, body.version
            )  # fmt: skip
            if there is None:
                raise invalid("#/version", "the model has no such version", "list its versions")
            changed = await _named(statements, actor, (model, alias, body.version), before)
            of = {"model_id": model, "action": "alias set", "number": body.version, "alias": alias,
                  "before": before["number"] if before is not None else None}  # fmt: skip
            await noted(statements, actor, service.clock, of)
    except Taken as error:
        raise stale() from error
    told = Alias(alias=alias, version=body.version).model_dump_json()
    return Response(told, 200 if before else 201, {"ETag": tag_of(changed)}, "application/json")


async def _named(statements: Statements, actor: Actor, of: tuple[str, str, int], before: Row | None) -> int:
    """Writes the alias; its version.  Raises Refused: 412, Taken where somebody else did meanwhile."""
    model, alias, number = of
    if before is None:
        await statements.row(
            """insert into model_aliases (tenant_id, model_id, alias, number) values ($1, $2, $3, $4)
               returning alias""",
            actor.tenant, model, alias, number,
        )  # fmt: skip
        return 1
    row = await statements.row(
        """update model_aliases set number = $4, version = version + 1
           where tenant_id = $1 and model_id = $2 and alias = $3 and version = $5 returning version""",
        actor.tenant, model, alias, number, before["version"],
    )  # fmt: skip
    if row is None:
        raise stale()
    return int(row["version"])


async def one(
    request: Request, response: Response, service: Service, actor: Viewer, model: ModelId, alias: AliasName
) -> Alias:
    """The version that it names."""
    async with service.database.reading(actor.realm) as statements:
        row = await _alias_of(statements, model, alias)
    if row is None:
        raise absent()
    tagged(request, response, row["version"])
    return Alias(alias=alias, version=row["number"])


async def remove(service: Service, actor: Member, model: ModelId, alias: AliasName, match: IfMatch = None) -> Response:
    """It names nothing any more."""
    version = wanted(match)
    async with service.database.transaction(actor.realm) as statements:
        row = await _alias_of(statements, model, alias)
        if row is None:
            raise absent()
        gone = await statements.row(
            """delete from model_aliases where tenant_id = $1 and model_id = $2 and alias = $3 and version = $4
               returning alias""",
            actor.tenant, model, alias, row["version"] if version is None else version,
        )  # fmt: skip
        if gone is None:
            raise stale()
        of = {"model_id": model, "action": "alias removed", "alias": alias, "before": row["number"]}
        await noted(statements, actor, service.clock, of)
    return Response(status_code=204)


async def history(
    request: Request, response: Response, service: Service, actor: Viewer, model: ModelId, paged: Paged
) -> History:
    """Who did what to the model, and when, the newest first; nothing of it is ever changed."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            await model_of(statements, model)
            return await statements.rows(
                "select * from model_history where model_id = $1 and id < $2 order by id desc limit $3",
                model, after, most,
            )  # fmt: skip

    found, following = await page(request, response, service, actor.tenant, rows)
    return History(items=[Happened(**{**row, "version": row["number"]}) for row in found], next=following)


def add_to(router: APIRouter) -> None:
    """Adds the routes below one model."""
    where, found = "/{model}/aliases/{alias}", problems(404, 412, 428)
    router.add_api_route(where, put, methods=["PUT"], response_model=Alias,
                         responses={**found, 201: {"model": Alias, "description": "A new alias"}})  # fmt: skip
    router.add_api_route(where, one, methods=["GET"], response_model=Alias, responses=problems(304, 404))
    router.add_api_route(where, remove, methods=["DELETE"], status_code=204, responses=found)
    router.add_api_route("/{model}/history", history, methods=["GET"], response_model=History, responses=problems(404))
