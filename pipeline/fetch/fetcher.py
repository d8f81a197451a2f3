"""The fetcher as its callers see it: items in, results out, in the order in which they end."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.fetch.address import Address, blocked_range
from pipeline.fetch.bodies import Finisher, Inline
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.counts import Counts
from pipeline.fetch.dns import CaresResolver, Directory, Resolver
from pipeline.fetch.engine import Engine
from pipeline.fetch.held_back import Held
from pipeline.fetch.inline import is_data, is_file
from pipeline.fetch.job import Body, Ended, Fetched, Trace, Waiter
from pipeline.fetch.objects import ObjectReaders, Read, ReadObject, is_object
from pipeline.fetch.reactor import Reactor
from pipeline.fetch.redirect import port_allowed
from pipeline.fetch.sink import Sink, Stored
from pipeline.fetch.sniff import image_format
from pipeline.fetch.target import Target, parse
from pipeline.fetch.transfer import Transfer
from pipeline.fetch.trust import trusted
from pipeline.fetch.unpacking import Unpacker
from pipeline.records import Condition, Failure, NotModified
from pipeline.settings import Fetch

T = TypeVar("T")
Asked = tuple[T, str] | tuple[T, str, float | None]
Conditional = tuple[T, str, float | None, Condition | None]
_TICK = 0.1
"""Seconds after which a stream says None when nothing has ended."""
_PULL = 64
"""Items taken in one go, so that results that are there are not kept waiting."""


class Fetcher:
    """Fetches in threads of its own; everything here is for one thread, the caller's.

    One fetcher serves one stream.  accept(first bytes of a body): the image's format, or None for no image.
    trace(url, step, text) is told of each step, from the fetcher's threads.  read_object: for s3:// URLs into the
    buckets that the settings allow; without it none is read.  seed, resolver(reactor) and refuse(address) -> the range
    that forbids it: for tests.
    """

    def __init__(
        self,
        limits: Fetch,
        *,
        accept: Callable[[bytes], str | None] = image_format,
        clock: Clock | None = None,
        seed: int | None = None,
        resolver: Callable[[Reactor], Resolver] | None = None,
        refuse: Callable[[Address], str | None] = blocked_range,
        trace: Trace | None = None,
        read_object: ReadObject | None = None,
    ) -> None:
        self._limits = limits
        self._accept = accept
        self._clock = clock or Clock()
        self._trace = trace
        self._ca = trusted(os.environ)
        self._finished: SimpleQueue[list[Ended] | BaseException] = SimpleQueue()
        self._bodies: SimpleQueue[Body | Inline | Read | None] = SimpleQueue()
        self._room = BufferRoom(limits.buffer_bytes, self._clock)
        self._reactor = Reactor(self._clock)
        names = (
            resolver(self._reactor)
            if resolver
            else CaresResolver(self._reactor, self._clock, limits.dns_servers, limits.dns_seconds)
        )
        directory = Directory(
            names, self._clock, _refuse_none if limits.allow_private else refuse, limits.dns_negative_seconds
        )
        self._engine = Engine(
            limits,
            self._clock,
            random.Random(seed),
            self._reactor,
            directory,
            self._room,
            self._new_transfer,
            self._finished,
            self._bodies,
            trace,
        )
        self._unpacker = Unpacker(self._clock, self._room, self._finished)
        self._finisher = Finisher(limits, self._clock, accept, self._room, self._bodies, self._finished, self._unpacker)
        self._objects = (
            ObjectReaders(limits, read_object, self._clock, self._room, self._bodies, self._guarded)
            if read_object is not None and limits.allow_buckets
            else None
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (
                ("fetch", self._engine.run),
                ("fetch-hash", self._finisher.run),
                ("fetch-unpack", self._unpacker.run),
            )
        ]
        self._started = self._closed = False
        self._pending = 0
        self._pending_by_host: Counter[str] = Counter()
        self._here: list[Ended] = []
        self._last: tuple[str, Target | Failure] | None = None
        self.counts = Counts()

    def stream(self, items: Iterable[Asked[T] | None]) -> Generator[tuple[T, Fetched | Failure] | None, None, None]:
        """Fetch `items` (anything, URL[, deadline in monotonic seconds]) and give each back with its result.

        `items` is asked only within next(), and only while there is room.  A None in it: nothing more just now.
        A None from here: nothing has ended for 0.1 s.  Ends when `items` has ended and all results are given;
        closing it cancels what is open.
        """
        yield from self._run(items)

    def changed(
        self, items: Iterable[Conditional[T] | None]
    ) -> Generator[tuple[T, Fetched | NotModified | Failure] | None, None, None]:
        """As `stream`, of items (anything, URL, deadline, what is known of its image): NotModified where the host says
        that the image is what it was."""
        yield from self._run(items)

    def store(self, url: str, sink: Sink, told: Callable[[int], None] = lambda size: None) -> Stored | Failure:
        """Fetch one URL of a web host into a file; it goes on where it broke.  told: bytes there, now and then."""
        if is_data(url):
            return Failure.of("blocked", "scheme data", url=url)
        for result in self._run([(None, url, None, None, sink)]):
            told(sink.size)
            if result is not None:
                outcome: Stored | Failure = result[1]
                return outcome
        return Failure.of("timeout", "body", url=url)

    def _run(self, items: Iterable[Any]) -> Generator[Any, None, None]:
        self._start()
        try:
            yield from self._pump(iter(items))
        finally:
            self.close()

    def pending_of(self, host: str) -> int:
        """Items of this host (see host_of) that are taken in and not given back."""
        return self._pending_by_host.get(host, 0)

    @property
    def pending(self) -> int:
        """Items that are taken in and not given back."""
        return self._pending

    @property
    def active(self) -> int:
        """Requests that are under way."""
        return self._engine.active

    def held_back(self) -> dict[str, Held]:
        """By host: how long a limit of ours alone has held requests back."""
        return self._engine.held.by_host()

    def has_room(self, url: str) -> bool:
        """The queue of this URL's host is shorter than its bound: the caller's to ask before it gives more."""
        return self.pending_of(self.host_of(url)) < self._limits.pending_per_host

    def host_of(self, url: str) -> str:
        """Whose limits the URL is under: its host, with a port that is not the web's own; "" for none."""
        target = self._parsed(url)
        return target.key if isinstance(target, Target) else ""

    def _parsed(self, url: str) -> Target | Failure:
        """The last one is remembered: whoever asks about a URL's host gives it next."""
        if self._last is None or self._last[0] is not url:
            self._last = (url, parse(url, self._limits.max_url_length))
        return self._last[1]

    def close(self) -> None:
        """Cancel everything in flight; no thread, socket or task stays."""
        if self._closed:
            return
        self._closed = True
        if self._started:
            self._engine.stop()
            if self._objects is not None:
                self._objects.close()
            self._bodies.put(None)
            self._unpacker.close()
            for thread in self._threads:
                thread.join()
        self._reactor.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the caller's side of the two threads ---

    def _start(self) -> None:
        if self._started or self._closed:
            raise PipelineError("a fetcher can be used once", "this one was used before", "make a new Fetcher")
        self._started = True
        for thread in self._threads:
            thread.start()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._finished.put(error)  # raised again in the caller's thread

    def _new_transfer(self) -> Transfer:
        agent = self._limits.user_agent.replace("{contact}", self._limits.contact)
        return Transfer(self._limits, self._room, self._accept, agent, self._ca)

    def _pump(self, items: Iterator[Any]) -> Iterator[Any]:
        more = True
        while not self._closed:
            hungry = False
            if more:
                more, hungry = self._pull(items)
            if not more and not self._pending:
                return
            ended = self._receive(0.0 if hungry else _TICK if self._pending else _TICK / 5)
            for one in ended:
                yield self._give(one)
            if not ended and not hungry:
                yield None

    def _pull(self, items: Iterator[Any]) -> tuple[bool, bool]:
        """Take some items in: (there may be more, there is more and room for it now)."""
        batch: list[tuple[Waiter, Target]] = []
        for _ in range(_PULL):
            if self._pending >= self._limits.pending_urls or self._room.full():
                self._submit(batch)
                return True, False
            try:
                item = next(items)
            except StopIteration:
                self._submit(batch)
                return False, False
            if item is None:
                self._submit(batch)
                return True, False
            self._take(batch, *item)
        self._submit(batch)
        return True, True

    def _take(
        self,
        batch: list[tuple[Waiter, Target]],
        item: Any,
        url: str,
        deadline: float | None = None,
        condition: Condition | None = None,
        sink: Sink | None = None,
    ) -> None:
        waiter = Waiter(item, url, "", deadline, condition, sink)
        self._pending += 1
        if is_data(url) or (self._limits.allow_folders and is_file(url)):
            self._bodies.put(Inline(waiter))
            return
        if self._objects is not None and is_object(url):
            self._objects.submit(waiter)
            return
        target = self._parsed(url)
        if isinstance(target, Target) and not port_allowed(target, self._limits):
            target = Failure.of("blocked", f"port {target.port}")
        if isinstance(target, Failure):
            if self._trace is not None:
                self._trace(url, "read", "not a URL that may be fetched")
            self._here.append(Ended(waiter, Failure(target.reason, target.detail, target.retriable, url), 0, 0))
            return
        waiter.key = target.key
        self._pending_by_host[target.key] += 1
        batch.append((waiter, target))

    def _submit(self, batch: list[tuple[Waiter, Target]]) -> None:
        if batch:
            self._engine.submit(batch)

    def _receive(self, seconds: float) -> list[Ended]:
        here, self._here = self._here, []
        try:
            ended = self._finished.get(timeout=seconds) if seconds and not here else self._finished.get_nowait()
        except Empty:
            return here
        if isinstance(ended, BaseException):
            raise PipelineError(
                "the fetcher ended unexpectedly",
                repr(ended),
                "this is a bug in Hathi: please report it with the output of --debug",
            ) from ended
        return here + ended  # URLs that end here, however many, must not keep waiting what others have ended

    def _give(self, ended: Ended) -> Any:
        waiter = ended.waiter
        self._pending -= 1
        if waiter.key:
            left = self._pending_by_host[waiter.key] - 1
            if left:
                self._pending_by_host[waiter.key] = left
            else:
                del self._pending_by_host[waiter.key]
        if ended.cost:
            short = self._room.full()
            self._room.taken += ended.cost
            if short:
                self._engine.wake()
        self.counts.note(waiter.key, ended.outcome, ended.requests)
        return waiter.item, ended.outcome


def _refuse_none(_address: Address) -> str | None:
    return None


def fetch_all(urls: Iterable[str], settings: Fetch) -> Iterator[Fetched | Failure]:
    """Fetch `urls`, each result as soon as its URL has ended; both kinds of result have `.url`, as given."""
    for result in Fetcher(settings).stream((None, url) for url in urls):
        if result is not None:
            yield result[1]
