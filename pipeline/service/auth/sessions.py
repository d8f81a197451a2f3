"""Sessions of browsers: a row of the server's behind a secret in a cookie, of which the database holds the SHA-256."""

from __future__ import annotations

import secrets

from pipeline.service.auth import tokens
from pipeline.service.database.statements import Database, Statements
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import PLATFORM, Actor, Role
from pipeline.times import DAY, HOUR

IDLE_SECONDS = 12.0 * HOUR
"""So long without a request, and it is over."""
MOST_SECONDS = 7.0 * DAY
LINK_SECONDS = 1.0 * HOUR
_NOTED_SECONDS = 60.0


async def begin(statements: Statements, actor: Actor, now: float) -> tuple[str, str]:
    """(id, the secret), in the caller's transaction of PLATFORM.

    actor: who it is, with `token` where they came by one: the session ends with it and has its role.  now: for its
    name's time.
    """
    name, secret = new_id(Kind.SESSION, now), secrets.token_urlsafe(32)
    await statements.rows("delete from sessions where expires_at < instant() returning id")
    await statements.row(
        """insert into sessions (tenant_id, id, user_id, digest, token_id, role, platform,
               created_at, used_at, expires_at, ends_at)
           values ($1, $2, $3, $4, $5, $6, $7, instant(), instant(), instant() + $8, instant() + $9) returning id""",
        actor.tenant, name, actor.user, tokens.digest(secret), actor.token or None, actor.role, int(actor.platform),
        IDLE_SECONDS, MOST_SECONDS,
    )  # fmt: skip
    await tokens.note(statements, actor.realm, actor.user, "session begun", (name, actor.token, now))
    return name, secret


async def look(database: Database, secret: str) -> Actor | None:
    """Whose session it is; None: nobody's, over, of a token that is, or of one who is no member any more."""
    if len(secret) > tokens.MOST:
        return None
    found = tokens.digest(secret)
    async with database.reading(PLATFORM) as statements:
        row = await statements.row(
            """select sessions.tenant_id, sessions.user_id, sessions.id, sessions.token_id, sessions.role,
                   sessions.platform, sessions.used_at, members.role as most, instant() as now from sessions
               join members on members.tenant_id = sessions.tenant_id and members.user_id = sessions.user_id
               left join tokens on tokens.tenant_id = sessions.tenant_id and tokens.id = sessions.token_id
               where sessions.digest = $1 and sessions.expires_at > instant() and (sessions.token_id is null
                   or (tokens.id is not null and (tokens.expires_at is null or tokens.expires_at > instant())))""",
            found,
        )
    if row is None:
        return None
    if row["now"] - row["used_at"] > _NOTED_SECONDS:
        async with database.transaction(PLATFORM) as statements:
            await statements.rows(
                """update sessions set used_at = instant(), expires_at =
                       case when instant() + $2 < ends_at then instant() + $2 else ends_at end
                   where digest = $1 returning id""",
                found, IDLE_SECONDS,
            )  # fmt: skip
    role, most = Role(row["role"]), Role(row["most"])
    return Actor(
        row["tenant_id"], row["user_id"], row["token_id"] or row["id"], role if most.covers(role) else most,
        bool(row["platform"]),
    )  # fmt: skip


def is_own(actor: Actor) -> bool:
    """Whether who asks came by a password or a link, and not by a token, which may have fewer rights."""
    return actor.token.startswith(f"{Kind.SESSION}_")


async def end(database: Database, actor: Actor, secret: str, now: float) -> bool:
    """Whether there was one of the actor's; it is nobody's from now on."""
    async with database.transaction(PLATFORM) as statements:
        row = await statements.row(
            "delete from sessions where digest = $1 and tenant_id = $2 and user_id = $3 returning id",
            tokens.digest(secret), actor.tenant, actor.user,
        )  # fmt: skip
        if row is not None:
            await tokens.note(statements, actor.realm, actor.user, "session ended", (row["id"], "", now))
    return row is not None


async def add_link(database: Database, actor: Actor, now: float) -> str:
    """The secret of a link that begins one session with all rights, within an hour; older ones of the user are void."""
    secret = secrets.token_urlsafe(32)
    async with database.transaction(PLATFORM) as statements:
        await statements.rows(
            "delete from links where user_id = $1 or expires_at < instant() returning digest", actor.user
        )  # fmt: skip
        await statements.row(
            """insert into links (digest, tenant_id, user_id, expires_at) values ($1, $2, $3, instant() + $4)
               returning digest""",
            tokens.digest(secret), actor.tenant, actor.user, LINK_SECONDS,
        )  # fmt: skip
        await tokens.note(statements, actor.realm, "operator", "link made", (actor.user, "", now))
    return secret


async def follow(statements: Statements, secret: str) -> Actor | None:
    """Whom a link is for, in the caller's transaction of PLATFORM: it holds once.  None: no such link, or not now."""
    row = await statements.row(
        "delete from links where digest = $1 and expires_at > instant() returning tenant_id, user_id",
        tokens.digest(secret),
    )
    return Actor(row["tenant_id"], row["user_id"], "", Role.ADMIN, platform=True) if row is not None else None
