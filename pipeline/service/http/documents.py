"""What all documents of the API share: names, pages, and the problems that a route may answer."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Path, Query
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline.service.ids import Kind, pattern
from pipeline.service.problems import TITLES

MOST = 200
"""Rows of a page."""
UNCHANGED = 304

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+$")]  # fmt: skip  # noqa: E501
"""As a person writes it: no control letters, and none that turn the writing round."""
ShortName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


MOST_FIELDS, MOST_ERRORS = 1000, 100
"""Of one object of a body: more are told as one error, since each that is told costs the server."""


def _integer(given: Any) -> Any:
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if isinstance(given, dict):
        if len(given) > MOST_FIELDS:
            raise ValueError(f"an object has {len(given)} fields; the most is {MOST_FIELDS}")
        return {name: _integer(one) for name, one in given.items()}
    return [_integer(one) for one in given] if isinstance(given, list) else given


class Given(BaseModel):
    """A body of a request: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        """JSON knows numbers alone: 3.0 is the integer 3, as JSON Schema has it."""
        return _integer(given) if isinstance(given, dict) else given

    @model_validator(mode="wrap")
    @classmethod
    def _told(cls, given: Any, judge: ModelWrapValidatorHandler[Self]) -> Self:
        """Each error, where there are not too many of them."""
        try:
            return judge(given)
        except ValidationError as error:
            if error.error_count() <= MOST_ERRORS:
                raise
            raise ValueError(f"{error.error_count()} things in it are not as the document has them") from None


WaitsFor = Annotated[list[str], Field(description="Ids of what is not ready yet, where it is waiting")]


class Told(BaseModel):
    """A body of an answer."""

    model_config = ConfigDict(frozen=True)


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    hint: str | None = None
    retry_after: int | None = None
    errors: Annotated[
        list[dict[str, str]] | None,
        Field(description="`pointer` into the body and `detail`; of a specification also `line`, `column` and `hint`"),
    ] = None  # fmt: skip
    limit: str | None = None
    used: int | None = None
    allowed: int | None = None


def id_in_path(kind: Kind) -> Any:
    """An id in a path, whose kind the document names."""
    return Path(pattern=pattern(kind), json_schema_extra={"x-kind": str(kind)})


def id_in_body(kind: Kind) -> Any:
    """An id in a body, whose kind the document names."""
    return Field(pattern=pattern(kind), json_schema_extra={"x-kind": str(kind)})


DatafileId = Annotated[str, id_in_path(Kind.DATAFILE)]
DatasetId = Annotated[str, id_in_path(Kind.DATASET)]
SolverId = Annotated[str, id_in_path(Kind.SOLVER)]
JobId = Annotated[str, id_in_path(Kind.TRAINING_JOB)]
ModelId = Annotated[str, id_in_path(Kind.MODEL)]
ClassifierId = Annotated[str, id_in_path(Kind.CLASSIFIER)]
ClassificationJobId = Annotated[str, id_in_path(Kind.CLASSIFICATION_JOB)]
PromotionId = Annotated[str, id_in_path(Kind.PROMOTION)]
TokenId = Annotated[str, id_in_path(Kind.TOKEN)]
UserId = Annotated[str, id_in_path(Kind.USER)]
TenantId = Annotated[str, id_in_path(Kind.TENANT)]
Cursor = Annotated[str | None, Query(max_length=512, description="What `next` of the page before says")]
Limit = Annotated[int, Query(ge=1, le=MOST)]


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer, beside those of every route that asks for a token."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    every = {400, 401, 403, 413, 422, 429, 500, 503, *codes}
    found: dict[int | str, dict[str, Any]] = {
        code: {"description": TITLES[code], "content": content} for code in sorted(every - {UNCHANGED})
    }
    return found | {UNCHANGED: {"description": "The asker has this version already"}} if UNCHANGED in every else found
