"""Of what a program of this host died: it said nothing itself, so others are asked.

1. whoever began it and saw its end: the scripts that cron and people call leave `PROGRAM.ended` in the state folder,
   with the line `pid N exit C`
2. this host's boot id: another one than at its start means that the host restarted
3. the kernel, which names whom it killed for want of memory
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from pipeline.process.host import boot_id
from pipeline.process.kernel import KERNEL_LOG, killed_for_memory

ENDS = "*.ended"
_END = re.compile(r"pid (\d+) exit (\d+)")
_BORN = re.compile(r"pid (\d+) since [^\n]*\nboot ([0-9a-f]{8})\b")
_SIGNALLED = 128
"""What a shell adds to the number of the signal that ended a program."""


@dataclass(frozen=True, slots=True)
class Life:
    """A process as it wrote itself down at its start."""

    process: int
    boot: str
    """The host's boot id then."""
    began: float = 0.0
    """When that was written down, seconds since 1970: an end from before is another process's of that number."""


def birth() -> str:
    """The line that this process writes below `pid N since TIME`."""
    return f"boot {boot_id()}"


def life_in(path: Path) -> Life | None:
    """The process that `pid N since TIME`, with the line of its boot below, is about; None where that is not said.

    Raises OSError.
    """
    found = _BORN.match(path.read_text("utf-8", "replace"))
    return Life(int(found[1]), found[2], path.stat().st_mtime) if found else None


def cause_of(life: Life, state: Path, boot: str = "", log: Path = KERNEL_LOG) -> str:
    """Of what a process that is gone died, in words that go on a sentence.

    state: the folder of `PROGRAM.ended`.  boot: this host's boot id now.  log: as of `killed_for_memory`.
    """
    code = _exit_code(life, state)
    if code is not None and code > _SIGNALLED:
        number = code - _SIGNALLED
        if number == signal.SIGKILL:
            return f"killed by SIGKILL; {killed_for_memory(life.process, log)}"
        return f"killed by {_name_of(number)}"
    if code:
        return f"it ended with exit code {code}"
    if life.boot != (boot or boot_id()):
        return "this host has restarted since"
    return f"it ended without a word, as kill -9 ends a process; {killed_for_memory(life.process, log)}"


def _exit_code(life: Life, state: Path) -> int | None:
    """What its parent saw; None where nobody did."""
    for path in sorted(state.glob(ENDS)):
        try:
            found = _END.match(path.read_text("utf-8", "replace"))
            late = path.stat().st_mtime >= life.began
        except OSError:  # another program's, gone or not ours to read: what nobody tells is asked elsewhere
            continue
        if found and late and int(found[1]) == life.process:
            return int(found[2])
    return None


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
