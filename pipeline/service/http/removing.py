"""DELETE of a row that others may point to: gone at once, or refused with what stands in the way."""

from __future__ import annotations

from fastapi import Response

from pipeline.service import states
from pipeline.service.database.statements import Violated
from pipeline.service.http.asking import Behind
from pipeline.service.http.conditional import stale, wanted
from pipeline.service.problems import absent, conflict
from pipeline.service.words import Actor, State


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


async def remove_work(
    service: Behind, actor: Actor, of: tuple[str, str], match: str | None, used: str, part: str = ""
) -> Response:
    """204 for work that is over, with all that it left.  of: kind and id; part: a table whose row has its id, too.

    Raises Refused: 404, 412, 428; 409 where it is not over, or something points to it.
    """
    kind, name = of
    version = wanted(match)
    try:
        async with service.database.transaction(actor.realm) as statements:
            row = await statements.row("select state, version from work where id = $1 and kind = $2", name, kind)
            if row is None:
                raise absent()
            if version not in (None, row["version"]):
                raise stale()
            if State(row["state"]) not in states.TERMINAL:
                raise conflict("it is not over", "cancel it before")
            parts = [(one, "work_id") for one in ("inputs", "resumed", "chunks", "summaries", "snapshots")]
            for table, column in [*([(part, "id")] if part else []), *parts, ("work", "id")]:
                sql = f"delete from {table} where tenant_id = $1 and {column} = $2 returning {column}"
                await statements.rows(sql, actor.tenant, name)
    except Violated as error:
        raise conflict(used, "delete them before") from error
    return Response(status_code=204)
