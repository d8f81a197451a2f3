"""A window with a stub web, a net of arithmetic and a clock that stands still; a ref's URL says what comes of it."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.codec.shards import Matrix
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.net_batches import Prepare
from pipeline.extraction.window import Computed, Opened, Tag, Wanted, Window
from pipeline.records import Failure, ImageRef
from tests.simulation.world import AtOnce, Fetched, HandClock, StubNet, answer, prepare

SAME = b"the same picture"


def refs_of(batch: str, kinds: Sequence[str]) -> list[ImageRef]:
    """Refs whose URL says what comes of them; `inline` has its bytes with it, `neither` nothing."""
    made = []
    for place, kind in enumerate(kinds):
        url = f"http://shop.example/{batch}/{kind}-{place}" if kind not in ("inline", "neither") else ""
        content = f"{batch}/inline-{place}".encode() if kind == "inline" else b""
        made.append(ImageRef(7, place, f"{batch}-{place}", url, content, place))
    return made


class Web:
    """Takes what the window has for it, then ends one URL; `pick` says which of those that wait."""

    def __init__(self, clock: HandClock, pick: random.Random | None = None, tick: float = 0.1) -> None:
        self.waiting: list[Wanted] = []
        self.seen: list[str] = []
        self.closed = False
        self.hangs: Callable[[str], bool] = lambda url: False
        """URLs that never come: they end at their deadline."""
        self.answers: float = math.inf
        """How many it gives; from then on only time goes by."""
        self._clock = clock
        self._pick = pick
        self._tick = tick

    def fetch(self, wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Fetched | Failure] | None]:
        try:
            more = True
            while more or self.waiting:
                more = more and self._take(wanted)
                late = [one for one in self.waiting if one.deadline <= self._clock.at]
                able = [one for one in self.waiting if not self.hangs(one.url)]
                if late:
                    self.waiting.remove(late[0])
                    yield late[0].tag, Failure.of("timeout", "a stub's deadline")
                elif able and self.answers > 0:
                    self.answers -= 1
                    one = able[self._pick.randrange(len(able)) if self._pick else 0]
                    self.waiting.remove(one)
                    yield self._end(one)
                elif more or self.waiting:
                    self._clock.sleep(self._tick)
                    yield None
        finally:
            self.closed = True

    def _take(self, wanted: Iterator[Wanted | None]) -> bool:
        """False once there is no more."""
        for one in wanted:
            if one is None:
                return True
            self.waiting.append(one)
            self.seen.append(one.url)
        return False

    def _end(self, one: Wanted) -> tuple[Tag, Fetched | Failure]:
        got = SAME if "/same-" in one.url else answer(one.url, {})
        if isinstance(got, Failure):
            return one.tag, got
        return one.tag, Fetched(got, hashlib.sha256(got).digest(), datetime.fromtimestamp(self._clock.at, UTC))


class CountingNet(StubNet):
    """Remembers how many images came in each pass, and when."""

    def __init__(self, clock: HandClock) -> None:
        self.passes: list[tuple[int, float]] = []
        self._clock = clock

    def forward(self, batch: Matrix) -> Matrix:
        self.passes.append((len(batch), self._clock.at))
        return super().forward(batch)


@dataclass
class Stand:
    """A window and everything around it; batches are named by their group and a number."""

    kinds: dict[str, list[list[str]]]
    """For each group the kinds of the refs of its batches."""
    max_batches: int = 8
    max_bytes: int = 1 << 30
    spill: Path | None = None
    disk: int = 1 << 30
    ahead: int = 20_000
    host_of: Callable[[str], str] = lambda url: ""
    has_room: Callable[[str], bool] = lambda url: True
    pick: random.Random | None = None
    threads: Executor = field(default_factory=AtOnce)
    prepare: Prepare = prepare
    taken_by_others: frozenset[str] = frozenset()
    opened: list[str] = field(default_factory=list)
    waiting_at_opening: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    most_open: int = 0

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.web = Web(self.hand, self.pick)
        self.net = CountingNet(self.hand)
        self.refs = {
            f"{group}{number}": refs_of(f"{group}{number}", kinds)
            for group, batches in self.kinds.items()
            for number, kinds in enumerate(batches)
        }

    def window(self) -> Window[str]:
        return Window(
            {group: [f"{group}{number}" for number in range(len(batches))] for group, batches in self.kinds.items()},
            self.open_batch,
            fetch=self.web.fetch,
            prepare=self.prepare,
            net=self.net,
            decoders=self.threads,
            runner=self.threads,
            clock=self.hand.clock(),
            bounds=Bounds(
                batches=self.max_batches,
                memory=self.max_bytes,
                batch_seconds=60.0,
                decoding=8,
                ahead=self.ahead,
                spill=self.spill,
                disk=self.disk,
            ),
            host_of=self.host_of,
            has_room=self.has_room,
        )

    def open_batch(self, task: str) -> Opened[str] | None:
        if task in self.taken_by_others:
            return None
        self.opened.append(task)
        self.waiting_at_opening.append(len(self.web.waiting))
        self.most_open = max(self.most_open, len(self.opened) - len(self.ended))
        return Opened(task, self.refs[task])

    def run(self) -> dict[str, Computed[str]]:
        done: dict[str, Computed[str]] = {}
        for computed in self.window().run():
            if computed is not None:
                assert computed.task not in done
                done[computed.task] = computed
                self.ended.append(computed.task)
        return done
