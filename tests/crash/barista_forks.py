"""A process that has torch imported and forks baristas and customers: `python -m tests.crash.barista_forks`.

Each fork is a real process; only the imports are not paid again.  A request is a line of JSON on stdin, its answer a
line of JSON on stdout; before the first one comes `ready`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch  # noqa: F401  (imported, and nothing is computed: threads would not live on in a fork)

import pipeline.training.engine.building
from pipeline.barista import __main__ as process
from pipeline.barista import starting
from pipeline.barista.customer import Customer
from pipeline.barista.starting import Order
from pipeline.errors import PermanentError
from pipeline.process.forks import undone_in_forks  # noqa: F401  (a fork of this process holds no lock of it)
from tests.unit.barista.inputs import batch

EOF_SEEN = 7
"""The exit code of a customer that saw the end of its barista."""


def forked(live: Callable[[], int]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = live()
    finally:
        os._exit(code)


def apart(command: Sequence[str], stdin: int | None = None) -> tuple[int, int]:
    """As process.child.apart: a barista in a session of its own."""
    hear, tell = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)

    def live() -> int:
        os.setsid()
        os.dup2(null if stdin is None else stdin, 0)
        os.dup2(tell, 1)
        os.closerange(3, 256)  # as an exec would
        sys.argv = list(command)
        return process.main([command[-1]])

    pid = forked(live)
    os.close(tell)
    os.close(null)
    return pid, hear


def started(order: dict[str, Any], owned: bool) -> int:
    """A barista of this process: its pid.  It holds its end of the pipe for ever."""
    hear, _ = os.pipe() if owned else (None, None)
    found = starting.start(Order(**order, owned=owned), hear)
    if hear is not None:
        os.close(hear)
    return found.pid


def customer(file: str, seed: int, flag: str) -> int:
    """Asks for the same gradient until it is killed; it says so once the first answer is there."""
    os.closerange(3, 256)
    try:
        with Customer(file) as one:
            first = one.gradient(batch(seed), number=seed).loss
            Path(flag).touch()
            while True:
                assert one.gradient(batch(seed), number=seed).loss == first
    except PermanentError:
        return EOF_SEEN


def owner(order: dict[str, Any], flags: list[str]) -> NoReturn:
    """Begins a barista that it owns, and customers, all but the barista in one process group."""
    os.setpgid(0, 0)
    pid = started(order, owned=True)
    for seed, flag in enumerate(flags[1:]):
        forked(lambda seed=seed, flag=flag: customer(order["interface"], seed, flag))  # type: ignore[misc]
    Path(flags[0]).write_text(str(pid))
    while True:
        time.sleep(60)


def answered(asked: dict[str, Any]) -> int:
    match asked["ask"]:
        case "barista":
            return started(asked["order"], owned=False)
        case "customer":
            return forked(lambda: customer(asked["file"], asked["seed"], asked["flag"]))
        case "owner":
            return forked(lambda: owner(asked["order"], asked["flags"]))
        case "wait":
            return os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1])
    raise ValueError(asked)


if __name__ == "__main__":
    starting.apart = apart  # type: ignore[attr-defined]
    print(json.dumps("ready"), flush=True)
    with contextlib.suppress(BrokenPipeError):
        for line in sys.stdin:
            print(json.dumps(answered(json.loads(line))), flush=True)
    assert pipeline.training.engine.building is not None
