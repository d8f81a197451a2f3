"""What waits for a net, and what of it makes the next batch: pure, for one serving process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What waits or is computed, at most: items and their bytes of all tenants, items of one."""

    items: int = 256
    items_of_one: int = 128
    bytes: int = 128 * 2**20


@dataclass(frozen=True)
class Full:
    """A limit that stands in the way."""

    limit: str
    used: int
    allowed: int


@dataclass(frozen=True, eq=False)
class Asked(Generic[T]):
    """A request for one net.  net, numbers: only what agrees in both goes together.  whose: the tenant; of: its own."""

    net: str
    numbers: bool
    whose: str
    items: Sequence[bytes]
    of: T

    @property
    def bytes(self) -> int:
        return sum(map(len, self.items))


@dataclass
class Waiting(Generic[T]):
    """Requests in the order in which they came."""

    limits: Limits
    queue: list[Asked[T]] = field(default_factory=list)
    open: list[Asked[T]] = field(default_factory=list)
    """In the queue or in a batch, until they are answered."""

    def add(self, asked: Asked[T]) -> Full | None:
        """It waits; or the limit that it would exceed.  One request alone always fits."""
        for limit, used, wanted, allowed in self._uses(asked):
            if used and used + wanted > allowed:
                return Full(limit, used, allowed)
        self.queue.append(asked)
        self.open.append(asked)
        return None

    def _uses(self, asked: Asked[T]) -> list[tuple[str, int, int, int]]:
        own = sum(len(one.items) for one in self.open if one.whose == asked.whose)
        count = sum(len(one.items) for one in self.open)
        size = sum(one.bytes for one in self.open)
        return [
            ("serving_items_of_tenant", own, len(asked.items), self.limits.items_of_one),
            ("serving_items", count, len(asked.items), self.limits.items),
            ("serving_bytes", size, asked.bytes, self.limits.bytes),
        ]

    def batch(self, most: int) -> list[Asked[T]]:
        """Taken out of the queue: the oldest, and those for the same net that fit beside it, in their order."""
        if not self.queue:
            return []
        first, count = self.queue[0], 0
        taken: list[Asked[T]] = []
        for one in self.queue:
            same = (one.net, one.numbers) == (first.net, first.numbers)
            if same and (not taken or count + len(one.items) <= most):
                taken.append(one)
                count += len(one.items)
        self.queue = [one for one in self.queue if one not in taken]
        return taken

    def done(self, asked: Asked[T]) -> None:
        """It was answered, or never will be."""
        self.open.remove(asked)
        self.queue = [one for one in self.queue if one is not asked]
