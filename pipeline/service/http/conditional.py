"""ETag, If-None-Match, If-Match: two people, two tabs, and no change that overwrites another unseen."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Request, Response

from pipeline.service.problems import Problem, Refused

IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=200, description="The ETag of what was read")]


def tag_of(version: int) -> str:
    """The ETag of a row's version."""
    return f'"{version}"'


def tagged(request: Request, response: Response, version: int) -> None:
    """Sets the ETag.  Raises NotModified where the asker has this version."""
    tag = tag_of(version)
    if tag in [one.strip() for one in request.headers.get("if-none-match", "").split(",")]:
        raise NotModified(tag)
    response.headers["ETag"] = tag


def wanted(given: str | None) -> int | None:
    """The version that a change means; None: whichever is there (`*`).  Raises Refused: 428, 412."""
    if given is None:
        raise Refused(Problem(428, "a change has to say which version it means", "If-Match: the ETag of what was read"))
    if given.strip() == "*":
        return None
    number = given.strip().strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 18):
        raise stale()
    return int(number)


def stale() -> Refused:
    """It has changed since it was read."""
    return Refused(Problem(412, "it has another version now", "read it again, and decide again"))


class NotModified(Exception):
    """The asker has it already."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag
