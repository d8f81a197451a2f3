"""Who belongs to a tenant, with which tokens, and what was done to either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service.auth import tokens
from pipeline.service.database.statements import Row
from pipeline.service.http.asking import Admin, Behind, Service, Viewer
from pipeline.service.http.conditional import IfMatch, stale, wanted
from pipeline.service.http.documents import Given, Name, TokenId, Told, UserId, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.tenants import AsRole, Member, shown
from pipeline.service.problems import Problem, Refused, absent, conflict
from pipeline.service.words import PLATFORM, Actor, Role
from pipeline.times import DAY

router = APIRouter(prefix="/v1")


_USED = """select coalesce((select bytes from usage), 0) as stored_bytes,
    (select count(*) from work where finished_at is null and state in ('waiting', 'queued')) as queued,
    (select count(*) from work where finished_at is null and state = 'running') as running"""


class Me(Told):
    user_id: str
    name: str
    tenant_id: str
    tenant: str
    role: Role
    platform: bool
    quotas: dict[str, int]
    used: Annotated[dict[str, int], Field(description="Of the limits that are no rate, how much is used now")]


class MemberChanges(Given):
    role: AsRole


class Members(Told):
    items: list[Member]


class TokenGiven(Given):
    name: Name
    role: AsRole = Role.MEMBER
    days: Annotated[int | None, Field(ge=1, le=3650)] = None


class Token(Told):
    id: str
    user_id: str
    name: str
    role: Role
    created_at: float
    expires_at: float | None
    used_at: float | None


class TokenMade(Token):
    token: str


class Tokens(Told):
    items: list[Token]
    next: str | None


class Event(Told):
    id: str
    at: float
    actor: str
    action: str
    object: str
    detail: str


class Events(Told):
    items: list[Event]
    next: str | None


async def me(service: Service, actor: Viewer) -> Me:
    """Who asks, for which tenant, and what it may use."""
    return await about(service, actor)


async def about(service: Behind, actor: Actor) -> Me:
    """The document of who asks."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from tenants")
        used = await statements.row(_USED)
    if row is None or used is None:
        raise absent()
    tenant, names = shown(row), await _names(service, actor.tenant)
    return Me(user_id=actor.user, name=names.get(actor.user, ""), tenant_id=actor.tenant, tenant=tenant.name,
              role=actor.role, platform=actor.platform, quotas=tenant.quotas,
              used={name: int(value) for name, value in used.items()})  # fmt: skip


async def _names(service: Behind, tenant: str) -> dict[str, str]:
    """What the members of a tenant are called, by their ids: users are the installation's."""
    async with service.database.reading(PLATFORM) as statements:
        rows = await statements.rows(
            """select users.id, users.name from members join users on users.id = members.user_id
               where members.tenant_id = $1 limit 1000""",
            tenant,
        )  # fmt: skip
    return {row["id"]: row["name"] for row in rows}


async def list_members(service: Service, actor: Viewer) -> Members:
    """All members."""
    async with service.database.reading(actor.realm) as statements:
        rows = await statements.rows("select * from members order by user_id limit 1000")
    names = await _names(service, actor.tenant)
    return Members(items=[Member(**row, name=names.get(row["user_id"], "")) for row in rows])


async def change_member(
    response: Response, service: Service, actor: Admin, user: UserId, body: MemberChanges, match: IfMatch = None
) -> Member:
    """Another role."""
    version = wanted(match)
    async with service.database.transaction(actor.realm) as statements:
        there = await statements.row("select * from members where user_id = $1", user)
        if there is None:
            raise absent()
        row = await statements.row(
            """update members set role = $3, version = version + 1
               where tenant_id = $1 and user_id = $2 and version = $4 returning *""",
            actor.tenant, user, body.role, there["version"] if version is None else version,
        )  # fmt: skip
        if row is None:
            raise stale()
        await tokens.note(statements, actor.realm, actor.user, "role", (user, body.role, service.clock.now()))
    response.headers["ETag"] = f'"{row["version"]}"'
    return Member(**row, name=(await _names(service, actor.tenant)).get(user, ""))


async def remove_member(service: Service, actor: Admin, user: UserId, match: IfMatch = None) -> Response:
    """A member goes, with all tokens and sessions; at their next request they are nobody here."""
    version = wanted(match)
    async with service.database.transaction(actor.realm) as statements:
        there = await statements.row("select * from members where user_id = $1", user)
        if there is None:
            raise absent()
        if version not in (None, there["version"]):
            raise stale()
        if user == actor.user:
            raise conflict("nobody takes their own rights away", "ask another admin")
        for table in ("links", "sessions", "tokens"):
            await statements.rows(
                f"delete from {table} where tenant_id = $1 and user_id = $2 returning user_id", actor.tenant, user
            )
        await statements.rows(
            "delete from members where tenant_id = $1 and user_id = $2 returning user_id", actor.tenant, user
        )
        await tokens.note(statements, actor.realm, actor.user, "member removed", (user, "", service.clock.now()))
    return Response(status_code=204)


async def add_token(service: Service, actor: Viewer, body: TokenGiven) -> Response:
    """A token of one's own, with no greater role; it is shown this once."""
    if not actor.role.covers(body.role):
        raise Refused(Problem(403, f"a {actor.role} makes no token of a {body.role}", "", "role"))
    now = service.clock.now()
    expires = now + body.days * DAY if body.days is not None else None
    async with service.database.transaction(actor.realm) as statements:
        mine = Actor(actor.tenant, actor.user, "", body.role)
        name, secret = await tokens.add(statements, mine, body.name, now, expires)
        row = await statements.row("select * from tokens where id = $1", name)
        await tokens.note(statements, actor.realm, actor.user, "token added", (name, body.role, now))
    if row is None:
        raise absent()
    made = TokenMade(**{**row, "token": secret})
    return Response(made.model_dump_json(), 201, {"Location": f"/v1/tokens/{name}"}, "application/json")


async def list_tokens(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Tokens:
    """One's own tokens; an admin sees those of all."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            whose = "" if actor.role is Role.ADMIN else "and user_id = $3"
            sql = f"select * from tokens where id < $1 {whose} order by id desc limit $2"
            return await statements.rows(sql, after, most, *([actor.user] if whose else []))

    found, following = await page(request, response, service, actor.tenant, rows)
    return Tokens(items=[Token(**row) for row in found], next=following)


async def revoke(service: Service, actor: Viewer, token: TokenId) -> Response:
    """The token is nobody's from the next request on."""
    async with service.database.transaction(actor.realm) as statements:
        row = await statements.row("select user_id from tokens where id = $1", token)
        if row is None or (row["user_id"] != actor.user and actor.role is not Role.ADMIN):
            raise absent()
        await statements.rows("delete from tokens where tenant_id = $1 and id = $2 returning id", actor.tenant, token)
        await tokens.note(statements, actor.realm, actor.user, "token revoked", (token, "", service.clock.now()))
    return Response(status_code=204)


async def audit(request: Request, response: Response, service: Service, actor: Admin, paged: Paged) -> Events:
    """What changed rights in this tenant, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            return await statements.rows("select * from audit where id < $1 order by id desc limit $2", after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Events(items=[Event(**row) for row in found], next=following)


def _add(path: str, route: object, method: str, model: type[Told] | None, **more: object) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, tags=["team"], **more)


_add("/me", me, "GET", Me, responses=problems(404))
_add("/members", list_members, "GET", Members, responses=problems())
_add("/members/{user}", change_member, "PATCH", Member, responses=problems(404, 412, 428))
_add("/members/{user}", remove_member, "DELETE", None, status_code=204, responses=problems(404, 409, 412, 428))
_add("/tokens", add_token, "POST", TokenMade, status_code=201, responses=problems())
_add("/tokens", list_tokens, "GET", Tokens, responses=problems())
_add("/tokens/{token}", revoke, "DELETE", None, status_code=204, responses=problems(404))
_add("/audit", audit, "GET", Events, responses=problems())
