"""A gateway and a box that mean different features by one set's name do not go on side by side without a word.

The box leaves each shipment alone whose plan expects other features than it would compute, says so by name, and leaves
a hint for health.  It looks again in each turn, so that the shipments go on once either side is mended: the box by its
own settings, the gateway by a word that is newer than the plan (docs/protocol.md 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pipeline.errors import FormatError, NotFound, PermanentError
from pipeline.ledger.bodies import read_body
from pipeline.ledger.expectation import Differs, Refused, Restated, differing
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Expected
from pipeline.ledger.protocol import Context, Seen
from pipeline.ledger.state import ShipmentState
from pipeline.settings import FeatureSet
from pipeline.stages.expectations import Expectations, expectation
from pipeline.stages.following import Asked, Computable

AGAIN_SECONDS = 600.0
"""So often a host repeats that it leaves shipments alone: a hint that nobody repeats is of a host that is gone."""
NAMED = 4
"""Settings that a line names."""


def _asked_for(states: Iterable[ShipmentState]) -> Iterable[tuple[ShipmentState, str, Expected]]:
    """Shipments that are still to be computed, with their sets and what their plans expect."""
    for state in states:
        plan = state.plan
        if plan is not None and plan.expects is not None and not state.unreadable and not state.void and not state.out:
            yield state, plan.set, plan.expects


class Agreement:
    """What one box leaves alone of one lake, from turn to turn."""

    def __init__(self, context: Context, configured: Callable[[Asked], FeatureSet]) -> None:
        """configured: a set with its files on this host."""
        self._context = context
        self._configured = configured
        self._mine: dict[Asked, Expected] = {}
        self._refused: dict[str, dict[ShipmentName, tuple[Differs, ...]]] = {}
        self._told: dict[str, tuple[float, object]] = {}
        """By set: when the hint was put last, in monotonic seconds, and what it said."""

    @property
    def refused(self) -> int:
        """How many shipments are left alone."""
        return sum(map(len, self._refused.values()))

    def of(self, seen: Seen, computable: Mapping[ShipmentName, Computable]) -> Seen:
        """Without the shipments that are left alone.  computable: what this host would compute, by shipment."""
        left: set[ShipmentName] = set()
        restated: dict[str, tuple[float, Expected] | None] = {}
        asked = [one for one in _asked_for(seen.states) if one[0].name in computable]
        for state, name, expects in asked:
            mine = self._expectation(computable[state.name])
            differs = differing(expects, mine)
            if differs and name not in restated:
                restated[name] = self._restated(name)
            if differs and self._taken_back(state, restated[name], mine):
                differs = ()
            self._note(name, state.name, differs)
            left |= {state.name} if differs else set()
        for name in {one[1] for one in asked} | set(self._told):
            due = {shipment: why for shipment, why in self._refused.get(name, {}).items() if str(shipment) in seen.due}
            self._refused[name] = due
            self._tell(name, due)
        return replace(seen, states=tuple(state for state in seen.states if state.name not in left)) if left else seen

    def _expectation(self, one: Computable) -> Expected:
        known = self._mine.get(one.asked)
        if known is None or known.fingerprint != one.fingerprint:
            known = expectation(self._configured(one.asked), one.fingerprint, one.asked.promoted)
            self._mine[one.asked] = known
        return known

    def _restated(self, name: str) -> tuple[float, Expected] | None:
        """The gateway's newest word on a set, and when it was given, by the store's clock."""
        context = self._context
        key = context.keys.expects_hint(name)
        entry = next((one for one in context.bucket.list(key, until=key) if one.key == key), None)
        if entry is None:
            return None
        try:
            return entry.modified, read_body(context.bucket, Restated, key).expects
        except NotFound:
            return None
        except FormatError as error:
            context.once(key, str(error))
            return None

    def _taken_back(self, state: ShipmentState, word: tuple[float, Expected] | None, mine: Expected) -> bool:
        """Whether the gateway has said since the plan that it expects what this host computes.

        Of another promotion it says nothing but the settings: the plan's own stays.
        """
        if word is None or state.plan is None:
            return False
        key = self._context.keys.plan(state.name)
        planned = next((one.modified for one in self._context.bucket.list(key, until=key) if one.key == key), None)
        when, said = word
        if said.promoted is not None and said.promoted != mine.promoted:
            said = said.model_copy(update={"fingerprint": ""})
        return planned is not None and planned <= when and not differing(said, mine)

    def _note(self, name: str, shipment: ShipmentName, differs: tuple[Differs, ...]) -> None:
        refused = self._refused.setdefault(name, {})
        if not differs:
            refused.pop(shipment, None)
            return
        refused[shipment] = differs
        self._context.once(
            f"refused {shipment} {differs}",
            f"{shipment} is not computed here: this host would compute other features of set {name} than the gateway "
            f"expects: {told(differs)}; give [sets.{name}] the same values on both (hathi config diff compares two "
            "files), then the shipment goes on by itself",
        )

    def _tell(self, name: str, refused: Mapping[ShipmentName, tuple[Differs, ...]]) -> None:
        """The hint that health reads on both sides.  One that a process before this left is out of date as soon as its
        shipment is at work, so it is not looked for."""
        context = self._context
        host = context.process.name.partition(".")[0]
        key = context.keys.refused_hint(name, host)
        if not refused:
            if self._told.pop(name, None) is not None:
                context.bucket.delete(key)
            return
        first = min(refused)
        said = len(refused), first, refused[first]
        now = context.process.clock.monotonic()
        last = self._told.get(name)
        if last is not None and last[1] == said and now < last[0] + AGAIN_SECONDS:
            return
        body = Refused(
            set=name,
            host=host,
            process=context.process.name,
            shipments=len(refused),
            shipment=str(first),
            differs=refused[first],
            nonce=context.process.nonce(),
        )
        context.bucket.put(key, body.encode())
        self._told[name] = now, said


class Restating:
    """What a gateway says of plans that stand and expect something else than it does now: its settings were changed."""

    def __init__(self, context: Context, expectations: Expectations) -> None:
        self._context = context
        self._expectations = expectations
        self._answered: set[ShipmentName] = set()

    def turn(self, seen: Seen) -> None:
        """One word for each set with open plans that this process has not answered yet."""
        context = self._context
        open_ = {state.name: (name, expects) for state, name, expects in _asked_for(seen.states)}
        sets = context.settings.sets
        for name in sorted({name for name, _ in open_.values() if name in sets}):
            mine = {one: expects for one, (set_name, expects) in open_.items() if set_name == name}
            others = {one for one, expects in mine.items() if self._otherwise(name, expects)}
            if others - self._answered:
                now = self._expectations.of_plan(name, mine[max(others)])
                body = Restated(set=name, expects=now, nonce=context.process.nonce())
                context.bucket.put(context.keys.expects_hint(name), body.encode())
                self._answered |= others
        self._answered &= {name for name in self._answered if str(name) in seen.due}

    def _otherwise(self, name: str, planned: Expected) -> bool:
        """Whether something else is expected now; where a model's files are lost, what is open stays as planned."""
        try:
            return bool(differing(planned, self._expectations.of_plan(name, planned)))
        except PermanentError as error:
            self._context.once(f"expects {name} {planned.promoted}", f"set {name}: {error}")
            return False


def told(differs: Iterable[Differs]) -> str:
    """The settings in words, the first of very many."""
    some = list(differs)
    more = f", and {len(some) - NAMED} more" if len(some) > NAMED else ""
    return "; ".join(map(str, some[:NAMED])) + more
