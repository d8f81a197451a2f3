"""What signals and ESTOP ask of a training: Caffe's effects of SIGINT and SIGHUP, and an end in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import FrameType

from pipeline.process.interrupts import end_at_once, say_at_once
from pipeline.process.lock import estop_since

LOOK_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Action(Enum):
    """snapshot: take one and go on.  stop: end as Caffe ends.  leave: snapshot, and end to be taken up later."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    STOP = "stop"
    LEAVE = "leave"


EFFECTS = {one.value: one for one in (Action.STOP, Action.SNAPSHOT, Action.NONE)}
"""What `--sigint-effect` and `--sighup-effect` may name."""


class Requests:
    """Looked at once an iteration and once a test batch; a signal counts once.  ESTOP is looked for each second."""

    def __init__(
        self, sigint: Action, sighup: Action, estop: Path | None, monotonic: Callable[[], float], asked: str = ""
    ) -> None:
        """estop: the state folder whose ESTOP counts."""
        self.sigint = sigint
        self._effects = {signal.SIGINT: sigint, signal.SIGHUP: sighup}
        self._heard: set[int] = set()
        self._estop, self._monotonic, self._looked = estop, monotonic, float("-inf")
        self.why = asked
        """SIGTERM or ESTOP once one of them asks for the end."""
        self.stopped_by = ""
        """The signal that has ended the training as Caffe ends."""

    def hear(self, number: int) -> None:
        """A signal came."""
        if number == signal.SIGTERM:
            self.why = "SIGTERM"
        else:
            self._heard.add(number)

    def leaving(self) -> bool:
        """Whether SIGTERM or ESTOP asks for the end."""
        now = self._monotonic()
        if not self.why and self._estop is not None and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            if estop_since(self._estop) is not None:
                self.why = "ESTOP"
        return bool(self.why)

    @property
    def ending(self) -> bool:
        """Whether the training is asked to end, now or later; what asks for it stays to be heard."""
        interrupted = signal.SIGINT in self._heard and self._effects[signal.SIGINT] is Action.STOP
        hung_up = signal.SIGHUP in self._heard and self._effects[signal.SIGHUP] is Action.STOP
        return self.leaving() or interrupted or hung_up

    def next(self) -> Action:
        """What is asked for; SIGHUP before SIGINT, as in Caffe."""
        if self.leaving():
            return Action.LEAVE
        for number in (signal.SIGHUP, signal.SIGINT):
            if number in self._heard:
                self._heard.discard(number)
                if self._effects[number] is Action.STOP:
                    self.stopped_by = signal.Signals(number).name
                return self._effects[number]
        return Action.NONE


def by_hand(interrupts: int) -> None:
    """The first interrupt ends a training in good order, and the next one at once: a person does not want to wait.

    A kill at any instant leaves snapshots that are whole, and this is one.
    """
    if interrupts > 1:
        end_at_once("SIGINT again: the training ends at once; the same command goes on from its last whole snapshot")
    say_at_once("SIGINT: the training ends after its iteration; another SIGINT ends it at once")


@contextlib.contextmanager
def heard(
    requests: Requests,
    numbers: Sequence[int] = SIGNALS,
    impatient: Callable[[int], None] = lambda interrupts: None,
) -> Iterator[None]:
    """These signals are requests while this lasts; what a shell has ignored stays ignored.

    impatient: hears of each interrupt that asks for the end, and which one it is, from 1 on.
    """
    interrupts = 0

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        requests.hear(number)
        if number == signal.SIGINT and requests.sigint is Action.STOP:
            interrupts += 1
            impatient(interrupts)

    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
