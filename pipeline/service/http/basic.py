"""Who asks at ElasticThought's door: `Basic NAME:PASSWORD` or `NAME:TOKEN`, `Token TOKEN`, or Bearer as everywhere.

No answer asks a browser for Basic, so none keeps a password and sends it for another site's page.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase

from pipeline.service.auth import passwords, tokens
from pipeline.service.http.asking import actor_of, address_of, at_least, bearer, behind, of_platform
from pipeline.service.problems import Problem, Refused
from pipeline.service.words import Actor, Role

HINT = "Authorization: Basic NAME:PASSWORD or NAME:TOKEN in base64, or Token TOKEN"


class Basic(SecurityBase):  # type: ignore[misc]
    """The name and the secret of `Basic NAME:SECRET`, no name of `Token TOKEN`; None: neither was given."""

    def __init__(self) -> None:
        said = "The password is the user's, or an API token: then the name is not looked at"
        self.model = HTTPBase(scheme="basic", description=said)
        self.scheme_name = "basic"

    async def __call__(self, request: Request) -> tuple[str, str] | None:
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "token":
            return "", str(said).strip()
        if scheme.lower() != "basic":
            return None
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            name, _, secret = base64.b64decode(str(said).strip(), validate=True).decode().partition(":")
            return name, secret
        return "", ""


async def asker(
    request: Request,
    named: Annotated[tuple[str, str] | None, Depends(Basic())],
    given: Annotated[Any, Depends(bearer)],
) -> Actor:
    """A member of a tenant, by any of the three schemes.  Raises Refused: 401; 429 after too many passwords."""
    service = behind(request)
    if named is None or not named[0] or named[1].startswith(tokens.PREFIX):
        token = given.credentials if given is not None else named[1] if named is not None else None
        return await actor_of(service, token, HINT)
    if len(named[1]) <= passwords.MOST:
        found = await passwords.look(service.database, service.passwords, named, address_of(request))
        if found is not None:
            return found[0]
    raise Refused(Problem(401, "the name or the password is wrong", HINT, "login"))


Viewer = Annotated[Actor, Depends(asker)]
Member = Annotated[Actor, Depends(at_least(Role.MEMBER, asker))]
Platform = Annotated[Actor, Depends(of_platform(asker))]
