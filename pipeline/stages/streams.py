"""Several shipments read in turn, some batches each, and several at the same time where there are threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.protocol import Context
from pipeline.ledger.state import ShipmentState
from pipeline.stages.fair_queue import FairQueue, group_of_state
from pipeline.stages.ship import Caps, Memory, Shipped, Stream

T = TypeVar("T")

SLICE = 8
"""Batches that one shipment is read on by before it is another's turn."""
IN_HAND = 4
"""Shipments that are read in turn, at the least; each holds a file open."""

Streamed = tuple[ShipmentState, Shipped | PipelineError]
"""What became of a shipment's turn."""


class InTurn(Executor):
    """The calling thread, one thing after the other: what runs here is the same in each run."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Readers:
    """Who reads: as many shipments at the same time as `width` says."""

    executor: Executor
    width: int = 1


def stream(
    context: Context, queue: FairQueue, caps: Caps, readers: Readers, wanted: Callable[[], bool] = lambda: True
) -> Iterator[Streamed]:
    """Read what waits in the queue until the caps are reached; the caller may add to it while it iterates.

    Trouble with one shipment is a value, and ends it for this run.  Raises Stopped, when all that runs has ended.
    """
    memory = Memory(context.settings.ship.batch_bytes)
    most = max(IN_HAND, readers.width)
    resting: deque[Stream] = deque()
    running: dict[Future[Shipped], Stream] = {}
    try:
        while True:
            if wanted() and not caps.reached:
                context.safe_point()
                while queue and len(resting) + len(running) < most:
                    groups = [group_of_state(one.state) for one in (*resting, *running.values())]
                    resting.append(Stream(context, queue.next(groups), memory))
                while resting and len(running) < readers.width and not caps.reached:
                    one = resting.popleft()
                    queue.had_a_turn(group_of_state(one.state))
                    running[readers.executor.submit(one.read, SLICE, caps)] = one
            if not running:
                return
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in [one for one in running if one in ended]:
                one = running.pop(future)
                outcome = _outcome(future)
                if isinstance(outcome, PipelineError) or outcome.over:
                    one.close()
                else:
                    resting.append(one)
                yield one.state, outcome
    finally:
        wait(running)
        for one in (*resting, *running.values()):
            one.close()


def _outcome(future: Future[Shipped]) -> Shipped | PipelineError:
    try:
        return future.result()
    except Stopped:
        raise
    except PipelineError as error:
        return error
