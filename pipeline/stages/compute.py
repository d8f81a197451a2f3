"""compute: from batches to shards, THE result of each batch (docs/protocol.md 5).

A task is a batch without a result under this box's fingerprint.  `plan` says which batches are to be computed, and
which of them alone: a batch whose workers died or whose net failed twice runs in a child process of its own, and is
halved there until the one item is found that causes it.  A batch that fails alone as well is held for a person.

`perform` keeps a window of many batches open at once (extraction.window), since one shipment is about one image host
and a polite limit is some tens of images a second.  A finished batch becomes a shard: a file of features and a file of
failures, uploaded under a name that nobody else uses.  Then its result is committed.  Where another box was first, its
result stands and ours is deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.amounts import counted
from pipeline.codec.hashed_file import Written
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix
from pipeline.errors import FormatError, LawBroken, NotFound, PipelineError
from pipeline.extraction.same_net import same_net
from pipeline.extraction.window import Computed, Opened
from pipeline.ledger.data import Damaged, load_data
from pipeline.ledger.layout import ShipmentName, Task
from pipeline.ledger.manifest import AttemptEnd, Batch, DataFile, Result
from pipeline.ledger.protocol import Context, Seen, body_at, claim, commit, give_up, law, readable, scratch
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.ledger.state import Counted, ShipmentState, count
from pipeline.records import ImageRef
from pipeline.settings import Compute
from pipeline.stages.following import Asked, Computable

ORDINALS_PER_BATCH = 1 << 20
"""A ref's ordinal in its shipment is its batch times this plus its place: it sorts, and needs no earlier batch."""

TELL_SECONDS = 0.5
"""So often images that ended are told of."""


@dataclass(frozen=True)
class BatchTask:
    """One batch to compute, or to hold."""

    name: ShipmentName
    batch: int
    set: str
    fingerprint: str
    number: int
    """Of the attempt."""
    mode: str
    """open: in the window with others; alone: in a child process; hold: it is given up."""
    counted: Counted
    asked: Asked | None = None
    """What it is computed with; None: the set and the files that it names."""

    @property
    def by(self) -> Asked:
        return self.asked or Asked(self.set)

    @property
    def task(self) -> Task:
        return Task.batch(self.fingerprint, self.batch)


@dataclass(frozen=True)
class Published:
    """What became of one batch."""

    task: BatchTask
    kind: str
    """shard, held, lost (somebody else's result stands), strike, or damaged."""
    counts: RowCounts = NO_ROWS
    reasons: Mapping[str, int] | None = None
    bytes: int = 0


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
    return BatchTask(state.name, batch, state.plan.set, one.fingerprint, number, mode, counted, one.asked)


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
    yield from _perform_open(context, served, groups, wanted)
    for task in apart:
        if not wanted():
            return
        context.safe_point()
        if _known(context, task):
            try:
                yield _hold(context, task) if task.mode == "hold" else _perform_alone(context, served, task)
            except (FormatError, LawBroken) as error:
                yield _spoilt(context, task, error)


def _known(context: Context, task: BatchTask) -> bool:
    """Whether the batch's body can be read; a broken one is named, and waits."""
    return readable(context, context.keys.batch(task.name, task.batch), Batch) is not None


def _claimed(context: Context, task: BatchTask) -> bool:
    """Whether the attempt is ours; what stands in its place and is none is named, and the batch waits."""
    try:
        return _known(context, task) and claim(context, task.name, task.task, task.number, alone=task.mode == "alone")
    except FormatError as error:
        context.once(f"{task.name} {task.batch} claim", str(error))
        return False


def _spoilt(context: Context, task: BatchTask, error: PipelineError) -> Published:
    """What stands there of one batch contradicts what was computed: a strike against that batch, and the rest go on."""
    context.once(f"{task.name} {task.batch}", f"Alert: {error}")
    _give_up(context, task, AttemptEnd(kind="strike", cause=error.message[:500]))
    return Published(task, "damaged")


def _perform_open(
    context: Context, served: Served, groups: Mapping[str, Sequence[BatchTask]], wanted: Callable[[], bool]
) -> Iterator[Published | None]:
    begun: dict[BatchTask, int] = {}
    ended = _Ended(context)

    def open_batch(task: BatchTask) -> Opened[BatchTask] | None:
        context.safe_point()
        if not _claimed(context, task):
            return None
        begun[task] = 0
        refs = _refs(context, task)
        if refs is None:
            del begun[task]
            return None
        begun[task] = len(refs)
        return Opened(task, refs, ended)

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
                published = _publish(context, served, computed, begun[computed.task])
            except (FormatError, LawBroken) as error:
                published = _spoilt(context, computed.task, error)
            del begun[computed.task]
            ended.tell()
            yield published
    except BaseException:
        # Whatever ends the run (ESTOP, a full disk, an error of ours): what is open is given up, not a strike.
        for task in begun:
            _abandon(context, task)
        raise


class _Ended:
    """Tells of images as they end, some at a time: a word for each would cost more than a small net's pass."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._number = 0
        self._at = context.process.clock.monotonic()

    def __call__(self) -> None:
        self._number += 1
        if self._context.process.clock.monotonic() >= self._at + TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Now, before a batch of them is published: whoever counts them counts each once."""
        if self._number:
            self._context.progress("compute", self._number, 0)
        self._number, self._at = 0, self._context.process.clock.monotonic()


def _abandon(context: Context, task: BatchTask) -> None:
    _give_up(context, task, AttemptEnd(kind="abandoned", cause="the run was stopped"))


def _give_up(context: Context, task: BatchTask, end: AttemptEnd) -> None:
    """Best effort: an attempt whose end cannot be written just counts as lost."""
    try:
        give_up(context, task.name, task.task, task.number, end)
    except PipelineError as error:
        context.say(
            f"This process could not say that it ends its work on batch {task.batch} of {task.name}: {error}; "
            "other processes take the batch once this one counts as gone"
        )


def _refs(context: Context, task: BatchTask) -> list[ImageRef] | None:
    """The refs of a claimed batch; None when its data is damaged, which is a strike."""
    body = body_at(context, context.keys.batch(task.name, task.batch), Batch)
    try:
        content = load_data(context, body.data)
        refs = context.forms.decode(content, task.batch * ORDINALS_PER_BATCH)
        law(f"{task.name} batch {task.batch}", body.refs, read=len(refs))
        return refs
    except (Damaged, NotFound, FormatError, LawBroken) as error:
        context.once(f"{task.name} {task.batch}", f"Alert: {error}")
        _give_up(context, task, AttemptEnd(kind="strike", cause="its refs are damaged"))
        return None


def _publish(context: Context, served: Served, computed: Computed[BatchTask], refs: int) -> Published:
    """The shard's files, then THE result that names them."""
    task = computed.task
    if computed.trouble:
        end = AttemptEnd(kind="strike", cause=computed.trouble)
        give_up(context, task.name, task.task, task.number, end)
        context.say(f"Batch {task.batch} of {task.name} failed (one strike): {computed.trouble}; Hathi tries it again")
        return Published(task, "strike", RowCounts(refs=refs))
    counts = RowCounts(
        refs=refs,
        features=len(computed.rows),
        failures=len(computed.failures),
        damaged=sum(bool(row.damage) for row in computed.rows),
    )
    law(f"{task.name} batch {task.batch}", refs, features=counts.features, failures=counts.failures)
    nonce = context.process.nonce()
    features = _put_features(context, task, nonce, computed.rows, computed.matrix)
    failures = _put_failures(context, task, nonce, computed.failures)
    body = Result(
        kind="shard",
        refs=counts.refs,
        features=counts.features,
        failures=counts.failures,
        damaged=counts.damaged,
        features_file=features,
        failures_file=failures,
        dim=int(computed.matrix.shape[1]),
        fingerprint=task.fingerprint,
        engine=served.engine,
        process=context.process.name,
        attempt=task.number,
        fetched_bytes=computed.fetched_bytes,
        seconds=round(computed.seconds, 3),
    )
    won, stands = commit(context, context.keys.result(task.name, task.fingerprint, task.batch), body)
    named = {file.key for file in (stands.features_file, stands.failures_file) if file is not None}
    for file in (features, failures):
        if file is not None and file.key not in named:
            context.bucket.delete(file.key)
    reasons: dict[str, int] = {}
    for row in computed.failures:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    kind = "shard" if won else "lost"
    return Published(task, kind, counts, reasons, computed.fetched_bytes)


def _put_features(
    context: Context, task: BatchTask, nonce: str, rows: Sequence[FeatureRow], matrix: Matrix
) -> DataFile | None:
    if not rows:
        return None
    return _put(context, task, nonce, "features", lambda path: context.forms.write_features(path, rows, matrix))


def _put_failures(context: Context, task: BatchTask, nonce: str, rows: Sequence[FailureRow]) -> DataFile | None:
    if not rows:
        return None
    return _put(context, task, nonce, "failures", lambda path: context.forms.write_failures(path, rows))


def _put(context: Context, task: BatchTask, nonce: str, what: str, write: Callable[[Path], Written]) -> DataFile:
    key = context.keys.shipment_data(task.name, nonce, f"{task.batch:05d}.{what}.parquet")
    with scratch(context) as folder:
        path = folder / what
        written = write(path)
        context.bucket.put(key, path)
    return DataFile(key=key, size=written.size, sha256=written.sha256, rows=written.rows)


def _perform_alone(context: Context, served: Served, task: BatchTask) -> Published:
    if not _claimed(context, task):
        return Published(task, "lost")
    try:
        refs = _refs(context, task)
        if refs is None:
            return Published(task, "damaged")
        computed = served.alone(task, refs)
        context.safe_point()  # what ends this process may have ended its children first, and they died of no item
        return _publish(context, served, computed, len(refs))
    except BaseException:
        _abandon(context, task)
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
