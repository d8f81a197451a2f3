"""One lock for each program, and the compute box's `_PIPE_RUNNING` (docs/protocol.md 13).

The truth is the record lock (fcntl) on `<state>/<program>.lock`, a file that is never deleted.  It belongs to the
process and to no descriptor: no child and no fork of a library has it, however it was forked, and it ends with the
process that took it.  The price is that the process loses it as soon as it closes any descriptor of that file: nothing
but this module opens one, and this module knows which locks are its own.

A flock is taken beside it, for scripts: `flock -n FILE` tells them whether the process that the file names still runs.
A fork of a library may keep that one.  Nobody here believes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import __version__
from pipeline.errors import PermanentError, PipelineError
from pipeline.process.deaths import Life, birth, cause_of, life_in
from pipeline.process.forks import at_the_end, undone_in_forks
from pipeline.process.host import boot_id, host_name
from pipeline.process.redaction import redact_text
from pipeline.times import to_the_second

FLOCK_SECONDS = 0.5
"""So long may a script take that asks for the flock at the very moment of a start."""

_FLOCK = struct.Struct("hhqqi")
"""Linux's struct flock: type, whence, start, length, process."""

_MINE: dict[tuple[int, int], tuple[str, int]] = {}
"""The locks of this process: the file's device and inode -> what stands in it, and its descriptor.  The kernel has them
by process, too."""

ESTOP = "ESTOP"
RUNNING = "_PIPE_RUNNING"
ENDED = "ended"
"""So begins what stands in the lock of a program that ended with an error."""


class Held(PipelineError):
    """Another process has the lock."""


class EstopEngaged(PipelineError):
    """ESTOP is there: nothing is started."""

    exit_code = 4


def estop_since(state: Path) -> float | None:
    """Since when ESTOP is engaged on this host (seconds since 1970); None when it is not."""
    try:
        return (state / ESTOP).stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None


def refuse_estop(state: Path) -> None:
    """Raises EstopEngaged when the file is there: no lock, no request."""
    if estop_since(state) is not None:
        raise EstopEngaged(f"ESTOP engaged: nothing was started; remove {state / ESTOP}, then start again")


@contextlib.contextmanager
def locked(state: Path, program: str) -> Iterator[None]:
    """Hold a program's lock.  Raises Held, which says who has it.

    Who holds it stands in the file until the program ends as it should: what a killed one leaves there tells of it.
    One that ends with an error says so itself, and the file says with which.
    """
    path = state / f"{program}.lock"
    try:
        state.mkdir(parents=True, exist_ok=True)
        if (mine := _mine(path)) is not None:
            raise Held(f"{program} runs already", mine, "stop it first")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable(state, error) from error
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        who = _holder_in(handle)
        os.close(handle)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise _unwritable(state, error) from error
        raise Held(f"{program} runs already", who, "stop it first") from error
    who = f"pid {os.getpid()} since {_now()}"
    key = _key(os.fstat(handle))
    _MINE[key] = who, handle

    def forget() -> None:
        _MINE.pop(key, None)
        os.close(handle)

    def let_go() -> None:
        with contextlib.suppress(OSError):  # an answer that no file system has to give
            fcntl.flock(handle, fcntl.LOCK_UN)  # of all who have the descriptor
        forget()

    with at_the_end(let_go), undone_in_forks(forget):
        _flock(handle)
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{who}\n{birth()}\n".encode(), 0)
        except OSError as error:
            raise _unwritable(state, error) from error
        try:
            yield
        except Exception as error:
            if key in _MINE:  # a fork that leaves through here has not
                _leave(handle, f"{ENDED} {_now()} with an error ({who}): {_one_line(error)}\n")
            raise
        if key in _MINE:
            _leave(handle, "")


def leave_locks() -> None:
    """Say in the files of all locks of this process that it ends as it should: the last thing before it ends itself."""
    for _, handle in list(_MINE.values()):
        with contextlib.suppress(OSError):  # it ends at once, whatever its disk says
            _leave(handle, "")


def _leave(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


def _one_line(error: Exception) -> str:
    return " ".join(redact_text(str(error) or type(error).__name__).split())[:500]


def _flock(handle: int) -> None:
    """For scripts.  Where a fork of a process that is gone has it, `flock` says "held" all the same."""
    ends = time.monotonic() + FLOCK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > ends:
                return None
            time.sleep(FLOCK_SECONDS / 10)


def _key(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _mine(path: Path) -> str | None:
    """What stands in the file of a lock that this process has; None for all others."""
    try:
        mine = _MINE.get(_key(path.stat()))
        return mine[0] if mine else None
    except FileNotFoundError:
        return None


def _holder_in(handle: int) -> str:
    return os.pread(handle, 4096, 0).decode("utf-8", "replace").partition("\n")[0].strip() or "its lock is held"


def _unwritable(state: Path, error: OSError) -> PermanentError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PermanentError(
            f"the disk of the state folder {state} is full", str(error), "delete what is not needed on that disk"
        )
    hint = "set `state` to a folder that this user may write"
    return PermanentError(f"the state folder {state} cannot be written", str(error), hint)


def holder(state: Path, program: str) -> str | None:
    """Who has a program's lock; None when nobody has."""
    path = state / f"{program}.lock"
    try:
        if (mine := _mine(path)) is not None:
            return mine
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = fcntl.fcntl(handle, fcntl.F_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return None if _FLOCK.unpack(asked)[0] == fcntl.F_UNLCK else _holder_in(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


def left_behind(state: Path, program: str) -> str:
    """How a program ended that was not stopped: `ended unexpectedly (pid ...): CAUSE`, or with which error, as it said.

    "" where it runs, was stopped, has done its work, or never ran.
    """
    if holder(state, program) is not None:
        return ""
    try:
        left = (state / f"{program}.lock").read_text("utf-8", "replace").strip()
    except OSError:
        return ""
    if not left or left.startswith(ENDED):
        return left
    life = life_in(state / f"{program}.lock")
    cause = f": {cause_of(life, state)}" if life else ""
    return f"{ENDED} unexpectedly ({left.splitlines()[0]}){cause}"


@contextlib.contextmanager
def running_file(state: Path, say: Callable[[str], None]) -> Iterator[None]:
    """`_PIPE_RUNNING`: written once the lock is held, removed before it is released.

    After ESTOP its absence means that the box may be rebooted.
    """
    path = state / RUNNING
    if path.exists():
        say(f"the last run died: {_died(path)}; this run continues its work")
    body = {"pid": os.getpid(), "host": host_name(), "boot": boot_id(), "start": _now(), "version": __version__}
    try:
        path.write_text(json.dumps(body) + "\n")
    except OSError as error:
        raise _unwritable(state, error) from error
    with at_the_end(lambda: path.unlink(missing_ok=True)):
        yield


def forget_running(state: Path) -> None:
    """Remove `_PIPE_RUNNING` if it is this process's own: the last thing before it ends itself."""
    path = state / RUNNING
    try:
        mine = json.loads(path.read_text())["pid"] == os.getpid()
    except (OSError, ValueError, KeyError, TypeError):
        return
    if mine:
        path.unlink(missing_ok=True)


def _died(path: Path) -> str:
    try:
        body = json.loads(path.read_text())
        told = f"pid {body['pid']} on {body['host']} since {body['start']}"
        if body["host"] != host_name():
            return told
        return f"{told}: {cause_of(Life(int(body['pid']), str(body['boot']), path.stat().st_mtime), path.parent)}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it left no readable _PIPE_RUNNING"


def _now() -> str:
    return to_the_second(time.time())
