"""The loop, ESTOP, signals and beats (docs/protocol.md 13)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import schedule

from pipeline.clock import Clock
from pipeline.errors import PipelineError, Stopped
from pipeline.process.forks import at_the_end, undone_in_forks
from pipeline.process.lock import estop_since

DRAIN_SECONDS = 10.0
LOOK_SECONDS = 1.0
SIGNALLED = 128
"""And a signal's number: the exit code of a process that the signal ended, as shells know it."""

_CREDENTIALS = struct.Struct("3i")
"""Linux's struct ucred: process, user, group."""
_END = b"\0"
"""Is no signal's number."""


class Stop:
    """Why work is to end.  Looked at by the loop each second and by stages at their safe points."""

    def __init__(
        self, state: Path | None, clock: Clock, say: Callable[[str], None], *, foreground: bool = False
    ) -> None:
        """foreground: a person waits for this process: a signal that ended it shows in its exit code, as in a shell."""
        self._foreground = foreground
        self._state = state
        self._clock = clock
        self._say = say
        self._looked = float("-inf")
        self._asked = 0
        self._looking = threading.Lock()
        self.estop = False

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Work is to end: what the signal of that number says."""
        self._asked = self._asked or number

    @property
    def signalled(self) -> bool:
        """Whether a signal asked for the end, not ESTOP alone."""
        return self._asked != 0

    @property
    def why(self) -> str:
        """ESTOP, or the signal's name; "" while nothing asked for the end."""
        return "ESTOP" if self.estop else signal.Signals(self._asked).name if self._asked else ""

    def engage(self, where: str) -> None:
        """Work is to end: ESTOP stands in the bucket, at this key."""
        if not self.estop:
            self.estop = True
            self._say(f"ESTOP engaged in the bucket: {where}; hathi start --remote deletes it")

    def __call__(self) -> bool:
        """Whether work is to end; looks for the file at most once a second."""
        if self._asked or self.estop:
            return True
        now = self._clock.monotonic()
        if self._state is not None and now - self._looked >= LOOK_SECONDS and self._looking.acquire(blocking=False):
            try:
                self._look(self._state, now)
            finally:
                self._looking.release()
        return self.estop

    def _look(self, state: Path, now: float) -> None:
        self._looked = now
        if not self.estop and estop_since(state) is not None:
            self.estop = True
            self._say("ESTOP engaged")

    @property
    def exit_code(self) -> int:
        """4 after ESTOP; after a signal 128 and its number where a person waits, and 0 elsewhere."""
        if self.estop:
            return Stopped.exit_code
        return SIGNALLED + self._asked if self._asked and self._foreground else 0


@contextlib.contextmanager
def signals(stop: Stop, cleanup: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second SIGINT ends at once, after `cleanup`.

    SIGINT stays ignored where it was: a shell ignores it for what it starts in the background, so that an interrupt
    from the keyboard ends only what stands in front.  SIGTERM and ESTOP end that, too.

    A thread hears them: Python's own handlers wait until the main thread is back from the library that it is in, and
    compiling a net takes as long as it likes.  The kernel says which process wrote each of them: a fork of ours has the
    same handlers and the same socket, and its signals are its own.
    """
    hear, tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    hear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    tell.setblocking(False)
    ear = threading.Thread(target=_listen, args=(hear, stop, cleanup), name="signals", daemon=True)
    ear.start()
    heard = [signal.SIGTERM, *([] if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else [signal.SIGINT])]
    wakeup = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heard) for number in heard}

    def as_before() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)

    def forget() -> None:
        as_before()
        signal.set_wakeup_fd(-1)
        hear.close()
        tell.close()

    def end() -> None:
        as_before()
        tell.setblocking(True)
        tell.send(_END)  # not its closing: a fork may have it open
        ear.join()
        tell.close()
        hear.close()

    with at_the_end(end), undone_in_forks(forget):
        yield


def _heard(number: int, frame: FrameType | None) -> None:
    """The number is in the socket already, put there by the interpreter's own handler."""


def _listen(hear: socket.socket, stop: Stop, cleanup: Callable[[], None]) -> None:
    interrupts = 0
    while True:
        heard, about, _, _ = hear.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
        if _sender(about) != os.getpid():
            continue
        if heard == _END:
            return
        interrupts += heard.count(signal.SIGINT)
        if interrupts > 1:
            cleanup()
            os._exit(SIGNALLED + signal.SIGINT)  # safe: whatever is lost is taken up at the next start
        for number in (signal.SIGINT, signal.SIGTERM):
            if number in heard:
                stop.ask(number)


def _sender(about: list[tuple[int, int, bytes]]) -> int:
    """The process that wrote a message, as the kernel says; 0: it does not say."""
    for level, kind, content in about:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_CREDENTIALS.unpack(content)[0])
    return 0


@dataclass(frozen=True)
class Drain:
    """How long a process may go on once its end is asked for, and the exit code that it ends with then.

    code: None: the stop's own.
    """

    seconds: float = DRAIN_SECONDS
    code: int | None = None


@contextlib.contextmanager
def drained(
    stop: Stop, say: Callable[[str], None], cleanup: Callable[[], None], drain: Drain = Drain()
) -> Iterator[None]:
    """Once an end is asked for, the process is gone within the drain's seconds, whatever it does then.

    cleanup: what must not be left behind (`_PIPE_RUNNING`).
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if stop():
                if not ended.wait(max(0.0, drain.seconds - 2 * LOOK_SECONDS)):
                    cleanup()
                    try_to_say(say, "work did not stop in time; the process ends now, and the next start continues")
                    os._exit(stop.exit_code if drain.code is None else drain.code)
                return

    watcher = threading.Thread(target=watch, name="drain", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()


def try_to_say(say: Callable[[str], None], text: str, seconds: float = 0.5) -> None:
    """Say it, unless the log itself is what hangs."""
    voice = threading.Thread(target=say, args=(text,), name="last words", daemon=True)
    voice.start()
    voice.join(seconds)


@contextlib.contextmanager
def beating(
    beat: Callable[[], None], leave: Callable[[], None], seconds: float, say: Callable[[str], None]
) -> Iterator[None]:
    """Beat now and every so often, in a thread of its own: a long merge must not look dead; leave at the end.

    A store that cannot be reached is no reason to end: the work says so itself, and its beat comes with it.
    """
    fails = "this process could not write its sign of life to the bucket"
    try_to_beat = _tried(beat, say, fails, "this process writes its sign of life again")
    try_to_beat()
    end_of_beats = _repeated(try_to_beat, seconds, "beat")

    def end() -> None:
        end_of_beats()
        try:
            leave()
        except PipelineError as error:
            say(
                f"this process could not delete its sign of life from the bucket; other hosts count it "
                f"as alive for 6 more minutes: {error}"
            )

    with at_the_end(end):
        yield


@contextlib.contextmanager
def looking(look: Callable[[], None], seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Look for ESTOP in the bucket every so often, in a thread of its own.  One that does not answer holds none."""
    fails, again = "it cannot be seen whether ESTOP stands in the bucket", "the bucket is looked at for ESTOP again"
    with at_the_end(_repeated(_tried(look, say, fails, again), seconds, "ESTOP")):
        yield


def _tried(do: Callable[[], None], say: Callable[[str], None], fails: str, again: str) -> Callable[[], None]:
    """The same without its errors: each is said once, and that it is over."""
    said: set[str] = set()

    def attempted() -> None:
        try:
            do()
            for message in sorted(said):
                say(f"{again}; this is over: {message}")
            said.clear()
        except PipelineError as error:
            if error.message not in said:
                say(f"{fails}: {error}")
            said.add(error.message)

    return attempted


def _repeated(do: Callable[[], None], seconds: float, name: str) -> Callable[[], None]:
    """Does it in a thread, after so many seconds and again; what ends that."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(seconds):
            do()

    thread = threading.Thread(target=go_on, name=name, daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(5.0)

    return end


def loop(turn: Callable[[], None], poll_seconds: float, stop: Callable[[], bool], clock: Clock) -> None:
    """Take a turn now and then every poll_seconds, until asked to end."""
    jobs = schedule.Scheduler()
    jobs.every(poll_seconds).seconds.do(turn)
    jobs.run_all(delay_seconds=0)
    while not stop():
        jobs.run_pending()
        idle = jobs.idle_seconds
        clock.sleep(max(0.05, min(LOOK_SECONDS, idle if idle is not None else LOOK_SECONDS)))
