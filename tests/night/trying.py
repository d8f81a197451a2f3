"""One fault after the other: it is done, a person looks until it is named, it is taken back, and all is well again."""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from tests.acceptance.world import Host
from tests.night.asking import Answers, Asked, ask, news
from tests.night.deployment import Deployment
from tests.night.faults import Fault

Opened = Callable[[Path], AbstractContextManager[Deployment]]
"""A deployment in a folder."""
TURN = 60.0
"""So many seconds a person is ready to look again; looks and turns of the deployment come every second."""
ANSWER = 10.0
"""So many seconds an answer may take while nothing else runs; of a machine that does more, as many times more."""
SOURCES = ("print_logs", "status", "health", "doctor", "mail")


@dataclass(frozen=True)
class Found:
    """What was said about one fault.  said: by source, the line that names the cause.  seconds: after it was done."""

    fault: str
    host: str
    said: dict[str, str]
    remedy: str
    seconds: float
    slowest: dict[str, float]
    """By command, the most seconds that it took."""
    late: str
    """The commands that took too long, with the load; "" where none did."""
    still: str
    """The line that names it still, long after it is over; "" where the alarm has ended."""
    lost: tuple[str, ...]
    everything: str
    """All that was new, for whoever looks why nothing was named."""

    @property
    def named(self) -> bool:
        return bool(self.said)

    @property
    def passed(self) -> bool:
        return self.named and bool(self.remedy) and not (self.lost or self.late or self.still)


def attempt(deployment: Deployment, fault: Fault) -> Found:
    """Do it, look until it is named or a minute has passed, take it back, and see that it is over and what was lost."""
    host = deployment.gateway if fault.host == "gateway" else deployment.box
    before = ask(host).said
    deployment.mails.clear()
    fault.inject(deployment)
    began = time.monotonic()
    said: dict[str, str] = {}
    slowest: dict[str, float] = {}
    late: list[str] = []
    while True:
        if fault.calls_box:
            deployment.call_box()
        asked = ask(host)
        late += _late(asked)
        slowest = {source: max(slowest.get(source, 0.0), one) for source, one in asked.seconds.items()}
        new = news(before, {**asked.said, "mail": "".join(deployment.mails)})
        said |= {source: line for source in SOURCES if (line := fault.cause.line_in(new[source]))}
        remedy = next((line for source in SOURCES if (line := fault.remedy.line_in(new[source]))), "")
        seconds = time.monotonic() - began
        if (said and said.keys() >= set(fault.named_by) and remedy) or seconds > TURN:
            break
    still, lost = "", _at_rest(deployment, fault)
    if not lost:
        still = _still(deployment, fault, host, before) if fault.ends else ""
        lost = tuple(deployment.lost())
    unnamed = sorted(set(fault.named_by) - said.keys())
    everything = "\n".join(f"{source}: {line}" for source, text in new.items() for line in text.splitlines())
    return Found(
        fault.name, fault.host, {} if unnamed else said, remedy, seconds, slowest, "; ".join(late), still, lost,
        everything,
    )  # fmt: skip


def _at_rest(deployment: Deployment, fault: Fault) -> tuple[str, ...]:
    """Take it back, and wait until all is done; what waits still, where that never comes, counts as lost."""
    try:
        fault.mend(deployment)
        deployment.settle()
    except (AssertionError, TimeoutExpired) as error:
        return (f"after it was mended: {error}",)
    return ()


def _late(asked: Asked) -> Iterator[str]:
    """What took longer than a person waits, on a machine that does nothing else."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    for source, seconds in asked.seconds.items():
        if seconds > ANSWER * max(1.0, load):
            yield f"{source} took {seconds:.0f} s at a load of {load:.1f} a core"


def _still(deployment: Deployment, fault: Fault, host: Host, before: Answers) -> str:
    """The line that still names a fault a minute after it was taken back."""
    began = time.monotonic()
    while True:
        deployment.call_box()
        new = news(before, ask(host).said)
        line = next((line for text in new.values() if (line := fault.cause.line_in(text))), "")
        if not line or time.monotonic() - began > TURN:
            return line


def night(opened: Opened, faults: Sequence[Fault]) -> Iterator[Found]:
    """Each fault in turn.  One that cannot be taken back ends its deployment: the next one gets a fresh one."""
    waiting = deque(faults)
    while waiting:
        with tempfile.TemporaryDirectory(prefix="hathi-night-") as folder, opened(Path(folder)) as deployment:
            while waiting:
                found = attempt(deployment, waiting.popleft())
                yield found
                if found.lost:
                    break


def table(found: Sequence[Found]) -> Iterator[str]:
    """For each fault a line of verdicts, and a line for each source that named it."""
    for one in found:
        verdict = "named" if one.named else "NOT NAMED"
        remedy = "with its remedy" if one.remedy else "WITHOUT A REMEDY"
        lost = f"LOST: {'; '.join(one.lost)}" if one.lost else "nothing lost"
        yield f"{one.fault} (looked at on the {one.host}): {verdict} {remedy} after {one.seconds:.0f} s; {lost}"
        slowest = ", ".join(f"{source} {seconds:.1f} s" for source, seconds in one.slowest.items())
        yield f"    answers    within {slowest}{f'; TOO LATE: {one.late}' if one.late else ''}"
        if one.still:
            yield f"    STILL SAID {one.still[:200]}"
        for source in SOURCES:
            yield f"    {source:<10} {one.said.get(source, '-')[:200]}"
        if one.remedy:
            yield f"    {'remedy':<10} {one.remedy[:200]}"
    good = sum(one.passed for one in found)
    yield f"{good} of {len(found)} faults named with cause and remedy, with nothing lost"
