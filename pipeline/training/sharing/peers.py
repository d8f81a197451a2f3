"""An exchange of several processes: every one owns a part of the gradients, and sums it for all.

Of a process on another host, each gets the part that he owns, and sends the sum to it: as much goes over the wire as a
ring would carry.  Processes of one host see each other's gradients in memory: who owns a part adds there, piece by
piece, and leaves the sum with each of them; only words go over their connection.  Either way every number is summed in
the order of the tree.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from pipeline.errors import PipelineError, TemporaryError
from pipeline.process import memory
from pipeline.training import tree
from pipeline.training.sharing import room
from pipeline.training.sharing.connection import ARRAYS, FAILED, HINT, SHARED, TOLD, Connection, PeerLost, words
from pipeline.training.sharing.exchange import Float32s
from pipeline.training.sharing.meeting import Listening, Member, accept, connect, give
from pipeline.training.sharing.room import Room

_BEAT_SECONDS = 1.0
_NUMBERS = struct.Struct("<Q")
_CHUNK = 1 << 15
"""Numbers that are summed at once, so that all their terms stay in a core's cache until the sum is written."""
PATIENCE_SECONDS = 120.0
"""So long another process may be silent; it speaks after every pass, and each second while it waits."""


class Peers:
    """An Exchange of several processes.  It belongs to one thread; any may call `alive`."""

    def __init__(self, rank: int, shards: int, members: Sequence[Member]) -> None:
        """members: all of them, this one as well, by their numbers."""
        self.rank, self.workers, self._members = rank, len(members), members
        self._blocks = tree.blocks(shards, self.workers)
        self._joins = tree.joins(shards, self.workers)
        self._shards, self._seconds = shards, PATIENCE_SECONDS
        self._to: dict[int, Connection] = {}
        self._room: Room | None = None
        self._handle: int | None = None
        self._handles: dict[int, int] = {}
        self._rows: dict[int, Float32s] = {}
        """Of each process, where its part of the gradients stands that this one sums: whole rows of those near."""
        self._beaten = 0.0
        self._beating = threading.Lock()

    def meet(self, listening: Listening, token: bytes, seconds: float = PATIENCE_SECONDS) -> None:
        """Connects with all others.  seconds: the patience with each of them.  Raises TemporaryError."""
        self._seconds, mine = seconds, self._members[self.rank]
        with listening.far:
            streams = {rank: connect(self._members[rank], mine, self.rank, token, seconds) for rank in range(self.rank)}
            streams |= accept(listening, range(self.rank + 1, self.workers), token, seconds)
        listening.close()
        near = {rank: stream for rank, stream in streams.items() if stream.family == socket.AF_UNIX}
        if near:
            try:
                self._handle = memory.unnamed(room.NAME)
                self._handles = dict(zip(near, give(list(near.values()), self._handle), strict=True))
            except OSError as error:
                raise TemporaryError("the processes of this host cannot share memory", str(error), HINT) from error
        self._to = {rank: Connection(streams[rank], self._members[rank].name) for rank in sorted(streams)}

    def block(self, shards: int) -> range:
        assert shards == self._shards
        return self._blocks[self.rank]

    def room(self, shapes: Sequence[tuple[int, ...]]) -> list[Float32s]:
        if self._room is None:
            self._room = Room(shapes, self._handle)
        assert self._room.shapes == tuple(shapes), "a training sums the same arrays each time"
        return self._room.arrays

    def sum(self, gradients: Sequence[Float32s], told: bytes) -> list[bytes]:
        try:
            return self._sum(gradients, told)
        except PipelineError as error:
            self.fail(error)
            self.close()
            raise

    def _sum(self, gradients: Sequence[Float32s], told: bytes) -> list[bytes]:
        if not gradients:
            answers = self._tell(0, told)
            self._talk()
            return self._told(answers, 0)
        there = self.room([one.shape for one in gradients])
        apart = [(one, place) for one, place in zip(gradients, there, strict=True) if one is not place]
        for one, place in apart:
            place[...] = one
        assert self._room is not None
        row, mine = self._room.flat, self._room.part(self.rank, self.workers)
        parts = {rank: row[self._room.part(rank, self.workers)] for rank in self._to}
        self._rows[self.rank] = row[mine]
        answers = self._tell(self._room.numbers, told)
        for rank, to in self._to.items():
            if not to.near and rank not in self._rows:
                self._rows[rank] = np.empty_like(row[mine])
            _pass(to, parts[rank], self._rows.get(rank))
        self._talk()
        found = self._told(answers, self._room.numbers)
        for rank in list(self._handles):
            self._rows[rank] = self._room.of(self._handles.pop(rank), self._members[rank].name)[mine]
        self._add()
        for rank, to in self._to.items():
            _pass(to, row[mine], parts[rank])
        self._talk()
        for one, place in apart:
            one[...] = place
        return found

    def _tell(self, numbers: int, told: bytes) -> list[bytearray]:
        """Puts words on their way to all others; what takes those of all, by their numbers."""
        said = _NUMBERS.pack(numbers) + told
        answers = [bytearray(said if rank == self.rank else b"") for rank in range(self.workers)]
        for rank, to in self._to.items():
            to.put(TOLD, said)
            to.want(TOLD, partial(_grown, answers[rank]))
        return answers

    def _told(self, answers: Sequence[bytearray], numbers: int) -> list[bytes]:
        """What all told.  Raises PipelineError where one of them has another number of gradients."""
        for rank, answer in enumerate(answers):
            (has,) = _NUMBERS.unpack_from(answer)
            if has != numbers:
                raise _another(self._members[rank].name, 4 * has, 4 * numbers)
        return [bytes(answer[_NUMBERS.size :]) for answer in answers]

    def _add(self) -> None:
        """Sums this process's part, and leaves the sum with all that see it."""
        owned = self._rows[self.rank]
        keep = [rank for rank in range(1, self.workers) if rank == self.rank or self._to[rank].near]
        for at in range(0, owned.size, _CHUNK):
            terms = [self._rows[rank][at : at + _CHUNK] for rank in range(self.workers)]
            for left, right in self._joins:
                np.add(terms[left], terms[right], out=terms[left])
            for rank in keep:
                np.copyto(terms[rank], terms[0])

    def _talk(self) -> None:
        """Until all that is on its way has gone, and all that is wanted has come."""
        now = time.monotonic()
        for one in self._to.values():
            one.heard = now
            one.push()
        while waiting := {one.fileno(): one for one in self._to.values() if one.events}:
            poll = select.poll()
            for number, one in waiting.items():
                poll.register(number, one.events)
            ready = poll.poll(_BEAT_SECONDS * 1000)
            now = time.monotonic()
            for number, event in ready:
                one = waiting[number]
                went = bool(event & select.POLLOUT) and one.push()
                if (bool(event & ~select.POLLOUT) and one.pull()) or went:
                    one.heard = now
            for one in waiting.values():
                if now - one.heard >= self._seconds:
                    raise PeerLost(f"{one.name} is silent for {self._seconds:.0f} s: it hangs",
                                   "it sent no word and no sign of life", HINT)  # fmt: skip
            self.alive()

    def alive(self) -> None:
        with self._beating:
            now = time.monotonic()
            if now - self._beaten < _BEAT_SECONDS:
                return
            self._beaten = now
            for one in self._to.values():
                one.beat()

    def fail(self, error: PipelineError) -> None:
        content, ends = words(error), time.monotonic() + _BEAT_SECONDS
        for one in self._to.values():
            one.put(FAILED, content)
        while left := [one for one in self._to.values() if one.push() or one.events & select.POLLOUT]:
            if time.monotonic() >= ends:  # one that hangs takes nothing
                return
            select.select([], left, [], 0.1)

    def close(self) -> None:
        for one in self._to.values():
            one.close()
        self._to = {}
        for handle in self._handles.values():
            os.close(handle)
        if self._handle is not None:
            os.close(self._handle)
        self._handles, self._handle = {}, None
        self._rows = {}


def _pass(to: Connection, mine: Float32s, theirs: Float32s | None) -> None:
    """A part goes to another process, and one comes; to one that sees it, only that it is ready."""
    if to.near or theirs is None:
        to.put(SHARED)
        to.want(SHARED, lambda size: memoryview(b""))
        return

    def take(size: int) -> memoryview:
        if size != theirs.nbytes:
            raise _another(to.name, size, theirs.nbytes)
        return theirs.view(np.uint8).data

    to.put(ARRAYS, mine.view(np.uint8).data)
    to.want(ARRAYS, take)


def _grown(content: bytearray, size: int) -> memoryview:
    content.extend(bytes(size))
    return memoryview(content)


def _another(name: str, size: int, wanted: int) -> PipelineError:
    return PipelineError(f"{name} sends {size} bytes of gradients", f"{wanted} are expected",
                         "it trains another net: stop all of them, and begin anew")  # fmt: skip
