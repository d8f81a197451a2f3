"""Whose shipment is read next: the most lagging group first, then one shipment of each group in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipeline.ledger.state import ShipmentState
from pipeline.sources.found import group_of


def group_of_state(state: ShipmentState) -> str:
    """Whose it is: a partner, or what the shipment's source belongs to."""
    assert state.plan is not None
    return group_of(state.plan.snapshot, state.plan.reading)


class FairQueue:
    """Shipments that wait to be read, by group; remembers who had a turn, from one run to the next.

    A run that ends at its caps is taken up by the next one behind the groups that it served, so that a small cap
    starves nobody.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[ShipmentState]] = {}
        self._served: dict[str, int] = {}
        """When each group last had a turn, counted in turns."""
        self._turns = 0

    def begin(self, states: Iterable[ShipmentState]) -> None:
        """A new run, with these to read."""
        self._waiting = {}
        for state in states:
            self.add(state)

    def add(self, state: ShipmentState) -> None:
        """One more to read: the next part of one that has ended."""
        group = self._waiting.setdefault(group_of_state(state), [])
        group.append(state)
        group.sort(key=lambda one: one.name)

    def end(self, *, all_read: bool) -> None:
        """The run is over.  all_read: no cap stopped it, so that nobody is owed a turn."""
        if all_read:
            self._served = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def next(self, in_hand: Iterable[str]) -> ShipmentState:
        """The shipment whose turn it is.  in_hand: the groups of those that are being read, once for each."""
        busy = Counter(in_hand)
        group = min(
            self._waiting,
            key=lambda one: (busy[one], self._served.get(one, 0), self._waiting[one][0].name.version, one),
        )
        state = self._waiting[group].pop(0)
        if not self._waiting[group]:
            del self._waiting[group]
        self.had_a_turn(group)
        return state

    def had_a_turn(self, group: str) -> None:
        """It goes behind the others."""
        self._turns += 1
        self._served[group] = self._turns
