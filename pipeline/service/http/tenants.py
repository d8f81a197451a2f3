"""Tenants and users of the installation: what its operators make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service import tenants
from pipeline.service.auth import tokens
from pipeline.service.database.statements import Row, Taken, Violated
from pipeline.service.http.asking import Platform, Service
from pipeline.service.http.conditional import IfMatch, stale, tagged, wanted
from pipeline.service.http.documents import Given, ShortName, TenantId, Told, id_in_body, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.quotas import Quotas
from pipeline.service.words import PLATFORM, Role

router = APIRouter(prefix="/v1")
AsRole = Annotated[Role, Field(strict=False)]


class TenantGiven(Given):
    name: ShortName
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    running: Annotated[int, Field(ge=0, le=10_000)] = 4


class TenantChanges(Given):
    weight: Annotated[int | None, Field(ge=1, le=1000)] = None
    running: Annotated[int | None, Field(ge=0, le=10_000)] = None
    quotas: dict[str, Annotated[int, Field(ge=0, lt=2**53)]] | None = None


class Tenant(Told):
    id: str
    name: str
    weight: int
    running: int
    quotas: dict[str, int]
    created_at: float


class Tenants(Told):
    items: list[Tenant]
    next: str | None


class MemberGiven(Given):
    user_id: Annotated[str, id_in_body(Kind.USER)]
    role: AsRole = Role.MEMBER


class Member(Told):
    user_id: str
    name: str
    role: Role
    created_at: float
    version: int


class UserGiven(Given):
    name: ShortName


class User(Told):
    id: str
    name: str
    created_at: float


class Users(Told):
    items: list[User]
    next: str | None


def shown(row: Row) -> Tenant:
    """A tenant's row as a document."""
    return Tenant(**{**row, "quotas": {**json.loads(row["quotas"]), "running": row["running"]}})


async def add_tenant(service: Service, actor: Platform, body: TenantGiven) -> Response:
    """Makes a tenant."""
    try:
        async with service.database.transaction(PLATFORM) as statements:
            name = await tenants.add_tenant(statements, body.name, service.clock, body.weight, body.running)
            await tokens.note(statements, PLATFORM, actor.user, "tenant added", (name, body.name, service.clock.now()))
            row = await statements.row("select * from tenants where id = $1", name)
    except Taken as error:
        raise conflict(f"a tenant is called {body.name} already", "choose another name") from error
    if row is None:
        raise absent()
    headers = {"Location": f"/v1/tenants/{name}", "ETag": '"1"'}
    return Response(shown(row).model_dump_json(), 201, headers, "application/json")


async def list_tenants(
    request: Request, response: Response, service: Service, actor: Platform, paged: Paged
) -> Tenants:
    """All tenants, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(PLATFORM) as statements:
            sql = "select * from tenants where id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Tenants(items=[shown(row) for row in found], next=following)


async def get_tenant(
    request: Request, response: Response, service: Service, actor: Platform, tenant: TenantId
) -> Tenant:
    """One tenant."""
    async with service.database.reading(PLATFORM) as statements:
        row = await statements.row("select * from tenants where id = $1", tenant)
    if row is None:
        raise absent()
    tagged(request, response, row["version"])
    return shown(row)


async def change_tenant(
    response: Response, service: Service, actor: Platform, tenant: TenantId, body: TenantChanges, match: IfMatch = None
) -> Tenant:
    """Its weight and its limits."""
    version = wanted(match)
    async with service.database.transaction(PLATFORM) as statements:
        row = await statements.row("select * from tenants where id = $1", tenant)
        if row is None:
            raise absent()
        before = json.loads(row["quotas"])
        try:
            quotas = Quotas.of({**before, **(body.quotas or {})})
        except ValueError as error:
            raise invalid("#/quotas", str(error)) from error
        running = body.running if body.running is not None else (body.quotas or {}).get("running", row["running"])
        changed = await statements.row(
            """update tenants set weight = $2, running = $3, quotas = $4, version = version + 1
               where id = $1 and version = $5 returning *""",
            tenant, body.weight or row["weight"], running,
            json.dumps({name: getattr(quotas, name) for name in before | (body.quotas or {})}),
            row["version"] if version is None else version,
        )  # fmt: skip
        if changed is None:
            raise stale()
        await tokens.note(
            statements, PLATFORM, actor.user, "tenant changed", (tenant, body.model_dump_json(), service.clock.now())
        )
    response.headers["ETag"] = f'"{changed["version"]}"'
    return shown(changed)


async def add_member(service: Service, actor: Platform, tenant: TenantId, body: MemberGiven) -> Response:
    """A user becomes a member of a tenant: an operator's right, since users are the installation's.

    A tenant's admin gives members other roles and removes them; whom the installation knows beside them, and who
    belongs to another tenant, no tenant learns.
    """
    try:
        async with service.database.transaction(PLATFORM) as statements:
            if await statements.row("select id from tenants where id = $1", tenant) is None:
                raise absent()
            await tenants.add_member(statements, tenant, body.user_id, body.role)
            row = await statements.row(
                """select members.*, users.name from members join users on users.id = members.user_id
                   where tenant_id = $1 and user_id = $2""",
                tenant, body.user_id,
            )  # fmt: skip
            of = (tenant, f"{body.user_id} {body.role}", service.clock.now())
            await tokens.note(statements, PLATFORM, actor.user, "member added", of)
    except Taken as error:
        raise conflict("this user is a member already") from error
    except Violated as error:
        raise invalid("#/user_id", "there is no such user", "GET /v1/users lists them") from error
    if row is None:
        raise absent()
    return Response(Member(**row).model_dump_json(), 201, {"ETag": '"1"'}, "application/json")


async def add_user(service: Service, actor: Platform, body: UserGiven) -> Response:
    """Makes a user, who is a member of no tenant yet."""
    try:
        async with service.database.transaction(PLATFORM) as statements:
            name = await tenants.add_user(statements, body.name, service.clock)
            row = await statements.row("select * from users where id = $1", name)
            await tokens.note(statements, actor.realm, actor.user, "user added", (name, body.name, service.clock.now()))
    except Taken as error:
        raise conflict(f"a user is called {body.name} already", "choose another name") from error
    if row is None:
        raise absent()
    return Response(User(**row).model_dump_json(), 201, media_type="application/json")


async def list_users(request: Request, response: Response, service: Service, actor: Platform, paged: Paged) -> Users:
    """All users, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(PLATFORM) as statements:
            sql = "select * from users where id < $1 order by id desc limit $2"
            return await statements.rows(sql, after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Users(items=[User(**row) for row in found], next=following)


def _add(path: str, route: object, method: str, model: type[Told], **more: object) -> None:
    router.add_api_route(path, route, methods=[method], response_model=model, tags=["installation"], **more)


_add("/tenants", add_tenant, "POST", Tenant, status_code=201, responses=problems(409))
_add("/tenants", list_tenants, "GET", Tenants, responses=problems())
_add("/tenants/{tenant}", get_tenant, "GET", Tenant, responses=problems(304, 404))
_add("/tenants/{tenant}", change_tenant, "PATCH", Tenant, responses=problems(404, 412, 428))
_add("/tenants/{tenant}/members", add_member, "POST", Member, status_code=201, responses=problems(404, 409))
_add("/users", add_user, "POST", User, status_code=201, responses=problems(409))
_add("/users", list_users, "GET", Users, responses=problems())
