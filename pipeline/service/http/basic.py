"""Who asks at ElasticThought's door: `Basic NAME:TOKEN`, `Token TOKEN`, or Bearer as everywhere.

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

from pipeline.service.http.asking import actor_of, at_least, bearer, behind, of_platform
from pipeline.service.words import Actor, Role

HINT = "Authorization: Basic NAME:TOKEN in base64, or Token TOKEN"


class Basic(SecurityBase):  # type: ignore[misc]
    """`Basic NAME:TOKEN` and `Token TOKEN`, as a token; what is neither is None."""

    def __init__(self) -> None:
        self.model = HTTPBase(scheme="basic", description="The password is an API token; the name is not looked at")
        self.scheme_name = "basic"

    async def __call__(self, request: Request) -> str | None:
        scheme, _, said = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "token":
            return str(said).strip()
        if scheme.lower() != "basic":
            return None
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(str(said).strip(), validate=True).decode().partition(":")[2]
        return ""


async def asker(
    request: Request, named: Annotated[str | None, Depends(Basic())], given: Annotated[Any, Depends(bearer)]
) -> Actor:
    """A member of a tenant, by any of the three schemes.  Raises Refused: 401."""
    return await actor_of(behind(request), given.credentials if given is not None else named, HINT)


Viewer = Annotated[Actor, Depends(asker)]
Member = Annotated[Actor, Depends(at_least(Role.MEMBER, asker))]
Platform = Annotated[Actor, Depends(of_platform(asker))]
