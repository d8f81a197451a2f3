"""How many workers of a kind there should be, told from what waits and what runs.

The number goes up at once, and down only when nothing has wanted more for a while; it is never below what runs.  Nobody
is counted for work that no worker could begin: a worker does one thing at a time, and a tenant runs only so much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pipeline.service.words import Slot
from pipeline.settings import Service

USUAL_SECONDS = 60.0
"""So long work takes of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """So many workers of a kind there are at least and at most."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Rules:
    """target_wait: seconds within which queued work should begin.  idle: seconds that a worker stays for nothing."""

    bounds: Mapping[Slot, Bounds]
    target_wait: float = 60.0
    idle: float = 60.0


NOBODY = Rules({slot: Bounds(0, 0) for slot in Slot})


@dataclass(frozen=True, slots=True)
class Queue:
    """What one tenant has queued for workers of a kind.

    seconds: that all of it takes.  startable: how much of it the tenant's limit would let run beside what runs.
    """

    queued: int
    seconds: float
    startable: int


@dataclass(frozen=True, slots=True)
class Load:
    """Of one kind.  queues: one a tenant.  running: work that is in hands.  hosts: workers that were heard of lately.

    oldest: seconds for which the oldest queued work has waited; 0.0 where none is queued.
    """

    queues: tuple[Queue, ...] = ()
    running: int = 0
    hosts: Mapping[str, int] = field(default_factory=dict)
    oldest: float = 0.0

    @property
    def queued(self) -> int:
        return sum(one.queued for one in self.queues)

    @property
    def workers(self) -> int:
        return sum(self.hosts.values())

    def elsewhere(self, host: str) -> int:
        """Workers of other hosts."""
        return self.workers - self.hosts.get(host, 0)


@dataclass(frozen=True, slots=True)
class Steady:
    """What was wanted lately: when last, and how many; each one more than those after it."""

    lately: tuple[tuple[float, int], ...] = ()

    @property
    def desired(self) -> int:
        """The most that was wanted lately."""
        return self.lately[0][1] if self.lately else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of one kind: what there is, and how many workers there should be."""

    load: Load
    desired: int


def rules_of(settings: Service) -> Rules:
    """As `[service.workers]` and `[service.scaling]` say."""
    given = settings.workers
    bounds = {
        Slot.TRAIN: Bounds(given.train_min, max(given.train_min, given.train_max)),
        Slot.LIGHT: Bounds(given.light_min, max(given.light_min, given.light_max)),
    }
    return Rules(bounds, settings.scaling.target_wait_seconds, settings.scaling.idle_seconds)


def seconds_of(left: float | None, took: Iterable[float]) -> float:
    """What queued work takes.  left: as it told when it ran last; took: as long as the tenant's others of its sort."""
    if left is not None:
        return max(0.0, left)
    known = list(took)
    return median(known) if known else USUAL_SECONDS


def wanted(load: Load, bounds: Bounds, target_wait: float) -> int:
    """How many workers there should be now."""
    able = [one for one in load.queues if min(one.queued, one.startable) > 0]
    more = max(1, math.ceil(sum(one.seconds for one in able) / target_wait)) if able else 0
    more = min(more, sum(min(one.queued, one.startable) for one in able))
    return max(load.running, bounds.least, min(bounds.most, load.running + more))


def steadied(before: Steady, now: float, number: int, idle: float) -> Steady:
    """number: wanted now.  idle: seconds for which a greater one holds.  now: seconds of a clock that only goes on."""
    kept = tuple(one for one in before.lately if one[1] > number and now - one[0] < idle)
    return Steady((*kept, (now, number)))


def told(found: Mapping[Slot, Wanted]) -> dict[str, Any]:
    """For programs: what `GET /v1/scaling` answers and the command of `[service.scaling]` reads."""
    return {
        "kinds": {
            str(slot): {
                "desired": one.desired, "queued": one.load.queued, "running": one.load.running,
                "workers": one.load.workers, "oldest_seconds": round(one.load.oldest, 3),
            }
            for slot, one in found.items()
        }
    }  # fmt: skip


def wanted_now(loads: Mapping[Slot, Load], rules: Rules) -> dict[Slot, Wanted]:
    """Of each kind, as nobody remembers what was wanted before."""
    return {slot: Wanted(one, wanted(one, rules.bounds[slot], rules.target_wait)) for slot, one in loads.items()}
