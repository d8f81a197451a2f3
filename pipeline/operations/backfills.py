"""Back-fills that are under way: how far each is, and until when, for status and report.

A back-fill is what one request announced: a new round of the newest snapshot of each source, for one set and what is
expected of it.  What was delivered before stays beside it, so consumers choose when to change over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Done, End, Out, Plan
from pipeline.ledger.protocol import Context, readable
from pipeline.ledger.state import child_of, next_of
from pipeline.operations.open_shipments import Entered, entered

SNAPSHOTS = 512
"""Of one back-fill, that are looked at; a back-fill of more is told as of so many."""
KINDS = ("backfill", "again")
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Backfill:
    """One that is not over."""

    lake: str
    set: str
    kind: str
    """`backfill`: with a new net; `again`: a person shipped its snapshots once more."""
    by: str
    """The promotion that it computes with; "" where the set names its files."""
    snapshots: int
    delivered: int
    """Of these."""
    images: int
    """Of all its snapshots, as far as they were read before or now."""
    computed: int
    begun: float
    seconds_left: float | None
    """At the pace since it began; None where nothing is computed yet."""

    @property
    def word(self) -> str:
        return "shipped again" if self.kind == "again" else "back-fill"

    @property
    def what(self) -> str:
        return f"{self.set} shipped again" if self.kind == "again" else f"back-fill of {self.set}"


def backfills(context: Context, open_: Iterable[Entered], now: float) -> tuple[Backfill, ...]:
    """The back-fills of a lake.  open_: its open shipments, as far as they were read; now: the store's time.

    Where none is open this asks for nothing.
    """
    entered = {one.state.name: one for one in open_ if one.state.plan is not None}
    wanted: dict[_Key, float] = {}
    for name, one in entered.items():
        plan = one.state.plan
        if plan is not None and name.round and not name.generation and plan.kind in KINDS and one.state.out is None:
            began = one.times.get(context.keys.plan(name), now)
            wanted[_key(plan)] = min(began, wanted.get(_key(plan), now))
    found: dict[_Key, dict[str, tuple[ShipmentName, Plan]]] = {key: {} for key in wanted}
    for name in names_under(context.bucket, context.keys.commits) if wanted else ():
        if name.round and not name.generation and not name.part:
            plan = readable(context, context.keys.plan(name), Plan)
            if plan is not None and _key(plan) in found and plan.kind in KINDS:
                found[_key(plan)][plan.snapshot_digest] = name, plan  # of several rounds the last
    told = (
        _told(context, entered, list(firsts.values())[-SNAPSHOTS:], (key, wanted[key]), now)
        for key, firsts in found.items()
        if firsts
    )
    return tuple(sorted(told, key=lambda one: (one.set, one.begun)))


def _key(plan: Plan) -> _Key:
    """What one back-fill has in common: its set, its kind, the promotion, the fingerprint."""
    expects = plan.expects
    if expects is None:
        return plan.set, plan.kind, "", ""
    return plan.set, plan.kind, str(expects.promoted) if expects.promoted is not None else "", expects.fingerprint


def _told(
    context: Context,
    entered: dict[ShipmentName, Entered],
    firsts: list[tuple[ShipmentName, Plan]],
    of: tuple[_Key, float],
    now: float,
) -> Backfill:
    (set_name, kind, by, _), seen = of
    images = computed = delivered = 0
    for first, plan in firsts:
        done = [_part(context, entered, part) for part in _parts(context, first, plan)]
        mine = sum(refs for refs, _, _ in done)
        images += max(mine, _before(context, first, plan))
        computed += sum(part for _, part, _ in done)
        delivered += bool(done) and all(over for _, _, over in done)
    began = min([seen, *_began(context, firsts[0][0])])
    left = None
    if computed and now > began:
        left = max(0, images - computed) * (now - began) / computed
    lake = context.lake_name
    return Backfill(lake, set_name, kind, by, len(firsts), delivered, images, computed, began, left)


class Far(NamedTuple):
    """How far the rounds of some snapshots are.  features, failures: of the refs that are aggregated."""

    snapshots: int
    delivered: int
    refs: int
    computed: int
    features: int
    failures: int


def far(context: Context, firsts: Sequence[ShipmentName]) -> Far:
    """How far shipments are with their later parts and their retries.  firsts: the first part of each."""
    found = Far(0, 0, 0, 0, 0, 0)
    for first in firsts:
        plan = readable(context, context.keys.plan(first), Plan)
        parts = list(_parts(context, first, plan)) if plan is not None else []
        open_ = {part: one for part in parts if (one := _open(context, part)) is not None}
        done = [_part(context, open_, part) for part in parts]
        outs = [_outcome(context, part, plan) for part in parts if plan is not None]
        found = Far(
            found.snapshots + 1,
            found.delivered + (bool(done) and all(over for _, _, over in done)),
            found.refs + max(sum(refs for refs, _, _ in done), _before(context, first, plan) if plan else 0),
            found.computed + sum(part for _, part, _ in done),
            found.features + sum(features for features, _ in outs),
            found.failures + sum(failures for _, failures in outs),
        )
    return found


def _open(context: Context, name: ShipmentName) -> Entered | None:
    """A shipment that is not aggregated yet."""
    return entered(context, name) if readable(context, context.keys.out(name), Out) is None else None


def _outcome(context: Context, name: ShipmentName, plan: Plan) -> tuple[int, int]:
    """Features and failures of a part, with those of its retries in the place of the failures that these tried."""
    features = failures = 0
    shipment: ShipmentName | None = name
    while shipment is not None:
        out = readable(context, context.keys.out(shipment), Out)
        if out is None:
            break
        features += out.features
        failures += out.failures - (out.refs if shipment != name else 0)
        shipment = child_of(shipment, plan) if out.carried is not None else None
    return features, failures


def _parts(context: Context, first: ShipmentName, plan: Plan) -> Iterator[ShipmentName]:
    """The parts of a round, as far as they are planned."""
    part: ShipmentName | None = first
    while part is not None:
        yield part
        end = readable(context, context.keys.end(part), End)
        follows = next_of(part, plan) if end is not None and end.next is not None else None
        known = follows is not None and readable(context, context.keys.plan(follows), Plan) is not None
        part = follows if known else None


def _part(context: Context, entered: dict[ShipmentName, Entered], name: ShipmentName) -> tuple[int, int, bool]:
    """Refs of a part, how many of them are computed, and whether it is delivered and the last one is read."""
    end = readable(context, context.keys.end(name), End)
    refs = end.refs if end is not None else 0
    if readable(context, context.keys.out(name), Out) is not None:
        done = readable(context, context.keys.done(name), Done)
        return refs, refs, done is not None
    one = entered.get(name)
    if end is not None and end.void is not None:
        return 0, 0, True
    if one is None or not one.state.batches:
        return refs, 0, False
    have = max((len(found) for found in one.state.results.values()), default=0)
    known = refs or len(one.state.batches) * (one.state.plan.batch_refs if one.state.plan else 0)
    return known, known * have // len(one.state.batches), False


def _before(context: Context, first: ShipmentName, plan: Plan) -> int:
    """How many images the snapshot had in the round before, which is what is to be expected now."""
    for number in range(first.round - 1, -1, -1):
        earlier = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, first.version, number, 0, 0)
        ends = [readable(context, context.keys.end(part), End) for part in _parts(context, earlier, plan)]
        refs = sum(end.refs for end in ends if end is not None and end.void is None)
        if refs:
            return refs
    return 0


def _began(context: Context, name: ShipmentName) -> list[float]:
    """When its first plan was written."""
    key = context.keys.plan(name)
    return [entry.modified for entry in context.bucket.list(key, until=key) if entry.key == key]
