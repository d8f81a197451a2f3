"""The deliver stage of one lake: folders first, then one version of the index for all of them, then each `done`."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.ledger.layout import Root
from pipeline.ledger.protocol import Seen, close_if_done, state_of
from pipeline.stages import deliver, index
from pipeline.stages.turn import Turn


class Delivering:
    """The deliver stage keeps nothing from turn to turn."""

    def turn(self, one: Turn) -> None:
        """Deliver what is aggregated, then close what is done."""
        seen = one.poll()
        _say_unknown_sets(one, seen)
        _Delivery(one).work(seen)
        for state in seen.states:
            one.attempt(f"close {state.name}", one.close, seen, state)


def _say_unknown_sets(one: Turn, seen: Seen) -> None:
    for state in seen.states:
        if state.unreadable or state.plan is None or state.out is None or state.done is not None:
            continue
        if state.plan.set not in one.context.settings.sets:
            text = f"Alert: this configuration has no set {state.plan.set}; {state.name} waits for it; put the set back"
            one.context.once(f"set {state.plan.set}", text)


class _Delivery:
    """What one turn has put on the lake."""

    def __init__(self, one: Turn) -> None:
        self._turn = one
        self._context = one.context
        self._placed: list[deliver.Placed] = []
        self._indexes: dict[str, index.Read | None] = {}
        """By root, read once a turn; None where nothing can enter it."""

    def work(self, seen: Seen) -> None:
        """Place each shipment; whatever ends that, what stands by then enters the index of its root."""
        try:
            for task in deliver.plan(seen, self._context.settings.sets):
                if not self._turn.wanted():
                    break
                self._context.safe_point()
                if self._index_of(task) is not None:
                    self._turn.attempt(f"deliver {task.state.name}", self._place, task)
        finally:
            for root in sorted({one.root.root for one in self._placed}):
                mine = [one for one in self._placed if one.root.root == root]
                self._turn.attempt(f"index of {root}", self._enter, mine, self._indexes[root])

    def _index_of(self, task: deliver.DeliverTask) -> index.Read | None:
        """The index of the task's root; None where nothing can enter it: nothing is claimed or copied for it either."""
        assert task.state.plan is not None
        root = Root(self._context.settings.sets[task.state.plan.set].folder)
        if root.root not in self._indexes:
            self._indexes[root.root] = None
            self._turn.attempt(f"index of {root.root}", self._look, root)
        return self._indexes[root.root]

    def _look(self, root: Root) -> None:
        self._indexes[root.root] = index.look(self._context, root)

    def _place(self, task: deliver.DeliverTask) -> None:
        assert task.state.plan is not None
        one = deliver.place(self._context, self._context.settings.sets[task.state.plan.set], task)
        if one is not None:
            self._placed.append(one)

    def _enter(self, placed: list[deliver.Placed], seen: index.Read | None) -> None:
        """One version of the index for all that stands now, however many shipments there are; then their `done`s."""
        left = list(placed)
        try:
            now = deliver.enter(self._context, placed[0].root, placed, seen)
            while left:
                self._turn.attempt(f"deliver {left[0].name}", self._finish, left[0], now)
                del left[0]
        except BaseException as error:
            for one in left:
                deliver.abandon(self._context, one.task, error)
            raise

    def _finish(self, one: deliver.Placed, now: str) -> None:
        try:
            deliver.finish(self._context, one, now)
        except PipelineError as error:
            deliver.abandon(self._context, one.task, error)
            raise
        state = one.task.state
        assert state.plan is not None
        assert state.out is not None
        self._turn.tally.add_shipment(one.name, state.out)
        self._turn.tally.bytes += one.bytes
        close_if_done(self._context, state_of(self._context, one.name, settled=False), state.plan.due)
