"""POSTs that create: with an Idempotency-Key, a lost answer is told again instead of made again.

Key, thing and answer are committed in one transaction: there is no instant at which one is there without the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request, Response

from pipeline.service.database.statements import Row, Statements, Taken
from pipeline.service.http.asking import Behind
from pipeline.service.http.conditional import tag_of
from pipeline.service.problems import Problem, Refused
from pipeline.service.words import Realm
from pipeline.times import DAY

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$",
                       description="The same key and body within 24 hours is told the same answer, and makes nothing")
]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What was created.  body: JSON; path: where it is; version: of its ETag, 0 without one."""

    body: dict[str, Any]
    path: str
    version: int = 1


async def create(
    request: Request, service: Behind, realm: Realm, key: str | None, make: Callable[[Statements], Awaitable[Made]]
) -> Response:
    """201, or the answer that this key was given before.  Raises Refused: 422 for a key with another body."""
    if key is None:
        async with service.database.transaction(realm) as statements:
            return _answer(await make(statements))
    asked = await _digest(request)
    try:
        async with service.database.transaction(realm) as statements:
            before = await statements.row("select *, instant() - created_at as age from answers where key = $1", key)
            if before is not None and before["age"] < DAY:
                return _again(before, asked)
            if before is not None or asked.startswith("0"):  # one request in sixteen clears up for the others
                old = "delete from answers where created_at < (select instant()) - $1 returning key"
                await statements.rows(old, float(DAY))
            made = await make(statements)
            said = {"body": made.body, "path": made.path, "version": made.version}
            await statements.row(  # at the same time by two it is there once: all of the other's is undone
                """insert into answers (tenant_id, key, digest, status, headers, body, created_at)
                   values ($1, $2, $3, 201, '', $4, instant()) returning key""",
                realm.tenant, key, asked, json.dumps(said),
            )  # fmt: skip
            return _answer(made)
    except (Taken, Refused):
        async with service.database.reading(realm) as statements:
            before = await statements.row("select * from answers where key = $1", key)
        if before is None:  # nobody used the key at the same time: a name is taken, or it is refused indeed
            raise
        return _again(before, asked)


async def told_before(request: Request, service: Behind, realm: Realm, key: str | None) -> Response | None:
    """The answer that this key was given, before anything is looked at; None: there is none.  Raises Refused: 422."""
    if key is None:
        return None
    async with service.database.reading(realm) as statements:
        before = await statements.row(
            "select * from answers where key = $1 and created_at >= instant() - $2", key, float(DAY)
        )  # fmt: skip
    return _again(before, await _digest(request)) if before is not None else None


async def _digest(request: Request) -> str:
    return hashlib.sha256(b"\0".join([request.url.path.encode(), await request.body()])).hexdigest()


def _again(before: Row, asked: str) -> Response:
    if before["digest"] != asked:
        said = "this Idempotency-Key was given with another request"
        raise Refused(Problem(422, said, "a new request has a new key", "idempotency"))
    return _answer(Made(**json.loads(before["body"])))


def _answer(made: Made) -> Response:
    headers = {"Location": made.path}
    if made.version:
        headers["ETag"] = tag_of(made.version)
    return Response(json.dumps(made.body), 201, headers, "application/json")
