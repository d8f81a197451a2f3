"""What a route is given: the service behind it, and who asks, from the Authorization header or a session's cookie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase

from pipeline.clock import Clock
from pipeline.service.auth import sessions, tokens
from pipeline.service.auth.passwords import Passwords
from pipeline.service.backlog import Took
from pipeline.service.database.statements import Database
from pipeline.service.fetching import Accept
from pipeline.service.http.judged import Judges
from pipeline.service.overview import Overview
from pipeline.service.problems import Problem, Refused
from pipeline.service.promotion import Promoter
from pipeline.service.scaling import NOBODY, Rules
from pipeline.service.serving.parent import Serving
from pipeline.service.words import Actor, Role
from pipeline.stores.store import Store

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher

FETCHING = 4
"""Requests of one server whose URLs are fetched at the same time."""
COOKIE, SECURE_COOKIE = "hathi_session", "__Host-hathi"
"""The name of a session's cookie without TLS, and with it."""
bearer = HTTPBearer(auto_error=False, scheme_name="token", description="An API token: `hathi_...`")


@dataclass(frozen=True)
class Behind:
    """What an API server works with.  key: signs cursors, the same on all servers of a database.

    public_url: where people reach it, "" where it is the address that was asked.  passwords: what looks at them.

    serving: the nets that answer.  fetcher: a new one, for pictures by URLs of strangers; files: one for any body, by
    what it begins with and its bytes at most.  fetching, downloading: those that fetch pictures and files just now.
    scratch: a local folder.  rules: how many workers are asked for; took: how long work took before.
    promoter: puts models into use; None: nothing is granted.  looking: at back-fills just now.
    overview: of the pipeline; None: no lake is here.  overlooking: those that ask it just now.
    """

    database: Database
    store: Store
    key: bytes
    clock: Clock
    serving: Serving
    fetcher: Callable[[], Fetcher]
    files: Callable[[Accept, int], Fetcher]
    scratch: Path
    passwords: Passwords
    public_url: str = ""
    rules: Rules = NOBODY
    took: Took = field(default_factory=Took)
    fetching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    downloading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    judges: Judges = field(default_factory=Judges)
    promoter: Promoter | None = None
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))
    overview: Overview | None = None
    overlooking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(FETCHING))


def behind(request: Request) -> Behind:
    """The service of the application that was asked."""
    found: Behind = request.app.state.behind
    return found


async def asked(request: Request) -> Behind:
    """The same for a route: FastAPI sends to another thread what is no coroutine."""
    return behind(request)


async def actor_of(service: Behind, token: str | None, hint: str = "Authorization: Bearer hathi_...") -> Actor:
    """Whose token it is; None: none was given.  Raises Refused: 401."""
    actor = await tokens.look(service.database, token) if token is not None else None
    if actor is None:
        said = "the token is unknown, revoked or expired" if token is not None else "no token was given"
        raise Refused(Problem(401, said, hint, "token"))
    return actor


def address_of(request: Request) -> str:
    """Where a request comes from, as the proxy on this host says it."""
    return request.client.host if request.client is not None else ""


def name_of_cookie(request: Request) -> str:
    """Of a session: browsers keep the one with the prefix for this host alone, and never send it without TLS."""
    public = behind(request).public_url
    secure = public.startswith("https:") if public else request.url.scheme == "https"
    return SECURE_COOKIE if secure else COOKIE


def cookie_of(request: Request) -> str | None:
    """The secret of a browser's session; a request with an Authorization header has none."""
    if "authorization" in request.headers:
        return None
    found: str | None = request.cookies.get(name_of_cookie(request))
    return found


def refuse_other_pages(request: Request, *, by_cookie: bool) -> None:
    """Whether a change comes from a page of the service's own; what is no browser says nothing, and has no cookie.

    Raises Refused: 403.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    own = {behind(request).public_url.rstrip("/"), f"{request.url.scheme}://{request.headers.get('host', '')}"}
    good = site == "same-origin" if site is not None else origin in own if origin is not None else not by_cookie
    if not good:
        said = "a change by a session's cookie comes from a page of this service"
        hint = "Sec-Fetch-Site: same-origin or its Origin; other programs use a token"
        raise Refused(Problem(403, said, hint, "origin"))


class _Session(SecurityBase):  # type: ignore[misc]
    """The secret of a browser's session."""

    def __init__(self) -> None:
        said = f"A browser's session, by POST /v1/session; without TLS it is called {COOKIE}"
        self.model = APIKey(**{"in": APIKeyIn.cookie}, name=SECURE_COOKIE, description=said)
        self.scheme_name = "session"

    async def __call__(self, request: Request) -> str | None:
        return cookie_of(request)


async def viewer(
    request: Request, given: Annotated[Any, Depends(bearer)], secret: Annotated[str | None, Depends(_Session())]
) -> Actor:
    """A member of a tenant, whatever the role.  Raises Refused: 401; 403 for a change that another page asks for."""
    if secret is None:
        return await actor_of(behind(request), given.credentials if given is not None else None)
    actor = await sessions.look(behind(request).database, secret)
    if actor is None:
        raise Refused(Problem(401, "the session is over", "log in: POST /v1/session", "session"))
    if request.method not in ("GET", "HEAD"):
        refuse_other_pages(request, by_cookie=True)
    return actor


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


Service = Annotated[Behind, Depends(asked)]
Viewer = Annotated[Actor, Depends(viewer)]
Member = Annotated[Actor, Depends(at_least(Role.MEMBER))]
Operator = Annotated[Actor, Depends(at_least(Role.OPERATOR))]
Admin = Annotated[Actor, Depends(at_least(Role.ADMIN))]
Platform = Annotated[Actor, Depends(of_platform())]
