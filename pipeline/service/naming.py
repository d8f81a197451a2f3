"""Which objects of the bucket a row names: said here alone, for whoever checks, copies or deletes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.service.database.statements import Row, Statements

NAMING = {
    "datafiles": ("chunks",),
    "chunks": ("key", "size"),
    "snapshots": ("files",),
    "model_versions": ("files",),
    "classifiers": ("files",),
    "work": ("kind", "result"),
}
"""The tables whose rows name objects, and the columns that say which."""
ONLY = {"work": " where kind = 'train' and result is not null"}
"""Which rows of a table do."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object as a row has it.  size: bytes; sha256: in hex, "" where the row does not say."""

    key: str
    size: int
    sha256: str = ""


def objects_of(table: str, row: Row) -> Iterator[Named]:
    """The objects that a row names."""
    if table == "chunks":
        yield Named(row["key"], int(row["size"]))
        return
    if table == "work":
        said = json.loads(row["result"] or "{}").get("evaluation") if row["kind"] == "train" else None
        if said is not None:
            yield _named(said)
        return
    for column in NAMING.get(table, ()):
        said = json.loads(row[column] or "[]")
        for one in said.values() if isinstance(said, dict) else said:
            yield _named(one)


def _named(one: Mapping[str, Any]) -> Named:
    return Named(one["key"], int(one["size"]), one["sha256"])


async def named(statements: Statements) -> dict[str, Named]:
    """All objects that rows name, by key; of one transaction that sees every tenant's rows (WORKER)."""
    found: dict[str, Named] = {}
    for table, columns in NAMING.items():
        for row in await statements.rows(f"select {', '.join(columns)} from {table}{ONLY.get(table, '')}"):
            found.update((one.key, one) for one in objects_of(table, row))
    return found
