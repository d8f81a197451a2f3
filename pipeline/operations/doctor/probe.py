"""A probe, and how it is run: in a thread that is left behind when it hangs."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import PipelineError
from pipeline.stores.store import Examined


@dataclass(frozen=True)
class Probe:
    """Something to look at.  seconds: until it counts as hung."""

    area: str
    look: Callable[[], Iterator[Examined]]
    seconds: float = 30.0


def run(probe: Probe, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Examined]:
    """What the probe finds, as it finds it; what it raises, or that it hangs, is a finding, too."""
    found: queue.SimpleQueue[Examined | None] = queue.SimpleQueue()

    def look() -> None:
        try:
            for one in probe.look():
                found.put(one)
        except PipelineError as error:
            found.put(Examined(probe.area, False, _said(error), error.hint))
        except Exception as error:  # said as a finding: the probes after this one are still wanted
            found.put(
                Examined(
                    probe.area,
                    False,
                    f"unexpected {type(error).__name__}: {error}",
                    "this is a bug in Hathi: please report it",
                )
            )
        found.put(None)

    threading.Thread(target=look, name=f"probe {probe.area}", daemon=True).start()
    ends = monotonic() + probe.seconds
    while True:
        try:
            one = found.get(timeout=max(0.0, ends - monotonic()))
        except queue.Empty:
            yield Examined(
                "answer",
                False,
                f"no answer within {probe.seconds:.0f} s: the probe was given up",
                "a server or a device that it asks hangs",
            )
            return
        if one is None:
            return
        yield one


def run_all(probes: Iterable[Probe]) -> Iterator[tuple[str, Examined]]:
    """The findings of all probes, each with its area, in order."""
    for probe in probes:
        for one in run(probe):
            yield probe.area, one


def _said(error: PipelineError) -> str:
    return f"{error.message} ({error.detail})" if error.detail else error.message
