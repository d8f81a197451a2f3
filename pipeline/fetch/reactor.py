"""The event loop of the fetcher: sockets, timers and messages from other threads, in one thread.

asyncio is left out on purpose: curl's multi interface brings its own state machine for each transfer, and a loop
that only passes events on costs a fraction of a task for each URL.
"""

from __future__ import annotations

import heapq
import os
import select
from collections import deque
from collections.abc import Callable
from itertools import count

from pipeline.clock import Clock

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Reactor:
    """Calls back on sockets and at times; `post` is the only method for other threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int, int], None]] = {}
        self._known: set[int] = set()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._posted: deque[Callable[[], None]] = deque()
        self._asleep = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._epoll.register(self._wake_read, READ)

    def watch(self, fd: int, events: int, callback: Callable[[int, int], None]) -> None:
        """Call `callback(fd, events)` whenever one of `events` holds; replaces an earlier watch of fd."""
        self._callbacks[fd] = callback
        if fd in self._known:
            try:
                self._epoll.modify(fd, events)
                return
            except FileNotFoundError:
                pass  # it was closed meanwhile, and this is another socket under its number
        self._known.add(fd)
        self._epoll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Call back no more.  The kernel is told later: a connection is mostly watched again at once."""
        self._callbacks.pop(fd, None)

    def _forget(self, fd: int) -> None:
        self._known.discard(fd)
        try:
            self._epoll.unregister(fd)
        except FileNotFoundError:
            return  # closed by its owner: the kernel has forgotten it already

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Once, at `when` (the clock's monotonic seconds) or soon after."""
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def post(self, callback: Callable[[], None]) -> None:
        """From any thread: call it soon in the reactor's."""
        self._posted.append(callback)
        self.wake()

    def wake(self) -> None:
        """From any thread: end the wait."""
        if self._asleep:
            self._asleep = False
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                return  # the pipe is full of wakes already

    def turn(self, longest: float) -> None:
        """One round: wait for something, at most `longest` seconds, then do all that is due.

        `longest` is short while anything is open: an injected clock may move without any socket's help.
        """
        self._asleep = True
        timeout = 0.0 if self._posted else self._wait(longest)
        events = self._epoll.poll(timeout)
        self._asleep = False
        for fd, event in events:
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(fd, event)
            elif fd == self._wake_read:
                os.read(fd, 4096)
            else:
                self._forget(fd)
        while self._posted:
            self._posted.popleft()()
        now = self._clock.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _wait(self, longest: float) -> float:
        if not self._timers:
            return longest
        return min(longest, max(0.0, self._timers[0][0] - self._clock.monotonic()))

    def close(self) -> None:
        self._timers.clear()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
