"""Open batches in queues, one queue for each host: whose ref is next, and which group may open its next batch.

A polite host yields some tens of images a second, so the fetcher's room is shared out between the queues: a host that
is slow, dead or full keeps its own batches waiting and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.codec.shards import FailureRow
from pipeline.extraction.packing import Kept, Pack
from pipeline.extraction.spill import Features, Origin
from pipeline.records import Failure, ImageRef

T = TypeVar("T")

LEAST_AHEAD = 16
"""URLs that a queue may always have in the fetcher, however many queues there are."""


@dataclass(eq=False)
class OpenBatch(Generic[T]):
    """A batch at work.  refs: the window's own list, from which images go as soon as they are computed."""

    number: int
    task: T
    refs: list[ImageRef]
    queue: HostQueue[T]
    features: Features
    began: float
    left: int
    """Refs that have not ended."""
    refs_bytes: int
    """Of its refs in memory."""
    promise: int
    """Bytes of its features, if each ref has one."""
    given: int = 0
    """Refs that were given out; the others wait."""
    deadline: float | None = None
    """Monotonic seconds; set with its first ref, since a batch that waits for its turn costs nobody anything."""
    known: dict[bytes, int | Failure] = field(default_factory=dict)
    """By SHA-256 of an image: the slot of its feature, or why it has none."""
    damaged: dict[int, str] = field(default_factory=dict)
    """By slot of a feature: what the decoder said of damage, where it did."""
    before: dict[int, Origin] = field(default_factory=dict)
    """By place of a ref whose feature was computed before: where its image came from."""
    old: set[bytes] = field(default_factory=set)
    """SHA-256 of images whose features were computed before: their slots are in `known` from the beginning."""
    failures: list[FailureRow] = field(default_factory=list)
    fetched_bytes: int = 0
    trouble: str = ""
    ended: Callable[[], None] = lambda: None
    """Told of each ref that ends."""
    kept: Kept | None = None
    """Its images that are there already."""
    pack: Pack | None = None
    """Takes each image that is fetched."""


@dataclass(eq=False)
class HostQueue(Generic[T]):
    """What the open batches of one host have to do."""

    batches: deque[OpenBatch[T]] = field(default_factory=deque)
    """Those with refs still to be given out, in order."""
    fetching: int = 0
    waiting: int = 0
    """Refs that are not given out or not fetched yet."""
    size: int = 1
    """Refs of its largest batch."""
    listed: bool = False


class HostQueues(Generic[T]):
    """groups: for each group (a shipment, which is about one host) its batches still to be opened, in order.

    ahead: URLs that all queues together may have in the fetcher.  host_of: whose limits a URL is under, "" for none.
    has_room: whether the queue of a URL's host takes it.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[T]],
        *,
        ahead: int,
        max_queues: int,
        host_of: Callable[[str], str],
        has_room: Callable[[str], bool],
    ) -> None:
        self._groups = {name: deque(tasks) for name, tasks in groups.items() if tasks}
        self._ahead = ahead
        self._max_queues = max_queues
        self._host_of = host_of
        self._has_room = has_room
        self._queues: dict[str, HostQueue[T]] = {}
        self._queue_of: dict[str, HostQueue[T]] = {}
        """By group: where its last batch went."""
        self._turn: deque[HostQueue[T]] = deque()
        self._look = True
        self._share = 0
        self.fetching = 0
        """URLs in the fetcher."""
        self.waiting = 0
        """Refs that are not given out or not fetched yet."""
        self._share_out()

    @property
    def more(self) -> bool:
        """There are batches to be opened."""
        return bool(self._groups)

    @property
    def may_open(self) -> bool:
        """Since it was last looked whether a batch is to be opened, something has changed."""
        return self._look and self.more

    def look_again(self) -> None:
        """A batch has ended: another one may be opened."""
        self._look = True

    def next_task(self) -> tuple[str, T] | None:
        """A batch to open: of the group whose queue has the least to do, and less than a batch."""
        free = [group for group in self._groups if self._todo(group) < self._size(group)]
        if not free:
            self._look = False
            return None
        group = min(free, key=self._todo)
        tasks = self._groups[group]
        task = tasks.popleft()
        if not tasks:
            del self._groups[group]
        return group, task

    def _todo(self, group: str) -> int:
        queue = self._queue_of.get(group)
        return 0 if queue is None else queue.waiting

    def _size(self, group: str) -> int:
        queue = self._queue_of.get(group)
        return 1 if queue is None else queue.size

    def queue_for(self, group: str, refs: Sequence[ImageRef]) -> HostQueue[T]:
        """The host's, where the first and the last URL agree on it; a batch of many hosts goes with its group."""
        hosts = {self._host_of(ref.url) if ref.url else "" for ref in (*refs[:1], *refs[-1:])}
        key = f"host {hosts.pop()}" if len(hosts) == 1 and "" not in hosts else f"group {group}"
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = HostQueue()
        self._queue_of[group] = queue
        return queue

    def opened(self, batch: OpenBatch[T]) -> None:
        """Queue its refs behind those of its queue's earlier batches."""
        queue, number = batch.queue, len(batch.refs)
        queue.size = max(queue.size, number)
        queue.waiting += number
        self.waiting += number
        if number:
            queue.batches.append(batch)
            self._list(queue)
        self._share_out()

    def _share_out(self) -> None:
        queues = sum(queue.waiting > 0 for queue in self._queues.values())
        queues += sum(self._todo(group) == 0 for group in self._groups)
        self._share = max(LEAST_AHEAD, self._ahead // max(1, min(queues, self._max_queues)))

    def _list(self, queue: HostQueue[T]) -> None:
        if not queue.listed:
            queue.listed = True
            self._turn.append(queue)

    def next_ref(self) -> tuple[OpenBatch[T], int] | None:
        """The batch and place of the ref whose turn it is; None while no queue may have more."""
        for _ in range(len(self._turn)):
            queue = self._turn.popleft()
            queue.listed = False
            if not queue.batches or queue.fetching >= self._share:
                continue  # listed again with a new batch, or when a URL of it ends
            self._list(queue)
            batch = queue.batches[0]
            place = batch.given
            url = batch.refs[place].url
            if url and not self._has_room(url):
                continue
            self._give_out(batch, 1)
            return batch, place
        return None

    def _give_out(self, batch: OpenBatch[T], number: int) -> None:
        batch.given += number
        if batch.given == len(batch.refs):
            batch.queue.batches.remove(batch)

    def fetch(self, batch: OpenBatch[T]) -> None:
        """A ref that was given out goes to the fetcher."""
        batch.queue.fetching += 1
        self.fetching += 1

    def fetched(self, batch: OpenBatch[T]) -> None:
        """It has ended there."""
        queue = batch.queue
        queue.fetching -= 1
        self.fetching -= 1
        self.not_fetched(batch, 1)
        if queue.batches:
            self._list(queue)

    def not_fetched(self, batch: OpenBatch[T], number: int) -> None:
        """So many refs that were given out need no fetcher."""
        queue = batch.queue
        before, queue.waiting = queue.waiting, queue.waiting - number
        self.waiting -= number
        if queue.waiting < queue.size <= before:
            self._look = True
        if not queue.waiting:
            self._share_out()

    def overdue(self, batch: OpenBatch[T], now: float) -> range:
        """Places of the refs of a batch past its deadline that were never given out; they are now."""
        places = range(batch.given, len(batch.refs))
        if batch.deadline is None or now < batch.deadline or not places:
            return range(0)
        self._give_out(batch, len(places))
        return places
