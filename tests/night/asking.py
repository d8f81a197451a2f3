"""What a person reads at night: print_logs, status, health and doctor of a host, and the mail of its cron."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from subprocess import CompletedProcess

from tests.acceptance.world import Host

STAGES = {"gateway": ("ship", "deliver"), "box": ("compute", "aggregate")}
OVER = "troubles that are over:"
Answers = Mapping[str, str]
"""By the name of the source: what it said."""


@dataclass(frozen=True)
class Words:
    """What names a thing: all of these words in one line, in whatever case."""

    all: tuple[str, ...]

    def line_in(self, text: str) -> str:
        """The first line with all of them; "" where there is none."""
        return next((line for line in text.splitlines() if self._in(line)), "")

    def _in(self, line: str) -> bool:
        return all(word.lower() in line.lower() for word in self.all)


def words(*some: str) -> Words:
    return Words(some)


@dataclass(frozen=True)
class Asked:
    """One look.  said, seconds: by command, what it printed and how long it took."""

    said: dict[str, str]
    seconds: dict[str, float]


def ask(host: Host) -> Asked:
    """All four commands at the same time."""
    name = host.config.parent.name
    commands = {
        "status": lambda: host.hathi("status"),
        "health": lambda: host.hathi("health"),
        "doctor": lambda: host.hathi("doctor", *STAGES[name]),
        "print_logs": lambda: host.run("scripts/print_logs.sh", str(host.config)),
    }
    with ThreadPoolExecutor(len(commands)) as pool:
        asked = {source: pool.submit(_timed, command) for source, command in commands.items()}
    said = {source: done.result()[0] for source, done in asked.items()}
    seconds = {source: done.result()[1] for source, done in asked.items()}
    return Asked({**said, "print_logs": "\n".join(_present(said["print_logs"]))}, seconds)


def _timed(command: Callable[[], CompletedProcess[str]]) -> tuple[str, float]:
    began = time.monotonic()
    return command().stdout, time.monotonic() - began


def _present(text: str) -> Iterator[str]:
    """Without what print_logs lists as over: an old fault must not answer for a new one."""
    past = False
    for line in text.splitlines():
        if line == OVER or line.startswith("== "):
            past = line == OVER
        if not past:
            yield line


def news(before: Answers, now: Answers) -> dict[str, str]:
    """The lines that were not said before; figures and times do not make one new."""
    old = {source: {_plain(line) for line in text.splitlines()} for source, text in before.items()}
    return {
        source: "\n".join(line for line in text.splitlines() if _plain(line) not in old.get(source, set()))
        for source, text in now.items()
    }


def _plain(line: str) -> str:
    return re.sub(r"[0-9][0-9.,:TZ-]*", "N", line)
