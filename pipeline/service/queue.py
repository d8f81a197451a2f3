"""The queue: each verb is one statement or one transaction, and the WHERE of each says what it may change.

Nobody cleans up.  Work whose lease has ended by the database's clock is simply claimed by the next worker that asks,
with a greater epoch; whoever held it before finds that its beat and its result change no row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.service import dependencies, states
from pipeline.service.database.statements import Database, Row, Statements
from pipeline.service.summing import Summary
from pipeline.service.words import WORKER, Beaten, Claimed, Ending, Realm, Reason, Slot, State
from pipeline.times import DAY

LEASE_SECONDS = 15.0
STRIKES = 3
"""So many times in a row without a new snapshot its process may die."""
FORGOTTEN = 7 * DAY
"""A worker that was silent for so many seconds."""
IDLE_BEAT_SECONDS = 5.0
"""So often a worker that has nothing to do says that it is there."""
LOST = 10
"""So many leases in a row may end without a new snapshot: it takes whole hosts with it."""
_HELD = "tenant_id = $1 and id = $2 and epoch = $3 and state = 'running'"
_FREED = "worker_id = null, lease_until = null, version = version + 1"
_SPENT = "spent = spent + (instant() - claimed_at)"
_OVER = f"finished_at = instant(), {_FREED}"


@dataclass(frozen=True, slots=True)
class Submission:
    """Work that a tenant asks for.  body: what its kind wants; inputs: datafiles by the name that they have there.

    needs: work that has to succeed before it; resumes: a training and the iteration of its snapshot to go on from,
    None for its newest.
    """

    id: str
    kind: str
    slot: Slot
    body: Mapping[str, Any]
    priority: int = 0
    max_seconds: float = DAY
    solver: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    needs: Sequence[str] = ()
    resumes: tuple[str, int | None] | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot whose files are in the bucket.  files: name, key, size and SHA-256 of each."""

    iteration: int
    files: list[dict[str, Any]]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(int(one["size"]) for one in self.files)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of metrics or lines of a log that are in the bucket.  first, last: the steps or bytes of it.

    summaries: those that end with it.
    """

    kind: str
    first: int
    last: int
    size: int
    key: str
    summaries: tuple[Summary, ...] = ()


class Chance(StrEnum):
    """Whether a claim is worth it.  retired: nobody gives this worker work any more."""

    RETIRED = "retired"
    NOTHING = "nothing"
    CLAIM = "claim"


async def submit(statements: Statements, realm: Realm, work: Submission) -> None:
    """It is queued, in the caller's transaction, or waits for what is not ready.

    Raises Violated where a solver, a datafile or other work is not this tenant's.
    """
    unready = await dependencies.held(statements, realm.tenant, work.inputs.values(), work.needs)
    await statements.row(
        """insert into work (tenant_id, id, kind, slot, state, priority, solver_id, body, max_seconds, created_at)
           values ($1, $2, $3, $4, $9, $5, $6, $7, $8, instant()) returning id""",
        realm.tenant, work.id, work.kind, work.slot, work.priority, work.solver, json.dumps(work.body),
        float(work.max_seconds), State.WAITING if unready else State.QUEUED,
    )  # fmt: skip
    for name, datafile in sorted(work.inputs.items()):
        await statements.row(
            "insert into inputs (tenant_id, work_id, name, datafile_id) values ($1, $2, $3, $4) returning name",
            realm.tenant, work.id, name, datafile,
        )  # fmt: skip
    for on in sorted(set(work.needs).intersection(unready)):
        await statements.row(
            "insert into needs (tenant_id, work_id, on_id) values ($1, $2, $3) returning on_id",
            realm.tenant, work.id, on,
        )  # fmt: skip
    if work.resumes is not None:
        await statements.row(
            "insert into resumed (tenant_id, work_id, origin_id, iteration) values ($1, $2, $3, $4) returning work_id",
            realm.tenant, work.id, *work.resumes,
        )  # fmt: skip
    if unready:  # what it needs may have failed already
        await dependencies.judge(statements, realm.tenant, work.id)


async def enlist(database: Database, worker: str, host: str, slot: Slot) -> None:
    """A worker is there, and may claim; said twice, it is there once.

    What is known of others that were silent for a week is forgotten.
    """
    async with database.transaction(WORKER) as statements:
        if await statements.row("select 1 from workers where id = $1", worker) is not None:  # the answer was lost
            return
        await statements.rows("delete from workers where beat_at < instant() - $1 returning id", FORGOTTEN)
        await statements.row(
            """insert into workers (id, host, slot, state, started_at, beat_at)
               values ($1, $2, $3, 'active', instant(), instant()) returning id""",
            worker, host, slot,
        )  # fmt: skip
        waiting = "select tenant_id, id from work where state = 'waiting' order by id"
        for row in await statements.rows(waiting):  # a Hathi that knew of no waiting may have ended what it needs
            if await dependencies.judge(statements, row["tenant_id"], row["id"]):
                await dependencies.ended(statements, row["tenant_id"], row["id"])


async def retire(database: Database, worker: str) -> bool:
    """Ends a worker that holds nothing, in the claim's own order; False: it holds work, or is none."""
    async with database.transaction(WORKER, serial=True) as statements:
        ended = await statements.row(
            """update workers set state = 'retired' where id = $1 and state = 'active'
               and not exists (select 1 from work where worker_id = $1 and state = 'running') returning id""",
            worker,
        )
        return ended is not None


async def look(database: Database, worker: str) -> Chance:
    """What there is for a worker, as a reading finds it: nobody waits for one that has nothing to do.

    What it says may have changed a moment later: the claim judges.
    """
    async with database.reading(WORKER) as statements:
        of = await statements.row(
            "select slot, beat_at < instant() - $2 as due from workers where id = $1 and state = 'active'",
            worker, IDLE_BEAT_SECONDS,
        )  # fmt: skip
        if of is None:
            return Chance.RETIRED
        if of["due"] or await _lost(statements, of["slot"]) or await _turn(statements, of["slot"]):
            return Chance.CLAIM
        return Chance.NOTHING


async def orphan(database: Database, worker: str) -> int:
    """A worker that is known to be dead: what it held is claimed by the next that asks.  How much that is."""
    async with database.transaction(WORKER, serial=True) as statements:
        await statements.rows("update workers set state = 'retired' where id = $1 returning id", worker)
        sql = "update work set lease_until = instant() - 1 where worker_id = $1 and state = 'running' returning id"
        return len(await statements.rows(sql, worker))


async def claim(database: Database, worker: str, lease: float = LEASE_SECONDS) -> Claimed | None:
    """The work that this worker does next; None: there is none for it.  One transaction, and only one at a time."""
    async with database.transaction(WORKER, serial=True) as statements:
        of = await statements.row(
            "update workers set beat_at = instant() where id = $1 and state = 'active' returning slot", worker
        )
        if of is None:
            return None
        while (lost := await _lost(statements, of["slot"])) is not None:
            if lost["cancel_requested_at"] is not None:
                await _end(statements, lost, f"state = '{State.CANCELLED}', {_SPENT}, {_OVER}")
            elif lost["lost"] + 1 >= LOST:
                says = f"{LOST} workers in a row disappeared while they did it"
                await _end(statements, lost, f"state = '{State.FAILED}', reason = '{Reason.CRASHED}', "
                                             f"detail = '{says}', lost = lost + 1, {_SPENT}, {_OVER}")  # fmt: skip
            else:
                return await _taken(statements, lost, worker, lease, f"lost = lost + 1, {_SPENT},")
        turn = await _turn(statements, of["slot"])
        if turn is None:
            return None
        best = await statements.row(
            """select * from work where state = 'queued' and slot = $1 and tenant_id = $2
               order by priority desc, created_at, id limit 1""",
            of["slot"], turn,
        )  # fmt: skip
        if best is None:
            return None
        await _served(statements, turn, of["slot"])
        return await _taken(statements, best, worker, lease, "")


async def beat(
    database: Database, held: Claimed, progress: Mapping[str, Any], lease: float = LEASE_SECONDS
) -> Beaten | None:
    """Says that the worker lives, and where the work is.  None: somebody else has it, or it is over."""
    async with database.transaction(WORKER) as statements:
        row = await statements.row(
            f"""update work set lease_until = instant() + $4, progress = $5, version = version + 1 where {_HELD}
                returning cancel_requested_at, worker_id""",
            held.tenant, held.id, held.epoch, lease, json.dumps(progress),
        )  # fmt: skip
        if row is None:
            return None
        await statements.rows("update workers set beat_at = instant() where id = $1", row["worker_id"])
        return Beaten(row["cancel_requested_at"] is not None)


async def release(database: Database, held: Claimed) -> State | None:
    """A worker parts with it in good order: no strike, and its place is kept.  None: it was not its own."""
    async with database.transaction(WORKER) as statements:
        return await _after(statements, held, f"state = {_unless_cancelled(State.QUEUED)}, {_SPENT}, {_FREED}, "
                                              f"finished_at = {_if_cancelled('instant()')}")  # fmt: skip


async def strike(
    database: Database, held: Claimed, detail: str, reason: Reason = Reason.CRASHED
) -> State | None:  # fmt: skip
    """Its process died, and the worker saw it: once more, or over after too many without a new snapshot."""
    again = f"strikes + 1 < {STRIKES}"
    state = f"case when {again} then '{State.QUEUED}' else '{State.FAILED}' end"
    async with database.transaction(WORKER) as statements:
        return await _after(
            statements, held,
            f"""state = case when cancel_requested_at is not null then '{State.CANCELLED}' else {state} end,
                reason = case when {again} or cancel_requested_at is not null then null else '{reason}' end,
                detail = $4, strikes = strikes + 1, {_SPENT}, {_FREED},
                finished_at = case when {again} and cancel_requested_at is null then null else instant() end""",
            detail,
        )  # fmt: skip


async def finish(database: Database, held: Claimed, ending: Ending) -> State | None:
    """It is over.  A cancel that was granted before wins.  None: it was not this worker's any more; nothing changed."""
    if not states.may("finish", State.RUNNING, ending.state):
        raise ValueError(f"nothing finishes as {ending.state}")
    async with database.transaction(WORKER) as statements:
        return await _after(
            statements, held,
            f"""state = {_unless_cancelled(ending.state)}, reason = $4, detail = $5, result = $6, {_SPENT}, {_OVER}""",
            ending.reason, ending.detail, json.dumps(ending.result) if ending.result is not None else None,
        )  # fmt: skip


async def ship(database: Database, held: Claimed, chunk: Chunk) -> bool:
    """Names a chunk that is in the bucket; False: it was not this worker's any more, and nobody will ever read it."""
    async with database.transaction(WORKER) as statements:
        if await _mine(statements, held, "") is None:
            return False
        newest = await statements.row(
            """select number, key from chunks where tenant_id = $1 and work_id = $2 and kind = $3
               order by number desc limit 1""",
            held.tenant, held.id, chunk.kind,
        )  # fmt: skip
        if newest is not None and newest["key"] == chunk.key:  # it was told before, and the answer was lost
            return True
        number = newest["number"] + 1 if newest is not None else 1
        await statements.row(
            """insert into chunks (tenant_id, work_id, kind, number, epoch, first, last, size, key, created_at)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9, instant()) returning number""",
            held.tenant, held.id, chunk.kind, number, held.epoch, chunk.first, chunk.last, chunk.size, chunk.key,
        )  # fmt: skip
        for one in chunk.summaries:  # of this attempt's newest chunks, between which no other attempt's are
            await statements.row(
                """insert into summaries (tenant_id, work_id, level, number, epoch, since, first, last, size, body)
                   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning number""",
                held.tenant, held.id, one.level, number, held.epoch, number - one.chunks + 1, one.first, one.last,
                len(one.body), one.body,
            )  # fmt: skip
        return True


async def keep(database: Database, held: Claimed, snapshot: Snapshot) -> bool:
    """Names a snapshot whose files are in the bucket; what died before counts no more.  False: as `ship`."""
    async with database.transaction(WORKER) as statements:
        if await _mine(statements, held, "strikes = 0, lost = 0,") is None:
            return False
        there = await statements.row(
            "select 1 from snapshots where tenant_id = $1 and work_id = $2 and iteration = $3",
            held.tenant, held.id, snapshot.iteration,
        )  # fmt: skip
        if there is None:
            await statements.row(
                """insert into snapshots (tenant_id, work_id, iteration, epoch, files, size, created_at)
                   values ($1, $2, $3, $4, $5, $6, instant()) returning iteration""",
                held.tenant, held.id, snapshot.iteration, held.epoch, json.dumps(snapshot.files), snapshot.size,
            )  # fmt: skip
        return True


async def cancel(statements: Statements, realm: Realm, work: str) -> Row | None:
    """A person ends it, in the caller's transaction: at once where nobody holds it, else by its worker's next beat.

    The row as it is then; None: it is over already, or there is none.
    """
    before = ", ".join(f"'{one}'" for one in states.sources("cancel"))
    unheld = "(state <> 'running' or lease_until < instant())"
    row = await statements.row(
        f"""update work set cancel_requested_at = coalesce(cancel_requested_at, instant()), version = version + 1,
               state = case when {unheld} then '{State.CANCELLED}' else state end,
               finished_at = case when {unheld} then instant() else null end,
               worker_id = case when {unheld} then null else worker_id end,
               lease_until = case when {unheld} then null else lease_until end
            where tenant_id = $1 and id = $2 and state in ({before}) returning *""",
        realm.tenant, work,
    )  # fmt: skip
    if row is not None and State(row["state"]) in states.TERMINAL:
        await dependencies.forget(statements, realm.tenant, work)
        await dependencies.ended(statements, realm.tenant, work)
    return row


async def _lost(statements: Statements, slot: str) -> Row | None:
    return await statements.row(
        """select * from work where state = 'running' and slot = $1 and lease_until < instant()
           order by lease_until limit 1""",
        slot,
    )


async def _turn(statements: Statements, slot: str) -> str | None:
    """The tenant whose turn it is (`fairness.py`): each tenant is asked once, however much it has queued."""
    row = await statements.row(
        """select tenants.id from tenants
           left join (select tenant_id, count(*) as held from work where state = 'running' and slot = $1
                      group by tenant_id) r on r.tenant_id = tenants.id
           left join turns on turns.tenant_id = tenants.id and turns.slot = $1
           where coalesce(r.held, 0) < tenants.running and exists (
               select 1 from work where work.state = 'queued' and work.slot = $1 and work.tenant_id = tenants.id)
           order by coalesce(r.held, 0) * 1.0 / tenants.weight, coalesce(turns.served_at, 0.0), tenants.id limit 1""",
        slot,
    )
    return str(row["id"]) if row is not None else None


async def _served(statements: Statements, tenant: str, slot: str) -> None:
    """Notes a turn; claims are serial, so nobody else does meanwhile."""
    noted = await statements.row(
        "update turns set served_at = instant() where tenant_id = $1 and slot = $2 returning slot", tenant, slot
    )
    if noted is None:
        await statements.row(
            "insert into turns (tenant_id, slot, served_at) values ($1, $2, instant()) returning slot", tenant, slot
        )


async def _taken(statements: Statements, work: Row, worker: str, lease: float, also: str) -> Claimed:
    row = await statements.row(
        f"""update work set {also} state = 'running', epoch = epoch + 1, worker_id = $3, lease_until = instant() + $4,
               claimed_at = instant(), started_at = coalesce(started_at, instant()), version = version + 1
            where tenant_id = $1 and id = $2 returning *""",
        work["tenant_id"], work["id"], worker, lease,
    )  # fmt: skip
    assert row is not None
    left = row["max_seconds"] - row["spent"]
    cancel = row["cancel_requested_at"] is not None
    return Claimed(row["tenant_id"], row["id"], row["kind"], row["epoch"], json.loads(row["body"]), cancel, left)


async def _end(statements: Statements, work: Row, changes: str) -> None:
    await statements.rows(
        f"update work set {changes} where tenant_id = $1 and id = $2 returning id", work["tenant_id"], work["id"]
    )
    await dependencies.ended(statements, work["tenant_id"], work["id"])


async def _mine(statements: Statements, held: Claimed, changes: str) -> Row | None:
    """Holds the row until the transaction ends; None: it is not this worker's any more."""
    sql = f"update work set {changes} version = version + 1 where {_HELD} returning id"
    return await statements.row(sql, held.tenant, held.id, held.epoch)


async def _after(statements: Statements, held: Claimed, changes: str, *values: object) -> State | None:
    sql = f"update work set {changes} where {_HELD} returning state"
    row = await statements.row(sql, held.tenant, held.id, held.epoch, *values)
    if row is not None and State(row["state"]) in states.TERMINAL:
        await dependencies.ended(statements, held.tenant, held.id)
    return State(row["state"]) if row is not None else None


def _unless_cancelled(state: State) -> str:
    return f"case when cancel_requested_at is null then '{state}' else '{State.CANCELLED}' end"


def _if_cancelled(value: str) -> str:
    return f"case when cancel_requested_at is null then null else {value} end"
