"""The window of open batches: fetching runs over all of them, the net takes images from any (docs/protocol.md 5).

One thread pulls: it opens batches, hands URLs to the fetcher, fetched bytes to the decoders and full stacks of
prepared images to the net, and gives back batches as they end.  Everything that waits is bounded; what batches have
finished while they wait for their slowest URL goes to the local disk where it is too much for memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec.reuse_pages import Remembered
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix
from pipeline.extraction.host_queues import HostQueues, OpenBatch
from pipeline.extraction.memory_budget import Bounds, Load
from pipeline.extraction.net_batches import FeatureNet, Marked, Outcome, Prepare, Stacks, Trouble
from pipeline.extraction.packing import Kept, Pack
from pipeline.extraction.spill import ROW_BYTES, Features, Origin, promise_of
from pipeline.records import Condition, Failure, ImageRef, NotModified

T = TypeVar("T")

REF_BYTES = 700
"""What a ref takes in memory beside its texts and bytes, with its failure or with its place among the features."""
LATE_SECONDS = 1.0
"""How often deadlines of batches are looked at."""


class Body(Protocol):
    """What a fetch brought (pipeline.fetch.Fetched)."""

    @property
    def content(self) -> bytes: ...
    @property
    def final_url(self) -> str: ...
    @property
    def sha256(self) -> bytes: ...
    @property
    def fetched_at(self) -> datetime: ...
    @property
    def etag(self) -> str | None: ...
    @property
    def last_modified(self) -> str | None: ...


Tag = tuple[int, int]
"""A batch's number in the window, and a ref's place in the batch."""


@dataclass(frozen=True)
class Wanted:
    """A URL to fetch.  deadline: monotonic seconds.  condition: what is known of its image."""

    tag: Tag
    url: str
    deadline: float
    condition: Condition | None = None


Fetch = Callable[[Iterator[Wanted | None]], Iterator[tuple[Tag, Body | NotModified | Failure] | None]]
"""A stream of wanted URLs (None: nothing more just now) -> outcomes in the order of their ending (None: a tick)."""


@dataclass(frozen=True)
class Opened(Generic[T]):
    """A batch that was claimed, and its refs.  ended: told of each ref that ends, by the thread that pulls.

    before: by place of a ref, what was computed of its URL before.  kept: the images of it that are there already.
    pack: takes each image that is fetched.
    """

    task: T
    refs: Sequence[ImageRef]
    ended: Callable[[], None] = lambda: None
    before: Mapping[int, Remembered] = field(default_factory=dict)
    kept: Kept | None = None
    pack: Pack | None = None


@dataclass(frozen=True)
class Computed(Generic[T]):
    """A batch whose every ref ended, in any order; or its trouble."""

    task: T
    rows: Sequence[FeatureRow]
    matrix: Matrix
    failures: Sequence[FailureRow]
    fetched_bytes: int
    seconds: float
    trouble: str = ""
    """What the net raised while it held images of this batch: no rows."""


class Window(Generic[T]):
    """Batches in, computed batches out.

    groups: for each group (a shipment, which is about one host) its batches still to be opened, in order.
    `open_batch` claims one and reads its refs, or says None when somebody else has it.  host_of: whose limits a URL is
    under.  has_room: whether the queue of a URL's host takes it.  Raises TemporaryError when the disk is full.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[T]],
        open_batch: Callable[[T], Opened[T] | None],
        *,
        fetch: Fetch,
        prepare: Prepare,
        net: FeatureNet,
        decoders: Executor,
        runner: Executor,
        clock: Clock,
        bounds: Bounds,
        wanted: Callable[[], bool] = lambda: True,
        host_of: Callable[[str], str] = lambda url: "",
        has_room: Callable[[str], bool] = lambda url: True,
    ) -> None:
        self._open_batch = open_batch
        self._fetch = fetch
        self._dim = net.dim
        self._clock = clock
        self._bounds = bounds
        self._wanted = wanted
        self._queues: HostQueues[T] = HostQueues(
            groups, ahead=bounds.ahead, max_queues=bounds.batches, host_of=host_of, has_room=has_room
        )
        self._stacks: Stacks[bytes] = Stacks(prepare, net, decoders, runner, clock, bounds.decoding, self._made)
        self._under_way: dict[bytes, list[tuple[OpenBatch[T], int, Origin]]] = {}
        """By SHA-256 of an image: the refs that wait for its feature."""
        self._batches: dict[int, OpenBatch[T]] = {}
        self._next = 0
        self._finished: deque[OpenBatch[T]] = deque()
        self._load = Load(bounds)
        self._look_at = clock.monotonic()

    def run(self) -> Iterator[Computed[T] | None]:
        """Computed batches as they end; None now and then, so that the caller can look around."""
        try:
            for item in self._fetch(self._urls()):
                if item is not None:
                    self._ended_fetch(*item)
                self._look_at_deadlines()
                self._stacks.turn(waiting=item is None, owed=self._owed)
                if item is None:
                    yield None
                yield from self._give_back()
            while not self._stacks.empty:
                self._stacks.drain_one()
                yield from self._give_back()
                yield None
            assert not self._batches
        finally:
            for batch in (*self._batches.values(), *self._finished):
                batch.features.drop()

    @property
    def held(self) -> int:
        """Bytes of refs and features of open batches in memory."""
        return self._load.refs + self._load.features

    def _owed(self) -> bool:
        """Whether a batch waits for nothing but images that are on their way to a feature."""
        computing = Counter(batch.number for waiting in self._under_way.values() for batch, _, _ in waiting)
        return any(self._batches[number].left == left for number, left in computing.items())

    # --- refs come in ---

    def _urls(self) -> Iterator[Wanted | None]:
        """URLs of all open batches, in turn; where none may go out just now the next batch is opened."""
        while True:
            given = self._queues.next_ref()
            if given is not None:
                wanted = self._begin(*given)
                if wanted is not None:
                    yield wanted
            elif not self._open_next():
                if not self._queues.waiting and not (self._queues.more and self._wanted()):
                    return
                yield None
            if self._finished:
                yield None  # whoever takes them comes before the next batch: inline images ask for no fetch

    def _begin(self, batch: OpenBatch[T], place: int) -> Wanted | None:
        """A ref that was given out: what is to be fetched for it."""
        if batch.deadline is None:
            batch.deadline = self._clock.monotonic() + self._bounds.batch_seconds
        ref = batch.refs[place]
        if self._take_kept(batch, place):
            return None
        if ref.url and not ref.content:
            self._queues.fetch(batch)
            before = batch.before.get(place) if batch.pack is None else None  # who keeps images needs its bytes
            return Wanted((batch.number, place), ref.url, batch.deadline, _condition(before))
        self._queues.not_fetched(batch, 1)
        if ref.content:
            origin = Origin(
                hashlib.sha256(ref.content).digest(), datetime.fromtimestamp(self._clock.now(), UTC), None, None
            )
            self._image(batch, place, ref.content, origin)
        else:
            self._failed(batch, place, Failure.of("bad_ref", "neither a URL nor bytes"))
        return None

    def _take_kept(self, batch: OpenBatch[T], place: int) -> bool:
        """Whether the image of a ref that was given out is there already, so that no host is asked for it."""
        found = batch.kept.take(place) if batch.kept is not None else None
        if found is None:
            return False
        self._queues.not_fetched(batch, 1)
        content, origin = found
        self._image(batch, place, content, _equal(batch, origin))
        return True

    def _open_next(self) -> bool:
        """Open a batch, if one may be; False: none was."""
        while self._queues.may_open and self._wanted() and self._load.takes_another(len(self._batches)):
            found = self._queues.next_task()
            if found is None:
                return False
            opened = self._open_batch(found[1])
            if opened is not None:
                self._opened(found[0], opened)
                return True
        return False

    def _opened(self, group: str, opened: Opened[T]) -> None:
        number, self._next = self._next, self._next + 1
        refs = list(opened.refs)
        folder = self._bounds.spill
        batch = OpenBatch(
            number,
            opened.task,
            refs,
            self._queues.queue_for(group, refs),
            Features(self._dim, folder / f"batch-{number}" if folder else None),
            self._clock.monotonic(),
            left=len(refs),
            refs_bytes=sum(len(ref.url) + len(ref.external_id) + len(ref.content) + REF_BYTES for ref in refs),
            promise=promise_of(self._dim) * len(refs),
            ended=opened.ended,
            kept=opened.kept,
            pack=opened.pack,
        )
        self._batches[number] = batch
        self._take_up(batch, opened.before)
        self._load.opened(batch)
        self._queues.opened(batch)
        self._finish(batch)

    def _take_up(self, batch: OpenBatch[T], before: Mapping[int, Remembered]) -> None:
        """What was computed before lies among the features of the batch, named by nobody yet."""
        for place, one in before.items():
            is_image = isinstance(one.values, bytes)
            if is_image != (not self._dim) or not (is_image or len(one.values) == self._dim):
                continue  # of another width: no feature of this net
            if one.sha256 not in batch.old:
                batch.old.add(one.sha256)
                self._keep(batch, one.sha256, one.values, one.damage or "")
                batch.promise += len(one.values) if is_image else 4 * self._dim
            batch.before[place] = Origin(one.sha256, one.fetched_at, one.etag, one.last_modified, resource=one.resource)

    def _keep(self, batch: OpenBatch[T], sha256: bytes, values: Matrix | bytes, damage: str) -> int:
        """The slot of a feature, among those of its batch."""
        slot = batch.known[sha256] = batch.features.add(values)
        self._load.features += len(values) if isinstance(values, bytes) else 4 * self._dim
        if damage:
            batch.damaged[slot] = damage
        return slot

    def _ended_fetch(self, tag: Tag, outcome: Body | NotModified | Failure) -> None:
        batch, place = self._batches[tag[0]], tag[1]
        self._queues.fetched(batch)
        if isinstance(outcome, Failure):
            self._failed(batch, place, outcome)
        elif isinstance(outcome, NotModified):
            origin = batch.before[place]
            slot = batch.known[origin.sha256]
            assert isinstance(slot, int)
            self._name(batch, place, slot, origin._replace(reused="not_modified"))
        else:
            batch.fetched_bytes += len(outcome.content)
            etag, last_modified = outcome.etag or None, outcome.last_modified or None
            resource = hashlib.sha256(outcome.final_url.encode("utf-8", "surrogatepass")).digest()
            origin = Origin(outcome.sha256, outcome.fetched_at, etag, last_modified, resource=resource)
            if batch.pack is not None:
                batch.pack.add(batch.refs[place], outcome.content, origin)
            self._image(batch, place, outcome.content, _equal(batch, origin))

    def _look_at_deadlines(self) -> None:
        """A batch ends at its deadline, whatever keeps its refs from being asked for."""
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LATE_SECONDS
        for batch in list(self._batches.values()):
            for place in self._queues.overdue(batch, now):
                if self._take_kept(batch, place):
                    continue
                if batch.refs[place].url and not batch.refs[place].content:
                    self._queues.not_fetched(batch, 1)
                    self._failed(batch, place, Failure.of("host_busy", "batch deadline"))
                else:
                    self._begin(batch, place)

    # --- images become features ---

    def _image(self, batch: OpenBatch[T], place: int, content: bytes, origin: Origin) -> None:
        """Equal bytes pass the net once: what is known of them serves, or what is under way will."""
        known = batch.known.get(origin.sha256)
        if isinstance(known, int):
            self._name(batch, place, known, origin)
        elif known is not None:
            self._no_feature(batch, place, known)
        elif origin.sha256 in self._under_way:
            self._under_way[origin.sha256].append((batch, place, origin))
        else:
            self._under_way[origin.sha256] = [(batch, place, origin)]
            self._stacks.add(origin.sha256, content)

    def _made(self, sha256: bytes, outcome: Outcome) -> None:
        for batch, place, origin in self._under_way.pop(sha256):
            if isinstance(outcome, Trouble):
                batch.trouble = outcome.cause
                self._count(batch)
            elif isinstance(outcome, Failure):
                batch.known[sha256] = outcome
                self._no_feature(batch, place, outcome)
            else:
                vector, damage = (outcome.values, outcome.damage) if isinstance(outcome, Marked) else (outcome, "")
                slot = batch.known.get(sha256)
                if not isinstance(slot, int):
                    slot = self._keep(batch, sha256, vector, damage)
                self._name(batch, place, slot, origin)

    def _name(self, batch: OpenBatch[T], place: int, slot: int, origin: Origin) -> None:
        damage = batch.damaged.get(slot)
        batch.features.name(place, slot, origin._replace(damage=damage) if damage else origin)
        self._load.features += ROW_BYTES
        ref = batch.refs[place]
        if ref.content:
            batch.refs[place] = ref._replace(content=b"")
            self._load.less_refs(batch, len(ref.content))
        self._count(batch)
        self._load.spill(self._batches.values())

    def _no_feature(self, batch: OpenBatch[T], place: int, failure: Failure) -> None:
        """A torn image is not kept: each retry would read it from the archive, and none would ask the host."""
        if failure.retriable and batch.pack is not None:
            batch.pack.leave_out(batch.refs[place])
        self._failed(batch, place, failure)

    def _failed(self, batch: OpenBatch[T], place: int, failure: Failure) -> None:
        batch.failures.append(failure_row(batch.refs[place], failure))
        self._count(batch)

    # --- batches end ---

    def _count(self, batch: OpenBatch[T]) -> None:
        batch.left -= 1
        batch.ended()
        self._finish(batch)

    def _finish(self, batch: OpenBatch[T]) -> None:
        if not batch.left:
            del self._batches[batch.number]
            self._finished.append(batch)

    def _give_back(self) -> Iterator[Computed[T]]:
        """What has ended, one batch after the other: only one is whole in memory."""
        while self._finished:
            batch = self._finished.popleft()
            self._load.closed(batch)
            self._queues.look_again()
            yield self._computed(batch)

    def _computed(self, batch: OpenBatch[T]) -> Computed[T]:
        seconds = self._clock.monotonic() - batch.began
        if batch.trouble:
            batch.features.drop()
            none = np.empty((0, self._dim), np.float32)
            return Computed(batch.task, (), none, (), batch.fetched_bytes, seconds, batch.trouble)
        rows, matrix = batch.features.take(batch.refs)
        return Computed(batch.task, rows, matrix, batch.failures, batch.fetched_bytes, seconds)


def _equal(batch: OpenBatch[T], origin: Origin) -> Origin:
    """Says so of bytes whose feature was computed before."""
    return origin._replace(reused="equal_bytes") if origin.sha256 in batch.old else origin


def _condition(before: Origin | None) -> Condition | None:
    if before is None:
        return None
    return Condition(before.resource, before.etag or "", before.last_modified or "", before.fetched_at)


def failure_row(ref: ImageRef, failure: Failure) -> FailureRow:
    """The failure of one ref; a ref that travelled inline keeps its bytes where it will be tried again."""
    return FailureRow(
        partner_id=ref.partner_id,
        item_id=ref.item_id,
        ordinal=ref.ordinal,
        external_id=ref.external_id,
        url=ref.url,
        reason=failure.reason,
        retriable=failure.retriable,
        detail=failure.detail,
        content=ref.content if failure.retriable and ref.content else None,
    )
