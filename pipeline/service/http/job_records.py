"""What a training job leaves: metrics, its log, its snapshots, and all of it live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field, WithJsonSchema

from pipeline.errors import FormatError
from pipeline.service import blobs, states
from pipeline.service.curves import CHUNK_BYTES, Curves, Wanted
from pipeline.service.database.statements import Row
from pipeline.service.http.asking import Behind, Service, Viewer
from pipeline.service.http.documents import JobId, Told, problems
from pipeline.service.http.downloads import BINARY, FileName, download
from pipeline.service.problems import absent
from pipeline.service.thinning import rows_of as rows_in
from pipeline.service.words import Actor, State

LOOK_SECONDS, STILL_SECONDS = 0.5, 4.0
"""Between two looks of a stream: of what moves, and of what has been still for half a minute."""
COMMENT_SECONDS = 15.0
LOG_BYTES = 2**20
PLAIN: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
Points = Annotated[int, Query(ge=2, le=10_000, description="Of each name at most so many; a spike stays")]
From = Annotated[int, Query(alias="from", ge=0, lt=2**31, description="The first step")]
Names = Annotated[
    list[str] | None, Query(max_length=100, description="`train/loss`, `test/accuracy`...; all by default")
]
Tail = Annotated[int, Query(ge=1, le=LOG_BYTES, description="The last bytes, at most so many")]
Iteration = Annotated[int, Path(ge=0, lt=2**31)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^\d{1,15}\.\d{1,15}$")]


Point = Annotated[
    tuple[int, float, float | None],
    WithJsonSchema({"type": "array", "items": {"type": ["number", "null"]}, "minItems": 3, "maxItems": 3}),
]
"""In the document without `prefixItems`, which many readers of OpenAPI do not know."""


class Metrics(Told):
    """By name: `[step, seconds since 1970, value]`; a value that is not finite is null."""

    metrics: dict[str, list[Point]]
    last_event_id: Annotated[str, Field(description="With this as Last-Event-ID, the job's events go on from here")]


class SnapshotFile(Told):
    name: str
    size: int
    sha256: str


class Snapshot(Told):
    iteration: int
    attempt: int
    size: int
    created_at: float
    files: list[SnapshotFile]


class Snapshots(Told):
    items: list[Snapshot]


def add_to(router: APIRouter, row_of: Callable[..., Awaitable[Row]], shown: Callable[[Row], dict[str, Any]]) -> None:
    """Adds the routes below one job.  row_of, shown: of `training_jobs.py`, which knows what a job is."""

    async def metrics(
        service: Service, actor: Viewer, job: JobId, names: Names = None, first: From = 0, points: Points = 1000
    ) -> Response:
        """What it measured, thinned by the server; steps that a later attempt computed anew are told once."""
        await row_of(service, actor, job)
        wanted = Wanted(None if names is None else frozenset(names), first, points)
        found, newest = await Curves(service.database, service.store, actor.realm).of(job, wanted)
        shown = {name: [_finite(one) for one in some] for name, some in found.items()}
        return JSONResponse({"metrics": shown, "last_event_id": f"0.{newest}"})

    async def log(service: Service, actor: Viewer, job: JobId, tail: Tail = 65_536) -> Response:
        """The end of its log, of all attempts, also of one that failed."""
        await row_of(service, actor, job)
        return await log_of(service, actor, job, tail)

    async def snapshots(service: Service, actor: Viewer, job: JobId) -> Snapshots:
        """Those that are kept, the newest first."""
        await row_of(service, actor, job)
        async with service.database.reading(actor.realm) as statements:
            rows = await statements.rows("select * from snapshots where work_id = $1 order by iteration desc", job)
        items = [
            Snapshot(iteration=row["iteration"], attempt=row["epoch"], size=row["size"], created_at=row["created_at"],
                     files=[SnapshotFile(**one) for one in json.loads(row["files"])])
            for row in rows
        ]  # fmt: skip
        return Snapshots(items=items)

    async def file(service: Service, actor: Viewer, job: JobId, iteration: Iteration, name: FileName) -> Response:
        """A file of a snapshot: the model, the state that a training goes on from."""
        async with service.database.reading(actor.realm) as statements:
            sql = "select files from snapshots where work_id = $1 and iteration = $2"
            row = await statements.row(sql, job, iteration)
        one = next((one for one in json.loads(row["files"]) if one["name"] == name), None) if row is not None else None
        if one is None:
            raise absent()
        return download(service, one)

    async def events(
        request: Request, service: Service, actor: Viewer, job: JobId, last: LastEventId = None
    ) -> StreamingResponse:
        """The job as it changes, and its metrics as they come: server-sent events, gone on with by Last-Event-ID."""
        await row_of(service, actor, job)
        version, number = (int(one) for one in (last or "0.0").split("."))
        return StreamingResponse(told(service, actor, job, (version, number)), media_type="text/event-stream")

    async def told(service: Behind, actor: Actor, job: str, place: tuple[int, int]) -> AsyncIterator[bytes]:
        version, number = place
        quiet = still = 0.0
        yield b"retry: 2000\n\n"
        while True:
            async with service.database.reading(actor.realm) as statements:
                row = await statements.row("select * from work where id = $1", job)
                chunks = await statements.rows(
                    """select * from chunks where work_id = $1 and kind = 'metrics' and number > $2
                       order by number limit 100""",
                    job, number,
                )  # fmt: skip
            if row is None:
                yield _event("gone", {"id": job}, version, number)
                return
            for chunk in chunks:
                number = chunk["number"]
                yield _event("metrics", {"rows": await rows_of(service, chunk)}, version, number)
            still = 0.0 if chunks or row["version"] != version else still
            if row["version"] != version:
                version = row["version"]
                yield _event("job", shown(row), version, number)
            if State(row["state"]) in states.TERMINAL and not chunks:
                yield _event("end", {"state": row["state"]}, version, number)
                return
            wait = pause(still)
            quiet, still = 0.0 if chunks else quiet + wait, still + wait
            if quiet >= COMMENT_SECONDS:
                quiet = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(wait)

    def add(path: str, route: object, model: Any, content: dict[str, Any] | None = None) -> None:
        found = problems(404)
        if content is not None:
            found[200] = {"description": "As it is", "content": content}
        router.add_api_route("/{job}" + path, route, methods=["GET"], response_model=model, responses=found)

    add("/metrics", metrics, Metrics)
    add("/logs", log, None, PLAIN)
    add("/snapshots", snapshots, Snapshots)
    add("/snapshots/{iteration}/{name}", file, None, BINARY)
    add("/events", events, None, {"text/event-stream": {}})


def pause(still: float) -> float:
    """Seconds to a stream's next look at the database, after so many in which nothing was new."""
    return min(STILL_SECONDS, max(LOOK_SECONDS, still / 8))


async def chunks_of(service: Behind, actor: Actor, job: str, kind: str) -> list[Row]:
    """A job's chunks of that kind, in order."""
    async with service.database.reading(actor.realm) as statements:
        return await statements.rows(
            "select * from chunks where work_id = $1 and kind = $2 order by number", job, kind
        )  # fmt: skip


async def log_of(service: Behind, actor: Actor, job: str, tail: int) -> Response:
    """The last bytes of a job's log."""
    found = b""
    for chunk in reversed(await chunks_of(service, actor, job, "log")):
        found = await blobs.get(service.store, chunk["key"], CHUNK_BYTES) + found
        if len(found) >= tail:
            break
    return Response(found[-tail:], media_type="text/plain; charset=utf-8")


async def rows_of(service: Behind, chunk: Row) -> list[dict[str, Any]]:
    """The rows of a chunk of metrics.  Raises FormatError, NotFound."""
    text = await blobs.get(service.store, chunk["key"], CHUNK_BYTES)
    try:
        return rows_in(text)
    except ValueError as error:
        raise FormatError("a chunk of metrics cannot be read", chunk["key"], "tell an operator") from error


def _finite(point: tuple[int, float, float]) -> tuple[int, float, float | None]:
    step, at, value = point
    return step, at, value if value - value == 0 else None


def _event(kind: str, data: dict[str, Any], version: int, number: int) -> bytes:
    return f"id: {version}.{number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
