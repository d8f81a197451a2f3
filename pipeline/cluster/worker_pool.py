"""Processes that compute side by side in one run, one for each GPU or group of cores (docs/protocol.md 5, 13).

The run's own process is the parent: it alone holds lock and `_PIPE_RUNNING`, starts the workers, hears what they tell,
passes a stop on, and sees how each one ends.  A worker tells on a pipe, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.ledger.manifest import AttemptEnd
from pipeline.ledger.protocol import Context, give_up, poll
from pipeline.settings import Settings

DRIVER_SECONDS = 5.0
"""A driver in trouble does not answer at all."""
LOOK_SECONDS = 0.2
LAST_WORDS_SECONDS = 2.0
"""So long what a worker told before it ended may take to be read."""
RESTARTS = 3
"""So often a slot gets a new worker within one run."""
TOLD_TO_END = (-signal.SIGTERM, -signal.SIGINT)


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
    with subprocess.Popen([program, "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as asked:
        try:
            shown, _ = asked.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            asked.kill()
            asked.returncode = -signal.SIGKILL  # it may hang in the kernel: nobody waits for it
            return ()
    if asked.returncode != 0:
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
    """One process in a slot, from its start to its end."""

    def __init__(
        self, slot: Slot, command: Sequence[str], instructions: str, messages: queue.SimpleQueue[Message]
    ) -> None:
        """command: gets this process's id as its last word.  instructions: its standard input."""
        self.slot = slot
        self.name = ""
        """As its attempts name it; told by itself before it claims anything."""
        self.failed: WorkerFailed | None = None
        """Why it could not work, told by itself."""
        environ = {**os.environ, "CUDA_VISIBLE_DEVICES": slot.device} if slot.device else None
        # A group of its own: an interrupt from the keyboard is the parent's to judge and to pass on.
        self._process = subprocess.Popen(
            [*command, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, process_group=0
        )
        self._messages = messages
        self._reader = threading.Thread(
            target=self._read, args=(instructions,), name=f"worker {slot.number}", daemon=True
        )
        self._reader.start()
        threading.Thread(target=self._await, name=f"end of worker {slot.number}", daemon=True).start()

    def _read(self, instructions: str) -> None:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        with contextlib.suppress(BrokenPipeError), pipe_in:  # a worker that is dead already is seen by its end
            pipe_in.write(instructions.encode())
        with pipe_out:
            for line in pipe_out:
                self._messages.put((self, line))

    def _await(self) -> None:
        """Its end is its process's end: a fork that a library made of it may have its pipe open for ever."""
        self._process.wait()
        self._reader.join(LAST_WORDS_SECONDS)
        self._messages.put((self, None))

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Ask it to stop at its next safe point."""
        self._process.terminate()

    def wait(self) -> int:
        """Its exit code; negative: the signal that killed it."""
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(1.0)


Message = tuple[Worker, bytes | None]
"""A line of a worker; None: it has ended."""


@dataclass(frozen=True)
class Pool:
    """The workers of a run, one in each slot, and what is done about each that dies."""

    slots: Sequence[Slot]
    begin: Callable[[Slot, queue.SimpleQueue[Message]], Worker]
    hear: Callable[[Worker, Mapping[str, Any]], None]
    """Called with each message of a worker, read from its JSON."""
    lost: Callable[[Worker, str], None]
    """Called with each worker that was killed, and by what."""
    say: Callable[[str], None]

    def work(self, stopping: Callable[[], bool], noted: Callable[[], None]) -> None:
        """Start all, and stay until the last one has ended; noted: told now and then that they are watched.

        Raises WorkerFailed: one could not work, for a reason that is no batch's; the others were heard to their end.
        """
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        failed: list[WorkerFailed] = []
        restarts: Counter[int] = Counter()
        with _ended_at_last() as at_work:
            at_work.update(self.begin(slot, messages) for slot in self.slots)
            asked = False
            while at_work:
                if stopping() and not asked:
                    asked = True
                    for worker in at_work:
                        worker.end()
                noted()
                try:
                    worker, line = messages.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                if line is not None:
                    self._hear(worker, json.loads(line))
                    continue
                at_work.remove(worker)
                if self._ended(worker, asked, restarts):
                    at_work.add(self.begin(worker.slot, messages))
                if worker.failed:
                    failed.append(worker.failed)
        if failed:
            raise failed[0]

    def _hear(self, worker: Worker, tells: Mapping[str, Any]) -> None:
        if "name" in tells:
            worker.name = tells["name"]
        elif "failed" in tells:
            worker.failed = WorkerFailed(**tells["failed"])
        else:
            self.hear(worker, tells)

    def _ended(self, worker: Worker, asked: bool, restarts: Counter[int]) -> bool:
        """Whether its slot gets a new worker."""
        code = worker.wait()
        if worker.failed or code == 0 or code in TOLD_TO_END:
            return False
        # An exit code without a word is the interpreter's own watchdog: the worker hung where nothing could be said.
        by = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended itself with exit code {code}"
        self.lost(worker, f"its worker {by}")
        if asked:
            return False
        restarts[worker.slot.number] += 1
        if restarts[worker.slot.number] <= RESTARTS:
            return True
        self.say(
            f"worker {worker.slot.number} died {RESTARTS + 1} times in this run, the last time it {by}: it is not "
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
            worker.kill()
