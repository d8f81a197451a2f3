"""What a database is asked: statements within a transaction of one realm, the same text for both databases.

Parameters are `$1`, `$2`.  `instant()` is the database's own clock, seconds since 1970; `tenants`, `work` and the other
names are what the realm may see of them (`wall.py`).  An INSERT returns what it was given and no default,
and there is no ON CONFLICT: SQLite has neither for a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pipeline.errors import PermanentError
from pipeline.service.words import Realm

Row = Mapping[str, Any]
LOCK_SECONDS = 30.0
"""So long a statement waits for others."""


class Taken(PermanentError):
    """A row of that name stands there already; the transaction is over."""


class Violated(PermanentError):
    """A row contradicts what the tables demand, or points to one that is not there; the transaction is over."""


class Statements(Protocol):
    """A transaction that is open.  Raises TemporaryError, Taken, Violated, Denied."""

    async def rows(self, sql: str, *values: object) -> list[Row]:
        """All rows of one statement."""

    async def row(self, sql: str, *values: object) -> Row | None:
        """The only row of one statement, or the first; None: it has none."""


class Database(Protocol):
    """One of the two."""

    def transaction(self, realm: Realm, *, serial: bool = False) -> AbstractAsyncContextManager[Statements]:
        """Committed at the end, undone by an error.  serial: no other serial one runs at the same time, anywhere."""

    def reading(self, realm: Realm) -> AbstractAsyncContextManager[Statements]:
        """A transaction that changes nothing."""

    async def close(self) -> None:
        """Ends its connections."""
