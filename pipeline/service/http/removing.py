"""DELETE of a row that others may point to: gone at once, or refused with what stands in the way."""

from __future__ import annotations

from fastapi import Response

from pipeline.service.database.statements import Violated
from pipeline.service.http.asking import Behind
from pipeline.service.http.conditional import stale, wanted
from pipeline.service.problems import absent, conflict
from pipeline.service.words import Actor


async def remove(
    service: Behind,
    actor: Actor,
    of: tuple[str, str],
    match: str | None,
    used: str,
    part: tuple[str, str] | None = None,
) -> Response:
    """204.  of: table and id; match: If-Match; used: what may point to it, in words.

    part: a table whose rows belong to it, and the column that says so.

    Raises Refused: 404, 412, 428; 409 where something points to it.
    """
    table, name = of
    version = wanted(match)
    try:
        async with service.database.transaction(actor.realm) as statements:
            row = await statements.row(f"select version from {table} where id = $1", name)
            if row is None:
                raise absent()
            if version not in (None, row["version"]):
                raise stale()
            if part is not None:
                sql = f"delete from {part[0]} where tenant_id = $1 and {part[1]} = $2 returning {part[1]}"
                await statements.rows(sql, actor.tenant, name)
            sql = f"delete from {table} where tenant_id = $1 and id = $2 returning id"
            await statements.rows(sql, actor.tenant, name)
    except Violated as error:
        raise conflict(used, "delete them before") from error
    return Response(status_code=204)
