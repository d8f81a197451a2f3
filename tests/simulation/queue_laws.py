"""What must never be seen of the queue, checked at each commit and each object; and what must hold at rest."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

from pipeline.service import fairness, queue, states
from pipeline.service.database.wall import COUNTED
from pipeline.service.fairness import Queued, Standing
from pipeline.service.words import State
from tests.simulation.laws import Violation
from tests.simulation.memory import Disk

Rows = dict[str, dict[str, Any]]
_KEY = re.compile(r"s/te_\w{26}/j/(tj_\w{26})/a(\d{6})/")
_MOVES = {move for moves in states.MOVES.values() for move in moves}
_FREE = frozenset({"version", "priority", "cancel_requested_at"})
"""What a client may change of work that somebody holds."""
SLACK = 0.001


class QueueLaws:
    """Watches a database and a bucket."""

    def __init__(self, path: Path, bucket: Disk) -> None:
        self._bare = sqlite3.connect(path, isolation_level=None)
        self._bare.row_factory = sqlite3.Row
        self.bucket = bucket
        bucket.watch = self._written
        self.rows: Rows = {}
        self.workers: dict[str, str] = {}
        self.served: dict[tuple[str, str], float] = {}
        """When a tenant had its last turn in a slot."""
        self.tenants: Rows = {}
        self.needs: dict[str, list[str]] = {}
        """What work that waits waits for."""
        self.named = {"chunks": 0, "snapshots": 0}
        self.claimed: dict[tuple[str, int], str] = {}
        """Who got work with which epoch."""
        self.acting = ""
        self.first: Violation | None = None
        self.seen: dict[str, int] = {}
        self.read()

    def close(self) -> None:
        self._bare.close()

    def check(self) -> None:
        """After each step: raises what was seen first."""
        if self.first is not None:
            raise self.first

    def read(self) -> None:
        """The tables as they are."""
        self.rows = {row["id"]: dict(row) for row in self._all("select * from bare_work")}
        self.workers = {row["id"]: row["state"] for row in self._all("select id, state from bare_workers")}
        self.tenants = {row["id"]: dict(row) for row in self._all("select * from bare_tenants")}

    def committed(self, who: str, now: float) -> None:
        """A transaction of a process is there.  now: the database's clock."""
        try:
            self._changes(who, now)
        except Violation as violation:
            self.first = self.first or violation

    def _changes(self, who: str, now: float) -> None:
        rows, workers = self.rows, self.workers
        self.read()
        for name, after in self.rows.items():
            was = rows.get(name)
            if was is None:
                begins = ("queued", "waiting", "failed")  # what it needs may have failed already
                self._demand(after["state"] in begins and after["epoch"] == 0, f"{name} begins as {after}")
            elif was != after:
                self._move(who, was, after)
                if was["state"] == "waiting" and after["state"] in ("queued", "failed"):
                    self._count("ready" if after["state"] == "queued" else "hopeless")
                    on = [self.rows[one]["state"] for one in self.needs[name]]
                    good = set(on) <= {"succeeded"} if after["state"] == "queued" else bool(set(on) - {"succeeded"})
                    self._demand(good, f"{name} waited for what is {on}, and is {after['state']}")
                elif after["epoch"] != was["epoch"]:
                    self._claim(who, was, after, now)
                    if was["state"] == "queued":
                        self._turn(was, {**self.rows, name: was})
                        self.served[was["tenant_id"], was["slot"]] = now
                elif who.startswith("worker"):
                    self._mine(who, was, after, now)
                else:
                    self._asked(was, after, now)
                if after["lease_until"] is not None and after["lease_until"] != was["lease_until"]:
                    most = now + queue.LEASE_SECONDS + SLACK
                    self._demand(after["lease_until"] <= most, f"{name}: a lease of {after['lease_until'] - now} s")
        self._demand(set(rows) <= set(self.rows), "work is gone")
        for worker, state in self.workers.items():
            if state == "retired" and workers.get(worker) == "active":
                self._count("retired")
                busy = [one["id"] for one in self.rows.values() if one["worker_id"] == worker
                        and one["state"] == "running" and one["lease_until"] >= now]  # fmt: skip
                self._demand(not busy, f"{worker} was retired while it held {busy}")
        self._waiting()
        self._records(who)
        kept = " union all ".join(f"select tenant_id, size from bare_{table}" for table in COUNTED)
        sums = f"select tenant_id, sum(size) as bytes from ({kept}) group by tenant_id order by 1"
        usage = [tuple(row) for row in self._all("select tenant_id, bytes from bare_usage order by 1")]
        self._demand(usage == [tuple(row) for row in self._all(sums)], f"{who}: usage is counted as {usage}")

    def _waiting(self) -> None:
        """Whenever anybody looks, work waits for something that is not over, and for nothing that will never be."""
        told: dict[str, list[str]] = {}
        for row in self._all("select work_id, on_id from bare_needs"):
            told.setdefault(row["work_id"], []).append(row["on_id"])
        needs = {name: [self.rows[one]["state"] for one in on] for name, on in told.items()}
        for name, row in self.rows.items():
            if row["state"] == "waiting":
                on = needs.get(name, [])
                good = bool(on) and set(on) <= {"waiting", "queued", "running"}
                self._demand(good, f"{name} waits for what is {on}")
            else:
                self._demand(name not in needs, f"{name} is {row['state']}, and needs what is {needs.get(name)}")
        self.needs = told

    def _move(self, who: str, was: dict[str, Any], after: dict[str, Any]) -> None:
        """What holds for every change."""
        name, move = was["id"], (State(was["state"]), State(after["state"]))
        self._demand(move[0] not in states.TERMINAL, f"{who} changes {name}, which is {move[0]}: {_news(was, after)}")
        self._demand(move[0] is move[1] or move in _MOVES, f"{who}: {name} goes from {move[0]} to {move[1]}")
        self._demand(after["epoch"] in (was["epoch"], was["epoch"] + 1), f"{name}: epoch {_news(was, after)}")
        self._demand(after["created_at"] == was["created_at"], f"{name} loses its place: {_news(was, after)}")
        self._demand((after["finished_at"] is not None) == (move[1] in states.TERMINAL), f"{name}: {_news(was, after)}")
        if move[1] in states.TERMINAL:
            self._count(str(move[1]))
            wanted = was["cancel_requested_at"] is not None
            self._demand(not wanted or move[1] is State.CANCELLED, f"{name} was cancelled, and then {move[1]}")
            self._demand(move[1] is not State.SUCCEEDED or after["result"] is not None, f"{name} has no result")

    def _claim(self, who: str, was: dict[str, Any], after: dict[str, Any], now: float) -> None:
        name, worker = was["id"], after["worker_id"]
        self._demand(after["state"] == "running" and _of(worker, who), f"{who} claims {name} for {worker}")
        self._demand(self.workers.get(worker) == "active", f"{worker} is {self.workers.get(worker)} and claims {name}")
        if was["state"] == "running":
            self._count("taken over")
            self._demand(was["lease_until"] < now, f"{who} takes {name} from {was['worker_id']}, whose lease lasts")
        self.claimed[name, after["epoch"]] = who

    def _turn(self, was: dict[str, Any], before: Rows) -> None:
        """Work that was queued is begun: it was its turn, as the rule has it that is no SQL.

        before: all work as it was then; the same claim may have ended what was lost.
        """
        self._count("begun")
        slot = was["slot"]
        queued = [Queued(one["tenant_id"], one["id"], one["priority"], one["created_at"])
                  for one in before.values() if one["state"] == "queued" and one["slot"] == slot]  # fmt: skip
        standings = []
        for tenant, row in self.tenants.items():
            held = sum(1 for one in before.values()
                       if one["tenant_id"] == tenant and one["state"] == "running" and one["slot"] == slot)  # fmt: skip
            standings.append(
                Standing(tenant, held, row["weight"], row["running"], self.served.get((tenant, slot), 0.0))
            )
        wanted = fairness.next_of(queued, standings)
        self._demand(
            wanted is not None and wanted.id == was["id"], f"it was the turn of {wanted}, and {was['id']} began"
        )

    def _mine(self, who: str, was: dict[str, Any], after: dict[str, Any], now: float) -> None:
        """A worker changes what it holds, or what nobody holds any more and will never be held again."""
        if was["state"] == "running" and self.claimed.get((was["id"], was["epoch"])) == who:
            return
        given_up = was["state"] == "running" and was["lease_until"] < now and after["state"] in ("cancelled", "failed")
        self._demand(given_up, f"{who} changes {was['id']}, which {was['worker_id']} holds: {_news(was, after)}")

    def _asked(self, was: dict[str, Any], after: dict[str, Any], now: float) -> None:
        """A client cancels or orders anew; an operator says that a worker is dead."""
        news = _news(was, after)
        if after["state"] == "cancelled":
            free = was["state"] != "running" or was["lease_until"] < now
            self._demand(free, f"{was['id']} is ended while {was['worker_id']} holds it")
        elif set(news) - _FREE:
            dead = set(news) == {"lease_until"} and after["lease_until"] < now
            self._demand(dead, f"{was['id']}: {news}")

    def _records(self, who: str) -> None:
        """New rows name objects that are there, of the attempt that has the work now."""
        for table in self.named:
            for row in self._all(f"select rowid, * from bare_{table} where rowid > {self.named[table]}"):
                self.named[table] = row["rowid"]
                work, epoch = self.rows[row["work_id"]], row["epoch"]
                says = f"{who} names {table} of {work['id']}, attempt {epoch}"
                self._demand(work["state"] == "running" and work["epoch"] == epoch, f"{says}; it is {work}")
                self._demand(self.claimed[work["id"], epoch] == who, f"{says}, which is another's")
                keys = [row["key"]] if table == "chunks" else [one["key"] for one in json.loads(row["files"])]
                for key in keys:
                    self._demand(key in self.bucket.files, f"{says}, and {key} is not there")
                    found = _KEY.match(key)
                    mine = found is not None and (found[1], int(found[2])) == (work["id"], epoch)
                    self._demand(mine, f"{says}: {key}")

    def _written(self, what: str, key: str, content: bytes) -> None:
        try:
            there = self.bucket.files.get(key)
            self._demand(there is None or there[0] == content, f"{self.acting} writes {key}, which says something else")
            found = _KEY.match(key)
            if found is not None:
                mine = self.claimed.get((found[1], int(found[2]))) == self.acting
                self._demand(mine, f"{self.acting} writes {key}, which is another's attempt")
        except Violation as violation:
            self.first = self.first or violation

    def left(self) -> list[str]:
        """Work that is not over."""
        return [name for name, row in self.rows.items() if State(row["state"]) not in states.TERMINAL]

    def check_at_rest(self) -> None:
        """All is over, each with its one result."""
        for name, row in self.rows.items():
            self._demand(row["worker_id"] is None and row["lease_until"] is None, f"{name} is over and held: {row}")
            if row["state"] == "succeeded":
                last = json.loads(row["result"])["iteration"]
                self._demand(last == json.loads(row["body"])["steps"], f"{name} ends at {row['result']}")
                kept = self._all(f"select * from bare_snapshots where work_id = '{name}' order by iteration")[-1]
                files = [one["name"] for one in json.loads(kept["files"])]
                says = f"{name} ended with {row['result']}, and its last snapshot is {kept['iteration']}: {files}"
                self._demand((kept["iteration"], files) == (last, json.loads(row["result"])["files"]), says)

    def _all(self, sql: str) -> list[sqlite3.Row]:
        return self._bare.execute(sql).fetchall()

    def _demand(self, holds: bool, says: str) -> None:
        if not holds:
            raise Violation(says)

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1


def _of(worker: str, who: str) -> bool:
    return worker.rpartition("-")[0] == who


def _news(was: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: (was[name], after[name]) for name in after if was[name] != after[name]}
