"""Attempts at passwords: so many at once by account and by address, then one after a while.  For all API servers."""

from __future__ import annotations

import hashlib
import math

from pipeline.service.database.statements import Database, Taken
from pipeline.service.problems import Problem, Refused
from pipeline.service.words import PLATFORM

ACCOUNT = (10, 30.0)
ADDRESS = (60, 2.0)
"""How many attempts at once, and the seconds until the next one."""


async def charge(database: Database, account: str, address: str) -> None:
    """Counts an attempt before it is made.  Raises Refused: 429 where there were too many."""
    for name, (most, seconds) in ((f"address {address}", ADDRESS), (_of(account), ACCOUNT)):
        wait = await _charged(database, name, most * seconds, seconds)
        if wait > 0:
            said = "too many passwords were tried"
            raise Refused(Problem(429, said, "wait", "attempts", retry_after=max(1, math.ceil(wait))))


async def forgive(database: Database, account: str) -> None:
    """An account whose password was right begins anew."""
    async with database.transaction(PLATFORM) as statements:
        await statements.rows("delete from throttles where name = $1 returning name", _of(account))


def _of(account: str) -> str:
    """Also of whoever is no user: a password that was typed as a name is not kept."""
    return "account " + hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()


async def _charged(database: Database, name: str, ahead: float, seconds: float) -> float:
    """Seconds that are missing until one more is allowed; 0: it was counted.  ahead: of the clock, at most."""
    for _ in range(3):
        try:
            async with database.transaction(PLATFORM) as statements:
                await statements.rows("delete from throttles where until < instant() returning name")
                row = await statements.row("select until, instant() as now from throttles where name = $1", name)
                if row is None:
                    sql = "insert into throttles (name, until) values ($1, instant() + $2) returning name"
                    await statements.row(sql, name, seconds)
                    return 0.0
                sql = "update throttles set until = until + $2 where name = $1 and until + $2 - instant() <= $3"
                if await statements.row(f"{sql} returning name", name, seconds, ahead) is not None:
                    return 0.0
                return float(row["until"] + seconds - ahead - row["now"])
        except Taken:  # another server has counted the first attempt in the same instant
            continue
    return seconds
