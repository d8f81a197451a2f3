"""The window of open batches: fetching runs over all of them, the net takes images from any (PROTOCOL 5).

One thread pulls: it opens batches, hands URLs to the fetcher, fetched bytes to the decoders and full stacks of
prepared images to the net, and gives back batches as they end.  Everything that waits is bounded.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import Clock
from pipeline.codec.shards import FailureRow, FeatureRow
from pipeline.records import Failure, ImageRef

T = TypeVar("T")
Matrix = NDArray[np.float32]

STACKS_AHEAD = 4
"""Stacks that wait for the net or are in it, at the most: the net goes on while the caller puts a batch away."""
PARTIAL_SECONDS = 1.0
"""A stack that is not full goes to the net when its oldest image has waited so long and the net is idle."""


class FeatureNet(Protocol):
    """A net as the window needs it."""

    @property
    def dim(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def forward(self, batch: Matrix) -> Matrix:
        """(n, 3, h, w) prepared images, n <= batch_size -> (n, dim) features."""


class Body(Protocol):
    """What a fetch brought (pipeline.fetch.Fetched)."""

    @property
    def content(self) -> bytes: ...
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
    """A URL to fetch.  deadline: monotonic seconds."""

    tag: Tag
    url: str
    deadline: float


Fetch = Callable[[Iterator[Wanted | None]], Iterator[tuple[Tag, Body | Failure] | None]]
"""A stream of wanted URLs (None: nothing more just now) -> outcomes in the order of their ending (None: a tick)."""

Prepare = Callable[[bytes], Matrix | Failure]
"""Image bytes -> (3, h, w) for the net."""


@dataclass(frozen=True)
class Opened(Generic[T]):
    """A batch that was claimed, and its refs."""

    task: T
    refs: Sequence[ImageRef]


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
    """What raised while it held images of this batch (the net, or what prepares for it): no rows."""


@dataclass
class _Batch(Generic[T]):
    opened: Opened[T]
    group: str
    began: float
    left: int
    rows: list[tuple[FeatureRow, Matrix]] = field(default_factory=list)
    failures: list[FailureRow] = field(default_factory=list)
    fetched_bytes: int = 0
    fetching: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class _Ready:
    """A prepared image and what its feature row will say."""

    tag: Tag
    row: FeatureRow
    image: Matrix


class Window(Generic[T]):
    """Batches in, computed batches out.

    groups: for each group (a shipment, which is about one host) its batches still to be opened, in order.
    `open_batch` claims one and reads its refs, or says None when somebody else has it.
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
        max_batches: int,
        max_bytes: int,
        batch_seconds: float,
        decoding: int,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._groups = {name: deque(tasks) for name, tasks in groups.items()}
        self._open_batch = open_batch
        self._fetch = fetch
        self._prepare = prepare
        self._net = net
        self._decoders = decoders
        self._runner = runner
        self._clock = clock
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self._batch_seconds = batch_seconds
        self._decoding_limit = decoding
        self._wanted = wanted
        self._batches: dict[int, _Batch[T]] = {}
        self._next = 0
        self._bytes = 0
        self._decoding: deque[tuple[Tag, FeatureRow, Future[Matrix | Failure]]] = deque()
        self._stack: list[_Ready] = []
        self._stack_since = 0.0
        self._running: deque[tuple[list[_Ready], Future[Matrix]]] = deque()
        self._finished: deque[Computed[T]] = deque()

    def run(self) -> Iterator[Computed[T] | None]:
        """Computed batches as they end; None now and then, so that the caller can look around."""
        stream = self._fetch(self._urls())
        for item in stream:
            if item is None:
                self._turn(waiting=True)
                yield None
            else:
                self._ended_fetch(*item)
                self._turn(waiting=False)
            while self._finished:
                yield self._finished.popleft()
        while self._decoding or self._stack or self._running:
            self._drain_one()
            while self._finished:
                yield self._finished.popleft()
            yield None
        assert not self._batches

    @property
    def open(self) -> Iterator[T]:
        """The tasks of batches that are open: what a stop gives up."""
        return iter([batch.opened.task for batch in self._batches.values()])

    def _urls(self) -> Iterator[Wanted | None]:
        """URLs of all open batches; opens the next batch of a group when its last has less than a batch waiting."""
        while True:
            opened = self._open_next()
            if opened is None:
                more = self._wanted() and any(self._groups.values())
                if not more and not self._fetching:
                    return
                yield None
                continue
            number, batch = opened
            for index, ref in enumerate(batch.opened.refs):
                if ref.content:
                    self._decode((number, index), ref, ref.content, None)
                elif ref.url:
                    batch.fetching += 1
                    yield Wanted((number, index), ref.url, batch.began + self._batch_seconds)
                else:
                    self._failed((number, index), Failure.of("bad_ref", "neither a URL nor bytes"))
            self._finish(number)
            if self._finished:
                yield None  # whoever takes them comes before the next batch: inline images ask for no fetch

    @property
    def _fetching(self) -> bool:
        return any(batch.fetching for batch in self._batches.values())

    def _open_next(self) -> tuple[int, _Batch[T]] | None:
        if not self._wanted() or len(self._batches) >= self._max_batches or self._bytes >= self._max_bytes:
            return None
        waiting: dict[str, int] = {}
        for batch in self._batches.values():
            waiting[batch.group] = waiting.get(batch.group, 0) + batch.fetching
        largest = max((len(batch.opened.refs) for batch in self._batches.values()), default=1)
        for group, tasks in self._groups.items():
            while tasks and waiting.get(group, 0) < largest:
                opened = self._open_batch(tasks.popleft())
                if opened is None:
                    continue
                number, self._next = self._next, self._next + 1
                batch = _Batch(opened, group, self._clock.monotonic(), len(opened.refs))
                self._batches[number] = batch
                self._bytes += self._size(opened)
                return number, batch
        return None

    def _size(self, opened: Opened[T]) -> int:
        refs = sum(len(ref.url) + len(ref.external_id) + len(ref.content) + 100 for ref in opened.refs)
        return refs + 4 * self._net.dim * len(opened.refs)

    def _ended_fetch(self, tag: Tag, outcome: Body | Failure) -> None:
        batch = self._batches[tag[0]]
        batch.fetching -= 1
        if isinstance(outcome, Failure):
            self._failed(tag, outcome)
        else:
            batch.fetched_bytes += len(outcome.content)
            self._decode(tag, batch.opened.refs[tag[1]], outcome.content, outcome)

    def _decode(self, tag: Tag, ref: ImageRef, content: bytes, body: Body | None) -> None:
        row = FeatureRow(
            partner_id=ref.partner_id,
            item_id=ref.item_id,
            ordinal=ref.ordinal,
            external_id=ref.external_id,
            url=ref.url,
            content_sha256=body.sha256 if body else hashlib.sha256(content).digest(),
            fetched_at=body.fetched_at if body else datetime.fromtimestamp(self._clock.now(), UTC),
            etag=body.etag if body else None,
            last_modified=body.last_modified if body else None,
        )
        while len(self._decoding) >= self._decoding_limit:
            self._take_decoded(block=True)
        self._decoding.append((tag, row, self._decoders.submit(self._prepare, content)))

    def _turn(self, *, waiting: bool) -> None:
        """Move on what is ready; block only where a bound is reached."""
        while self._decoding and self._decoding[0][2].done():
            self._take_decoded(block=False)
        while self._running and self._running[0][1].done():
            self._take_features()
        idle = not self._running and not self._decoding
        if waiting and self._stack and idle and self._clock.monotonic() - self._stack_since >= PARTIAL_SECONDS:
            self._forward()

    def _drain_one(self) -> None:
        if self._decoding:
            self._take_decoded(block=True)
        elif self._stack:
            self._forward()
        elif self._running:
            self._take_features()

    def _take_decoded(self, *, block: bool) -> None:
        tag, row, future = self._decoding.popleft()
        if block:
            wait([future])
        error = future.exception()
        if error is not None:
            self._batches[tag[0]].trouble = f"preparing an image raised {type(error).__name__}"
            self._count(tag)
            return
        prepared = future.result()
        if isinstance(prepared, Failure):
            self._failed(tag, prepared)
            return
        if not self._stack:
            self._stack_since = self._clock.monotonic()
        self._stack.append(_Ready(tag, row, prepared))
        if len(self._stack) >= self._net.batch_size:
            self._forward()

    def _forward(self) -> None:
        stack, self._stack = self._stack, []
        while len(self._running) >= STACKS_AHEAD:
            self._take_features()
        images = np.stack([ready.image for ready in stack])
        self._running.append((stack, self._runner.submit(self._net.forward, images)))

    def _take_features(self) -> None:
        stack, future = self._running.popleft()
        error = future.exception()
        if error is not None:
            for ready in stack:
                self._batches[ready.tag[0]].trouble = f"the net raised {type(error).__name__}"
                self._count(ready.tag)
            return
        features = future.result()
        finite = [bool(np.isfinite(vector).all()) for vector in features]
        for ready, vector, good in zip(stack, features, finite, strict=True):
            if good:
                self._batches[ready.tag[0]].rows.append((ready.row, vector))
                self._count(ready.tag)
            else:
                self._failed(ready.tag, Failure.of("not_finite", "the feature holds NaN or infinity"))

    def _failed(self, tag: Tag, failure: Failure) -> None:
        batch = self._batches[tag[0]]
        ref = batch.opened.refs[tag[1]]
        batch.failures.append(failure_row(ref, failure))
        self._count(tag)

    def _count(self, tag: Tag) -> None:
        batch = self._batches[tag[0]]
        batch.left -= 1
        self._finish(tag[0])

    def _finish(self, number: int) -> None:
        batch = self._batches.get(number)
        if batch is None or batch.left:
            return
        del self._batches[number]
        self._bytes -= self._size(batch.opened)
        seconds = self._clock.monotonic() - batch.began
        self._finished.append(self._computed(batch, seconds))

    def _computed(self, batch: _Batch[T], seconds: float) -> Computed[T]:
        task = batch.opened.task
        if batch.trouble:
            return Computed(task, (), self._matrix([]), (), batch.fetched_bytes, seconds, batch.trouble)
        matrix = self._matrix([vector for _, vector in batch.rows])
        rows = [row for row, _ in batch.rows]
        return Computed(task, rows, matrix, batch.failures, batch.fetched_bytes, seconds)

    def _matrix(self, vectors: list[Matrix]) -> Matrix:
        return np.stack(vectors) if vectors else np.empty((0, self._net.dim), np.float32)


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
