"""What may be forgotten, and when (docs/protocol.md 10).  Nothing under an open shipment, ever.

Every deletion is a value before it is done, so that a dry run shows exactly what a run would do.  A day's pass costs
what is to be forgotten, and listings: of the bucket one of `c/` and one of `d/`, side by side; a shipment of which
nothing is to be forgotten is not asked for.  It can be left after any shipment and taken up behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.protocol import Context
from pipeline.operations.prune.archive import plan_archive
from pipeline.operations.prune.deletion import Deletion, perform
from pipeline.operations.prune.hints import hinted, plan_hints
from pipeline.operations.prune.lake import plan_lake
from pipeline.operations.prune.named import Kept
from pipeline.operations.prune.promotions import plan_promotions
from pipeline.operations.prune.reuse import plan_reuse
from pipeline.operations.prune.shipments import plan_shipment, walk
from pipeline.operations.prune.trainings import plan_trainings
from pipeline.recent import Recent
from pipeline.sources.found import Named
from pipeline.times import DAY

__all__ = ["Deletion", "Kept", "Pruned", "Pruner", "perform", "plan_all", "prune_some"]


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
        yield from plan_trainings(context, now)
        yield from plan_promotions(context, now)
        yield from plan_archive(context, now)
        for _, feature_set in sorted(context.settings.sets.items()):
            yield from plan_lake(context, feature_set, now)
    hints = hinted(context)
    forgotten: Recent[ShipmentName] = Recent(FORGOTTEN)
    for one in walk(context, after):
        context.safe_point()
        yield from plan_shipment(context, one, now, kept, hints, forgotten)
        yield one.text
    yield from plan_reuse(context, now)  # an aid: what a store refuses of it is in nobody's way


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


class Pruner:
    """Forgets what one lake and its bucket no longer need."""

    def __init__(self, context: Context, look: Callable[[float], Named]) -> None:
        """look: what the sources name at that time of the store; asked only where this host sees the lake."""
        self._context = context
        self._look = look

    def deletions(self) -> Iterator[Deletion]:
        """What may be forgotten now; the ledger only where the sources can be seen."""
        now = self._now()
        for one in plan_all(self._context, now, self._kept(now)):
            if not isinstance(one, str):
                yield one

    def prune(self) -> int:
        """Forget it; how many things."""
        return self.some("", lambda: True).number

    def some(self, after: str, wanted: Callable[[], bool]) -> Pruned:
        """Forget as long as it is wanted.  after: where the part before has ended, "" for the first one."""
        context = self._context
        orphan = context.settings.prune.orphan_days * DAY
        stores = (context.bucket, context.lake) if not after else ()
        swept = sum(store.sweep(orphan) for store in stores if store is not None)
        now = self._now()
        pruned = prune_some(context, now, self._kept(now), after, wanted)
        return replace(pruned, number=pruned.number + swept)

    def _now(self) -> float:
        """The bucket's time."""
        return self._context.bucket.list(self._context.keys.alive_hints).now

    def _kept(self, now: float) -> Kept | None:
        """What the sources still name, as far as they can be seen from here."""
        context = self._context
        if context.lake is None:
            return None
        return Kept(lambda: self._look(now), context.lake_name, context.settings.sets)
