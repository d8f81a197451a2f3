"""Objects that no row names any more, and rows whose time is over, are deleted.

An object goes when it was unnamed at every prune of seven days: a prune notes in the bucket since when each has been.
The bucket is listed before rows are read, and data are put before the row that names them: whatever was listed and is
named is seen to be.  What an attempt that runs has written stays, and what belongs to no tenant of this database: it
may be another installation's.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.amounts import counted, size
from pipeline.clock import random_nonce
from pipeline.ledger.layout import version_of
from pipeline.service import dependencies
from pipeline.service.database import copying
from pipeline.service.database.opening import open_database
from pipeline.service.database.statements import Database, Row, Violated
from pipeline.service.keys import ESTOP, TOP, UNNAMED, TenantKeys
from pipeline.service.naming import named
from pipeline.service.words import WORKER, Realm, scope
from pipeline.stores.store import Entry, Store
from pipeline.times import DAY

DAYS = 7.0
SHOWN = 20
_NOTE_BYTES = 2**30
_EXPIRED = {
    "answers": ("key", f"created_at < instant() - {DAY}"),
    "sessions": ("id", "expires_at < instant() or ends_at < instant()"),
    "links": ("digest", "expires_at < instant()"),
    "tokens": ("id", f"expires_at < instant() - {DAYS * DAY}"),
}
"""Tables with rows that mean nothing after a time: a column to name one by, and which."""


@dataclass(frozen=True)
class Facts:
    """What one look saw.  now: by the store's clock; since: when an object was first seen unnamed.

    running: prefixes of attempts that run.
    """

    now: float
    entries: list[Entry]
    named: frozenset[str]
    tenants: frozenset[str]
    running: frozenset[str]
    since: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """doomed: to be deleted; unnamed: all that no row names, with the time since when; strangers: of no tenant here."""

    doomed: tuple[Entry, ...]
    unnamed: Mapping[str, float]
    strangers: int


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be (dry)."""

    dry: bool
    objects: int
    bytes: int
    waiting: int
    strangers: int
    rows: dict[str, int] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        would = " would be" if self.dry else ""
        found = [f"{counted(self.objects, 'object')} ({size(self.bytes)}){would} deleted"]
        found += [f"{counted(number, 'row')} of {table}{would} deleted" for table, number in sorted(self.rows.items())]
        found.append(f"{counted(self.waiting, 'object')} that no row names: not for long enough yet")
        if self.strangers:
            found.append(f"{counted(self.strangers, 'object')} of tenants that are not in this database: left alone")
        return found + [f"{'would delete' if self.dry else 'deleted'}: {key}" for key in self.keys[:SHOWN]]


def judge(facts: Facts, days: float) -> Plan:
    """What may go.  days: so long an object has to have been unnamed, and unchanged."""
    doomed, unnamed, strangers = [], {}, 0
    for entry in facts.entries:
        if entry.key in facts.named or entry.key == ESTOP or entry.key.startswith(UNNAMED):
            continue
        parts = entry.key.split("/")
        if parts[1] not in facts.tenants:
            strangers += 1
        elif "/".join(parts[:5]) + "/" not in facts.running:
            unnamed[entry.key] = facts.since.get(entry.key, facts.now)
            if facts.now - max(unnamed[entry.key], entry.modified) >= days * DAY:
                doomed.append(entry)
    return Plan(tuple(doomed), unnamed, strangers)


async def prune(setting: str, store: Store, *, days: float = DAYS, dry: bool) -> Pruned:
    """setting: the database; dry: nothing is deleted or noted.  Raises Held while a backup runs; PipelineError."""
    async with copying.alone(setting):
        database = await open_database(setting)
        try:
            notes, facts = await _look(database, store)
            plan = judge(facts, days)
            if not dry:
                await asyncio.to_thread(_perform, store, plan, notes, facts.now)
            rows = await _rows(database, facts, days, dry=dry)
        finally:
            await database.close()
    total, keys = sum(one.size for one in plan.doomed), tuple(one.key for one in plan.doomed)
    waiting = len(plan.unnamed) - len(keys)
    return Pruned(dry, len(keys), total, waiting, plan.strangers, rows, keys)


async def _look(database: Database, store: Store) -> tuple[list[str], Facts]:
    """The keys of the notes, and the facts: the bucket first, then the rows."""
    notes, since = await asyncio.to_thread(_noted, store)
    listing = await asyncio.to_thread(store.list, TOP)
    entries = await asyncio.to_thread(list, listing.entries)
    async with database.reading(WORKER) as statements:
        objects = frozenset(await named(statements))
        tenants = frozenset(row["id"] for row in await statements.rows("select id from tenants"))
        held = await statements.rows("select tenant_id, id, epoch from work where state = 'running'")
    running = frozenset(TenantKeys(row["tenant_id"]).attempt(row["id"], row["epoch"]) for row in held)
    return notes, Facts(listing.now, entries, objects, tenants, running, since)


def _noted(store: Store) -> tuple[list[str], dict[str, float]]:
    keys = sorted(entry.key for entry in store.list(UNNAMED))
    if not keys:
        return [], {}
    return keys, json.loads(gzip.decompress(store.get(keys[-1], _NOTE_BYTES)))


def _perform(store: Store, plan: Plan, notes: Iterable[str], now: float) -> None:
    """Notes first: whatever is killed between two steps is looked at anew by the next prune."""
    text = gzip.compress(json.dumps(plan.unnamed).encode())
    store.put_new(f"{UNNAMED}{version_of(now)}-{random_nonce()}", text)
    for key in notes:
        store.delete(key)
    for one in plan.doomed:
        store.delete(one.key)


async def _rows(database: Database, facts: Facts, days: float, *, dry: bool) -> dict[str, int]:
    """Rows whose time is over, of every tenant; how many of each table."""
    counts: dict[str, int] = {}
    touched = _touched(facts.entries)
    for tenant in sorted(facts.tenants):
        realm = scope(tenant)
        for table, (column, over) in _EXPIRED.items():
            async with database.transaction(realm) as statements:
                ask = f"select {column} from" if dry else "delete from"
                end = "" if dry else f" returning {column}"
                found = await statements.rows(f"{ask} {table} where {over}{end}")
            counts[table] = counts.get(table, 0) + len(found)
        async with database.reading(realm) as statements:
            cut = await statements.rows(
                "select id, epoch, received, created_at from datafiles where received < size and created_at < $1",
                facts.now - days * DAY,
            )
        for row in cut:
            newest = touched.get(row["id"], float(row["created_at"]))
            if facts.now - newest >= days * DAY:
                counts["datafiles"] = counts.get("datafiles", 0) + (dry or await _cut(database, realm, row))
    return {table: number for table, number in counts.items() if number}


def _touched(entries: Iterable[Entry]) -> dict[str, float]:
    """When the newest piece of each upload came."""
    found: dict[str, float] = {}
    for entry in entries:
        parts = entry.key.split("/")
        if len(parts) > 3 and parts[2] == "u":
            found[parts[3]] = max(entry.modified, found.get(parts[3], 0.0))
    return found


async def _cut(database: Database, realm: Realm, row: Row) -> bool:
    """Whether an upload that nobody went on with is gone; one that goes on, or that a job waits for, stays."""
    try:
        async with database.transaction(realm) as statements:
            gone = await statements.rows(
                """delete from datafiles where tenant_id = $1 and id = $2 and epoch = $3 and received = $4
                   and received < size returning id""",
                realm.tenant, row["id"], row["epoch"], row["received"],
            )  # fmt: skip
            return bool(gone)
    except Violated:
        await _fail_what_waits(database, realm, row)
        return False


async def _fail_what_waits(database: Database, realm: Realm, row: Row) -> None:
    """Nobody goes on with the upload: what waits for it never begins."""
    async with database.transaction(realm) as statements:
        cut = await statements.row(  # whoever goes on with it now waits, and finds it as it was
            """update datafiles set version = version where tenant_id = $1 and id = $2 and epoch = $3
               and received = $4 and received < size returning id""",
            realm.tenant, row["id"], row["epoch"], row["received"],
        )  # fmt: skip
        waits = await statements.rows(
            """select work.id from work join inputs on inputs.tenant_id = work.tenant_id and inputs.work_id = work.id
               where inputs.datafile_id = $1 and work.state = 'waiting' order by work.id""",
            row["id"],
        )  # fmt: skip
        for one in waits if cut is not None else ():
            says = f"nobody went on with the upload of {row['id']}, which it waited for"
            if await dependencies.fail(statements, realm.tenant, one["id"], says):
                await dependencies.ended(statements, realm.tenant, one["id"])
