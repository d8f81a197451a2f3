"""What stands in the way of the service's work, each with its cause and what to do: from facts, as values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.amounts import counted, length_of_time
from pipeline.service import backlog
from pipeline.service.database.statements import Database
from pipeline.service.quotas import Quotas
from pipeline.service.scaling import Load
from pipeline.service.words import WORKER, Slot

NEARLY = 0.95
"""A tenant that has so much of its limit meets it soon."""
_NAMED = 5
"""So many of a kind are named; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong and why, and what to do.  key: what it is about; it stays while figures change."""

    key: str
    text: str
    hint: str

    def lines(self) -> list[str]:
        """For a person."""
        return [f"trouble: {self.text}", f"  to do: {self.hint}"]


@dataclass(frozen=True, slots=True)
class Unheard:
    """Work whose worker has not been heard of since its lease ended.  seconds: since then."""

    work: str
    worker: str
    slot: Slot
    seconds: float


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant uses of its limits: bytes that it keeps, and jobs that it has queued."""

    tenant: str
    name: str
    quotas: Quotas
    stored_bytes: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """The service at one moment.  loads: of each kind; unheard: work that nobody does although it runs."""

    loads: Mapping[Slot, Load] = field(default_factory=dict)
    unheard: Sequence[Unheard] = ()
    used: Sequence[Used] = ()


async def look(database: Database) -> Seen:
    """Of all tenants.  Raises PipelineError where the database cannot be read."""
    loads = await backlog.read(database, backlog.Took())
    async with database.reading(WORKER) as statements:
        unheard = await statements.rows(
            """select id, worker_id, slot, instant() - lease_until as ago from work
               where state = 'running' and lease_until < instant() order by lease_until"""
        )
        tenants = await statements.rows(
            """select id, name, quotas, coalesce(bytes, 0) as bytes from tenants left join usage on tenant_id = id
               order by name"""
        )
        queued = await statements.rows(
            "select tenant_id, count(*) as n from work where state = 'queued' group by tenant_id"
        )
    waiting = {row["tenant_id"]: int(row["n"]) for row in queued}
    return Seen(
        loads,
        [Unheard(row["id"], row["worker_id"], Slot(row["slot"]), float(row["ago"])) for row in unheard],
        [
            Used(row["id"], row["name"], Quotas.of(json.loads(row["quotas"])), int(row["bytes"]),
                 waiting.get(row["id"], 0))
            for row in tenants
        ],
    )  # fmt: skip


def judge(seen: Seen, missing: Sequence[str], wait_seconds: float) -> tuple[Trouble, ...]:
    """missing: keys of objects that rows name and the bucket lacks.  wait_seconds: work should wait no longer."""
    found = [*_lost(missing), *_gone(seen.unheard)]
    for slot, load in seen.loads.items():
        found += _stuck(slot, load, wait_seconds)
    for one in seen.used:
        found += _limits(one)
    return tuple(found)


def _lost(missing: Sequence[str]) -> Iterator[Trouble]:
    if missing:
        yield Trouble(
            "objects",
            f"{counted(len(missing), 'object')} that rows name: missing in the bucket, or torn: {_some(missing)}",
            "copy each from a backup, FOLDER/objects/KEY to KEY of the bucket; without one, upload the datafile again "
            "or train again. Then see who deletes in the bucket: Hathi deletes only by `hathi service prune`",
        )


def _gone(unheard: Sequence[Unheard]) -> Iterator[Trouble]:
    for slot in Slot:
        some = [one for one in unheard if one.slot is slot]
        if some:
            since = length_of_time(max(one.seconds for one in some))
            named = _some([f"{one.work} of {one.worker}" for one in some])
            yield Trouble(
                f"{slot} gone",
                f"{counted(len(some), 'worker')} for {slot} work gone with work in hands, for {since}: {named}",
                f"the next worker that asks goes on with it: begin {_worker(slot)}; the log of the one that is gone, "
                "and dmesg on its host, say why it ended",
            )


def _stuck(slot: Slot, load: Load, wait_seconds: float) -> Iterator[Trouble]:
    """Work that waits for longer than it should, by what it waits for."""
    if not load.queued or load.oldest <= wait_seconds:
        return
    waits = f"{slot} work waits: {load.queued:,} queued, the oldest for {length_of_time(load.oldest)}"
    if not load.workers:
        hint = f"begin {_worker(slot)}; with `hathi service start` its log says why its workers end"
        yield Trouble(f"{slot} waits", f"{waits}; no worker for it was heard of", hint)
    elif all(one.startable <= 0 for one in load.queues):
        hint = "let what runs end, or raise `running` of the tenants: PATCH /v1/tenants/ID"
        yield Trouble(f"{slot} waits", f"{waits}; all who wait run as much as their limit `running` allows", hint)
    elif load.running >= load.workers:
        hint = f"begin more: raise [service.workers], or begin {_worker(slot)} on another host"
        yield Trouble(f"{slot} waits", f"{waits}; {counted(load.workers, 'worker')} for it, all at work", hint)
    else:
        hint = "the log of the workers says why: they do not reach the bucket, or give work back each time"
        yield Trouble(f"{slot} waits", f"{waits}; {counted(load.workers, 'worker')} for it, and not all at work", hint)


def _limits(one: Used) -> Iterator[Trouble]:
    for limit, used in (("stored_bytes", one.stored_bytes), ("queued", one.queued)):
        allowed = getattr(one.quotas, limit)
        if used >= NEARLY * allowed:
            yield Trouble(
                f"{limit} of {one.tenant}",
                f"the tenant {one.name} has used {used:,} of {allowed:,} of its limit `{limit}`: more is 429",
                f"it deletes what it needs no more, or an operator raises the limit: PATCH /v1/tenants/{one.tenant}",
            )


def _worker(slot: Slot) -> str:
    return f"`hathi service worker --kind {slot}`"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
