"""Passwords: argon2id, two at a time.  One of a user who is not there takes as long, and is answered the same."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pipeline.clock import Clock
from pipeline.service.auth import throttle, tokens
from pipeline.service.database.statements import Database, Statements
from pipeline.service.problems import Problem, Refused
from pipeline.service.words import PLATFORM, Actor, Role

T = TypeVar("T")
AT_ONCE = 2
"""Passwords that one server looks at in the same instant: each takes 64 MiB and a fifth of a second of a core."""
WAITING = 16
"""Requests that wait for that; the next one is told to come again."""
KNOWN_SECONDS = 60.0
"""So long a password that fitted a hash is not computed again."""
_KNOWN = 1000
LEAST, MOST = 8, 1000
"""Letters of a password that a person chooses."""


class Passwords:
    """Passwords as one server, or one command, looks at them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hasher = PasswordHasher()
        self._turn, self._waiting = asyncio.Semaphore(AT_ONCE), 0
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._nobodys = ""

    async def hashed(self, password: str) -> str:
        """argon2id's text of a password, with its salt and its costs.  Raises Refused: 503 where too many wait."""
        return await self._in_turn(lambda: self._hasher.hash(_bytes(password)))

    async def fits(self, password: str, hashed: str) -> bool:
        """Whether a hash is of this password.  hashed: "" is nobody's, and takes as long.  Raises Refused: 503."""
        if not hashed and not self._nobodys:
            self._nobodys = await self.hashed(secrets.token_hex(16))
        if not await self._in_turn(lambda: self._verified(hashed or self._nobodys, password)) or not hashed:
            return False
        self._known[self._told(password, hashed)] = self._clock.monotonic() + KNOWN_SECONDS
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return True

    def knows(self, password: str, hashed: str) -> bool:
        """Whether this password fitted this hash in the last minute."""
        return bool(hashed) and self._known.get(self._told(password, hashed), 0.0) > self._clock.monotonic()

    def _told(self, password: str, hashed: str) -> bytes:
        return hmac.digest(self._key, hashed.encode() + b"\0" + _bytes(password), "sha256")

    def _verified(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise Refused(Problem(503, "too many passwords are looked at just now", "ask again", "busy", retry_after=5))
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


async def keep(statements: Statements, user: str, hashed: str, *, platform: bool) -> None:
    """A user's password from now on, in the caller's serial transaction of PLATFORM; their sessions end.

    platform: whether who logs in by it may do what belongs to the installation.
    """
    row = await statements.row(
        "update passwords set hash = $2, platform = $3, changed_at = instant() where user_id = $1 returning user_id",
        user, hashed, int(platform),
    )  # fmt: skip
    if row is None:
        await statements.row(
            """insert into passwords (user_id, hash, platform, changed_at) values ($1, $2, $3, instant())
               returning user_id""",
            user, hashed, int(platform),
        )  # fmt: skip
    await statements.rows("delete from sessions where user_id = $1 returning id", user)


async def set_by_operator(database: Database, actor: Actor, hashed: str, clock: Clock) -> None:
    """A password for a user.  actor: whom it is for, and whether they may do what belongs to the installation."""
    async with database.transaction(PLATFORM, serial=True) as statements:
        await keep(statements, actor.user, hashed, platform=actor.platform)
        of = (actor.user, "with the installation's rights" if actor.platform else "", clock.now())
        await tokens.note(statements, actor.realm, "operator", "password set", of)


async def look(
    database: Database, passwords: Passwords, who: tuple[str, str], address: str, tenant: str = ""
) -> tuple[Actor, str] | None:
    """Whose name and password these are, and the hash that they fitted; None: nobody's.

    who: name and password.  address: where it is asked from.  tenant: its name; "": the one that the user was a member
    of first.  Raises Refused: 429 after too many attempts, 503.
    """
    name, password = who
    async with database.reading(PLATFORM) as statements:
        row = await statements.row(
            """select users.id, members.tenant_id, members.role, passwords.hash, passwords.platform from users
               join passwords on passwords.user_id = users.id
               join members on members.user_id = users.id
               join tenants on tenants.id = members.tenant_id
               where users.name = $1 and ($2 = '' or tenants.name = $2)
               order by members.created_at, members.tenant_id limit 1""",
            name, tenant,
        )  # fmt: skip
    hashed = str(row["hash"]) if row is not None else ""
    if not passwords.knows(password, hashed):
        await throttle.charge(database, name, address)
        if not await passwords.fits(password, hashed):
            return None
        await throttle.forgive(database, name)
    assert row is not None
    return Actor(row["tenant_id"], row["id"], "", Role(row["role"]), bool(row["platform"])), hashed


def _bytes(password: str) -> bytes:
    """The same for every keyboard: composed (NFC), as RFC 8265 has it."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
