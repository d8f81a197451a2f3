"""One lock for each program, and the compute box's `_PIPE_RUNNING` (docs/protocol.md 13).

The truth is the flock on `<state>/<program>.lock`, a file that is never deleted; children do not inherit it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import __version__
from pipeline.errors import PermanentError, PipelineError
from pipeline.host import boot_id, host_name

ESTOP = "ESTOP"
RUNNING = "_PIPE_RUNNING"


class Held(PipelineError):
    """Another process has the lock."""


class EstopEngaged(PipelineError):
    """ESTOP is there: nothing is started."""

    exit_code = 4


def refuse_estop(state: Path) -> None:
    """Raises EstopEngaged when the file is there: no lock, no request."""
    if (state / ESTOP).exists():
        raise EstopEngaged(f"ESTOP engaged: not started; remove {state / ESTOP} to start")


@contextlib.contextmanager
def locked(state: Path, program: str) -> Iterator[None]:
    """Hold a program's lock.  Raises Held, which says who has it.

    Who holds it stands in the file until the program ends as it should: what a killed one leaves there tells of it.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        handle = os.open(state / f"{program}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable(state, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 4096, 0).decode("utf-8", "replace").strip()
            raise Held(f"{program} runs already", holder or "its lock is held", "stop it first") from error
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()} since {_now()}\n".encode(), 0)
        except OSError as error:
            raise _unwritable(state, error) from error
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _unwritable(state: Path, error: OSError) -> PermanentError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PermanentError(f"the disk of the state folder {state} is full", str(error), "free space on that disk")
    hint = "set `state` to a folder this user may write"
    return PermanentError(f"the state folder {state} cannot be written", str(error), hint)


def holder(state: Path, program: str) -> str | None:
    """Who has a program's lock; None when nobody has."""
    try:
        handle = os.open(state / f"{program}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.pread(handle, 4096, 0).decode("utf-8", "replace").strip() or "held"
    finally:
        os.close(handle)


def left_behind(state: Path, program: str) -> str:
    """Who had the lock of a program that ended without being stopped; "" where it runs, ended well, or never ran."""
    if holder(state, program) is not None:
        return ""
    try:
        return (state / f"{program}.lock").read_text("utf-8", "replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def running_file(state: Path, say: Callable[[str], None]) -> Iterator[None]:
    """`_PIPE_RUNNING`: written once the lock is held, removed before it is released.

    After ESTOP its absence means that the box may be rebooted.
    """
    path = state / RUNNING
    if path.exists():
        say(f"the last run died: {_died(path)}; going on with what it left")
    body = {"pid": os.getpid(), "host": host_name(), "boot": boot_id(), "start": _now(), "version": __version__}
    try:
        path.write_text(json.dumps(body) + "\n")
    except OSError as error:
        raise _unwritable(state, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


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
        return f"pid {body['pid']} on {body['host']} since {body['start']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it left no readable file"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
