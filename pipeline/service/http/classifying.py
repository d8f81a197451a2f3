"""POST /v1/classifiers/{id}/classify: pictures as files or by URLs, one or many, and what the net says of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from pipeline.records import Failure
from pipeline.service import classifying
from pipeline.service.fetching import fetched
from pipeline.service.http.asking import FETCHING, Behind, Member, Service
from pipeline.service.http.documents import ClassifierId, Given, Told, problems
from pipeline.service.http.meaning import meant
from pipeline.service.problems import Problem, Refused, conflict, invalid
from pipeline.service.serving.parent import Busy, CannotServe, Lost

router = APIRouter(prefix="/v1/classifiers", tags=["classifiers"])
MOST, URL_LETTERS = 64, 8192
"""Pictures of one request; letters of a URL."""
Top = Annotated[int, Query(ge=1, le=1000, description="Classes that are told of each picture")]
_FORM = "multipart/form-data"


class Urls(Given):
    urls: list[str]


class Prediction(Told):
    label: str
    index: int
    score: float
    probability: float | None


class Failed(Told):
    reason: str
    detail: str
    retriable: bool


class Classified(Told):
    """predictions: the likeliest first; null where `failure` says why."""

    name: str
    predictions: list[Prediction] | None
    failure: Failed | None


class Answer(Told):
    """A result for each picture: files in their order, then URLs in theirs."""

    classifier_id: str
    results: list[Classified]


@dataclass
class _Asked:
    """names: of files, and URLs as they were given."""

    names: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)


async def _read(request: Request) -> _Asked:
    """What a request brings.  Raises Refused for a body that brings nothing, or too much."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    asked = _Asked()
    if kind == _FORM:
        async with request.form(max_files=MOST, max_fields=MOST, max_part_size=URL_LETTERS) as form:
            for name, one in form.multi_items():
                if name == "files" and isinstance(one, UploadFile):
                    asked.names.append((one.filename or "")[:200])
                    asked.files.append(await one.read())
                elif name == "urls" and isinstance(one, str):
                    asked.urls.append(one)
                else:
                    raise invalid(f"#/{name[:100]}", "a form has `files` and `urls`, and nothing else")
    elif kind == "application/json":
        asked.urls = _urls(await request.body())
    elif body := await request.body():
        asked.names.append("")
        asked.files.append(body)
    count = len(asked.files) + len(asked.urls)
    if not count:
        raise invalid("#/files", "the request brings no picture", f"send one as the body, or a {_FORM} with files")
    if count > MOST:
        raise invalid("#/files", f"the request brings {count} pictures, and one takes {MOST}", "make a job of more")
    if any(len(url) > URL_LETTERS for url in asked.urls):
        raise invalid("#/urls", f"a URL is longer than {URL_LETTERS} letters")
    asked.names += asked.urls
    return asked


def _urls(body: bytes) -> list[str]:
    try:
        return list(Urls.model_validate_json(body).urls)
    except ValidationError as error:
        said = error.errors()[0]
        where = "#/" + "/".join(str(one) for one in said["loc"])
        raise invalid(where, str(said["msg"]), '{"urls": ["https://..."]}') from error


async def contents_of(service: Behind, files: Sequence[bytes], urls: Sequence[str]) -> list[bytes | Failure]:
    """The bytes of all.  Raises Refused: 503 where too many are fetched already."""
    found: list[bytes | Failure] = [one if one else Failure.of("empty", "no bytes") for one in files]
    if urls:
        if service.fetching.locked():
            raise busy("fetching", FETCHING, FETCHING)
        async with service.fetching:
            found += await asyncio.to_thread(lambda: fetched(service.fetcher(), urls))
    return found


def busy(limit: str, used: int, allowed: int) -> Refused:
    """The service is full: 503 at once, with the limit."""
    said = {"limit": limit, "used": used, "allowed": allowed}
    detail = f"{limit}: {used} of {allowed} are used"
    return Refused(Problem(503, detail, "ask again, or make a classification job", "busy", retry_after=1, limit=said))


def refused(error: Busy | Lost | CannotServe) -> Refused:
    """What the nets' side says, as a problem."""
    if isinstance(error, Busy):
        return busy(error.full.limit, error.full.used, error.full.allowed)
    if isinstance(error, Lost):
        return Refused(Problem(503, error.message, error.hint, "serving", retry_after=1))
    return conflict(f"{error.message}: {error.detail}", error.hint)


async def classify(
    request: Request, service: Service, actor: Member, classifier: ClassifierId, top: Top = 5
) -> Answer:  # fmt: skip
    """What the net says of each picture; one that is broken is a failure of its own, and the others are answered."""
    found = await meant(service, actor, classifier)
    if not found.takes_pictures:
        hint = "make a classifier with `preprocessing`, or send numbers to /v2"
        raise conflict("this net learned from numbers, and nothing says how pictures become such", hint)
    asked = await _read(request)
    contents = await contents_of(service, asked.files, asked.urls)
    try:
        answers = await classifying.classify(service.serving, found, contents, top)
    except (Busy, Lost, CannotServe) as error:
        raise refused(error) from error
    results = [
        Classified(name=name, predictions=None, failure=_failed(one)) if isinstance(one, Failure)
        else Classified(name=name, predictions=[Prediction(**asdict(of)) for of in one], failure=None)
        for name, one in zip(asked.names, answers, strict=True)
    ]  # fmt: skip
    return Answer(classifier_id=classifier, results=results)


def _failed(failure: Failure) -> Failed:
    return Failed(reason=failure.reason, detail=failure.detail, retriable=failure.retriable)


_LIST = {"type": "array", "maxItems": MOST, "items": {"type": "string", "maxLength": URL_LETTERS}}
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/octet-stream": _BINARY,
        "image/*": _BINARY,
        "application/json": {"schema": json.loads(json.dumps(Urls.model_json_schema())) | {
            "properties": {"urls": _LIST}}},
        _FORM: {"schema": {
            "type": "object", "additionalProperties": False,
            "properties": {
                "files": {"type": "array", "maxItems": MOST, "items": {"type": "string", "format": "binary"}},
                "urls": _LIST,
            },
        }},
    },
}  # fmt: skip
router.add_api_route(
    "/{classifier}/classify", classify, methods=["POST"], response_model=Answer, responses=problems(404, 409),
    openapi_extra={"requestBody": BODY},
)  # fmt: skip
