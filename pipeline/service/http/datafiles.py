"""Datafiles: what a tenant trains on, uploaded as one body that goes on where it broke."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from pipeline.service import blobs, dependencies, quotas
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, tag_of, tagged
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import DatafileId, Given, Name, Told, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.http.removing import remove
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.problems import Problem, Refused, absent, conflict, over
from pipeline.service.quotas import Quotas
from pipeline.service.words import Actor

router = APIRouter(prefix="/v1/datafiles", tags=["datafiles"])
_RANGE = re.compile(r"^bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})$")
ContentRange = Annotated[
    str | None, Header(alias="Content-Range", max_length=60, description="`bytes FIRST-LAST/SIZE`: goes on at FIRST",
                       json_schema_extra={"pattern": _RANGE.pattern})
]  # fmt: skip


class DatafileGiven(Given):
    name: Name
    size: Annotated[int, Field(ge=1, le=10**12, description="Bytes of the whole file")]


class Datafile(Told):
    id: str
    name: str
    size: int
    received: int
    complete: bool
    created_at: float


class Datafiles(Told):
    items: list[Datafile]
    next: str | None


def _shown(row: Row) -> Datafile:
    return Datafile(**{**row, "complete": row["received"] == row["size"]})


async def stored_bytes(statements: Statements) -> int:
    """Of all that a tenant keeps: announced datafiles, snapshots, metrics and logs."""
    row = await statements.row("select bytes from usage")
    return int(row["bytes"]) if row is not None else 0


async def limits(statements: Statements) -> Quotas:
    """Those of the tenant."""
    row = await statements.row("select quotas from tenants")
    if row is None:
        raise absent()
    return Quotas.of(json.loads(row["quotas"]))


async def add(
    request: Request, service: Service, actor: Member, body: DatafileGiven, key: IdempotencyKey = None
) -> Response:
    """Announces a file; its bytes follow by PUT of its content."""

    async def make(statements: Statements) -> Made:
        exceeded = quotas.judge(await limits(statements), "stored_bytes", await stored_bytes(statements), body.size)
        if exceeded is not None:
            raise over(exceeded)
        name = new_id(Kind.DATAFILE, service.clock.now())
        await statements.row(
            """insert into datafiles (tenant_id, id, name, size, created_at)
               values ($1, $2, $3, $4, instant()) returning id""",
            actor.tenant, name, body.name, body.size,
        )  # fmt: skip
        row = await statements.row("select * from datafiles where id = $1", name)
        if row is None:
            raise absent()
        return Made(_shown(row).model_dump(), f"/v1/datafiles/{name}")

    return await create(request, service, actor.realm, key, make)


async def listed(request: Request, response: Response, service: Service, actor: Viewer, paged: Paged) -> Datafiles:
    """All of them, the newest first."""

    async def rows(after: str, most: int) -> Sequence[Row]:
        async with service.database.reading(actor.realm) as statements:
            return await statements.rows("select * from datafiles where id < $1 order by id desc limit $2", after, most)

    found, following = await page(request, response, service, actor.tenant, rows)
    return Datafiles(items=[_shown(row) for row in found], next=following)


async def _row(service: Behind, actor: Actor, datafile: str) -> Row:
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select * from datafiles where id = $1", datafile)
    if row is None:
        raise absent()
    return row


async def one(request: Request, response: Response, service: Service, actor: Viewer, datafile: DatafileId) -> Datafile:
    """One of them; `received` says where an upload goes on."""
    row = await _row(service, actor, datafile)
    tagged(request, response, row["version"])
    return _shown(row)


async def content(
    request: Request,
    response: Response,
    service: Service,
    actor: Member,
    datafile: DatafileId,
    ranged: ContentRange = None,
) -> Datafile:
    """The bytes, from any place that `received` ever named; what came behind that place before is replaced.

    What has come stays, also where the connection breaks.  The newest request has the upload: one that began before
    it, and whose connection may not have broken yet as the server sees it, adds nothing more.
    """
    await _filled(service, actor, await _begun(service, actor, datafile, ranged), request.stream())
    row = await _row(service, actor, datafile)
    response.headers["ETag"] = tag_of(row["version"])
    return _shown(row)


async def _filled(service: Behind, actor: Actor, upload: _Upload, stream: AsyncIterator[bytes]) -> None:
    """Takes what comes; while a piece is stored the next one is on its way.  Raises Refused: 400, 409, 413."""
    storing: asyncio.Task[_Upload] | None = None
    try:
        async for piece in _pieces(stream, upload.size - upload.begins):
            upload = await storing if storing is not None else upload
            storing = asyncio.create_task(_store(service, actor, upload, piece))
            del piece  # the trace of a later error would keep it
    finally:
        if storing is not None:
            await storing


async def _pieces(stream: AsyncIterator[bytes], missing: int) -> AsyncIterator[bytes]:
    """What comes, cut; what came before a connection broke is the last one.  Raises Refused: 400, 413."""
    held, broke = bytearray(), False
    try:
        async for some in stream:
            missing -= len(some)
            if missing < 0:
                said = "more than the announced bytes came"
                raise Refused(Problem(413, said, "announce another file"))
            for at in range(0, len(some), blobs.PIECE):
                part = some[at : at + blobs.PIECE]
                room = blobs.PIECE - len(held)
                held += part[:room]
                if len(held) == blobs.PIECE:
                    yield bytes(held)
                    held = bytearray(part[room:])
    except ClientDisconnect:
        broke = True
    if held:
        yield bytes(held)
        held.clear()
    if broke:
        raise Refused(Problem(400, "the connection broke", "go on from `received`"))


async def put(service: Behind, actor: Actor, datafile: str, path: FilePath) -> None:
    """The whole content of one that was announced, out of a local file.  Raises Refused."""

    async def stream() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while some := await asyncio.to_thread(file.read, blobs.PIECE):
                yield some

    await _filled(service, actor, await _begun(service, actor, datafile, None), stream())


@dataclass(frozen=True)
class _Upload:
    """A request that has the upload of a datafile.  begins: where its next byte stands; epoch: it has it for so long
    as the datafile has this one."""

    datafile: str
    size: int
    begins: int
    epoch: int


async def _begun(service: Behind, actor: Actor, datafile: str, ranged: str | None) -> _Upload:
    """Takes the upload from whoever has it.  Raises Refused: 400, 404; 416 for a place where no piece begins."""
    async with service.database.transaction(actor.realm) as statements:
        row = await statements.row(  # from here on no other request changes the row until this one has it
            """update datafiles set epoch = epoch + 1, version = version + 1 where tenant_id = $1 and id = $2
               returning *""",
            actor.tenant, datafile,
        )  # fmt: skip
        if row is None:
            raise absent()
        begins, whole = _begin(row, ranged), row["received"] == row["size"]
        kept = None if whole else _before(json.loads(row["chunks"]), begins)
        if kept is None:
            said = f"{row['received']} of {row['size']} bytes are here"
            hint = f"Content-Range: bytes {row['received']}-{row['size'] - 1}/{row['size']}"
            raise Refused(Problem(416, said, "nothing is missing" if whole else hint, "range"))
        await statements.rows(
            "update datafiles set received = $3, chunks = $4 where tenant_id = $1 and id = $2 returning id",
            actor.tenant, datafile, begins, json.dumps(kept),
        )  # fmt: skip
    return _Upload(datafile, row["size"], begins, row["epoch"])


def _begin(row: Row, ranged: str | None) -> int:
    """Where the body begins.  Raises Refused: 400, 416 for another size than was announced."""
    if ranged is None:
        return 0
    found = _RANGE.fullmatch(ranged)
    if found is None:
        raise Refused(Problem(400, "Content-Range is not written as `bytes FIRST-LAST/SIZE`"))
    if int(found[3]) != row["size"]:
        raise Refused(Problem(416, f"the announced size is {row['size']} bytes", "announce another file", "range"))
    return int(found[1])


def _before(pieces: list[dict[str, Any]], begins: int) -> list[dict[str, Any]] | None:
    """The pieces before a place; None where none begins there."""
    place, kept = 0, []
    for one in pieces:
        if place >= begins:
            break
        place += one["size"]
        kept.append(one)
    return kept if place == begins else None


async def _store(service: Behind, actor: Actor, upload: _Upload, some: bytes) -> _Upload:
    """Puts a piece, then names it.  Raises Refused where another request has the upload by now."""
    key = TenantKeys(actor.tenant).chunk_of_upload(
        upload.datafile, upload.begins, new_id(Kind.DATAFILE, service.clock.now())[-12:]
    )
    said = await blobs.keep(service.store, key, some)
    async with service.database.transaction(actor.realm) as statements:
        row = await statements.row(
            "select chunks from datafiles where id = $1 and epoch = $2", upload.datafile, upload.epoch
        )  # fmt: skip
        named = row and await statements.row(
            """update datafiles set received = received + $5, chunks = $6, version = version + 1
               where tenant_id = $1 and id = $2 and epoch = $3 and received = $4 returning received, size""",
            actor.tenant, upload.datafile, upload.epoch, upload.begins, len(some),
            json.dumps([*json.loads(row["chunks"]), said]),
        )  # fmt: skip
        if named and named["received"] == named["size"]:
            await dependencies.ended(statements, actor.tenant, upload.datafile)
    if not named:
        raise conflict("a newer request uploads this file", "look at `received`, and go on from there")
    return replace(upload, begins=upload.begins + len(some))


async def removed(service: Service, actor: Member, datafile: DatafileId, match: IfMatch = None) -> Response:
    """It is gone, and its bytes count no more."""
    return await remove(service, actor, ("datafiles", datafile), match, "training jobs use this file")


router.add_api_route("", add, methods=["POST"], response_model=Datafile, status_code=201, responses=problems())
router.add_api_route("", listed, methods=["GET"], response_model=Datafiles, responses=problems())
router.add_api_route("/{datafile}", one, methods=["GET"], response_model=Datafile, responses=problems(304, 404))
router.add_api_route(
    "/{datafile}", removed, methods=["DELETE"], status_code=204, responses=problems(404, 409, 412, 428)
)
router.add_api_route(
    "/{datafile}/content", content, methods=["PUT"], response_model=Datafile, responses=problems(404, 409, 416),
    openapi_extra={"requestBody": {"required": True, "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
