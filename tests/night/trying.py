"""One fault after the other: it is done, a person looks until it is named, it is taken back, and all is well again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.night.asking import ask, news
from tests.night.deployment import Deployment
from tests.night.faults import Fault

TURN = 60.0
"""So many seconds a person is ready to look again; looks and turns of the deployment come every second."""
SOURCES = ("print_logs", "status", "health", "doctor", "mail")


@dataclass(frozen=True)
class Found:
    """What was said about one fault.  said: by source, the line that names the cause."""

    fault: str
    host: str
    said: dict[str, str]
    remedy: str
    seconds: float
    lost: tuple[str, ...]
    everything: str
    """All that was new, for whoever looks why nothing was named."""

    @property
    def named(self) -> bool:
        return bool(self.said)

    @property
    def passed(self) -> bool:
        return self.named and bool(self.remedy) and not self.lost


def attempt(deployment: Deployment, fault: Fault) -> Found:
    """Do it, look until it is named or a minute has passed, take it back, and see what was lost."""
    host = deployment.gateway if fault.host == "gateway" else deployment.box
    before = ask(host)
    began = time.monotonic()
    fault.inject(deployment)
    while True:
        mail = ""
        if fault.calls_box:
            mail = deployment.box.cron().stdout
        new = news(before, {**ask(host), "mail": mail})
        said = {source: line for source in SOURCES if (line := fault.cause.line_in(new[source]))}
        remedy = next((line for source in SOURCES if (line := fault.remedy.line_in(new[source]))), "")
        seconds = time.monotonic() - began
        if (said and remedy) or seconds > TURN:
            break
    fault.mend(deployment)
    deployment.settle()
    everything = "\n".join(f"{source}: {line}" for source, text in new.items() for line in text.splitlines())
    return Found(fault.name, fault.host, said, remedy, seconds, tuple(deployment.lost()), everything)


def night(deployment: Deployment, faults: Sequence[Fault]) -> Iterator[Found]:
    for fault in faults:
        yield attempt(deployment, fault)


def table(found: Sequence[Found]) -> Iterator[str]:
    """For each fault a line of verdicts, and a line for each source that named it."""
    for one in found:
        verdict = "named" if one.named else "NOT NAMED"
        remedy = "with its remedy" if one.remedy else "WITHOUT A REMEDY"
        lost = f"LOST: {'; '.join(one.lost)}" if one.lost else "nothing lost"
        yield f"{one.fault} (looked at on the {one.host}): {verdict} {remedy} after {one.seconds:.0f} s; {lost}"
        for source in SOURCES:
            yield f"    {source:<10} {one.said.get(source, '-')[:200]}"
        if one.remedy:
            yield f"    {'remedy':<10} {one.remedy[:200]}"
    good = sum(one.passed for one in found)
    yield f"{good} of {len(found)} faults named with cause and remedy, with nothing lost"
