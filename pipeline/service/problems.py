"""What an API answers where it does not do as it was asked: RFC 9457's `application/problem+json`, with a hint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError, TemporaryError
from pipeline.service.neutral import neutral
from pipeline.service.quotas import Exceeded

TITLES = {
    400: "The request is not written as HTTP demands",
    401: "Who asks is not known",
    403: "Who asks may not do that",
    404: "There is nothing of that name",
    405: "That cannot be done there",
    409: "What is there now does not allow that",
    412: "It has changed since it was read",
    413: "The body is too large",
    416: "The body does not go on where it ended",
    422: "The request says something that is not allowed",
    428: "The request has to say which version it means",
    429: "A limit is reached",
    500: "The service made a mistake",
    503: "The service cannot answer now",
}

HINTS = {
    400: "/openapi.json says what a request looks like",
    404: "/openapi.json names what there is",
    405: "Allow names what can be done",
    413: "send less at once; an archive is the content of a datafile",
}
"""What to do about a problem that HTTP itself has, and no route of ours."""


@dataclass(frozen=True)
class Problem:
    """status: of HTTP.  errors: `{"pointer": "#/name", "detail": ..}` of each field.  retry_after: seconds."""

    status: int
    detail: str = ""
    hint: str = ""
    kind: str = ""
    """The last word of its type; a number's own where it is empty."""
    errors: tuple[Mapping[str, str], ...] = ()
    retry_after: int | None = None
    limit: Mapping[str, Any] = field(default_factory=dict)

    def body(self, instance: str) -> dict[str, Any]:
        """instance: the path that was asked."""
        found: dict[str, Any] = {
            "type": f"/problems/{self.kind or self.status}",
            "title": TITLES.get(self.status, "The request was refused"),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        for name in ("hint", "retry_after"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        if self.errors:
            found["errors"] = [dict(one) for one in self.errors]
        return {**found, **self.limit}


class Refused(Exception):
    """Ends a request with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def absent() -> Refused:
    """The one answer for what is not there, and for what is another tenant's."""
    return Refused(Problem(404, "no such thing is here, or it is not yours", "list what is there"))


def conflict(detail: str, hint: str = "", retry_after: int | None = None) -> Refused:
    """What is there now does not allow it.  retry_after: seconds, where time alone may mend it."""
    return Refused(Problem(409, detail, hint, retry_after=retry_after))


def invalid(pointer: str, detail: str, hint: str = "") -> Refused:
    """A field of the body says what it may not.  pointer: as `#/inputs/train`."""
    return Refused(Problem(422, detail, hint, errors=({"pointer": pointer, "detail": detail},)))


def over(exceeded: Exceeded) -> Refused:
    """A limit of the tenant."""
    said = f"{exceeded.limit}: {exceeded.used} of {exceeded.allowed} are used"
    hint = "wait" if exceeded.frees else "delete or finish something, or ask an operator for a greater limit"
    retry = max(1, round(exceeded.frees)) if exceeded.frees else 60
    limit = {"limit": exceeded.limit, "used": exceeded.used, "allowed": exceeded.allowed}
    return Refused(Problem(429, said, hint, "limit", retry_after=retry, limit=limit))


def of_error(error: PipelineError) -> Problem:
    """An error of a store or of the database; its details are the operator's, and stand in the log."""
    if isinstance(error, TemporaryError):
        return Problem(503, neutral(error.message), "try again", "away", retry_after=max(1, round(error.delay)))
    return Problem(500, "an error of the service; its log says which", "tell an operator", "mistake")
