"""Which job is looked at next: each key at most once at a time, at the earliest time that anybody asked for."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

Key = tuple[str, str, str]
"""Kind, namespace, name."""


class Due:
    """Keys with the time at which they are due, by a monotonic clock.  Threads share it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._heap: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, float] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, key: Key, wait: float = 0.0) -> None:
        """The key is due after `wait` seconds, or earlier where it was so already."""
        self._add(key, self._monotonic() + wait)

    def _add(self, key: Key, at: float) -> None:
        with self._changed:
            if key in self._busy:
                self._again[key] = min(at, self._again.get(key, at))
            elif key not in self._due or at < self._due[key]:
                self._due[key] = at
                heapq.heappush(self._heap, (at, key))
                self._changed.notify()

    def take(self) -> Key | None:
        """The next key that is due, once it is; nobody else gets it until it is `done`.  None: the queue is closed."""
        with self._changed:
            while not self._closed:
                while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
                    heapq.heappop(self._heap)
                now = self._monotonic()
                if self._heap and self._heap[0][0] <= now:
                    _, key = heapq.heappop(self._heap)
                    del self._due[key]
                    self._busy.add(key)
                    return key
                self._changed.wait(min(1.0, self._heap[0][0] - now) if self._heap else 1.0)
            return None

    def done(self, key: Key, again: float | None = None) -> None:
        """The look at a key is over.  again: seconds until the next one; what came meanwhile counts as well."""
        with self._changed:
            self._busy.discard(key)
            asked = self._again.pop(key, None)
        times = [] if asked is None else [asked]
        if again is not None:
            times.append(self._monotonic() + again)
        if times:
            self._add(key, min(times))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return len(self._due) + len(self._busy)
