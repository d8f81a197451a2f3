"""The serving processes as the API server has them: begun when something is asked, asked in batches, ended by size.

A request waits behind what is asked of its process before, and is refused at once where too much waits.  A process that
dies takes the batch with it that it was computing; the next batch finds a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PermanentError, TemporaryError
from pipeline.process.channel import Gone
from pipeline.process.child import Child, python_of
from pipeline.records import Failure
from pipeline.service.neutral import neutral, within
from pipeline.service.serving.batching import Asked, Full, Limits, Waiting
from pipeline.service.serving.placing import WEIGHTS, Model, Places
from pipeline.service.work.preparing import SERVING
from pipeline.settings import Service
from pipeline.stores.store import Store

BATCH = 32
WAIT_SECONDS = 0.004
"""So long a batch that is not full waits for others, where somebody was just before it."""
RUN_SECONDS = 120.0
"""A process that has not answered by then is killed."""
_KEPT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OMP_WAIT_POLICY")
Row = NDArray[np.float32]
Answer = list[Row | Failure]


@dataclass(frozen=True)
class Sizes:
    """processes: that hold nets.  nets: that one holds at most; bytes: of memory after which it is ended."""

    processes: int = 1
    nets: int = 4
    bytes: int = 2 * 2**30
    threads: int = 0


class Busy(Exception):
    """Too much waits already."""

    def __init__(self, full: Full) -> None:
        super().__init__(full.limit)
        self.full = full


class Lost(TemporaryError):
    """The process that computed an answer is gone."""


class CannotServe(PermanentError):
    """The net cannot serve."""


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a request waits for."""

    folder: Path
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Serving:
    """All processes of one API server, or of one worker.  root: a local folder of its own.

    say: told of each process that died.  Everything is for one event loop.
    """

    def __init__(
        self, store: Store, root: Path, say: Callable[[str], None], sizes: Sizes | None = None,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.sizes = sizes or Sizes()
        self._root = root
        self._places = Places(store, root, 2 * self.sizes.nets * self.sizes.processes, 4 * self.sizes.bytes)
        many = range(self.sizes.processes)
        self._lanes = [_Lane(limits or Limits(), self.sizes, say) for _ in many]

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [lane.child.pid for lane in self._lanes if lane.child is not None]

    async def answer(self, model: Model, items: Sequence[bytes], *, numbers: bool = False) -> Answer:
        """The values of each item, or why there are none.  items: pictures; numbers: rows of float32.

        Raises Busy at once where too much waits; Lost where the process died; CannotServe where the net cannot serve.
        """
        lane = self._lanes[zlib.crc32(model.id.encode()) % len(self._lanes)]
        async with self._places.placed(model) as folder:
            found: Answer = []
            for first in range(0, len(items), BATCH):
                found += await lane.answer(model, folder, items[first : first + BATCH], numbers)
            return found

    async def close(self) -> None:
        """Ends the processes, and deletes their files."""
        for lane in self._lanes:
            await lane.close()
        await asyncio.to_thread(shutil.rmtree, self._root, True)


class _Lane:
    """One process and what waits for it."""

    def __init__(self, limits: Limits, sizes: Sizes, say: Callable[[str], None]) -> None:
        self._sizes, self._say = sizes, say
        self._waiting: Waiting[_Wanted] = Waiting(limits)
        self._task: asyncio.Task[None] | None = None
        self.child: Child | None = None

    async def answer(self, model: Model, folder: Path, items: Sequence[bytes], numbers: bool) -> Answer:
        wanted = _Wanted(folder)
        asked = Asked(model.id, numbers, model.tenant, items, wanted)
        full = self._waiting.add(asked)
        if full is not None:
            raise Busy(full)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            return await wanted.answer
        finally:
            self._waiting.done(asked)

    async def _work(self) -> None:
        """Batch after batch, until nothing waits."""
        alone = True
        while self._waiting.queue:
            if not alone and sum(len(one.items) for one in self._waiting.queue) < BATCH:
                await asyncio.sleep(WAIT_SECONDS)
            batch = self._waiting.batch(BATCH)
            alone = len(batch) < 2 and not self._waiting.queue
            try:
                rows = await asyncio.to_thread(self._asked, batch)
            except (Lost, CannotServe, OSError) as error:
                for one in batch:
                    if not one.of.answer.done():
                        one.of.answer.set_exception(error)
                continue
            for one in batch:
                mine, rows = rows[: len(one.items)], rows[len(one.items) :]
                if not one.of.answer.done():
                    one.of.answer.set_result(mine)

    def _asked(self, batch: Sequence[Asked[_Wanted]]) -> Answer:
        """In a thread: what the process answers.  Raises Lost, CannotServe."""
        items = [item for one in batch for item in one.items]
        if self.child is not None and not self.child.runs:
            self._say(f"a serving process {self.child.wait().how}, while nobody asked it")
            self._end()
        if self.child is None:
            self.child = _begun(self._sizes)
        child, first = self.child, batch[0]
        killer = threading.Timer(RUN_SECONDS, os.kill, (child.pid, signal.SIGKILL))
        killer.name, killer.daemon = f"patience with {child.pid}", True
        killer.start()
        try:
            child.channel.send(
                b"".join(items), net=first.net, folder=str(first.of.folder), numbers=first.numbers,
                sizes=[len(item) for item in items],
            )  # fmt: skip
            told, content = child.channel.receive()
            if "failed" in told:
                raise Gone
        except Gone:
            killer.cancel()
            raise self._lost() from None
        killer.cancel()
        if told["bytes_held"] > self._sizes.bytes:
            self._say(f"a serving process has {told['bytes_held'] >> 20} MiB, and another one begins")
            self._end()
        if "refused" in told:
            here = within(told["refused"], str(first.of.folder))
            if neutral(here) != here:
                self._say(f"{first.net}: {here}")
            raise CannotServe(
                "this classifier's net cannot serve", neutral(here), "make a classifier of another snapshot"
            )
        failures = told["failures"]
        rows = iter(np.frombuffer(content, "<f4").reshape(max(1, len(items) - len(failures)), -1))
        return [Failure(*failures[str(at)]) if str(at) in failures else next(rows) for at in range(len(items))]

    def _lost(self) -> Lost:
        assert self.child is not None
        story = self.child.wait().how
        self._end()
        self._say(f"a serving process {story}")
        return Lost("the process that computed this answer died", story, "ask again", delay=1.0)

    def _end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None

    async def close(self) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child.pid, signal.SIGKILL)
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._end)


def _begun(sizes: Sizes) -> Child:
    words = [str(sizes.nets), str(sizes.bytes // 2), str(sizes.threads)]
    environ: dict[str, Any] = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return Child(python_of("pipeline.service.serving.process", *words), environ)


def files_of(snapshot: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What of a snapshot's files serves, by the name on the disk; {} where something is missing."""
    by_name = {one["name"]: one for one in snapshot}
    wanted = (SERVING, WEIGHTS)
    return {name: by_name[name] for name in wanted} if all(name in by_name for name in wanted) else {}


def sizes_of(settings: Service) -> Sizes:
    """As the configuration says."""
    return Sizes(
        settings.serving_processes, settings.serving_nets, settings.serving_bytes, settings.serving_threads
    )  # fmt: skip
