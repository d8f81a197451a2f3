"""The loop, ESTOP, signals and beats (PROTOCOL 13)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import schedule

from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped
from pipeline.lock import ESTOP

DRAIN_SECONDS = 10.0
LOOK_SECONDS = 1.0


class Stop:
    """Why work is to end.  Looked at by the loop each second and by stages at their safe points."""

    def __init__(self, state: Path | None, clock: Clock, say: Callable[[str], None]) -> None:
        self._state = state
        self._clock = clock
        self._say = say
        self._looked = float("-inf")
        self._asked = False
        self.estop = False

    def ask(self) -> None:
        """Work is to end: what a signal says."""
        self._asked = True

    def __call__(self) -> bool:
        """Whether work is to end; looks for the file at most once a second."""
        if self._asked or self.estop:
            return True
        now = self._clock.monotonic()
        if self._state is not None and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if (self._state / ESTOP).exists():
                self.estop = True
                self._say("ESTOP engaged")
        return self.estop

    @property
    def exit_code(self) -> int:
        return Stopped.exit_code if self.estop else 0


@contextlib.contextmanager
def signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second SIGINT ends at once."""
    interrupts = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        if number == signal.SIGINT:
            interrupts += 1
            if interrupts > 1:
                os.kill(os.getpid(), signal.SIGKILL)  # safe: whatever is lost is taken up at the next start
        stop.ask()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def drained(stop: Stop, say: Callable[[str], None], cleanup: Callable[[], None]) -> Iterator[None]:
    """Once an end is asked for, the process is gone within DRAIN_SECONDS, whatever it does then.

    cleanup: what must not be left behind (`_PIPE_RUNNING`).
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if stop():
                if not ended.wait(DRAIN_SECONDS - 1.0):
                    say("not stopped in time; ends now, and the next start takes up what is left")
                    cleanup()
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch, name="drain", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()


@contextlib.contextmanager
def beating(beat: Callable[[], None], seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Beat now and every so often, in a thread of its own: a long merge must not look dead."""
    ended = threading.Event()
    beat()

    def go_on() -> None:
        while not ended.wait(seconds):
            try:
                beat()
            except PipelineError as error:
                say(f"could not beat: {error}")

    heart = threading.Thread(target=go_on, name="beat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join(5.0)


def loop(turn: Callable[[], None], poll_seconds: float, stop: Callable[[], bool], clock: Clock) -> None:
    """Take a turn now and then every poll_seconds, until asked to end."""
    jobs = schedule.Scheduler()
    jobs.every(poll_seconds).seconds.do(turn)
    jobs.run_all(delay_seconds=0)
    while not stop():
        jobs.run_pending()
        idle = jobs.idle_seconds
        clock.sleep(max(0.05, min(LOOK_SECONDS, idle if idle is not None else LOOK_SECONDS)))
