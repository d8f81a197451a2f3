"""A probe, and how it is run: in a thread that is left behind when it hangs.

Probes ask at the same time, so that several servers that are down cost one wait, and are told in their order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pipeline.errors import PipelineError
from pipeline.stores.store import Examined

LATER = 8.0
AFTERWARDS = 3.0
"""What comes after something that is not well is most often the same again: nobody waits longer for it."""


@dataclass(frozen=True)
class Probe:
    """Something to look at."""

    area: str
    look: Callable[[], Iterator[Examined]]
    seconds: float = 5.0
    """Without a first word until it counts as hung; once it has answered, `LATER` seconds from word to word."""
    alone: bool = False
    """It works the machine hard: it begins when its turn comes, not beside the others."""


def run(probe: Probe, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Examined]:
    """What the probe finds, as it finds it; what it raises, or that it hangs, is a finding, too."""
    return begin(probe, monotonic)()


def begin(probe: Probe, monotonic: Callable[[], float] = time.monotonic) -> Callable[[], Iterator[Examined]]:
    """Begin a probe; what is given back tells what it finds, as `run`."""
    found: queue.SimpleQueue[tuple[float, Examined | None]] = queue.SimpleQueue()

    def look() -> None:
        try:
            for one in probe.look():
                found.put((monotonic(), one))
        except PipelineError as error:
            found.put((monotonic(), Examined(probe.area, False, _said(error), error.hint)))
        except Exception as error:  # said as a finding: the probes after this one are still wanted
            said, hint = f"unexpected {type(error).__name__}: {error}", "this is a bug in Hathi: please report it"
            found.put((monotonic(), Examined(probe.area, False, said, hint)))
        found.put((monotonic(), None))

    began = monotonic()
    threading.Thread(target=look, name=f"probe {probe.area}", daemon=True).start()

    def tell() -> Iterator[Examined]:
        limit, ends, well = probe.seconds, began + probe.seconds, True
        while True:
            try:
                last, one = found.get(timeout=max(0.0, ends - monotonic()))
            except queue.Empty:
                if not well:
                    return
                said = f"no answer within {limit:.0f} s: the probe was given up"
                hint = "what it asks hangs: see the log of that server, and start it again; for a mount see dmesg"
                yield Examined("answer", False, said, hint)
                return
            if one is None:
                return
            well = well and one.ok
            limit = max(probe.seconds, LATER) if well else AFTERWARDS
            ends = last + limit
            yield one

    return tell


def run_all(probes: Iterable[Probe]) -> Iterator[tuple[str, Examined]]:
    """The findings of all probes, each with its area, in order."""
    begun = [(probe, partial(run, probe) if probe.alone else begin(probe)) for probe in probes]
    for probe, tell in begun:
        for one in tell():
            yield probe.area, one


def _said(error: PipelineError) -> str:
    return f"{error.message} ({error.detail})" if error.detail else error.message
