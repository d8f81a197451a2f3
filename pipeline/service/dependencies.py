"""Work that waits for other work, or for a datafile that is still uploaded.

It begins to wait in the transaction that asks for it, which holds what it waits for until it stands.  It ends to wait
in the transaction that ends what it waits for.  So no wake-up is lost between a look and a row, and nobody looks after
what waits.  Rows are held in one order, what is waited for before what waits, so that no two transactions block each
other for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.service import states
from pipeline.service.database.statements import Row, Statements
from pipeline.service.words import Reason, State

_OVER = ", ".join(f"'{state}'" for state in sorted(states.TERMINAL))
_NOT_DONE = "exists (select 1 from needs where needs.tenant_id = $1 and needs.work_id = $2)"
_NOT_WHOLE = """exists (select 1 from inputs join datafiles on datafiles.tenant_id = inputs.tenant_id
    and datafiles.id = inputs.datafile_id
    where inputs.tenant_id = $1 and inputs.work_id = $2 and datafiles.received < datafiles.size)"""


async def held(statements: Statements, tenant: str, datafiles: Iterable[str], work: Sequence[str]) -> list[str]:
    """Those that are not ready, which nobody else ends before this transaction does.  work: ids of work."""
    unready = []
    for name in sorted(set(datafiles)):
        size = "received < size as unready from datafiles where tenant_id = $1 and id = $2"
        row = await statements.row(f"select {size}", tenant, name)
        if row is not None and row["unready"]:  # what is whole stays so
            row = await statements.row(
                """update datafiles set version = version where tenant_id = $1 and id = $2
                   returning received < size as unready""",
                tenant, name,
            )  # fmt: skip
        if row is not None and row["unready"]:
            unready.append(name)
    for name in sorted(set(work)):
        row = await statements.row("select state from work where tenant_id = $1 and id = $2", tenant, name)
        if row is not None and State(row["state"]) not in states.TERMINAL:
            row = await statements.row(
                "update work set version = version where tenant_id = $1 and id = $2 returning state", tenant, name
            )
        if row is None or row["state"] != State.SUCCEEDED:
            unready.append(name)
    return unready


async def ended(statements: Statements, tenant: str, name: str) -> None:
    """Work is over, or a datafile is whole: what waited for it is queued, or fails, in this transaction."""
    over = [name]
    while over:
        name = over.pop()
        waits = await statements.rows(
            """select work_id from needs where tenant_id = $1 and on_id = $2
               union select inputs.work_id from inputs join work on work.tenant_id = inputs.tenant_id
               and work.id = inputs.work_id
               where inputs.tenant_id = $1 and inputs.datafile_id = $2 and work.state = 'waiting' order by 1""",
            tenant, name,
        )  # fmt: skip
        over += [row["work_id"] for row in waits if await judge(statements, tenant, row["work_id"])]


async def judge(statements: Statements, tenant: str, work: str) -> bool:
    """Queues what waits for nothing any more, fails what waits for what will never be; whether it failed."""
    sql = "update work set version = version where tenant_id = $1 and id = $2 and state = 'waiting' returning id"
    if await statements.row(sql, tenant, work) is None:  # from here on it is this transaction's
        return False
    lost = await statements.row(
        f"""select needed.id, needed.state from needs join work needed on needed.tenant_id = needs.tenant_id
            and needed.id = needs.on_id
            where needs.tenant_id = $1 and needs.work_id = $2 and needed.state in ({_OVER})
            and needed.state <> 'succeeded' order by needed.id limit 1""",
        tenant, work,
    )  # fmt: skip
    if lost is not None:
        return await fail(statements, tenant, work, f"{lost['id']}, which it waited for, is {lost['state']}")
    await statements.rows(
        """delete from needs where tenant_id = $1 and work_id = $2 and on_id in (
               select id from work where tenant_id = $1 and state = 'succeeded') returning on_id""",
        tenant, work,
    )  # fmt: skip
    await statements.rows(
        f"""update work set state = '{State.QUEUED}', version = version + 1 where tenant_id = $1 and id = $2
            and state = 'waiting' and not {_NOT_DONE} and not {_NOT_WHOLE} returning id""",
        tenant, work,
    )  # fmt: skip
    return False


async def fail(statements: Statements, tenant: str, work: str, says: str) -> bool:
    """Ends work that waits, and says why; whether it waited.  What waits for it in turn is `ended`'s."""
    row = await statements.row(
        f"""update work set state = '{State.FAILED}', reason = '{Reason.DEPENDENCY_FAILED}', detail = $3,
               finished_at = instant(), version = version + 1
            where tenant_id = $1 and id = $2 and state = 'waiting' returning id""",
        tenant, work, says,
    )  # fmt: skip
    await forget(statements, tenant, work)
    return row is not None


async def forget(statements: Statements, tenant: str, work: str) -> None:
    """It waits no more."""
    await statements.rows("delete from needs where tenant_id = $1 and work_id = $2 returning on_id", tenant, work)


async def waited_for(statements: Statements, row: Row) -> list[str]:
    """Ids of what work is waiting for; none where it does not wait.  row: the work's, with its state."""
    if row["state"] != State.WAITING:
        return []
    rows = await statements.rows(
        """select on_id as id from needs where tenant_id = $1 and work_id = $2
           union select datafiles.id from inputs join datafiles on datafiles.tenant_id = inputs.tenant_id
           and datafiles.id = inputs.datafile_id
           where inputs.tenant_id = $1 and inputs.work_id = $2 and datafiles.received < datafiles.size order by 1""",
        row["tenant_id"], row["id"],
    )  # fmt: skip
    return [one["id"] for one in rows]
