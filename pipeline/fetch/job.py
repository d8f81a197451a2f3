"""One URL on its way, and all the items that wait for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from pipeline.fetch.answer import Head
from pipeline.fetch.sink import Sink, Stored
from pipeline.fetch.target import Target
from pipeline.records import Condition, Failure, NotModified

Trace = Callable[[str, str, str], None]
"""Told of each step of a fetch: the URL as given, the step's name, what happened."""


class Fetched(NamedTuple):
    """The bytes of one image; a tuple because that is made in a fifth of a frozen dataclass's time.

    url: as given.  final_url: after redirects.  sha256: 32 bytes, of content.  etag, last_modified: as the host
    wrote them, or "".  fetched_at: UTC, when the body was complete.  seconds: of the transfers that led here.
    """

    url: str
    content: bytes
    final_url: str
    status: int
    sha256: bytes
    etag: str
    last_modified: str
    fetched_at: datetime
    seconds: float

    def __repr__(self) -> str:
        return f"Fetched({self.url[:200]!r}, {len(self.content)} bytes)"


class Waiter:
    """An item that waits for a URL.  deadline: monotonic seconds.  condition: what is known of the image, if it is.
    sink: the file that its body goes to; None: memory.
    """

    __slots__ = ("condition", "deadline", "item", "job", "key", "sink", "url")

    def __init__(
        self,
        item: Any,
        url: str,
        key: str,
        deadline: float | None,
        condition: Condition | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.item = item
        self.url = url
        self.key = key
        self.deadline = deadline
        self.condition = condition
        self.sink = sink
        self.job: Job | None = None


class Job:
    """A URL that is fetched once for all of its waiters, who know the same of it.

    tries: requests for it that failed so far.  hops: redirects followed in this try.  spent: seconds of its
    transfers in this try; spent_before: in the tries before.  cookie: a redirect of this try set one.
    """

    __slots__ = (
        "condition",
        "cookie",
        "first",
        "hops",
        "key",
        "last",
        "requests",
        "seen",
        "sink",
        "spent",
        "spent_before",
        "target",
        "transfer",
        "tries",
        "waiters",
    )

    def __init__(self, target: Target, condition: Condition | None = None, sink: Sink | None = None) -> None:
        self.key = (target.url, target.user, condition)
        self.condition = condition
        self.sink = sink
        self.first = target
        self.target = target
        self.waiters: list[Waiter] = []
        self.tries = 0
        self.requests = 0
        self.hops = 0
        self.cookie = False
        self.seen: set[str] | None = None
        self.spent = 0.0
        self.spent_before = 0.0
        self.last: Failure | None = None
        self.transfer: Any = None

    def again(self) -> None:
        """Back to the start for another try."""
        self.target = self.first
        self.spent_before += self.spent
        self.spent = 0.0
        self.hops = 0
        self.cookie = False
        self.seen = None


class Body(NamedTuple):
    """A body that has arrived whole: what is left is to undo its encoding, where it is packed, and to hash it."""

    job: Job
    parts: list[bytes]
    size: int
    head: Head
    final_url: str
    fetched_at: datetime
    packed: bool = False


Outcome = Fetched | NotModified | Stored | Failure


class Ended:
    """What a waiter gets.  cost: bytes of the buffer that it gives back when it is taken."""

    __slots__ = ("cost", "outcome", "requests", "waiter")

    def __init__(
        self, waiter: Waiter, outcome: Fetched | NotModified | Stored | Failure, cost: int, requests: int
    ) -> None:
        self.waiter = waiter
        self.outcome = outcome
        self.cost = cost
        self.requests = requests
