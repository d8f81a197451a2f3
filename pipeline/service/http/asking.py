"""What a route is given: the service behind it, and who asks, from the Authorization header and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from pipeline.clock import Clock
from pipeline.service.auth import tokens
from pipeline.service.database.statements import Database
from pipeline.service.fetching import Accept
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

    serving: the nets that answer.  fetcher: a new one, for pictures by URLs of strangers; files: one for any body, by
    what it begins with and its bytes at most.  fetching, downloading: those that fetch pictures and files just now.
    scratch: a local folder.
    """

    database: Database
    store: Store
    key: bytes
    clock: Clock
    serving: Serving
    fetcher: Callable[[], Fetcher]
    files: Callable[[Accept, int], Fetcher]
    scratch: Path
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    downloading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    judges: Judges = field(default_factory=Judges)


def behind(request: Request) -> Behind:
    """The service of the application that was asked."""
    found: Behind = request.app.state.behind
    return found


async def actor_of(service: Behind, token: str | None, hint: str = "Authorization: Bearer hathi_...") -> Actor:
    """Whose token it is; None: none was given.  Raises Refused: 401."""
    actor = await tokens.look(service.database, token) if token is not None else None
    if actor is None:
        said = "the token is unknown, revoked or expired" if token is not None else "no token was given"
        raise Refused(Problem(401, said, hint, "token"))
    return actor


async def viewer(request: Request, given: Annotated[Any, Depends(bearer)]) -> Actor:
    """A member of a tenant, whatever the role.  Raises Refused: 401."""
    return await actor_of(behind(request), given.credentials if given is not None else None)


def at_least(role: Role, who: Callable[..., Any] = viewer) -> Any:
    """Who asks, where the role is no smaller.  who: finds it out of the request."""

    async def judge(actor: Actor = Depends(who)) -> Actor:  # noqa: B008  (FastAPI reads it; `who` is no global)
        if not actor.role.covers(role):
            raise Refused(Problem(403, f"a {actor.role} may not do this; a {role} may", "ask an admin", "role"))
        return actor

    return judge


def of_platform(who: Callable[..., Any] = viewer) -> Any:
    """Who asks, where it may do what belongs to the installation.  who: finds it out of the request."""

    async def judge(actor: Actor = Depends(who)) -> Actor:  # noqa: B008  (FastAPI reads it; `who` is no global)
        if not actor.platform:
            said = "only an operator of the installation may do this"
            raise Refused(Problem(403, said, "hathi service token", "role"))
        return actor

    return judge


Service = Annotated[Behind, Depends(behind)]
Viewer = Annotated[Actor, Depends(viewer)]
Member = Annotated[Actor, Depends(at_least(Role.MEMBER))]
Admin = Annotated[Actor, Depends(at_least(Role.ADMIN))]
Platform = Annotated[Actor, Depends(of_platform())]
