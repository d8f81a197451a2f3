"""What a route is given: the service behind it, and who asks, from the Authorization header and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from pipeline.clock import Clock
from pipeline.service.auth import tokens
from pipeline.service.database.statements import Database
from pipeline.service.http.judged import Judges
from pipeline.service.problems import Problem, Refused
from pipeline.service.serving.parent import Serving
from pipeline.service.words import Actor, Role
from pipeline.stores.store import Store

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher

FETCHING = 4
"""Requests of one server whose URLs are fetched at the same time."""
bearer = HTTPBearer(auto_error=False, scheme_name="token", description="An API token: `hathi_...`")


@dataclass(frozen=True)
class Behind:
    """What an API server works with.  key: signs cursors, the same on all servers of a database.

    serving: the nets that answer.  fetcher: a new one, for URLs of strangers.  fetching: those that fetch just now.
    """

    database: Database
    store: Store
    key: bytes
    clock: Clock
    serving: Serving
    fetcher: Callable[[], Fetcher]
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    judges: Judges = field(default_factory=Judges)


def behind(request: Request) -> Behind:
    """The service of the application that was asked."""
    found: Behind = request.app.state.behind
    return found


async def viewer(request: Request, given: Annotated[Any, Depends(bearer)]) -> Actor:
    """A member of a tenant, whatever the role.  Raises Refused: 401."""
    actor = await tokens.look(behind(request).database, given.credentials) if given is not None else None
    if actor is None:
        said = "the token is unknown, revoked or expired" if given is not None else "no token was given"
        raise Refused(Problem(401, said, "Authorization: Bearer hathi_...", "token"))
    return actor


def _at_least(role: Role) -> Any:
    async def judge(actor: Annotated[Actor, Depends(viewer)]) -> Actor:
        if not actor.role.covers(role):
            raise Refused(Problem(403, f"a {actor.role} may not do this; a {role} may", "ask an admin", "role"))
        return actor

    return judge


async def platform(actor: Annotated[Actor, Depends(viewer)]) -> Actor:
    """Who may do what belongs to the installation.  Raises Refused: 401, 403."""
    if not actor.platform:
        raise Refused(Problem(403, "only an operator of the installation may do this", "hathi service token", "role"))
    return actor


Service = Annotated[Behind, Depends(behind)]
Viewer = Annotated[Actor, Depends(viewer)]
Member = Annotated[Actor, Depends(_at_least(Role.MEMBER))]
Admin = Annotated[Actor, Depends(_at_least(Role.ADMIN))]
Platform = Annotated[Actor, Depends(platform)]
