"""Whose data goes, and what keeps a request from being done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.codec.delivered.without import Gone
from pipeline.ledger.forgetting import Request
from pipeline.ledger.layout import ShipmentName, seconds_of
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, exists, readable


@dataclass
class Pass:
    """One look at everything for one request: what was deleted, and what waits."""

    context: Context
    request: Request
    waiting: dict[str, str] = field(default_factory=dict)
    """What keeps it open, by where: in words."""
    removed: Counter[str] = field(default_factory=Counter)
    """By what it is: objects, images, rows; pages and indexes go in any case."""
    notes: list[str] = field(default_factory=list)
    """What a person has to know, in words; it keeps nothing open."""
    _new: dict[ShipmentName, bool] = field(default_factory=dict)

    @property
    def partner(self) -> int:
        return self.request.partner_id

    @property
    def items(self) -> frozenset[int] | None:
        """Unsigned; None: all of the partner."""
        return frozenset(self.request.items) or None

    def gone(self, spared: Iterable[str] = ()) -> Gone:
        """Which rows of the partner's files go."""
        return Gone(self.items, frozenset(spared))

    def has(self, partner: int, item: int) -> bool:
        """Whether this item is to be forgotten."""
        return partner == self.partner and (self.items is None or item in self.items)

    def is_new(self, name: ShipmentName) -> bool:
        """Whether a shipment's snapshot was planned after the request: such refs are accepted as any others are.

        One of which nobody can read when it was planned is left alone like a new one, and is waited for.
        """
        first = self._first(name)
        if first is None:
            key = self.context.keys.plan(name)
            self.waiting[key] = f"{key} cannot be read: `hathi verify` says what to do"
            return True
        if first not in self._new:
            key = self.context.keys.plan(first)
            asked = seconds_of(self.request.at) + 1
            self._new[first] = any(e.modified > asked for e in self.context.bucket.list(key, until=key) if e.key == key)
        return self._new[first]

    def _first(self, name: ShipmentName) -> ShipmentName | None:
        """The first part and first try of its round, from which all others follow; None where nobody can read which."""
        key = self.context.keys.plan(name)
        plan = readable(self.context, key, Plan)
        if plan is None:
            return None if exists(self.context, key) else name
        return ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, 0, 0)
