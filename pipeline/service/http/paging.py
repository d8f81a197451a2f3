"""Pages of a list, by keys and not by offsets: each costs the same, however many came before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from pipeline.service import cursors
from pipeline.service.database.statements import Row
from pipeline.service.http.asking import Behind
from pipeline.service.http.documents import Cursor, Limit
from pipeline.service.problems import invalid

FIRST = "\x7f"
"""What comes before every id, as lists go: the newest first."""


async def _paged(cursor: Cursor = None, limit: Limit = 50) -> None:
    """What every list takes; `page` reads it."""


Paged = Annotated[None, Depends(_paged)]


async def page(
    request: Request, response: Response, service: Behind, tenant: str,
    rows: Callable[[str, int], Awaitable[Sequence[Row]]],
) -> tuple[list[Row], str | None]:  # fmt: skip
    """(rows, the next page's cursor).  rows: given the last id shown and how many; the newest first.

    Raises Refused: 422 for a cursor of another list or tenant.
    """
    query = request.query_params
    limit = int(query.get("limit", "50"))
    rest = "&".join(f"{name}={value}" for name, value in sorted(query.multi_items()) if name not in ("cursor", "limit"))
    of, given = f"{request.url.path}?{rest}", query.get("cursor")
    after: Any = FIRST
    if given is not None:
        place = cursors.read(service.key, tenant, of, given)
        if place is None:
            raise invalid("#/cursor", "it is no cursor of this list", "take it from `next` of the page before")
        after = place[0]
    found = list(await rows(str(after), limit + 1))
    if len(found) <= limit:
        return found, None
    following = cursors.written(service.key, tenant, of, [str(found[limit - 1]["id"])])
    link = request.url.include_query_params(cursor=following).replace(scheme="", netloc="")
    response.headers["Link"] = f'<{link}>; rel="next"'
    return found[:limit], following
