"""An exchange over connections of its own: every process owns a part of the gradients, and sums it for all.

Each process sends everybody the part that he owns, sums its own part by the tree, and sends the sum to everybody: as
much goes over the wire as a ring would carry, and every number is summed in the order of the tree.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from pipeline.errors import PipelineError
from pipeline.training import tree
from pipeline.training.sharing.connection import (
    ARRAYS,
    FAILED,
    TOLD,
    Connection,
    Member,
    accept,
    connect,
    words,
)
from pipeline.training.sharing.exchange import Float32s

_BEAT_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""So long another process may be silent; it speaks after every pass, and each second while it waits."""


class Peers:
    """An Exchange of several processes."""

    def __init__(self, rank: int, shards: int, members: Sequence[Member]) -> None:
        """members: all of them, this one as well, by their numbers."""
        self.rank, self.workers, self._members = rank, len(members), members
        self._blocks = tree.blocks(shards, self.workers)
        self._shards = shards
        self._to: dict[int, Connection] = {}
        self._pool = ThreadPoolExecutor(max(1, 2 * (self.workers - 1)), "hathi-exchange")
        self._kept: dict[int, list[Float32s]] = {}
        self._beaten = 0.0
        self._beating = threading.Lock()

    def meet(self, listening: socket.socket, token: bytes, seconds: float = PATIENCE_SECONDS) -> None:
        """Connects with all others.  seconds: the patience with each of them.  Raises TemporaryError."""
        streams = {rank: connect(self._members[rank], self.rank, token, seconds) for rank in range(self.rank)}
        streams |= accept(listening, set(range(self.rank + 1, self.workers)), token, seconds)
        listening.close()
        for rank, stream in streams.items():
            self._to[rank] = Connection(stream, self._members[rank].name, seconds, self.alive)

    def block(self, shards: int) -> range:
        assert shards == self._shards
        return self._blocks[self.rank]

    def sum(self, gradients: Sequence[Float32s], told: bytes) -> list[bytes]:
        flat = [one.reshape(-1) for one in gradients]
        parts = [_part(flat, owner, self.workers) for owner in range(self.workers)]
        mine = parts[self.rank]
        come: dict[int, list[Float32s]] = {}
        answers = {self.rank: told}

        def send(rank: int) -> None:
            self._to[rank].send(TOLD, [memoryview(told)])
            self._to[rank].send(ARRAYS, _views(parts[rank]))

        def receive(rank: int) -> None:
            content = bytearray(self._to[rank].receive(TOLD))
            self._to[rank].read(memoryview(content))
            answers[rank] = bytes(content)
            come[rank] = self._memory(rank, mine)
            self._read(rank, come[rank])

        self._all(send, receive)
        if not flat:
            return [answers[rank] for rank in range(self.workers)]
        sums: dict[range, tree.Arrays] = {block: come.get(rank, mine) for rank, block in enumerate(self._blocks)}
        tree.join(self._shards, sums)
        for into, values in zip(mine, sums[range(self._shards)], strict=True):
            if into is not values:
                into[...] = values
        self._all(lambda rank: self._to[rank].send(ARRAYS, _views(mine)), lambda rank: self._read(rank, parts[rank]))
        return [answers[rank] for rank in range(self.workers)]

    def _memory(self, rank: int, like: Sequence[Float32s]) -> list[Float32s]:
        """What takes the part that comes from there; the same memory each time."""
        kept = self._kept.get(rank)
        if kept is None or [one.shape for one in kept] != [one.shape for one in like]:
            kept = self._kept[rank] = [np.empty_like(one) for one in like]
        return kept

    def _read(self, rank: int, into: Sequence[Float32s]) -> None:
        size, wanted = self._to[rank].receive(ARRAYS), sum(one.nbytes for one in into)
        if size != wanted:
            raise PipelineError(f"{self._members[rank].name} sends {size} bytes of gradients", f"{wanted} are expected",
                                "it trains another net: stop all of them, and begin anew")  # fmt: skip
        for view in _views(into):
            self._to[rank].read(view)

    def _all(self, send: Callable[[int], None], receive: Callable[[int], None]) -> None:
        """Both with every other process at the same time; the first error of what is received, else of what is sent."""
        if not self._to:
            return
        receives = [self._pool.submit(receive, rank) for rank in self._to]
        sends = [self._pool.submit(send, rank) for rank in self._to]
        for futures in (receives, sends):
            error = _first_error(futures)
            if error is not None:
                if isinstance(error, PipelineError):
                    self.fail(error)
                self.close()
                raise error

    def alive(self) -> None:
        with self._beating:
            now = time.monotonic()
            if now - self._beaten < _BEAT_SECONDS:
                return
            self._beaten = now
        for one in self._to.values():
            one.beat()

    def fail(self, error: PipelineError) -> None:
        content = words(error)
        for one in self._to.values():
            sender = threading.Thread(target=_tell, args=(one, content), daemon=True)
            sender.start()
            sender.join(_BEAT_SECONDS)  # one that hangs takes nothing

    def close(self) -> None:
        for one in self._to.values():
            one.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _tell(one: Connection, content: bytes) -> None:
    try:
        one.send(FAILED, [memoryview(content)])
    except PipelineError:  # it is gone: nobody is there to be told
        return


def _first_error(futures: Sequence[Future[None]]) -> BaseException | None:
    """Once one fails, or all are done: the error of the first that fails."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, return_when="FIRST_EXCEPTION")
        for one in done:
            if (error := one.exception()) is not None:
                return error
    return None


def _part(flat: Sequence[Float32s], owner: int, owners: int) -> list[Float32s]:
    """The numbers that one process owns: the same share of all of them, one after another."""
    count = sum(one.size for one in flat)
    begin, end = count * owner // owners, count * (owner + 1) // owners
    found, at = [], 0
    for one in flat:
        first, last = max(begin - at, 0), min(end - at, one.size)
        if first < last:
            found.append(one[first:last])
        at += one.size
    return found


def _views(arrays: Sequence[Float32s]) -> list[memoryview]:
    return [one.data.cast("B") for one in arrays]
