"""What of a tenant's work changes, all of it in one stream: what the tables of the web app move by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from pipeline.service.database.statements import Row
from pipeline.service.http.asking import Behind, Service, Viewer
from pipeline.service.http.documents import problems
from pipeline.service.http.job_records import COMMENT_SECONDS, STILL_SECONDS, pause
from pipeline.service.words import Actor

router = APIRouter(prefix="/v1", tags=["events"])
MOST = 200
"""Works that one look tells of: those that run before those that wait, the newest first."""
MOVING = 30
"""So many that change in a second are told each second; of more a page would do nothing but draw its table."""
LATE_SECONDS = 10.0
"""What was over so long before a look is told by it at the latest."""
_SQL = """select id, kind, state, reason, progress, version from work
          where finished_at is null or finished_at > (select instant()) - $1
          order by case state when 'running' then 0 when 'queued' then 2 when 'waiting' then 2 else 1 end, id desc
          limit $2"""


async def events(service: Service, actor: Viewer) -> StreamingResponse:
    """Server-sent events `work`: id, kind, state, reason, progress of each that changed.

    A stream begins with all that is not over. It has no past: whoever connects again reads the lists again.
    """
    return StreamingResponse(_told(service, actor), media_type="text/event-stream")


async def _told(service: Behind, actor: Actor) -> AsyncIterator[bytes]:
    seen: dict[str, int] = {}
    quiet = still = 0.0
    yield b"retry: 2000\n\n"
    while True:
        async with service.database.reading(actor.realm) as statements:
            rows = await statements.rows(_SQL, LATE_SECONDS, MOST)
        new = [row for row in rows if seen.get(row["id"]) != row["version"]]
        seen = {row["id"]: row["version"] for row in rows}
        if new:  # in one piece: a page draws its table once for each that comes
            yield "".join(f"event: work\ndata: {json.dumps(_shown(row))}\n\n" for row in new).encode()
        wait = min(STILL_SECONDS, max(1.0, len(new) / MOVING, pause(0.0 if new else still)))
        quiet, still = (0.0, wait) if new else (quiet + wait, still + wait)
        if quiet >= COMMENT_SECONDS:
            quiet = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(wait)


def _shown(row: Row) -> dict[str, Any]:
    return {**{name: row[name] for name in ("id", "kind", "state", "reason")}, "progress": json.loads(row["progress"])}


router.add_api_route(
    "/events", events, methods=["GET"], response_model=None,
    responses={**problems(), 200: {
        "description": "As it is", "content": {"text/event-stream": {}}}},
)  # fmt: skip
