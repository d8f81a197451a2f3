"""The application: its routes, its problems, its document; everything that it answers is in the document."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.errors import PipelineError
from pipeline.service.http import (
    classification_jobs,
    classifiers,
    classifying,
    datafiles,
    datasets,
    elasticthought,
    evaluations,
    feature_sets,
    health,
    inference,
    installation,
    live,
    members,
    models,
    overview,
    promotions,
    repeating,
    scaling,
    sessions,
    solvers,
    tenants,
    training_jobs,
)
from pipeline.service.http.asking import Behind
from pipeline.service.http.conditional import NotModified
from pipeline.service.http.described import allowed, described
from pipeline.service.http.limits import Limited
from pipeline.service.http.pages import Pages
from pipeline.service.problems import HINTS, Problem, Refused, of_error

Say = Callable[[str], None]
VERSION = "1"


def make_app(behind: Behind, say: Say = lambda text: None) -> FastAPI:
    """say: told of each error that an operator has to know of."""
    app = FastAPI(title="Hathi", version=VERSION, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.behind = behind
    rooms = (  # what is asked most comes first: routes are compared in this order
        training_jobs, live, classifying, inference, datafiles, sessions, members, health, datasets, solvers, repeating,
        evaluations, models, classifiers, classification_jobs, promotions, feature_sets, scaling, tenants, installation,
        overview, elasticthought,
    )  # fmt: skip
    for room in rooms:  # include_router would compare each room's routes behind four functions more
        app.router.routes.extend(room.router.routes)
    app.add_middleware(Limited)
    app.add_middleware(Pages)

    async def refused(request: Request, error: Refused) -> Response:
        return _problem(request, error.problem)

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = [
            {"pointer": "#/" + "/".join(str(one) for one in said["loc"][1:]), "detail": str(said["msg"])}
            for said in error.errors()[:20]
        ]
        torn = any(said["type"] == "json_invalid" for said in error.errors())
        problem = Problem(400 if torn else 422, "the request does not fit the document", "/openapi.json says what does")
        return _problem(request, Problem(problem.status, problem.detail, problem.hint, errors=tuple(wrong)))

    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 405:  # a route knows its own method alone
            headers["Allow"] = allowed(app.openapi(), request.url.path) or headers.get("Allow", "")
        return _problem(
            request, Problem(error.status_code, str(error.detail), HINTS.get(error.status_code, "")), headers
        )

    async def unmodified(request: Request, error: NotModified) -> Response:
        return Response(status_code=304, headers={"ETag": error.tag})

    async def ours(request: Request, error: PipelineError) -> Response:
        problem = of_error(error)
        say(f"{request.method} {request.url.path}: {error}")
        return _problem(request, problem)

    async def unforeseen(request: Request, error: Exception) -> Response:
        say(f"{request.method} {request.url.path}: {type(error).__name__}: {error}")
        return _problem(request, Problem(500, "an error of the service; its log says which", "tell an operator"))

    for kind, handler in (
        (Refused, refused), (RequestValidationError, invalid), (HTTPException, http), (NotModified, unmodified),
        (PipelineError, ours), (Exception, unforeseen),
    ):  # fmt: skip
        app.add_exception_handler(kind, handler)
    made = app.openapi
    app.openapi = functools.cache(lambda: described(made()))
    return app


def _problem(request: Request, problem: Problem, more: Any = None) -> Response:
    headers = dict(more or {})
    if problem.retry_after:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.url.path.startswith("/v2"):
        said = f"{problem.detail or problem.body('')['title']}" + f" ({problem.hint})" * bool(problem.hint)
        return JSONResponse({"error": said}, problem.status, headers)
    body = problem.body(request.url.path)
    return JSONResponse(body, problem.status, headers, "application/problem+json")
