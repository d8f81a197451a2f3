"""What the kernel says about a process that was killed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.amounts import counted

KERNEL_LOG = Path("/dev/kmsg")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
_RECORD = 8192
"""A record of the kernel's log is shorter, bytes."""


def killed_for_memory(process: int, log: Path = KERNEL_LOG) -> str:
    """Whether a process that SIGKILL ended was killed for want of memory: the kernel's word, where it can be read.

    log: the kernel's records, as /dev/kmsg gives them; only some users may read it.
    """
    try:
        found = [one for one in _records(log) if re.search(rf"Killed process {process}\b", one)]
    except OSError:
        return f"out of memory? The kernel's log cannot be read here{_of_the_group()}: `sudo dmesg` tells"
    if found:
        return f"out of memory; the kernel says: {found[-1]}"
    return f"out of memory? The kernel's log does not name it{_of_the_group()}: perhaps somebody ended it"


def _records(log: Path) -> Iterator[str]:
    """The texts of the kernel's log, oldest first.  Raises OSError where this user may not read it."""
    file = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(file, _RECORD)
            except OSError as error:
                if error.errno == errno.EPIPE:  # newer records took the place of this one
                    continue
                if error.errno == errno.EAGAIN:
                    return
                raise
            if not record:
                return
            yield record.decode("utf-8", "replace").partition(";")[2].splitlines()[0] if b";" in record else ""
    finally:
        os.close(file)


def _of_the_group() -> str:
    """How many processes of this one's control group were killed for want of memory so far, in words; "" for none."""
    try:
        paths = [line.split("::", 1)[1] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::")]
        events = (GROUPS / paths[0].strip("/") / "memory.events").read_text() if paths else ""
    except OSError:
        events = ""
    found = re.search(r"^oom_kill ([1-9][0-9]*)$", events, re.M)
    return f", and its control group has seen {counted(int(found[1]), 'such end')}" if found else ""
