"""A browser logs in and out, and a person changes their password.

The cookie is `__Host-hathi` with TLS and `hathi_session` without.  What changes something by it has to come from the
service's own page: a browser says so in Sec-Fetch-Site or Origin, and no page of another site can say it for it.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from pipeline.service.auth import passwords, sessions, throttle, tokens
from pipeline.service.http.asking import (
    SECURE_COOKIE,
    Behind,
    Service,
    Viewer,
    address_of,
    cookie_of,
    name_of_cookie,
    refuse_other_pages,
)
from pipeline.service.http.documents import Given, ShortName, problems
from pipeline.service.http.members import Me, about
from pipeline.service.problems import Problem, Refused, absent, invalid
from pipeline.service.words import PLATFORM, Actor

router = APIRouter(prefix="/v1", tags=["team"])


class ByPassword(Given):
    username: ShortName
    password: Annotated[str, Field(min_length=1, max_length=passwords.MOST)]
    tenant: Annotated[
        ShortName | None, Field(description="Its name; without one the tenant that the user was a member of first")
    ] = None  # fmt: skip


class ByToken(Given):
    token: Annotated[
        str, Field(min_length=1, max_length=tokens.MOST, description="An API token, or the secret of a one-time link")
    ]  # fmt: skip


class PasswordGiven(Given):
    current: Annotated[str | None, Field(max_length=passwords.MOST, description="Needed where there is one")] = None
    new: Annotated[str, Field(min_length=passwords.LEAST, max_length=passwords.MOST)]


async def log_in(request: Request, service: Service, body: ByPassword | ByToken) -> Response:
    """A session by a password, a token or a one-time link; its secret is in the cookie and nowhere else."""
    refuse_other_pages(request, by_cookie=False)
    found = await _by_password(request, service, body) if isinstance(body, ByPassword) else await _by(service, body)
    if found is None:
        said = "the name or the password is wrong" if isinstance(body, ByPassword) else "the token or link is not good"
        raise Refused(Problem(401, said, "a link holds once and for an hour, a token until it is revoked", "login"))
    actor, secret = found
    response = Response((await about(service, actor)).model_dump_json(), 201, media_type="application/json")
    response.headers["Location"] = "/v1/me"
    name = name_of_cookie(request)
    response.set_cookie(
        name, secret, max_age=int(sessions.MOST_SECONDS), secure=name == SECURE_COOKIE, httponly=True, samesite="strict"
    )  # fmt: skip
    return response


async def _by_password(request: Request, service: Behind, body: ByPassword) -> tuple[Actor, str] | None:
    who = (body.username, body.password)
    known = await passwords.look(service.database, service.passwords, who, address_of(request), body.tenant or "")
    if known is None:
        return None
    actor, hashed = known
    async with service.database.transaction(PLATFORM, serial=True) as statements:
        sql = "select user_id from passwords where user_id = $1 and hash = $2"
        if await statements.row(sql, actor.user, hashed) is None:  # changed in between
            return None
        return actor, (await sessions.begin(statements, actor, service.clock.now()))[1]


async def _by(service: Behind, body: ByToken) -> tuple[Actor, str] | None:
    actor = await tokens.look(service.database, body.token)
    async with service.database.transaction(PLATFORM) as statements:
        actor = actor or await sessions.follow(statements, body.token)
        if actor is None:
            return None
        return actor, (await sessions.begin(statements, actor, service.clock.now()))[1]


async def log_out(request: Request, service: Service, actor: Viewer) -> Response:
    """The session is nobody's from the next request on; 404 for who did not come by one."""
    secret = cookie_of(request)
    if secret is None or not await sessions.end(service.database, actor, secret, service.clock.now()):
        raise absent()
    response = Response(status_code=204)
    name = name_of_cookie(request)
    response.delete_cookie(name, secure=name == SECURE_COOKIE, httponly=True, samesite="strict")
    return response


async def change_password(request: Request, service: Service, actor: Viewer, body: PasswordGiven) -> Response:
    """One's own password; all of one's sessions end.

    Who has none yet sets one in a session that a one-time link began: a token may have fewer rights than its user.
    """
    async with service.database.reading(PLATFORM) as statements:
        row = await statements.row(
            """select users.name, passwords.hash, passwords.platform from passwords
               join users on users.id = passwords.user_id where users.id = $1""",
            actor.user,
        )
    if row is None and not sessions.is_own(actor):
        hint = "an operator sets it: hathi service user TENANT USER --password"
        raise Refused(Problem(403, "there is no password yet, and a token sets none", hint, "role"))
    if row is not None:
        await throttle.charge(service.database, row["name"], address_of(request))
        if body.current is None or not await service.passwords.fits(body.current, row["hash"]):
            raise invalid("#/current", "this is not the password", "give the one that holds now")
        await throttle.forgive(service.database, row["name"])
    hashed = await service.passwords.hashed(body.new)
    platform = bool(row["platform"]) if row is not None else actor.platform
    async with service.database.transaction(PLATFORM, serial=True) as statements:
        await passwords.keep(statements, actor.user, hashed, platform=platform)
        await tokens.note(
            statements, actor.realm, actor.user, "password changed", (actor.user, "", service.clock.now())
        )  # fmt: skip
    return Response(status_code=204)


router.add_api_route("/session", log_in, methods=["POST"], response_model=Me, status_code=201, responses=problems())
router.add_api_route("/session", log_out, methods=["DELETE"], status_code=204, responses=problems(404))
router.add_api_route("/me/password", change_password, methods=["PUT"], status_code=204, responses=problems())
