"""Commands that leave everything or nothing: SIGTERM ends them as an interrupt does, ESTOP where they look for it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType

from pipeline.errors import ConfigError, Stopped
from pipeline.process.lock import ESTOP, estop_since, refuse_estop

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM ended, as shells know it."""
AddArguments = Callable[[argparse.ArgumentParser], None]


class _Terminated(KeyboardInterrupt):
    """SIGTERM came.  It goes through whatever an interrupt from the keyboard goes through."""


def in_order(act: Callable[[], int]) -> int:
    """What `act` gives; 143 after SIGTERM, once what was half made is gone."""
    try:
        with _terminable():
            return act()
    except _Terminated:
        print("SIGTERM ended the command; nothing of it is left", file=sys.stderr)
        return TERMINATED


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is half made goes now, and once
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def estop_of(config: Path | None) -> Callable[[], None]:
    """Gives what raises Stopped as soon as ESTOP stands in the state folder of a configuration.

    Raises EstopEngaged where it stands there already, ConfigError for a configuration that cannot be read.
    """
    if config is None:
        return lambda: None
    from pipeline.settings import load

    state = Path(load(config, os.environ).state)
    refuse_estop(state)

    def look() -> None:
        if estop_since(state) is not None:
            raise Stopped("ESTOP ended the command", "nothing of it is left",
                          f"remove {state / ESTOP}, then type it again")  # fmt: skip

    return look


def refuse_others(args: argparse.Namespace, word: str, takes: Collection[str], add_arguments: AddArguments) -> None:
    """Raises ConfigError for an option that was given and that `hathi train WORD` does not look at.

    takes: of all options that `add_arguments` adds, those that it does.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    for name, unset in vars(parser.parse_args([word])).items():
        if name != "words" and name not in takes and getattr(args, name) != unset:
            raise ConfigError(f"hathi train {word} takes no --{name.replace('_', '-')} here",
                              "the command would not look at it", "leave it out; hathi train --help")  # fmt: skip
