"""This host and this process, as attempts and beats name them."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pipeline import __version__
from pipeline.clock import Clock, Process
from pipeline.errors import PermanentError

_NAME = re.compile(r"(?P<host>.+)\.(?P<boot>[0-9a-f]{8})\.(?P<pid>\d+)\.(?P<start>\d+)\.(?P<chance>[0-9a-f]{6})")
_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
_NO_BOOT = "00000000"


def host_name() -> str:
    """The host's name, in letters that any store takes."""
    return _UNSAFE.sub("-", socket.gethostname())[:60] or "host"


def boot_id() -> str:
    """Eight hex digits that change with each boot; zeros where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:8]
    except OSError:
        return _NO_BOOT


def start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" when there is none, "0" where the system does not tell."""
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return "0"
        return "0"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in ("Z", "X") else fields[19]


def stopped(pid: int) -> bool:
    """Whether a process stands still until somebody lets it go on (SIGSTOP); False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def same_version(driver: str) -> None:
    """Raises PermanentError in a worker that has another version of Hathi than its driver."""
    if driver != __version__:
        raise PermanentError(
            f"worker {host_name()} has Hathi {__version__}, the driver {driver}", "they may compute differently",
            "give all hosts of the cluster the driver's environment: docs/spark.md",
        )  # fmt: skip


def parents(pid: int) -> Iterator[int]:
    """The process's parent, that one's parent, and so on to the first process that is seen here."""
    while pid:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
        if pid:
            yield pid


def program_of(pid: int) -> str:
    """The name of the file that a process runs; "" where it may not be seen."""
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:
        return ""


def this_process(clock: Clock | None = None) -> Process:
    """The identity under which this process makes its attempts."""
    pid = os.getpid()
    name = f"{host_name()}.{boot_id()}.{pid}.{start_of(pid)}.{secrets.token_hex(3)}"
    return Process(name=name, clock=clock or Clock(), gone=gone)


def gone(name: str) -> bool:
    """Whether a process of this host and this boot does not run any more; False for other hosts' processes."""
    match = _NAME.fullmatch(name)
    if not match or match["host"] != host_name() or match["boot"] != boot_id() or match["boot"] == _NO_BOOT:
        return False
    return start_of(int(match["pid"])) != match["start"]


class Owner(Enum):
    """What is known here of a process, by its name."""

    RUNS = "runs here and now"
    GONE = "was of this host, and has ended"
    OF_THIS_KERNEL = "is of this boot under another host's name: a container's"
    ELSEWHERE = "is of another host, of which nothing is known here"
    NOBODY = "is no process's name"


def owner_of(name: str) -> Owner:
    """What is known of the process of that name."""
    match = _NAME.fullmatch(name)
    if not match:
        return Owner.NOBODY
    this_boot = match["boot"] == boot_id()
    if match["host"] != host_name():
        return Owner.OF_THIS_KERNEL if this_boot and match["boot"] != _NO_BOOT else Owner.ELSEWHERE
    return Owner.RUNS if this_boot and start_of(int(match["pid"])) == match["start"] else Owner.GONE


def host_of(name: str) -> str:
    """The host in a process's name; a name of another form as it is."""
    match = _NAME.fullmatch(name)
    return match["host"] if match else name
