"""The ship stage of one lake over many turns: what it has seen of the sources, and which shipment is read next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor

from pipeline.amounts import counted
from pipeline.errors import FormatError, PermanentError, PipelineError, TemporaryError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.protocol import Context, Seen, known_to_exist, state_of
from pipeline.ledger.state import ShipmentState, next_of
from pipeline.sources.conventions import Sources
from pipeline.sources.found import Left, Named
from pipeline.sources.troubles import Troubles
from pipeline.stages import ship, snapshots
from pipeline.stages.agreement import Restating
from pipeline.stages.expectations import Expectations
from pipeline.stages.fair_queue import FairQueue, group_of_state
from pipeline.stages.following import Following, NotPromoted
from pipeline.stages.streams import InTurn, Readers, Streamed, stream
from pipeline.stages.turn import Turn


class Shipping:
    """What one process knows of a lake's sources and of the shipments that it reads from them."""

    def __init__(self, context: Context, executor: Executor | None = None) -> None:
        """executor: whose threads read shipments, ship.streams at a time; the calling thread when absent."""
        self._context = context
        self._readers = Readers(executor, context.settings.ship.streams) if executor else Readers(InTurn())
        self._shipper = snapshots.Shipper(context)
        self._expectations = Expectations(Following(context))
        self._restating = Restating(context, self._expectations)
        self._sources: Sources | None = None
        self._queue = FairQueue()
        self._groups: dict[str, str] = {}
        """Whose each open shipment is, as far as it was looked at."""
        self._source_troubles = Troubles(context.say)
        self._named = Named()

    @property
    def source_troubles(self) -> Mapping[str, str]:
        """What is wrong with sources since the last look at them: cause and remedy, by source."""
        return self._source_troubles.now

    @property
    def named(self) -> Named:
        """What the sources named at the last look."""
        return self._named

    def turn(self, one: Turn) -> None:
        """Begin what the sources name anew, read on what is begun, then close or follow what is read to its end."""
        seen = one.poll()
        self._expectations.refresh()
        self._restating.turn(seen)
        states, refused = self.begin(seen)
        one.tally.problems += refused + len(self._source_troubles.now)
        for state, outcome in self.read(states, one.wanted):
            if isinstance(outcome, TemporaryError):
                one.failed(f"ship {state.name}", outcome)
            else:
                one.attempt(f"ship {state.name}", _count, one, state, outcome)
        for state in states:
            if state.end is not None:
                one.attempt(f"ship {state.name}", self._close_or_follow, one, seen, state)

    def _close_or_follow(self, one: Turn, seen: Seen, state: ShipmentState) -> None:
        if not one.close(seen, state):
            self.follow(state)

    def look(self, now: float, *, wide: bool = False) -> Named:
        """What the sources name now; what is wrong with them is said when it is news.  now: the store's time."""
        context = self._context
        assert context.lake is not None
        if self._sources is None:
            lake = context.settings.lakes[context.lake_name]
            ours = context.settings.delivered(context.lake_name)
            self._sources = Sources(context.lake, lake.sources, ours, context.settings.url_of(context.lake_name))
        named = self._sources.look(now, wide=wide)
        self._source_troubles.see(named.troubles)
        self._say_left(named.left)
        self._named = named
        return named

    def _say_left(self, left: Left) -> None:
        """What lies there and is not read: each once, of very many the first."""
        before = self._named.left
        for path, why in left.first.items():
            if before.first.get(path) != why:
                self._context.say(f"Hathi does not read {path}: {why}")
        if left.number > len(left.first) and left.number != before.number:
            self._context.say(
                f"Hathi does not read {counted(left.number, 'file or folder', 'files or folders')}; "
                f"the log names the first {len(left.first)}"
            )

    def _shown(self, path: str) -> str:
        return self._context.settings.shown(self._context.lake_name, path)

    def begin(self, seen: Seen) -> tuple[list[ShipmentState], int]:
        """Plans for what the sources name anew: all states that there are to go on with, and how many were refused."""
        context = self._context
        self._note(seen.states)
        self._groups = {name: group for name, group in self._groups.items() if name in seen.due}
        open_groups = Counter(self._groups.values())
        new, refused = self._shipper.fresh(self.look(seen.now).found, seen.now, len(seen.due), open_groups)
        for one in refused:
            context.once(f"refused {one.source} {one.why}", f"Hathi does not ship {self._shown(one.source)}: {one.why}")
        states = list(seen.states)
        spoilt = 0
        for begun in new:
            context.safe_point()
            try:
                expects = self._expectations[begun.plan.set]
            except PermanentError as error:
                name = begun.plan.set
                context.once(f"begin set {name}", f"Hathi ships nothing for set {name}: {error}")
                spoilt += not isinstance(error, NotPromoted)  # that one waits for a person
                continue
            try:
                snapshots.begin(context, begun, expects)
            except FormatError as error:  # something else stands where its plan belongs
                spoilt += 1
                context.once(
                    f"begin {begun.name}", f"Hathi does not ship {self._shown(begun.plan.snapshot.source)}: {error}"
                )
            else:
                states.append(state_of(context, begun.name))
        self._note(states)
        return states, len(refused) + spoilt

    def read(self, states: list[ShipmentState], wanted: Callable[[], bool]) -> Iterator[Streamed]:
        """Read on what is not read to its end yet, as far as the caps allow: what became of each turn of each."""
        context = self._context
        caps = ship.Caps(context.settings.ship)
        self._queue.begin(ship.unfinished(states))
        for state, outcome in stream(context, self._queue, caps, self._readers, wanted):
            if isinstance(outcome, ship.Shipped):
                if outcome.void and state.plan is not None and self._sources is not None:
                    self._sources.forget(state.plan.snapshot.source)
                    self._shipper.forget(state.plan.snapshot_digest)
                if outcome.next is not None:
                    for one in ship.unfinished([state_of(context, outcome.next)]):
                        self._note([one])
                        self._queue.add(one)
            yield state, outcome
        self._queue.end(all_read=not caps.reached and wanted())

    def follow(self, state: ShipmentState) -> ShipmentName | None:
        """A next part that a killed process left unplanned."""
        context = self._context
        if state.unreadable or state.plan is None or state.end is None or state.end.next is None:
            return None
        if known_to_exist(context, context.keys.plan(next_of(state.name, state.plan))):
            return None
        return ship.follow(context, state)

    def _note(self, states: list[ShipmentState] | tuple[ShipmentState, ...]) -> None:
        for state in states:
            if state.plan is not None:
                self._groups[str(state.name)] = group_of_state(state)


def _count(one: Turn, state: ShipmentState, shipped: ship.Shipped | PipelineError) -> None:
    if isinstance(shipped, PipelineError):
        raise shipped
    tally = one.tally
    if shipped.counts.rows or shipped.ended:
        tally.tasks += 1
    tally.files += shipped.files
    tally.counts += shipped.counts
    tally.bytes += shipped.bytes
    tally.partners |= shipped.partners
    tally.shipments.add(str(state.name))
    one.context.progress("ship", shipped.counts.refs, 0)
