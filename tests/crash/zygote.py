"""A process that has the product imported and forks one `hathi` after the other: `python -m tests.crash.zygote`.

Each fork is a real process with its own signals, locks, files and end; only the imports are not paid again.  What it
does not share with a plain start: stores are opened behind the faults that its environment names, and time stands
where it says.  One request is a line of JSON on stdin, one answer a line on stdout.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import environment

ROOT = Path(__file__).parents[2]
FAULTS, JOURNAL, CLOCK, COUNTS = "CRASH_FAULTS", "CRASH_JOURNAL", "CRASH_CLOCK", "CRASH_COUNTS"
"""Variables: faults by store (JSON), the file of strikes and changes, seconds since 1970 (or @file), and a file with
three numbers of eight bytes: calls that are no lists, lists, and those lists with which a poll begins."""
MORE = "CRASH_IMPORTS"
"""A variable of the zygote itself: modules that it imports besides, with blanks between them."""
CACHED = "CRASH_CACHED_BODIES"
"""A variable: so many bodies are kept by a process, so that its cache is full soon."""
FOLDER = "CRASH_FOLDER"
"""A variable: the current folder of a process."""
COUNTED = struct.Struct("<QQQ")

IMPORTED = (
    "cv2",
    "pandas",  # pyarrow asks for it as it takes its first Python values
    "pyarrow.compute",
    "pyarrow.parquet",
    "pipeline.codec.shards",
    "pipeline.nets.features",
    "pipeline.extraction.feature_maker",
    "pipeline.cli.main",
    *(f"pipeline.cli.{name}" for name in ("backfill", "prune", "quarantine", "run", "serve", "ship", "verify", "why")),
)

real_time = time.time


def told_time() -> float:
    """The time that CRASH_CLOCK says, or the file that it names behind an @; it stands still. Else the real one."""
    text = os.environ.get(CLOCK, "")
    if text.startswith("@"):
        text = Path(text[1:]).read_text()
    return float(text) if text else real_time()


def prepare() -> None:
    """Import everything that a run needs, with stores behind faults and the time as told."""
    time.time = told_time  # before anything keeps a reference to it
    from pipeline.stores import opening
    from tests.faults.faults import Faults, decoded
    from tests.faults.gate import CHANGES, Gated

    def behind(place: str, store: object) -> Any:
        journal = os.environ.get(JOURNAL)

        def note(line: str) -> None:
            if journal:
                handle = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                os.write(handle, f"{place}\t{line}\n".encode())
                os.close(handle)

        text = json.loads(os.environ.get(FAULTS, "{}")).get(place, [])
        faults = Faults(decoded(json.dumps(text)), note)

        def gate(verb: str, key: str, effect: Any) -> object:
            if verb in CHANGES:
                note(f"change\t{verb}\t{key}")
            return faults(verb, key, effect)

        if not journal:
            return counting(store)
        return Gated(store, gate)

    def counting(store: object) -> Any:
        name = os.environ.get(COUNTS)
        if not name:
            return store
        with open(name, "r+b") as file:
            counts = mmap.mmap(file.fileno(), COUNTED.size)
        lock = threading.Lock()

        def gate(verb: str, key: str, effect: Any) -> object:
            with lock:
                others, lists, polls = COUNTED.unpack(counts)
                is_list = verb in ("list", "walk")
                is_poll = verb == "list" and key.endswith("/h/alive/")
                counts[:] = COUNTED.pack(others + (not is_list), lists + is_list, polls + is_poll)
            return effect()

        return Gated(store, gate)

    open_bucket, open_lake = opening.open_bucket, opening.open_lake
    opening.open_bucket = lambda settings: behind("bucket", open_bucket(settings))
    opening.open_lake = lambda settings, name: behind("lake", open_lake(settings, name))

    for module in (*IMPORTED, *os.environ.get(MORE, "").split()):
        importlib.import_module(module)


def live(request: dict[str, Any]) -> None:
    """Be `hathi` with these words, and end."""
    from pipeline.cli.main import main

    os.setsid()
    os.environ.update(request["environ"])
    for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(os.environ.get(FOLDER, "."))
    if number_of_bodies := os.environ.get(CACHED):
        from pipeline.ledger import protocol

        protocol.CACHED_BODIES = int(number_of_bodies)
    code = 0
    try:
        for words in request["commands"]:
            code = max(code, main(words))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code)


def serve() -> None:
    """Fork as asked; wait as asked."""
    prepare()
    gc.collect()
    gc.freeze()  # what was imported is no garbage: a fork need not look through it
    for line in sys.stdin:
        request = json.loads(line)
        if request["ask"] == "start":
            pid = os.fork()
            if pid == 0:
                live(request)
            print(pid, flush=True)
        else:
            print(os.waitpid(request["pid"], 0)[1], flush=True)


class Zygote:
    """A zygote and the processes that it forks."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        """more: modules to import besides those of a run."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment.environ("CRASH_"), MORE: " ".join(more)},
        )
        self._living: set[int] = set()

    def _ask(self, **request: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def start(self, *commands: Sequence[str], environ: Mapping[str, str], out: Path, err: Path) -> int:
        """A process that runs these commands one after the other; its pid."""
        words = [list(command) for command in commands]
        pid = self._ask(ask="start", commands=words, environ=dict(environ), out=str(out), err=str(err))
        self._living.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit code of a process once it ends; negative: the signal that ended it."""
        status = self._ask(ask="wait", pid=pid)
        self._living.discard(pid)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Nothing that it forked lives on."""
        for pid in self._living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    serve()
