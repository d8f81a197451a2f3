"""The thread that decompresses: bodies in turn, a slice each, so that none waits for one that costs much."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.clock import Clock
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.encoding import Unpacking
from pipeline.fetch.job import Ended
from pipeline.records import Failure

SLICE_SECONDS = 0.01
CPU_SECONDS = 10.0
"""Of processor time; what needs more is a failure.  The slowest good image needs a twentieth of it."""
_BEGUN_TURN = 4
"""Each so many slices go to a body that had one already, however many new ones come."""
_PAUSE = 0.02


class Packed:
    """A body and its decompression.  size: bytes that it has packed.  made: bytes that its work holds now."""

    __slots__ = ("done", "made", "size", "spent", "work")

    def __init__(self, size: int, work: Unpacking, done: Callable[[bytes | Failure], list[Ended]]) -> None:
        """done(content): the results, made in the thread that decompresses."""
        self.size = size
        self.work = work
        self.done = done
        self.made = 0
        self.spent = 0.0


class Unpacker:
    """`run` is the thread, until it is given None; `submit` is for the one that finishes bodies.

    What waits packed costs the room what it weighs.  A body is begun only while all that came out and was not taken
    leaves room, so that very many small bombs do not lie about inflated.
    """

    def __init__(
        self, clock: Clock, room: BufferRoom, finished: SimpleQueue[Any], cpu_seconds: float = CPU_SECONDS
    ) -> None:
        self._clock = clock
        self._room = room
        self._finished = finished
        self._cpu_seconds = cpu_seconds
        self._given: SimpleQueue[Packed | None] = SimpleQueue()
        self._new: deque[Packed] = deque()
        self._begun: deque[Packed] = deque()
        self._turn = 0
        self._waiting = 0  # bytes, packed, that are not begun
        self._partial = 0  # bytes that came out of what is begun
        self._closed = False

    def submit(self, packed: Packed) -> None:
        self._given.put(packed)

    def close(self) -> None:
        """From any thread: end `run` soon; what is open then is dropped."""
        self._closed = True
        self._given.put(None)

    def run(self) -> None:
        while not self._closed:
            self._take_in()
            packed = self._next()
            if packed is not None:
                self._slice(packed)
            elif self._new or self._begun:
                self._clock.sleep(_PAUSE)  # the room is full of what others are to take

    def _take_in(self) -> None:
        """What was given meanwhile; waits for it where there is nothing else to do."""
        wait = not (self._new or self._begun)
        while True:
            try:
                packed = self._given.get(block=wait)
            except Empty:
                return
            if packed is None:
                return
            wait = False
            self._waiting += packed.size
            self._new.append(packed)

    def _next(self) -> Packed | None:
        """Whose slice it is; None while nothing may go on."""
        lying = self._room.waiting() - self._waiting  # the whole ones, and parts of those that are begun
        may_begin = bool(self._new) and lying < self._room.limit
        may_go_on = bool(self._begun) and lying - self._partial < self._room.limit
        self._turn += 1
        if may_begin and not (may_go_on and self._turn % _BEGUN_TURN == 0):
            packed = self._new.popleft()
            self._waiting -= packed.size
            return packed
        return self._begun.popleft() if may_go_on else None

    def _slice(self, packed: Packed) -> None:
        began = now = time.thread_time()
        content: bytes | Failure | None = None
        while content is None and now - began < SLICE_SECONDS:
            try:
                made = next(packed.work)
            except StopIteration as end:
                content = end.value
            else:
                packed.made += made
                self._partial += made
                self._room.unpacked += made
            now = time.thread_time()
        packed.spent += now - began
        if content is None and packed.spent < self._cpu_seconds:
            self._begun.append(packed)
            return
        if content is None:
            packed.work.close()
            content = Failure.of("too_large", "too much work to decompress")
        ended = packed.done(content)
        self._partial -= packed.made
        self._room.unpacked += sum(one.cost for one in ended) - packed.made - packed.size
        self._finished.put(ended)
