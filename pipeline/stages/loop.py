"""One turn of each stage over one lake: poll, plan, perform, and say what was done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec

from pipeline.errors import ConfigError, NetError, PipelineError, Stopped, TemporaryError
from pipeline.ledger.layout import Root
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL, Context, Seen, close_if_done, poll, state_of
from pipeline.ledger.state import ShipmentState
from pipeline.sources.found import Named
from pipeline.stages import aggregate, compute, deliver, derived_shipments, index
from pipeline.stages.aggregate import Aggregated, AggregateTask
from pipeline.stages.compute import Served
from pipeline.stages.performer import Here, Merging, Performer
from pipeline.stages.ship import Shipped
from pipeline.stages.shipping import Shipping

P = ParamSpec("P")
LOAD_AGAIN_SECONDS = 300.0
"""After so long a set that could not be loaded is tried again."""


@dataclass
class Tally:
    """What one stage did, summed up over a run."""

    tasks: int = 0
    files: int = 0
    rows: int = 0
    refs: int = 0
    rejected: int = 0
    features: int = 0
    failures: int = 0
    duplicates: int = 0
    damaged: int = 0
    """Features of images that the decoder said were damaged."""
    alike: int = 0
    """Of the duplicates: ids that differ in letter case or percent-coding only."""
    bytes: int = 0
    seconds: float = 0.0
    partners: set[int] = field(default_factory=set)
    reasons: dict[str, int] = field(default_factory=dict)
    shipments: set[str] = field(default_factory=set)
    dropped: int = 0
    """Refs whose work was dropped: another host's result stood there first."""
    problems: int = 0
    """Tasks that could not be done this time."""
    polls_to_see_all: int = 0
    """A poll reads a bounded number of shipments: so many turns until each one has been looked at."""
    stopped: bool = False
    """ESTOP or a signal ended the turn."""

    @property
    def worked(self) -> bool:
        return self.tasks > 0

    def add_reasons(self, reasons: Mapping[str, int]) -> None:
        for reason, number in reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + number


Serve = Callable[[str], Served]
"""The feature set of a name, ready to compute.  Raises ConfigError or NetError."""


class Turns:
    """The stages of one lake, as one process takes them in turn."""

    def __init__(
        self,
        context: Context,
        serve: Serve,
        *,
        strict: bool,
        performer: Performer | None = None,
        readers: Executor | None = None,
    ) -> None:
        """strict: a set that cannot be loaded is the caller's error where there is no other; else it is said once, its
        work waits, and it is tried again now and then.

        performer: who computes and aggregates; this process when absent.
        readers: whose threads ship; the calling thread when absent.
        """
        self._context = context
        self._performer = performer or Here()
        self._serve = serve
        self._strict = strict
        self._served: dict[str, Served] = {}
        self._unserved: dict[str, float] = {}
        """Sets that could not be loaded -> when to try again, in monotonic seconds."""
        self._shipping = Shipping(context, readers)
        self._after: dict[str, str] = {}

    @property
    def context(self) -> Context:
        return self._context

    @property
    def source_troubles(self) -> Mapping[str, str]:
        """What was wrong with sources when ship last looked at them: cause and remedy, by source."""
        return self._shipping.source_troubles

    @property
    def named(self) -> Named:
        """What the sources named when ship last looked at them."""
        return self._shipping.named

    def take(self, stage: str, wanted: Callable[[], bool] = lambda: True, tally: Tally | None = None) -> Tally:
        """One turn of a stage.  wanted: False once nothing further is to be begun.  tally: the one to fill, if given.

        Raises TemporaryError or PermanentError for what stops the whole turn (the poll itself).
        """
        clock = self._context.process.clock
        began = clock.monotonic()
        turns: dict[str, Callable[[Tally, Callable[[], bool]], None]] = {
            "ship": self._ship,
            "compute": self._compute,
            "aggregate": self._aggregate,
            "deliver": self._deliver,
        }
        tally = Tally() if tally is None else tally
        try:
            turns[stage](tally, wanted)
        except Stopped:
            tally.stopped = True
        tally.seconds = clock.monotonic() - began
        return tally

    def _poll(self, stage: str, tally: Tally) -> Seen:
        """Each stage goes round the open shipments on its own."""
        seen = poll(self._context, after=self._after.get(stage, ""))
        more = len(seen.due) > SHIPMENTS_OF_A_POLL and bool(seen.states)
        self._after[stage] = str(seen.states[-1].name) if more else ""
        tally.problems += sum(1 for state in seen.states if state.unreadable)
        tally.polls_to_see_all = -(-len(seen.due) // SHIPMENTS_OF_A_POLL)
        return seen

    def look(self, now: float) -> Named:
        """What the sources name, for prune.  now: the store's time."""
        return self._shipping.look(now, wide=True)

    def _ship(self, tally: Tally, wanted: Callable[[], bool]) -> None:
        seen = self._poll("ship", tally)
        states, refused = self._shipping.begin(seen)
        tally.problems += refused + self._shipping.problems
        for state, outcome in self._shipping.read(states, wanted):
            if isinstance(outcome, TemporaryError):  # said there, once for all shipments that it meets
                tally.problems += 1
            else:
                self._try(tally, f"ship {state.name}", self._shipped, state, outcome, tally)
        for state in states:
            if state.end is not None:
                self._try(tally, f"ship {state.name}", self._close_or_follow, seen, state)

    def _close_or_follow(self, seen: Seen, state: ShipmentState) -> None:
        if not self._close(seen, state):
            self._shipping.follow(state)

    def _shipped(self, state: ShipmentState, shipped: Shipped | PipelineError, tally: Tally) -> None:
        if isinstance(shipped, PipelineError):
            raise shipped
        if shipped.refs or shipped.rows or shipped.ended:
            tally.tasks += 1
        tally.files += shipped.files
        tally.refs += shipped.refs
        tally.rows += shipped.rows
        tally.rejected += shipped.rejected
        tally.bytes += shipped.bytes
        tally.partners |= shipped.partners
        tally.shipments.add(str(state.name))
        self._context.progress("ship", shipped.refs, 0)

    def _compute(self, tally: Tally, wanted: Callable[[], bool]) -> None:
        tasks = self._batches(tally)
        if self._strict:
            tally.problems += len(self._unserved.keys() & self._context.settings.sets.keys())
        for name in sorted({task.set for task in tasks}):
            mine = [task for task in tasks if task.set == name]
            self._try(tally, f"compute {name}", self._compute_set, name, mine, tally, wanted)

    def _batches(self, tally: Tally) -> list[compute.BatchTask]:
        """What waits for this box, of as many polls as it takes to have a shipment for each place of the window.

        A shipment is about one host, and a turn may last as long as a run: it fetches from no hosts but these.
        """
        context = self._context
        limits = context.settings.compute
        tasks: dict[compute.BatchTask, None] = {}
        looked = 0
        while not looked or looked < tally.polls_to_see_all:
            seen = self._poll("compute", tally)
            looked += 1
            more = compute.plan(seen, self._fingerprints(seen), limits)
            context.progress("compute", 0, compute.expected(seen.states, [task for task in more if task not in tasks]))
            tasks.update(dict.fromkeys(more))
            if not more or len({task.name for task in tasks}) >= limits.open_batches:
                break
        return list(tasks)

    def _compute_set(self, name: str, tasks: list[compute.BatchTask], tally: Tally, wanted: Callable[[], bool]) -> None:
        context = self._context
        for published in self._performer.compute(context, self._served[name], tasks, wanted):
            if published is not None:
                self._count(tally, published)
            context.progress("compute", published.refs if published else 0, 0)

    def _count(self, tally: Tally, published: compute.Published) -> None:
        tally.tasks += 1
        if published.kind == "shard":
            tally.refs += published.refs
            tally.features += published.features
            tally.failures += published.failures
            tally.damaged += published.damaged
            tally.bytes += published.bytes
            tally.shipments.add(str(published.task.name))
            tally.add_reasons(published.reasons or {})
        elif published.kind in ("strike", "held"):
            tally.problems += 1
        elif published.features + published.failures:
            self._drop(tally, f"batch {published.task.batch} of {published.task.name}", published.refs)

    def _drop(self, tally: Tally, what: str, refs: int) -> None:
        """Work that another host had done first."""
        tally.dropped += refs
        self._context.say(f"dropped: {refs} refs of {what}: another host's result was there first, and stands")

    def _aggregate(self, tally: Tally, wanted: Callable[[], bool]) -> None:
        context = self._context
        seen = self._poll("aggregate", tally)
        fingerprints = self._fingerprints(seen)
        merges = [self._merging(task, fingerprints) for task in aggregate.plan(seen, fingerprints)]
        for one, outcome in self._performer.aggregate(context, merges, wanted):
            self._try(tally, f"aggregate {one.task.state.name}", self._aggregated, outcome, tally)
        if not wanted():
            return
        for state in aggregate.plan_children(seen.states, context):
            context.safe_point()
            self._try(tally, f"retry of {state.name}", aggregate.retry, context, state)
        for state in derived_shipments.plan(seen.states):
            context.safe_point()
            self._try(tally, f"{state.plan.kind if state.plan else ''} {state.name}", self._copy_one, state, tally)
        for state in seen.states:
            self._try(tally, f"close {state.name}", self._close, seen, state)

    def _copy_one(self, state: ShipmentState, tally: Tally) -> None:
        if derived_shipments.perform(self._context, state):
            tally.tasks += 1

    def _merging(self, task: AggregateTask, fingerprints: Mapping[str, str]) -> Merging:
        assert task.state.plan is not None
        name = task.state.plan.set
        return Merging(task, name, fingerprints[name], self._served[name].engine)

    def _aggregated(self, done: Aggregated | PipelineError | None, tally: Tally) -> None:
        if isinstance(done, PipelineError):
            raise done
        context = self._context
        if done is None:
            return
        if not done.won:
            self._drop(tally, str(done.name), done.out.refs)
            return
        tally.tasks += 1
        tally.shipments.add(str(done.name))
        tally.refs += done.out.refs
        tally.features += done.out.features
        tally.failures += done.out.failures
        tally.duplicates += done.out.duplicates
        tally.damaged += done.out.damaged
        tally.alike += done.out.alike
        tally.add_reasons(done.out.reasons)
        context.progress("aggregate", done.out.refs, 0)
        aggregate.retry(context, state_of(context, done.name, settled=False))

    def _deliver(self, tally: Tally, wanted: Callable[[], bool]) -> None:
        context = self._context
        seen = self._poll("deliver", tally)
        sets = context.settings.sets
        for state in seen.states:
            if state.unreadable or state.plan is None or state.out is None or state.done is not None:
                continue
            if state.plan.set not in sets:
                text = f"Alert: no set {state.plan.set} in this configuration: {state.name} waits"
                context.once(f"set {state.plan.set}", text)
        placed: list[deliver.Placed] = []
        indexes: dict[str, index.Read | None] = {}
        try:
            for task in deliver.plan(seen, sets):
                if not wanted():
                    break
                context.safe_point()
                if self._index_of(tally, indexes, task) is None:
                    continue
                self._try(tally, f"deliver {task.state.name}", self._place_one, task, placed)
        finally:
            for root in sorted({one.root.root for one in placed}):
                mine = [one for one in placed if one.root.root == root]
                self._try(tally, f"index of {root}", self._enter, mine, indexes[root], tally)
        for state in seen.states:
            self._try(tally, f"close {state.name}", self._close, seen, state)

    def _index_of(
        self, tally: Tally, indexes: dict[str, index.Read | None], task: deliver.DeliverTask
    ) -> index.Read | None:
        """The index of the task's root, read once a turn; None where nothing can enter it: then nothing is claimed or
        copied for it, either."""
        context = self._context
        assert task.state.plan is not None
        root = Root(context.settings.sets[task.state.plan.set].folder)
        if root.root not in indexes:
            indexes[root.root] = None
            self._try(tally, f"index of {root.root}", self._look, root, indexes)
        return indexes[root.root]

    def _look(self, root: Root, indexes: dict[str, index.Read | None]) -> None:
        indexes[root.root] = index.look(self._context, root)

    def _place_one(self, task: deliver.DeliverTask, placed: list[deliver.Placed]) -> None:
        assert task.state.plan is not None
        one = deliver.place(self._context, self._context.settings.sets[task.state.plan.set], task)
        if one is not None:
            placed.append(one)

    def _enter(self, placed: list[deliver.Placed], seen: index.Read | None, tally: Tally) -> None:
        """One version of the index for all that stands now, however many shipments there are; then their `done`s."""
        left = list(placed)
        try:
            now = deliver.enter(self._context, placed[0].root, placed, seen)
            while left:
                self._try(tally, f"deliver {left[0].name}", self._finish, left[0], now, tally)
                del left[0]
        except BaseException as error:
            for one in left:
                deliver.abandon(self._context, one.task, error)
            raise

    def _finish(self, one: deliver.Placed, now: str, tally: Tally) -> None:
        try:
            deliver.finish(self._context, one, now)
        except PipelineError as error:
            deliver.abandon(self._context, one.task, error)
            raise
        state = one.task.state
        assert state.plan is not None
        assert state.out is not None
        tally.tasks += 1
        tally.shipments.add(str(one.name))
        tally.bytes += one.bytes
        tally.refs += state.out.refs
        tally.features += state.out.features
        tally.failures += state.out.failures
        tally.duplicates += state.out.duplicates
        tally.damaged += state.out.damaged
        tally.alike += state.out.alike
        tally.add_reasons(state.out.reasons)
        close_if_done(self._context, state_of(self._context, one.name, settled=False), state.plan.due)

    def _close(self, seen: Seen, state: ShipmentState) -> bool:
        """Look at what is done or void: its hint may go."""
        if not state.void and state.done is None:
            return False
        return close_if_done(self._context, state, seen.due.get(str(state.name), ""))

    def _fingerprints(self, seen: Seen) -> dict[str, str]:
        """Fingerprints of the sets that open work asks for; a set that cannot be loaded is said once."""
        for state in seen.states:
            if state.plan is not None and not state.unreadable and state.out is None and not state.void:
                self._load(state.plan)
        return {name: served.fingerprint for name, served in self._served.items()}

    def _load(self, plan: Plan) -> None:
        now = self._context.process.clock.monotonic()
        if plan.set in self._served or self._unserved.get(plan.set, now) > now:
            return
        if plan.set not in self._context.settings.sets:
            self._unserved[plan.set] = math.inf
            self._context.once(f"set {plan.set}", f"no set {plan.set} in this configuration: its shipments wait")
            return
        try:
            served = self._serve(plan.set)
            _ = served.fingerprint  # reads what is left to be read: a file that changes just now is the set's trouble
            self._served[plan.set] = served
        except (ConfigError, NetError) as error:
            if self._strict and len(self._context.settings.sets) == 1:
                raise
            self._unserved[plan.set] = now + LOAD_AGAIN_SECONDS  # a file may still be being copied
            self._context.once(f"set {plan.set}", f"set {plan.set} cannot be computed here: {error}")

    def _try(self, tally: Tally, what: str, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """One task; its trouble is said and counted, and the rest goes on."""
        try:
            work(*args, **kwargs)
        except Stopped:
            raise
        except TemporaryError as error:
            tally.problems += 1
            self._context.say(f"{what}: {error}; it is tried again")
        except PipelineError as error:
            tally.problems += 1
            self._context.once(f"{what} {error.message}", f"{what}: {error}")
