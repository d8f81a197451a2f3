"""compute: from batches to shards, THE result of each batch (docs/protocol.md 5).

A task is a batch without a result under this box's fingerprint.  `plan` says which batches are to be computed, and
which of them alone: a batch whose workers died or whose net failed twice runs in a child process of its own, and is
halved there until the one item is found that causes it.  A batch that fails alone as well is held for a person.

`perform` keeps a window of many batches open at once (extraction.window), since one shipment is about one image host
and a polite limit is some tens of images a second.  A finished batch becomes a shard: a file of features and a file of
failures, uploaded under a name that nobody else uses.  Then its result is committed.  Where another box was first, its
result stands and ours is deleted.  Images that the archive has are not fetched, where the plan or a setting says so;
those that are fetched go there, where a setting says so (stages.archiving).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pipeline.amounts import counted
from pipeline.errors import FormatError, LawBroken, PipelineError
from pipeline.extraction.same_net import same_net
from pipeline.extraction.window import Computed, Opened
from pipeline.ledger.layout import ShipmentName, Task
from pipeline.ledger.manifest import AttemptEnd, Batch, Result
from pipeline.ledger.protocol import Context, Seen, body_at, commit
from pipeline.ledger.row_counts import RowCounts
from pipeline.ledger.state import Counted, ShipmentState, count
from pipeline.records import ImageRef
from pipeline.settings import Compute
from pipeline.stages import opening, publishing
from pipeline.stages.archiving import Archive
from pipeline.stages.following import Computable
from pipeline.stages.opening import BatchTask, Begun, Ended
from pipeline.stages.publishing import Published
from pipeline.stages.remembering import Reuse


class Served(Protocol):
    """A feature set that this host can compute."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def preprocessing(self) -> str: ...
    @property
    def paced(self) -> Mapping[str, str]:
        """By host: the polite limit that set the pace of fetching, in words."""

    def window(
        self,
        groups: Mapping[str, Sequence[BatchTask]],
        open_batch: Callable[[BatchTask], Opened[BatchTask] | None],
        wanted: Callable[[], bool],
    ) -> Iterator[Computed[BatchTask] | None]:
        """Run batches through fetch, decoding and net."""

    def alone(self, task: BatchTask, refs: Sequence[ImageRef]) -> Computed[BatchTask]:
        """Run one batch in a child process of its own, halved until what kills it is found."""


def plan(seen: Seen, computable: Mapping[ShipmentName, Computable], limits: Compute) -> list[BatchTask]:
    """The batches that wait for a result under our fingerprints, in the order of their names.

    computable: what this host computes shipments with.
    """
    tasks: list[BatchTask] = []
    for state in sorted(seen.states, key=lambda s: s.name):
        if state.unreadable or state.plan is None or state.out is not None or state.given_up:
            continue
        if state.name not in computable:
            continue
        one = computable[state.name]
        fingerprint = one.fingerprint
        have = state.results.get(fingerprint[:12], frozenset())
        for batch in sorted(state.batches - have):
            counted = count(state.tries.get(Task.batch(fingerprint, batch), ()), seen.alive)
            if counted.live:
                continue
            tasks.append(_task(state, batch, one, counted, limits))
    return tasks


def _task(state: ShipmentState, batch: int, one: Computable, counted: Counted, limits: Compute) -> BatchTask:
    assert state.plan is not None
    mode = mode_of(counted, limits)
    number = counted.next_number
    kind = state.plan.kind
    task = BatchTask(state.name, batch, state.plan.set, one.fingerprint, number, mode, counted, one.asked, kind)
    return replace(task, from_archive=state.plan.from_archive or kind == "backfill")


def mode_of(counted: Counted, limits: Compute) -> str:
    """How a batch is to be tried next, by what happened to it: open, alone or hold."""
    if counted.held(limits.strikes_alone, limits.lost_alone):
        return "hold"
    return "alone" if counted.isolated(limits.strikes, limits.lost) else "open"


def expected(states: Iterable[ShipmentState], tasks: Sequence[BatchTask]) -> int:
    """About how many refs these batches hold, without reading them; exact where all of a shipment's batches wait."""
    plans = {state.name: (state.plan, state.end) for state in states if state.plan is not None}
    total = 0
    for name, number in Counter(task.name for task in tasks).items():
        plan, end = plans[name]
        assert plan is not None
        total += min(number * plan.batch_refs, end.refs if end is not None else number * plan.batch_refs)
    return total


def perform(
    context: Context, served: Served, tasks: Iterable[BatchTask], wanted: Callable[[], bool]
) -> Iterator[Published | None]:
    """Work off tasks of one set: what became of each, as it ends; None now and then.

    wanted: False once no further batch is to be begun (max_run).  A stop gives up what is open, and raises Stopped.
    Raises NetError, and claims nothing, for a task that was planned with another net than the one that is served.
    """
    tasks = list(tasks)
    for task in tasks:
        same_net(task.set, task.fingerprint, served.fingerprint)
    groups: dict[str, list[BatchTask]] = {}
    apart = []
    for task in tasks:
        if task.mode == "open":
            groups.setdefault(str(task.name), []).append(task)
        else:
            apart.append(task)
    with contextlib.ExitStack() as held:
        archive = Archive(context, held)
        yield from _perform_open(context, served, groups, wanted, archive)
        for task in apart:
            if not wanted():
                return
            context.safe_point()
            if opening.known(context, task):
                try:
                    if task.mode == "hold":
                        yield _hold(context, task)
                    else:
                        yield _perform_alone(context, served, task, archive)
                except (FormatError, LawBroken) as error:
                    yield _spoilt(context, task, error)


def _spoilt(context: Context, task: BatchTask, error: PipelineError) -> Published:
    """What stands there of one batch contradicts what was computed: a strike against that batch, and the rest go on."""
    context.once(f"{task.name} {task.batch}", f"Alert: {error}")
    opening.give_up(context, task, AttemptEnd(kind="strike", cause=error.message[:500]))
    return Published(task, "damaged")


def _perform_open(
    context: Context,
    served: Served,
    groups: Mapping[str, Sequence[BatchTask]],
    wanted: Callable[[], bool],
    archive: Archive,
) -> Iterator[Published | None]:
    begun: dict[BatchTask, Begun] = {}
    ended = Ended(context)
    reuse = Reuse(context, served.fingerprint, served.engine)

    def open_batch(task: BatchTask) -> Opened[BatchTask] | None:
        context.safe_point()
        if not opening.claimed(context, task):
            return None
        begun[task] = Begun()
        refs = opening.refs_of(context, task)
        if refs is None:
            del begun[task]
            return None
        one = begun[task] = Begun(len(refs), archive.images(task.name, refs, task.from_archive), archive.pack())
        return Opened(task, refs, ended, opening.before(context, reuse, task, refs), one.images, one.pack)

    if not groups:
        return
    stream = served.window(groups, open_batch, wanted)
    try:
        for computed in stream:
            context.safe_point()
            if computed is None:
                yield None
                continue
            try:
                published = publishing.publish(context, served.engine, computed, begun[computed.task])
                if published.kind == "shard":
                    publishing.remember(context, reuse, computed)
            except (FormatError, LawBroken) as error:
                published = _spoilt(context, computed.task, error)
            reuse.dropped(computed.task.name, computed.task.batch)
            begun.pop(computed.task).dropped()
            ended.tell()
            yield published
        reuse.write()
    except BaseException:
        # Whatever ends the run (ESTOP, a full disk, an error of ours): what is open is given up, not a strike.
        for task, one in begun.items():
            one.dropped()
            opening.abandon(context, task)
        raise


def _perform_alone(context: Context, served: Served, task: BatchTask, archive: Archive) -> Published:
    if not opening.claimed(context, task):
        return Published(task, "lost")
    try:
        refs = opening.refs_of(context, task)
        if refs is None:
            return Published(task, "damaged")
        begun = Begun(len(refs), archive.images(task.name, refs, task.from_archive))
        computed = served.alone(task, opening.with_images(refs, begun.images))
        context.safe_point()  # what ends this process may have ended its children first, and they died of no item
        return publishing.publish(context, served.engine, computed, begun)
    except BaseException:
        opening.abandon(context, task)
        raise


def _hold(context: Context, task: BatchTask) -> Published:
    """Give a batch up: the hint for people, then THE result."""
    tries = task.counted
    reason = (
        f"it ran alone, failed {counted(tries.strikes_alone, 'time')} and lost its process "
        f"{counted(tries.lost_alone, 'time')}"
    )
    if tries.cause:
        reason += f"; the last cause: {tries.cause}"
    batch = body_at(context, context.keys.batch(task.name, task.batch), Batch)
    context.bucket.put(context.keys.held_hint(task.name, task.batch), b"")
    body = Result(
        kind="held",
        refs=batch.refs,
        reason=reason,
        fingerprint=task.fingerprint,
        process=context.process.name,
        attempt=task.counted.next_number - 1,
    )
    won, _ = commit(context, context.keys.result(task.name, task.fingerprint, task.batch), body)
    context.say(
        f"Batch {task.batch} of {task.name} is held, and no run tries it again: {reason}; "
        f"look at it with `hathi quarantine show {task.name}.{task.batch}`, then release or drop it"
    )
    return Published(task, "held" if won else "lost", RowCounts(refs=batch.refs))
