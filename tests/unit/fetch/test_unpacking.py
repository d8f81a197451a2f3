"""Whose slice it is: new bodies first, those that cost much behind them, no more inflated than there is room for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from pipeline.clock import Clock
from pipeline.fetch.buffer_budget import BufferRoom
from pipeline.fetch.encoding import Unpacking
from pipeline.fetch.job import Ended, Waiter
from pipeline.fetch.unpacking import Packed, Unpacker
from pipeline.records import Failure

MIB = 2**20


class Bench:
    """An unpacker in its thread, and what came of it."""

    def __init__(self, limit: int, cpu_seconds: float) -> None:
        self.room = BufferRoom(limit, Clock())
        self.finished: SimpleQueue[Any] = SimpleQueue()
        self.unpacker = Unpacker(Clock(), self.room, self.finished, cpu_seconds)
        self.thread = threading.Thread(target=self.unpacker.run)

    def give(self, name: str, work: Unpacking, size: int = 1) -> None:
        self.room.handed += size

        def done(content: bytes | Failure) -> list[Ended]:
            cost = len(content) if isinstance(content, bytes) else 0
            return [Ended(Waiter(name, "", "", None), content, cost, 0)]  # type: ignore[arg-type]

        self.unpacker.submit(Packed(size, work, done))

    def take(self, number: int) -> list[Ended]:
        ended: list[Ended] = []
        while len(ended) < number:
            ended += self.finished.get(timeout=60)
        return ended


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(8 * MIB, cpu_seconds=0.2)
    yield bench
    bench.unpacker.close()
    bench.thread.join(60)
    assert not bench.thread.is_alive()


def endless() -> Unpacking:
    while True:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        yield 0


def makes(size: int, steps: int) -> Unpacking:
    for _ in range(steps):
        yield size // steps
    return bytes(size)


def test_a_body_that_costs_much_is_passed_by_those_that_do_not(bench: Bench) -> None:
    for number in range(5):
        bench.give(f"bomb {number}", endless())
    for number in range(20):
        bench.give(f"good {number}", makes(100, 3))
    bench.thread.start()
    ended = bench.take(25)
    assert {one.waiter.item for one in ended[:20]} == {f"good {number}" for number in range(20)}
    assert {one.outcome for one in ended[20:]} == {Failure.of("too_large", "too much work to decompress")}  # type: ignore[comparison-overlap]
    assert bench.room.waiting() == 20 * 100


def test_small_bombs_do_not_lie_about_inflated(bench: Bench) -> None:
    for number in range(50):
        bench.give(str(number), makes(3 * MIB, 30))
    bench.thread.start()
    most, taken = 0, 0
    while taken < 50:
        time.sleep(0.01)
        most = max(most, bench.room.waiting())
        for one in bench.take(1):
            bench.room.taken += one.cost
            taken += 1
    assert most <= (8 + 2 * 3) * MIB
    assert bench.room.waiting() == 0
