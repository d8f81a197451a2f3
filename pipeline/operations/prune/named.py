"""Which snapshots the sources of a lake still name: the record of those stays, however old."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Plan
from pipeline.sources.found import Named


class Kept:
    """Looked up when it is first asked for: a day on which no record is old enough asks no source."""

    def __init__(self, look: Callable[[], Named], lake: str, sets: Iterable[str]) -> None:
        """look: everything that the sources may still name."""
        self._look = look
        self._lake = lake
        self._sets = sorted(sets)

    @cached_property
    def _named(self) -> Named:
        return self._look()

    @cached_property
    def _versions(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in self._named.found:
            found.setdefault(one.snapshot.version, []).append(one.digest)
        return found

    @property
    def blind(self) -> bool:
        """A source that cannot be seen just now may still name what it named: every record stays."""
        return self._named.blind

    def surely(self, name: ShipmentName) -> bool:
        """Whether a shipment's name alone tells that a source names its snapshot.  No: perhaps, ask with its plan."""
        rest = (name.version, name.round, name.part, name.generation)
        return any(
            ShipmentName.of(self._lake, digest, one, *rest) == name
            for digest in self._versions.get(name.version, ())
            for one in self._sets
        )

    def names(self, plan: Plan) -> bool:
        """Whether a source names the plan's snapshot, or cannot tell now whether it does."""
        named = plan.snapshot_digest in self._versions.get(plan.snapshot.version, ())
        return named or self._named.may_name(plan.snapshot.source)
