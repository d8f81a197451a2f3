"""Datafiles: what a tenant trains on, uploaded as one body that goes on where it broke."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from starlette.requests import ClientDisconnect

from pipeline.service import blobs, quotas
from pipeline.service.database.statements import Row, Statements, Violated
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.conditional import IfMatch, stale, tag_of, tagged, wanted
from pipeline.service.http.creating import IdempotencyKey, Made, create
from pipeline.service.http.documents import DatafileId, Given, Name, Told, problems
from pipeline.service.http.paging import Paged, page
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.problems import Problem, Refused, absent, conflict, over
from pipeline.service.quotas import Quotas
from pipeline.service.words import Actor

router = APIRouter(prefix="/v1/datafiles", tags=["datafiles"])
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
ContentRange = Annotated[
    str | None, Header(alias="Content-Range", max_length=60, description="`bytes FIRST-LAST/SIZE`: goes on at FIRST")
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
    row = await statements.row(
        """select cast((select coalesce(sum(size), 0) from datafiles) + (select coalesce(sum(size), 0) from snapshots)
           + (select coalesce(sum(size), 0) from chunks) as bigint) as n"""
    )
    return int(row["n"]) if row is not None else 0


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
    """The bytes, from the first that is missing.  What has come stays, also where the connection breaks."""
    row = await _row(service, actor, datafile)
    begins = _begin(row, ranged)
    keys, held = TenantKeys(actor.tenant), bytearray()
    try:
        async for some in request.stream():
            held += some
            if begins + len(held) > row["size"]:
                raise Refused(
                    Problem(413, f"more than the announced {row['size']} bytes came", "announce another file")
                )
            while len(held) >= blobs.PIECE:
                begins = await _store(service, actor, keys, (datafile, begins, bytes(held[: blobs.PIECE])))
                del held[: blobs.PIECE]
    except ClientDisconnect:
        if held:
            await _store(service, actor, keys, (datafile, begins, bytes(held)))
        raise Refused(Problem(400, "the connection broke", "go on from `received`")) from None
    if held:
        await _store(service, actor, keys, (datafile, begins, bytes(held)))
    row = await _row(service, actor, datafile)
    response.headers["ETag"] = tag_of(row["version"])
    return _shown(row)


def _begin(row: Row, ranged: str | None) -> int:
    """Where the body begins.  Raises Refused: 416 where that is not the first byte that is missing."""
    if ranged is None:
        first, size = 0, row["size"]
    else:
        found = _RANGE.fullmatch(ranged)
        if found is None:
            raise Refused(Problem(400, "Content-Range is not written as `bytes FIRST-LAST/SIZE`"))
        first, size = int(found[1]), int(found[3])
    if size != row["size"] or first != row["received"]:
        said = f"{row['received']} of {row['size']} bytes are here"
        hint = f"Content-Range: bytes {row['received']}-{row['size'] - 1}/{row['size']}"
        raise Refused(Problem(416, said, hint, "range"))
    return int(first)


async def _store(service: Behind, actor: Actor, keys: TenantKeys, piece: tuple[str, int, bytes]) -> int:
    """Puts a piece, then names it; where the next one begins.  Raises Refused where somebody else went on here."""
    datafile, begins, some = piece
    key = keys.chunk_of_upload(datafile, begins, new_id(Kind.DATAFILE, service.clock.now())[-12:])
    said: dict[str, Any] = blobs.described(key, some)
    await blobs.put(service.store, key, some)
    async with service.database.transaction(actor.realm) as statements:
        row = await statements.row("select chunks from datafiles where id = $1 and received = $2", datafile, begins)
        named = row and await statements.row(
            """update datafiles set received = received + $4, chunks = $5, version = version + 1
               where tenant_id = $1 and id = $2 and received = $3 returning received""",
            actor.tenant, datafile, begins, len(some), json.dumps([*json.loads(row["chunks"]), said]),
        )  # fmt: skip
    if not named:
        raise conflict("another request uploads this file at the same time", "look at `received`, and go on from there")
    return begins + len(some)


async def remove(service: Service, actor: Member, datafile: DatafileId, match: IfMatch = None) -> Response:
    """It is gone, and its bytes count no more."""
    version = wanted(match)
    try:
        async with service.database.transaction(actor.realm) as statements:
            row = await statements.row("select version from datafiles where id = $1", datafile)
            if row is None:
                raise absent()
            if version not in (None, row["version"]):
                raise stale()
            sql = "delete from datafiles where tenant_id = $1 and id = $2 returning id"
            await statements.rows(sql, actor.tenant, datafile)
    except Violated as error:
        raise conflict("training jobs use this file", "delete them before") from error
    return Response(status_code=204)


router.add_api_route("", add, methods=["POST"], response_model=Datafile, status_code=201, responses=problems())
router.add_api_route("", listed, methods=["GET"], response_model=Datafiles, responses=problems())
router.add_api_route("/{datafile}", one, methods=["GET"], response_model=Datafile, responses=problems(304, 404))
router.add_api_route("/{datafile}", remove, methods=["DELETE"], status_code=204, responses=problems(404, 409, 412, 428))
router.add_api_route(
    "/{datafile}/content", content, methods=["PUT"], response_model=Datafile, responses=problems(404, 409, 416),
    openapi_extra={"requestBody": {"required": True, "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
