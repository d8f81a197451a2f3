"""One way to run a child process of ours; what it does itself is in `process.life`.

A child is a module of ours in an interpreter of its own.  Its standard input is a socket that carries messages both
ways (`process.channel`).  Whatever the child or its libraries print goes to its standard error; the parent passes that
on to its own, and keeps the end of it for the error.

Each child
- is killed by the kernel as soon as its parent ends, however that ends
- has no descriptor of its parent but these, and a process group of its own: an interrupt from the keyboard is the
  parent's to judge
- leaves no core and cannot be traced: it holds URLs, bodies and keys
- takes no more memory and processor time than its work allows itself (`limit_memory`, `limit_processor`), and no more
  time than its parent allows (`Child.run`)
- ends in a way that has a name (`Ended`): an exit code, a signal, no memory, no time.  What it could not do, for a
  reason that it knows, it tells before its end, as `failed`

A program that is not ours and has nothing to tell but its output is `asked`; one that has the terminal is `passed_to`.
A process of ours that outlives who began it is begun `apart`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

from pipeline.process.channel import Channel, Gone, Message
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.process.logs import escape, redact

KEPT_BYTES = 4096
"""So much of what a child printed last is kept."""
LAST_WORDS_SECONDS = 2.0
"""So long passing on what an ended child printed may take."""
LOOK_SECONDS = 1.0

_FAULTS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGPROF})


class Ended(NamedTuple):
    """How a child ended."""

    code: int
    """Its exit code; negative: the signal that killed it."""
    printed: bytes = b""
    """The last that it printed, as it was."""
    late: float = 0.0
    """It was killed because it had not ended within so many seconds; 0: it ended by itself."""

    @property
    def how(self) -> str:
        """In words that follow on `it`."""
        if self.late:
            return f"did not end within {self.late:.0f} s"
        if self.code == OUT_OF_MEMORY:
            return "wanted more memory than it may take"
        if self.code >= 0:
            return f"ended itself with exit code {self.code}"
        try:
            return f"was killed by {signal.Signals(-self.code).name}"
        except ValueError:  # a real-time signal has no name
            return f"was killed by signal {-self.code}"

    @property
    def last_line(self) -> str:
        """The last line that it printed, without secrets; "" where it printed nothing."""
        lines = self.printed.decode("utf-8", "replace").split("\n")
        return escape(redact(next((line.strip() for line in reversed(lines) if line.strip()), "")))

    @property
    def story(self) -> str:
        """How it ended, and the last that it said."""
        return f"{self.how}; the last line that it printed: {self.last_line}" if self.last_line else self.how

    @property
    def told_to_end(self) -> bool:
        """Somebody asked it to stop: a service manager stops children as well as their parent."""
        return self.code in (-signal.SIGTERM, -signal.SIGINT)

    @property
    def by_itself(self) -> bool:
        """What it did ended it; other signals somebody sent, as the kernel does for want of memory."""
        return self.code > 0 or -self.code in _FAULTS


def python_of(module: str, *words: str) -> list[str]:
    """The command that begins a module of ours as a child; its parent's number becomes the last word."""
    safe = ["-P"] if sys.flags.safe_path else []
    return [sys.executable, *safe, "-m", module, *words]


class Child:
    """A child, from its start to its end, as its parent has it."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        """command: of `python_of`.  environ: its whole environment; this process's when absent."""
        self._socket, theirs = socket.socketpair()
        self._printing, prints = socket.socketpair()
        with theirs, prints:
            self._process = _begin([*command, str(os.getpid())], theirs.fileno(), prints.fileno(), environ)
        self.channel = Channel(self._socket.fileno())
        self._printed = b""
        self._ear = threading.Thread(target=self._pass_on, name=f"stderr of {self.pid}", daemon=True)
        self._ear.start()
        self._reader: threading.Thread | None = None
        self._ending = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended.  Its number stays its own until `wait`."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:  # somebody waited for it
            return False

    def hear(self, first: Message, put: Callable[[Message | Ended], None]) -> None:
        """Send it a message; `put` gets each of its own, and at last its end, in threads of their own.

        Its end is its process's end: a fork that a library made of it may have its socket open for ever.
        """

        def read() -> None:
            with contextlib.suppress(Gone):
                self.channel.send(**first)
            with contextlib.suppress(Gone):  # a child that is dead already may have told why
                while True:
                    put(self.channel.receive()[0])

        def wait(reader: threading.Thread) -> None:
            end = self.wait()
            reader.join()
            put(end)

        self._reader = threading.Thread(target=read, name=f"messages of {self.pid}", daemon=True)
        self._reader.start()
        threading.Thread(target=wait, args=(self._reader,), name=f"end of {self.pid}", daemon=True).start()

    def run(self, first: Message, seconds: float, noted: Callable[[], None]) -> tuple[list[Message], Ended]:
        """Send it a message, and wait for its end: all that it told, and how it ended.

        seconds: then it is killed.  noted: told each second that it still has time.
        """
        heard: queue.SimpleQueue[Message | Ended] = queue.SimpleQueue()
        self.hear(first, heard.put)
        told: list[Message] = []
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            try:
                one = heard.get(timeout=min(left, LOOK_SECONDS))
            except queue.Empty:
                noted()
                continue
            if isinstance(one, Ended):
                return told, one
            told.append(one)
        self.kill()
        return told, self.wait()._replace(late=seconds)

    def end(self) -> None:
        """Ask it to stop at its next safe point."""
        with self._ending:
            self._signal(os.kill, signal.SIGTERM)

    def wait(self) -> Ended:
        """How it ended, once it has; what it began in its process group ends with it."""
        with contextlib.suppress(ChildProcessError):  # another thread waited for it
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._ending:
            self._signal(os.killpg, signal.SIGKILL)
            code = self._process.wait()
        for one in (self._socket, self._printing):  # what it sent can still be read, and then there is an end
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RD)
        self._ear.join(LAST_WORDS_SECONDS)
        return Ended(code, self._printed)

    def kill(self) -> None:
        """End it and its process group, whatever they do."""
        with self._ending:
            self._signal(os.killpg, signal.SIGKILL)
        self.wait()
        if self._reader is not None:
            self._reader.join()
        self.channel.close()
        self._socket.close()

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        """Under the lock: once it was waited for its number may be another's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                send(self.pid, number)

    def _pass_on(self) -> None:
        with self._printing:
            while some := self._printing.recv(65536):
                self._printed = (self._printed + some)[-KEPT_BYTES:]
                with contextlib.suppress(OSError):  # nobody looks at our own
                    os.write(2, some)


def _begin(command: list[str], both: int, prints: int, environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """The process.  To the kernel its parent is the thread that began it: that must last as long as this process."""

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdin=both, stdout=prints, stderr=prints, env=environ, process_group=0)

    if threading.current_thread() is threading.main_thread():
        return begin()
    return _lasting_thread(os.getpid())(begin)


@functools.cache
def _lasting_thread(process: int) -> Callable[[Callable[[], subprocess.Popen[bytes]]], subprocess.Popen[bytes]]:
    """Calls what it is given in one thread of this process (a fork has none of our threads), and gives the result."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1, thread_name_prefix="children")
    return lambda begin: pool.submit(begin).result()


def apart(command: Sequence[str], stdin: int | None = None) -> tuple[int, int]:
    """Begins a process of ours that outlives this one, in a session of its own: its number, and what it prints.

    command: of `python_of`.  stdin: what it has as standard input; None: nothing.  What it prints comes by a descriptor
    that the caller closes; what it says on standard error goes to ours.
    """
    hear, tell = os.pipe()
    try:
        given = subprocess.DEVNULL if stdin is None else stdin
        process = subprocess.Popen(command, stdin=given, stdout=tell, start_new_session=True)
    except BaseException:
        os.close(hear)
        raise
    finally:
        os.close(tell)
    threading.Thread(target=process.wait, name=f"end of {process.pid}", daemon=True).start()
    return process.pid, hear


def passed_to(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Exit code of a program that is not ours and has this terminal until it ends."""
    return subprocess.run(command, env=environ, check=False).returncode


def asked(
    command: Sequence[str], seconds: float, environ: Mapping[str, str] | None = None, given: bytes = b""
) -> tuple[int | None, str]:
    """Exit code and output of a program that is not ours; None when it does not end in time.

    given: what it reads on its standard input.  One that is late is killed, and not waited for: a process that the
    kernel holds cannot be killed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as into:
        into.write(given)
        into.seek(0)
        process = subprocess.Popen(command, stdin=into, stdout=out, stderr=subprocess.STDOUT, env=environ)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.returncode = -signal.SIGKILL  # nobody waits for it any more
            return None, ""
        out.seek(0)
        return code, out.read().decode("utf-8", "replace")
