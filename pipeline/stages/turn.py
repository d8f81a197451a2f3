"""One turn of a stage: what it works with, what is wanted of it, and how the trouble of one task is kept from the rest.

A stage plans what one poll saw and performs the tasks one by one.  Each of them is tried in `Turn.attempt`: an error
is said and counted there, and the other tasks go on.  What stops the whole turn, a poll that fails, is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol

from pipeline.amounts import counted
from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL, Context, Seen, close_if_done, poll
from pipeline.ledger.state import ShipmentState
from pipeline.stages.said import Said
from pipeline.stages.tally import Tally

P = ParamSpec("P")


class Polls:
    """A stage's way round the open shipments, of which a poll reads a bounded number."""

    def __init__(self) -> None:
        self._after = ""

    def next(self, context: Context, tally: Tally) -> Seen:
        """The next poll.  It counts what cannot be read, and how many polls see everything."""
        seen = poll(context, after=self._after)
        more = len(seen.due) > SHIPMENTS_OF_A_POLL and bool(seen.states)
        self._after = str(seen.states[-1].name) if more else ""
        tally.problems += sum(1 for state in seen.states if state.unreadable)
        tally.polls_to_see_all = -(-len(seen.due) // SHIPMENTS_OF_A_POLL)
        return seen


@dataclass(frozen=True)
class Turn:
    """One turn of one stage over one lake."""

    context: Context
    tally: Tally
    """What the stage did; the stage fills it."""
    wanted: Callable[[], bool]
    """False once nothing further is to be begun."""
    polls: Polls
    said: Said
    """Where what fails is said."""
    tried: dict[str, PipelineError | None] = field(default_factory=dict)
    """What was tried, and what is wrong with it: None where it worked."""

    def poll(self) -> Seen:
        """The next look at what is open and due."""
        return self.polls.next(self.context, self.tally)

    def attempt(self, what: str, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """One task; its trouble is said and counted, and the rest goes on.  Raises Stopped."""
        try:
            work(*args, **kwargs)
            self.tried.setdefault(what, None)
        except Stopped:
            raise
        except PipelineError as error:
            self.failed(what, error)

    def failed(self, what: str, error: PipelineError) -> None:
        """Say and count a task that could not be done this time."""
        self.said.failed(what, error)
        self.tally.problems += 1
        self.tried[what] = error

    def drop(self, what: str, refs: int) -> None:
        """Work that another host had done first."""
        self.tally.dropped += refs
        self.context.say(
            f"{what}: another host finished first; "
            f"our result for {counted(refs, 'ref')} was discarded (nothing is lost)"
        )

    def close(self, seen: Seen, state: ShipmentState) -> bool:
        """Look at what is done or void: its hint may go.  Whether the shipment is closed."""
        if not state.void and state.done is None:
            return False
        return close_if_done(self.context, state, seen.due.get(str(state.name), ""))


class Stage(Protocol):
    """A stage of one lake, for as long as its process runs."""

    def turn(self, one: Turn) -> None:
        """Poll, plan, perform.

        Raises Stopped at a safe point, and TemporaryError or PermanentError for what stops the whole turn.
        """
