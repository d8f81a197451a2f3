"""What every server of the tests needs: a cache folder, a free port, a process that ends with ours.

A server that is not to be had fails the test where servers are demanded (HATHI_DEMAND_SERVERS=1, as in CI); elsewhere
the test is left out, loudly.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

DEMAND = "HATHI_DEMAND_SERVERS"
PORTS = range(12_000, 32_000)
_chance = random.SystemRandom()  # Hypothesis and tests seed the other one: two lanes would draw the same ports
_given: set[int] = set()
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Uninstalled(Exception):
    """A server cannot be had on this machine: why, and what to install."""


def cache() -> Path:
    """The folder outside the tree where installed servers are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "hathi-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def demanded() -> bool:
    """Whether a server that is missing is a failure."""
    return os.environ.get(DEMAND, "") not in ("", "0")


def missing(what: str) -> NoReturn:
    """Ends the test: a failure where servers are demanded, else left out with the words LEFT OUT."""
    if demanded():
        pytest.fail(f"{what} ({DEMAND} is set)", pytrace=False)
    pytest.skip(f"LEFT OUT: {what}")


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now, for somebody who will: never the same twice.

    It lies below those that Linux gives to connections and to whoever asks for any port: nobody takes it meanwhile.
    """
    while True:
        port = _chance.choice(PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Alone among all processes of this machine that take the same name."""
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def installed(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache; where it is missing `make` fills an empty folder, which then takes the name.

    Of many processes one makes it and the others wait; a killed one leaves nothing that looks complete.
    """
    target = cache() / name
    if not target.exists():
        with locked(name):
            if not target.exists():
                folder = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=cache()))
                try:
                    make(folder)
                    folder.rename(target)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
    return target


def until(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Look until it is so.  Raises TimeoutError naming `what`."""
    ends = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Whether something listens on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


class Server:
    """A process that is killed when the thread that started it ends, however that comes about."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @classmethod
    def start(
        cls, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Server:
        """What it prints is added to `log`; env: the whole environment, ours when absent."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                preexec_fn=_die_with_parent,
                process_group=0,  # a person's Ctrl-C is for the tests, which then stop it in order
            )
        return cls(process, log)

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def until(self, ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """As `until`; a process that ends meanwhile is an error with its last words."""

        def now() -> bool:
            if not self.runs:
                raise RuntimeError(f"{what}: it ended with {self.process.returncode}: {self.last_words()}")
            return ready()

        try:
            until(now, what, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.last_words()}") from error

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """As kill -9; comes back when it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 10.0) -> None:
        """As kill, or kill -9 where it does not listen; comes back when it is gone."""
        self.process.terminate()
        self.thaw()  # who stands still does not listen
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self) -> None:
        """It stands still, its connections open, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
