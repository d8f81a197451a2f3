"""A child's life as the child has it: what holds from its beginning, what it may take, and how it ends.

`process.child` is the parent's side.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pipeline.errors import PipelineError
from pipeline.process.channel import Channel, Gone
from pipeline.process.forks import leave

OUT_OF_MEMORY = 72
"""The exit code of a child that wanted more memory than it may take."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000


def live(work: Callable[[Channel], None]) -> NoReturn:
    """A child's whole life: `work`, with its parent at the other end of the channel; then its end.

    Exit code 0, also when the parent is gone; 1 when it could not work: for a PipelineError it has told
    `failed` (message, detail, hint, exit_code); OUT_OF_MEMORY.
    """
    die_with(int(sys.argv[-1]))
    leave_no_core(secret=True)
    channel = Channel(os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what a library reads there is no message
    try:
        work(channel)
    except Gone:
        os._exit(0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except PipelineError as error:
        words = {"message": error.message, "detail": error.detail, "hint": error.hint, "exit_code": error.exit_code}
        with contextlib.suppress(Gone):
            channel.send(failed=words)
        leave(1)
    except Exception:
        import traceback  # for what nobody foresaw

        traceback.print_exc()
        leave(1)
    leave(0)


def die_with(parent: int) -> None:
    """From now on the kernel kills this process as soon as its parent ends; at once if it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def leave_no_core(*, secret: bool = False) -> None:
    """Whatever ends this process, or one that it starts, writes no core: it would hold URLs, bodies and keys.

    secret: not even to a program that the system pipes cores to; the process cannot be traced by its own user then.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if secret:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def limit_memory(most: int, *, beyond: bool = False) -> None:
    """This process may take so many bytes from now on.  beyond: so many more than it has."""
    held = 0
    if beyond:
        status = Path("/proc/self/status").read_text().splitlines()
        held = int(next(line for line in status if line.startswith("VmData:")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + most,) * 2)


def limit_processor(seconds: float) -> None:
    """This process may compute so long from now on; then the system ends it by SIGPROF."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def confine(open_files: int, file_bytes: int) -> None:
    """From now on this process gains no rights by what it runs, and has no network where the kernel lets it part.

    open_files, file_bytes: at once, and of each file that it writes.
    """
    library = ctypes.CDLL(None)
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    library.unshare(_CLONE_NEWNET)  # refused without the right to it: what is run then has no credentials all the same
    for kind, most in ((resource.RLIMIT_NOFILE, open_files), (resource.RLIMIT_FSIZE, file_bytes)):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
