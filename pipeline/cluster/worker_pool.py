"""Processes that compute side by side in one run, one for each GPU or group of cores (docs/protocol.md 5, 13).

The run's own process is the parent: it alone holds lock and `_PIPE_RUNNING`, starts the workers, hears what they tell,
passes a stop on, and sees how each one ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.ledger.manifest import AttemptEnd
from pipeline.ledger.protocol import Context, give_up, poll
from pipeline.process.channel import Message
from pipeline.process.child import Child, Ended, asked
from pipeline.settings import Settings

DRIVER_SECONDS = 5.0
"""A driver in trouble does not answer at all."""
LOOK_SECONDS = 0.2
RESTARTS = 3
"""So often a slot gets a new worker within one run."""


@dataclass(frozen=True)
class Slot:
    """Where a worker computes: its cores, and its GPU."""

    number: int
    cores: tuple[int, ...]
    device: str = ""
    """What CUDA_VISIBLE_DEVICES says to it; "" where there is no GPU for it."""


class WorkerFailed(PipelineError):
    """What ended a worker in good order, in its own words; it would end each of them."""

    def __init__(self, message: str, detail: str, hint: str, exit_code: int) -> None:
        super().__init__(message, detail, hint)
        self.exit_code = exit_code


def devices(environ: Mapping[str, str], seconds: float = DRIVER_SECONDS) -> tuple[str, ...]:
    """The GPUs that this process may use: those that the environment names, else those that the driver shows.

    None when there is no driver, or when it does not answer within so many seconds.
    """
    if (named := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return tuple(name for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles"))
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    code, shown = asked([program, "-L"], seconds)
    if code != 0:
        return ()
    return tuple(str(index) for index, line in enumerate(shown.splitlines()) if line.startswith("GPU "))


def slots(wanted: int, gpus: Sequence[str], cores: Sequence[int]) -> list[Slot]:
    """One for each worker.  wanted: 0 for one a GPU, or one where there is none.  Cores go in groups of neighbours."""
    number = wanted or max(1, len(gpus))
    groups = [tuple(cores[len(cores) * n // number : len(cores) * (n + 1) // number]) for n in range(number)]
    return [
        Slot(n, group or (cores[n % len(cores)],), gpus[n % len(gpus)] if gpus else "")
        for n, group in enumerate(groups)
    ]


def portion(settings: Settings, workers: int, seconds: float) -> Settings:
    """The settings of one worker of so many: its part of what the box may take.  seconds: what is left of the run."""
    fetch, compute = settings.fetch, settings.compute

    def part(whole: int, least: int = 1) -> int:
        return max(least, whole // workers)

    return settings.model_copy(
        update={
            "fetch": fetch.model_copy(
                update={
                    "share": fetch.share / workers,
                    "connections": part(fetch.connections),
                    "buffer_bytes": part(fetch.buffer_bytes, 2**20),
                    "pending_urls": part(fetch.pending_urls),
                }
            ),
            "compute": compute.model_copy(
                update={
                    "workers": 1,
                    "threads": part(compute.threads) if compute.threads else 0,
                    "open_batches": part(compute.open_batches),
                    "open_bytes": part(compute.open_bytes, 2**20),
                    "spill_bytes": part(compute.spill_bytes, 2**20),
                    "max_run_seconds": max(1.0, seconds),
                }
            ),
        }
    )


def strike(context: Context, process: str, cause: str) -> int:
    """A strike against each batch that a dead worker held; how many.  Its last sign of life is taken back."""
    struck, after = 0, ""
    seen = poll(context)
    for _ in range(-(-len(seen.due) // max(1, len(seen.states)))):
        for state in seen.states:
            held = [(task, one) for task, tries in state.tries.items() for one in tries if one.process == process]
            for task, one in held:
                if one.end is None and not task.path.startswith("t/"):  # out is no batch's doing
                    give_up(context, state.name, task, one.number, AttemptEnd(kind="strike", cause=cause))
                    struck += 1
        after = str(seen.states[-1].name)
        seen = poll(context, after=after)
    context.bucket.delete(context.keys.alive_hint(process))
    return struck


class Worker:
    """A child in a slot."""

    def __init__(self, slot: Slot, command: Sequence[str], instructions: Message, heard: Heard) -> None:
        """command: of `python_of`.  instructions: the first message to it.  heard: gets what it tells, and its end."""
        self.slot = slot
        self.name = ""
        """As its attempts name it; told by itself before it claims anything."""
        self.failed: WorkerFailed | None = None
        """Why it could not work, told by itself."""
        self.child = Child(command, {**os.environ, "CUDA_VISIBLE_DEVICES": slot.device} if slot.device else None)
        self.child.hear(instructions, lambda one: heard.put((self, one)))

    @property
    def pid(self) -> int:
        return self.child.pid

    def end(self) -> None:
        """Ask it to stop at its next safe point."""
        self.child.end()


Heard = queue.SimpleQueue[tuple[Worker, Message | Ended]]
"""What workers tell, and how they end."""


@dataclass(frozen=True)
class Pool:
    """The workers of a run, one in each slot, and what is done about each that dies."""

    slots: Sequence[Slot]
    begin: Callable[[Slot, Heard], Worker]
    hear: Callable[[Worker, Message], None]
    """Called with each message of a worker that is about its work."""
    lost: Callable[[Worker, Ended], None]
    """Called with each worker that was killed, or ended itself without a word."""
    say: Callable[[str], None]

    def work(self, stopping: Callable[[], bool], noted: Callable[[], None]) -> None:
        """Start all, and stay until the last one has ended; noted: told now and then that they are watched.

        Raises WorkerFailed: one could not work, for a reason that is no batch's; the others were heard to their end.
        """
        heard: Heard = queue.SimpleQueue()
        failed: list[WorkerFailed] = []
        restarts: Counter[int] = Counter()
        with _ended_at_last() as at_work:
            at_work.update(self.begin(slot, heard) for slot in self.slots)
            stopped = False
            while at_work:
                if stopping() and not stopped:
                    stopped = True
                    for worker in at_work:
                        worker.end()
                noted()
                try:
                    worker, one = heard.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                if not isinstance(one, Ended):
                    self._hear(worker, one)
                    continue
                at_work.remove(worker)
                worker.child.kill()  # it has ended: its sockets are given back
                if self._ended(worker, one, stopped, restarts):
                    at_work.add(self.begin(worker.slot, heard))
                if worker.failed:
                    failed.append(worker.failed)
        if failed:
            raise failed[0]

    def _hear(self, worker: Worker, tells: Message) -> None:
        if "name" in tells:
            worker.name = tells["name"]
        elif "failed" in tells:
            worker.failed = WorkerFailed(**tells["failed"])
        else:
            self.hear(worker, tells)

    def _ended(self, worker: Worker, end: Ended, stopped: bool, restarts: Counter[int]) -> bool:
        """Whether its slot gets a new worker."""
        if worker.failed or end.code == 0 or end.told_to_end:
            return False
        # An exit code without a word is the interpreter's own watchdog: the worker hung where nothing could be said.
        self.lost(worker, end)
        if stopped:
            return False
        restarts[worker.slot.number] += 1
        if restarts[worker.slot.number] <= RESTARTS:
            return True
        self.say(
            f"worker {worker.slot.number} died {RESTARTS + 1} times in this run, the last time it {end.how}: it is not "
            "started again in this run | check in dmesg whether memory "
            "ran out; lower compute.workers or compute.open_bytes"
        )
        return False


@contextlib.contextmanager
def _ended_at_last() -> Iterator[set[Worker]]:
    """Whatever ends the parent's work ends the workers."""
    workers: set[Worker] = set()
    try:
        yield workers
    finally:
        for worker in workers:
            worker.child.kill()
