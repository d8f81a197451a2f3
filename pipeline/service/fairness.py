"""Whose turn it is: the rule that the claim's statement carries out, as a function to compare it with.

The tenant with the least running work for its weight is served, among those that have work queued and may run more; of
equal ones the one that was served longest ago.  Within a tenant the greatest priority, then the oldest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Queued:
    """Work that waits for a worker.  order: what came earlier has the smaller one."""

    tenant: str
    id: str
    priority: int
    order: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant, as the claim sees it.  served: when it got its last turn, 0.0 for never."""

    tenant: str
    running: int
    weight: int
    most: int
    served: float = 0.0


def next_of(queued: Iterable[Queued], standings: Iterable[Standing]) -> Queued | None:
    """The work that the next worker gets; None: there is none, or each tenant runs as much as it may."""
    waiting: dict[str, list[Queued]] = {}
    for one in queued:
        waiting.setdefault(one.tenant, []).append(one)
    able = [one for one in standings if one.tenant in waiting and one.running < one.most]
    if not able:
        return None
    first = min(able, key=lambda one: (one.running / one.weight, one.served, one.tenant))
    return min(waiting[first.tenant], key=lambda one: (-one.priority, one.order, one.id))


def order_of(queued: Iterable[Queued], standings: Iterable[Standing], now: float) -> list[Queued]:
    """The order in which work would begin if nothing ended and no tenant had a limit: what a position is told from."""
    left = {one.id: one for one in queued}
    shown = {one.tenant: replace(one, most=one.running + len(left) + 1) for one in standings}
    order = []
    while (chosen := next_of(left.values(), shown.values())) is not None:
        now += 1.0
        order.append(left.pop(chosen.id))
        stands = shown[chosen.tenant]
        shown[chosen.tenant] = replace(stands, running=stands.running + 1, served=now)
    return order
