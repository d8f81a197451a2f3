"""ship: from what a lake's sources name to batches in the bucket (docs/protocol.md 4).

A snapshot is a source as it was seen: its files with length and time.  A plan freezes a snapshot for one feature set;
from then on the shipment reads those files and no others.  A file that has changed since makes the shipment void, and
what is there now is a snapshot of its own.

Each batch says where reading ended, in its cursor.  The next batch is read from the *committed* cursor of the one
before, so two gateways that read at once write the same batches, and a restart goes on where the last commit stands.
After 128 batches, or at the snapshot's end, `end` is committed; the rest of the snapshot is the next part.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.amounts import counted, length_of_time
from pipeline.codec.refs.rows import sampled
from pipeline.ledger.data import store_data
from pipeline.ledger.layout import FIRST_DUE, ShipmentName
from pipeline.ledger.manifest import Batch, End, Place, Plan, Rejection
from pipeline.ledger.protocol import Context, announce, body_at, close_if_done, commit, exists, law
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.ledger.state import READ_FROM_SOURCES, ShipmentState, next_of
from pipeline.settings import Ship
from pipeline.sources.frozen_files import FrozenFiles
from pipeline.stores.store import Lake


class Caps:
    """What one run may still ship, whoever of its threads ships it."""

    def __init__(self, settings: Ship) -> None:
        self._lock = threading.Lock()
        self._refs = settings.refs_per_run
        self._bytes = settings.bytes_per_run
        self._files = settings.files_per_run

    def spend(self, *, refs: int = 0, bytes: int = 0, files: int = 0) -> None:
        with self._lock:
            self._refs -= refs
            self._bytes -= bytes
            self._files -= files

    @property
    def reached(self) -> bool:
        return self._refs <= 0 or self._bytes <= 0 or self._files <= 0


class Memory:
    """Bytes of batches on their way from the lake to the bucket, all threads together."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int, safe_point: Callable[[], None]) -> Iterator[None]:
        """Room for so many bytes, waited for; what is larger than all there is goes alone."""
        size = min(size, self._total)
        with self._freed:
            while self._held + size > self._total:
                self._freed.wait(0.5)
                safe_point()
            self._held += size
        try:
            yield
        finally:
            with self._freed:
                self._held -= size
                self._freed.notify_all()


@dataclass(frozen=True)
class Shipped:
    """What reading a shipment on did."""

    counts: RowCounts = NO_ROWS
    """Rows, refs and rejected."""
    bytes: int = 0
    files: int = 0
    partners: frozenset[int] = field(default_factory=frozenset)
    ended: bool = False
    void: str = ""
    waits: bool = False
    """A frozen file is missing: nothing more can be read now."""
    next: ShipmentName | None = None
    """The part that follows, planned."""

    @property
    def over(self) -> bool:
        """Nothing more is to be read of it in this run."""
        return self.ended or self.waits

    def plus(self, batch: Batch, partners: frozenset[int]) -> Shipped:
        return replace(
            self,
            counts=self.counts + RowCounts.read(batch),
            bytes=self.bytes + batch.data.size,
            partners=self.partners | partners,
        )


def unfinished(states: Iterable[ShipmentState]) -> list[ShipmentState]:
    """Shipments that ship has still to read from the source, oldest name first."""
    ours = [s for s in states if not s.unreadable and s.plan is not None and s.plan.kind in READ_FROM_SOURCES]
    return sorted((s for s in ours if s.end is None), key=lambda s: s.name)


def follow(context: Context, state: ShipmentState) -> ShipmentName | None:
    """Plan the part after an ended one; its name when that was still to do."""
    if state.unreadable or state.plan is None or state.end is None or state.end.next is None or state.given_up:
        return None
    name = next_of(state.name, state.plan)
    if state.plan.kind == "backfill" or exists(context, context.keys.plan(name)):
        return None  # the box goes on with what it copies; what is planned is planned
    announce(context, name, state.plan.model_copy(update={"cursor": state.end.next, "due": FIRST_DUE}))
    return name


class Stream:
    """One shipment read on from its last committed batch, some batches at a time, by one thread at a time.

    What is checked before and after reading is checked once, however often it is left and taken up again.
    """

    def __init__(self, context: Context, state: ShipmentState, memory: Memory) -> None:
        assert state.plan is not None
        assert context.lake is not None
        self.state = state
        self._plan = state.plan
        self._context = context
        self._lake = context.lake
        self._memory = memory
        self._number = len(state.batches)
        self._sums = _Read(state.plan.cursor)
        self._files: FrozenFiles | None = None
        self._last = 0
        """Bytes of the last batch: what the next one is expected to need."""

    def close(self) -> None:
        if self._files is not None:
            self._files.close()

    def read(self, batches: int, caps: Caps) -> Shipped:
        """The next batches, at most so many, as far as the caps allow; at its end `end` and the next part."""
        context = self._context
        if self._files is None:
            ended = self._ended_by_change()
            if ended is not None:
                return ended
            self._files = self._open()
        shipped, last = Shipped(), self._number + batches
        more = True
        while more and self._number < min(last, self._plan.batches) and not caps.reached:
            context.safe_point()
            with self._memory.hold(self._expected(self._files), context.safe_point):
                more, shipped = self._read_one(self._files, caps, shipped)
        if self._number < self._plan.batches and not self._files.ended:
            return shipped  # the next ones take their turn later
        return self._end(self._files, caps, shipped)

    def _open(self) -> FrozenFiles:
        context = self._context
        if exists(context, context.keys.gone_hint(self.state.name)):
            context.bucket.delete(context.keys.gone_hint(self.state.name))
        for number in range(self._number):
            self._sums = self._sums.plus(body_at(context, context.keys.batch(self.state.name, number), Batch))
        return FrozenFiles(self._lake, context.forms, self._plan, self._sums.place)

    def _expected(self, files: FrozenFiles) -> int:
        return self._last or min(self._plan.batch_bytes, 0 if files.ended else files.file.length)

    def _read_one(self, files: FrozenFiles, caps: Caps, shipped: Shipped) -> tuple[bool, Shipped]:
        """Whether there was a batch, and what is shipped with it."""
        taken = files.take()
        if taken is None:
            return False, shipped
        refs, rows, rejected, rejections, place = taken
        name, number, count = self.state.name, self._number, len(refs)
        law(f"{name} batch {number}", rows, refs=count, rejected=rejected)
        partners = frozenset(ref.partner_id for ref in refs)
        encoded = self._context.forms.encode(refs)
        del taken, refs  # a batch of images is not in memory twice while it travels
        read = _Read(place, RowCounts(rows, rejected, count), rejections)
        committed, ours = _commit_batch(self._context, name, number, encoded, read)
        if not ours:
            files.go_to(committed.cursor)
        self._sums = self._sums.plus(committed)
        self._number += 1
        self._last = committed.data.size
        caps.spend(refs=committed.refs, bytes=committed.data.size)
        return True, shipped.plus(committed, partners)

    def _end(self, files: FrozenFiles, caps: Caps, shipped: Shipped) -> Shipped:
        context, name = self._context, self.state.name
        ended = self._ended_by_change()
        if ended is not None:
            return ended
        end = self._sums.end(self._number, files)
        law(f"{name} end", end.rows, refs=end.refs, rejected=end.rejected)
        _, end = commit(context, context.keys.end(name), end)
        if not end.rows and end.next is None and not self._plan.cursor.file:
            context.say(f"{self._plan.snapshot.source} has no rows")
        if end.rejected:
            first = [f"{one.file} row {one.row + 1}: {one.why} {one.sample}".rstrip() for one in end.rejections]
            context.say(f"Hathi rejected {end.rejected:,} of {counted(end.rows, 'row')} of {name}; the first are:")
            for text in first:
                context.say(f"  {text}")
        read = len(self._plan.snapshot.files) if end.next is None else 0
        caps.spend(files=read)
        return replace(
            shipped,
            counts=shipped.counts + _all_rejected(end.rows - self._sums.counts.rows),
            files=read,
            ended=True,
            next=follow(context, replace(self.state, end=end)),
        )

    def _ended_by_change(self) -> Shipped | None:
        """None while each frozen file is what the plan saw."""
        why = _changed(self._lake, self._plan)
        if why == "gone":
            return _gone(self._context, self.state)
        return _void(self._context, self.state, why) if why else None


@dataclass(frozen=True)
class _Read:
    """What was read up to a place: of one batch, or of all the committed batches of a shipment."""

    place: Place
    counts: RowCounts = NO_ROWS
    rejections: tuple[Rejection, ...] = ()

    def plus(self, batch: Batch) -> _Read:
        rejections = tuple(sampled(self.rejections + batch.rejections))
        return _Read(batch.cursor, self.counts + RowCounts.read(batch), rejections)

    def end(self, batches: int, files: FrozenFiles) -> End:
        """The rows behind the last batch were all rejected: they are counted here."""
        counts = self.counts + _all_rejected(files.waiting_rows)
        return End(
            batches=batches,
            refs=counts.refs,
            rows=counts.rows,
            rejected=counts.rejected,
            rejections=tuple(sampled(self.rejections + files.waiting_rejections)),
            next=None if files.ended else files.place,
        )


def _all_rejected(rows: int) -> RowCounts:
    return RowCounts(rows=rows, rejected=rows)


def _commit_batch(context: Context, name: ShipmentName, number: int, encoded: bytes, read: _Read) -> tuple[Batch, bool]:
    """The data, then the batch that names it; the winner's batch, and whether it is ours."""
    key = context.keys.shipment_data(name, context.process.nonce(), f"{number:05d}.pb")
    data = store_data(context, key, encoded, read.counts.refs)
    body = Batch(
        data=data,
        refs=read.counts.refs,
        rows=read.counts.rows,
        rejected=read.counts.rejected,
        rejections=read.rejections,
        cursor=read.place,
    )
    won, stands = commit(context, context.keys.batch(name, number), body)
    if stands.data.key != key:
        context.bucket.delete(key)
    return stands, won


def _changed(lake: Lake, plan: Plan) -> str:
    """ "" while each frozen file is what the plan saw, "gone" when one is missing, else what changed."""
    for file in plan.snapshot.files:
        found = lake.stat(file.path)
        if found is None:
            return "gone"
        if (found.length, found.modified) != (file.length, file.modified) or (file.id and found.id != file.id):
            return f"{file.path} changed while it was read"
    return ""


def _gone(context: Context, state: ShipmentState) -> Shipped:
    """A frozen file is missing: wait for it, and after a day give up."""
    hint = context.keys.gone_hint(state.name)
    listing = context.bucket.list(hint, until=hint)
    since = next((entry.modified for entry in listing), None)
    if since is None:
        context.bucket.put(hint, b"")
        context.once(
            hint,
            f"{state.name} waits for a file that is missing: {_missing(context, state)}; "
            f"it ends without features after {length_of_time(context.settings.ship.gone_seconds)}",
        )
        return Shipped(waits=True)
    if listing.now - since < context.settings.ship.gone_seconds:
        return Shipped(waits=True)
    return _void(context, state, f"a file is missing for too long: {_missing(context, state)}")


def _missing(context: Context, state: ShipmentState) -> str:
    assert state.plan is not None
    assert context.lake is not None
    return next((f.path for f in state.plan.snapshot.files if context.lake.stat(f.path) is None), "")


def _void(context: Context, state: ShipmentState, why: str) -> Shipped:
    body = End(batches=len(state.batches), refs=0, rows=0, rejected=0, void=why)
    _, stands = commit(context, context.keys.end(state.name), body)
    if stands.void is None:
        return Shipped(ended=True)
    context.say(
        f"{state.name} ends without features (it is void): {why}; Hathi ships the present files as a new snapshot"
    )
    assert state.plan is not None
    close_if_done(context, replace(state, end=stands), state.plan.due)
    return Shipped(void=why, ended=True)
