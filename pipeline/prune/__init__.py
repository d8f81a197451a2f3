"""What may be forgotten, and when (docs/protocol.md 10).  Nothing under an open shipment, ever.

Every deletion is a value before it is done, so that a dry run shows exactly what a run would do.  A day's pass costs
what is to be forgotten, and listings: of the bucket one of `c/` and one of `d/`, side by side; a shipment of which
nothing is to be forgotten is not asked for.  It can be left after any shipment and taken up behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.layout import ShipmentName
from pipeline.prune.deletion import Deletion, perform
from pipeline.prune.hints import hinted, plan_hints
from pipeline.prune.lake import plan_lake
from pipeline.prune.named import Kept
from pipeline.prune.shipments import plan_shipment, walk
from pipeline.recent import Recent
from pipeline.runner import Context

__all__ = ["Deletion", "Kept", "Pruned", "perform", "plan_all", "prune_some"]


FORGOTTEN = 10_000
"""Names that are remembered, so that a dry run shows what goes once its parent is gone."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one part of a pass did.  after: where the next part goes on; None where the pass is at its end."""

    number: int
    after: str | None


def plan_all(context: Context, now: float, kept: Kept | None, after: str = "") -> Iterator[Deletion | str]:
    """Everything that this host may forget; between them the names of what the pass has gone by, to be taken up behind.

    kept: what sources still name; None where they cannot be seen (a compute box), and then the ledger stays.
    """
    if not after:
        yield from plan_hints(context, now)
        for _, feature_set in sorted(context.settings.sets.items()):
            yield from plan_lake(context, feature_set, now)
    hints = hinted(context)
    forgotten: Recent[ShipmentName] = Recent(FORGOTTEN)
    for one in walk(context, after):
        context.safe_point()
        yield from plan_shipment(context, one, now, kept, hints, forgotten)
        yield one.text


def prune_some(context: Context, now: float, kept: Kept | None, after: str, wanted: Callable[[], bool]) -> Pruned:
    """Forget it, from behind `after` on, as long as it is wanted."""
    number, at = 0, after
    for one in plan_all(context, now, kept, after):
        if isinstance(one, str):
            at = one
        else:
            context.safe_point()
            perform(context, one)
            number += 1
        if not wanted():
            return Pruned(number, at)
    return Pruned(number, None)
