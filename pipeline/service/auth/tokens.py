"""API tokens: 256 bits behind `hathi_`, of which the database holds the SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from pipeline.service.database.statements import Database, Statements
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import PLATFORM, Actor, Realm, Role

PREFIX = "hathi_"
MOST = 200
"""Letters of a token."""
_NOTED_SECONDS = 60.0


def new_secret(chance: Callable[[int], str] = secrets.token_urlsafe) -> str:
    """A token.  chance: so many random bytes as text."""
    return PREFIX + chance(32)


def digest(token: str) -> str:
    """What the database knows of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


async def add(
    statements: Statements, actor: Actor, name: str, now: float, expires: float | None = None
) -> tuple[str, str]:
    """(id, the token, which is shown once), in the caller's transaction.  actor: whom it stands for; token unused.

    now: for its name's time.  expires: seconds since 1970.  Raises Violated where the user is no member.
    """
    name_of, secret = new_id(Kind.TOKEN, now), new_secret()
    await statements.row(
        """insert into tokens (tenant_id, id, user_id, name, digest, role, platform, created_at, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, instant(), $8) returning id""",
        actor.tenant, name_of, actor.user, name, digest(secret), actor.role, int(actor.platform), expires,
    )  # fmt: skip
    return name_of, secret


async def look(database: Database, token: str) -> Actor | None:
    """Whose token it is; None: nobody's, expired, revoked, or of one who is no member any more."""
    if not token.startswith(PREFIX) or len(token) > MOST:
        return None
    found = digest(token)
    async with database.reading(PLATFORM) as statements:
        row = await statements.row(
            """select tokens.tenant_id, tokens.user_id, tokens.id, tokens.role, tokens.platform, tokens.used_at,
                   members.role as most, instant() as now from tokens
               join members on members.tenant_id = tokens.tenant_id and members.user_id = tokens.user_id
               where digest = $1 and (expires_at is null or expires_at > instant())""",
            found,
        )
    if row is None:
        return None
    if row["used_at"] is None or row["now"] - row["used_at"] > _NOTED_SECONDS:
        async with database.transaction(PLATFORM) as statements:
            await statements.rows("update tokens set used_at = instant() where digest = $1 returning id", found)
    role, most = Role(row["role"]), Role(row["most"])
    return Actor(
        row["tenant_id"], row["user_id"], row["id"], role if most.covers(role) else most, bool(row["platform"])
    )


async def note(statements: Statements, realm: Realm, actor: str, action: str, of: tuple[str, str, float]) -> None:
    """Writes down who changed a right, in the caller's transaction.  of: the object, a detail, and the time now."""
    thing, detail, now = of
    tenant = realm.tenant or thing
    await statements.row(
        """insert into audit (tenant_id, id, at, actor, action, object, detail)
           values ($1, $2, instant(), $3, $4, $5, $6) returning id""",
        tenant, new_id(Kind.EVENT, now), actor, action, thing, detail,
    )  # fmt: skip
