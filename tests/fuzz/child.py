"""One target in a process of its own: what it is fed is written down first, so that its death names the input."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import re
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

from pipeline.errors import PipelineError
from tests import peak
from tests.fuzz.mutation import LARGEST, Mutator

INPUT_SECONDS = 5.0
"""Processor time of one input; then SIGPROF ends the process, whatever code it is in."""
MEMORY = 1024 * 2**20
"""Bytes of address space beyond what the process has once its modules are loaded."""
RESIDENT = 640 * 2**20
"""Growth of what it holds, at the most."""
_POOL = 400
_SAME = 3  # findings of one kind that are kept


class Current:
    """The input that is being read, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(8 + LARGEST)
            self._map = mmap.mmap(file.fileno(), 8 + LARGEST)

    def set(self, data: bytes) -> None:
        self._map[8 : 8 + len(data)] = data
        self._map[:8] = len(data).to_bytes(8, "little")

    @staticmethod
    def read(path: Path) -> bytes:
        whole = path.read_bytes()
        return whole[8 : 8 + int.from_bytes(whole[:8], "little")]


def main(name: str, seed: str, seconds: float, folder: Path) -> None:
    """Feed a target for so much processor time; facts go to `<folder>/said` as JSON lines."""
    from tests.fuzz.targets import TARGETS

    logging.disable(logging.CRITICAL)
    target = TARGETS[name]
    pool = target.inputs()
    current = Current(folder / "current")
    said = (folder / "said").open("a", buffering=1)
    for data in pool:  # loads what is lazy before the limits are set, and shows that the seeds are read as they should
        _try(target.read, data)
    _limit()
    base = peak.forget()
    mutator = Mutator(f"{name} {seed}", pool, target.words)
    outcomes = {_outcome(_try(target.read, data)) for data in pool}
    found: dict[str, int] = {}
    count, began, spent = 0, _processor_seconds(), 0.0
    while spent < seconds:
        if count % 32 == 0:
            spent = _processor_seconds() - began
        data = mutator.next()
        current.set(data)
        signal.setitimer(signal.ITIMER_PROF, INPUT_SECONDS)
        result = _try(target.read, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        count += 1
        grown = peak.held() - base
        if grown > RESIDENT:
            _say(said, "memory", f"{grown >> 20} MiB more were held at once", data)
            break
        if isinstance(result, Exception) and not isinstance(result, PipelineError):
            kind, detail = _kind(result)
            found[kind] = found.get(kind, 0) + 1
            if found[kind] <= _SAME:
                _say(said, kind, detail, data)
            continue
        outcome = _outcome(result)
        if outcome not in outcomes and len(mutator.pool) < _POOL:  # it went somewhere new: go on from there
            outcomes.add(outcome)
            mutator.pool.append(data)
    print(json.dumps({"inputs": count, "outcomes": len(outcomes), "seconds": round(spent, 3)}), file=said)


def _try(read: object, data: bytes) -> object:
    try:
        return read(data)  # type: ignore[operator]
    except Exception as error:
        return error


def _processor_seconds() -> float:
    """Of this process and of those that read for it."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _limit() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _outcome(result: object) -> str:
    """What an input came to, numbers and names apart."""
    text = f"{type(result).__name__} {result}"[:300]
    names = r"'[^']*'|\"[^\"]*\"|" if isinstance(result, Exception) else ""
    return re.sub(rf"{names}\d+|[^ -~]", "#", text)[:120]


def _kind(error: Exception) -> tuple[str, str]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/pipeline/" in frame.filename]
    place = f"{frames[-1].filename.rpartition('/pipeline/')[2]}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {place}", "".join(traceback.format_exception(error))[-1500:]


def _say(said: object, kind: str, detail: str, data: bytes) -> None:
    print(json.dumps({"finding": kind, "detail": detail, "data": data.hex()}), file=said)  # type: ignore[call-overload]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
