"""Tenants, users and first tokens, as the installation's operator makes them."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.service.auth import sessions, tokens
from pipeline.service.database.statements import Database, Row, Statements, Taken
from pipeline.service.ids import Kind, new_id
from pipeline.service.quotas import Quotas
from pipeline.service.words import PLATFORM, Actor, Role


async def add_tenant(statements: Statements, name: str, clock: Clock, weight: int = 1, running: int = 4) -> str:
    """Its id, in the caller's transaction.  Raises Taken where the name is another one's."""
    tenant = new_id(Kind.TENANT, clock.now())
    await statements.row(
        """insert into tenants (id, name, weight, running, quotas, created_at)
           values ($1, $2, $3, $4, $5, instant()) returning id""",
        tenant, name, weight, running, json.dumps(asdict(Quotas(running=running))),
    )  # fmt: skip
    return tenant


async def add_user(statements: Statements, name: str, clock: Clock) -> str:
    """Its id, in the caller's transaction.  Raises Taken where the name is another one's."""
    user = new_id(Kind.USER, clock.now())
    await statements.row("insert into users (id, name, created_at) values ($1, $2, instant()) returning id", user, name)
    return user


async def add_member(statements: Statements, tenant: str, user: str, role: Role) -> None:
    """In the caller's transaction.  Raises Taken where it is one already, Violated where there is no such user."""
    await statements.row(
        """insert into members (tenant_id, user_id, role, created_at) values ($1, $2, $3, instant())
           returning user_id""",
        tenant, user, role,
    )  # fmt: skip


async def tenant_of(database: Database, name: str) -> Row:
    """Raises ConfigError where there is none."""
    async with database.reading(PLATFORM) as statements:
        row = await statements.row("select * from tenants where name = $1", name)
    if row is None:
        raise ConfigError(f"there is no tenant {name}", "", "hathi service tenant list shows them")
    return row


async def join(database: Database, tenant: str, user: str, role: Role, clock: Clock) -> tuple[str, str]:
    """(user's id, tenant's id): a user of that name is there, and a member of the tenant."""
    row = await tenant_of(database, tenant)
    async with database.transaction(PLATFORM) as statements:
        there = await statements.row("select id from users where name = $1", user)
        name = there["id"] if there is not None else await add_user(statements, user, clock)
        member = await statements.row(
            "select role from members where tenant_id = $1 and user_id = $2", row["id"], name
        )  # fmt: skip
        if member is None:
            await add_member(statements, row["id"], name, role)
            await tokens.note(
                statements, PLATFORM, "operator", "member added", (row["id"], f"{user} {role}", clock.now())
            )
    return str(name), str(row["id"])


async def grant(database: Database, actor: Actor, name: str, clock: Clock, expires: float | None = None) -> str:
    """A new token for a member, which is shown once."""
    async with database.transaction(PLATFORM) as statements:
        _, secret = await tokens.add(statements, actor, name, clock.now(), expires)
        await tokens.note(statements, PLATFORM, "operator", "token added", (actor.tenant, name, clock.now()))
    return secret


async def make_first(database: Database, clock: Clock) -> str:
    """The tenant `main`, the user `admin` and a token with all rights: what a service on one host begins with."""
    async with database.transaction(PLATFORM, serial=True) as statements:
        if await statements.row("select id from tenants where name = 'main'") is None:
            try:
                await add_tenant(statements, "main", clock)
            except Taken as error:
                raise ConfigError("the tenant main was made at the same time", error.detail, "start again") from error
    user, tenant = await join(database, "main", "admin", Role.ADMIN, clock)
    return await grant(database, Actor(tenant, user, "", Role.ADMIN, platform=True), "first", clock)


async def link_of_first(database: Database, clock: Clock) -> list[str]:
    """The secret of a link for the user `admin` of the tenant `main`; none where there is no such member."""
    async with database.reading(PLATFORM) as statements:
        row = await statements.row(
            """select members.tenant_id, members.user_id from members
               join tenants on tenants.id = members.tenant_id join users on users.id = members.user_id
               where tenants.name = 'main' and users.name = 'admin' and members.role = 'admin'"""
        )
    if row is None:
        return []
    actor = Actor(row["tenant_id"], row["user_id"], "", Role.ADMIN, platform=True)
    return [await sessions.add_link(database, actor, clock.now())]
