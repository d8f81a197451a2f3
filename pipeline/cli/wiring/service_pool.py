"""Workers beside an API server: as many processes as are wanted, each begun anew when it dies.

`python -m pipeline.cli.wiring.service_pool CONFIG NAME PARENT` is one of them; it dies with the process that began it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from pipeline.errors import PipelineError
from pipeline.process import life
from pipeline.process.child import Child, python_of
from pipeline.service.ids import Kind, new_id

PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker that died is begun anew: longer, the sooner it dies."""
LASTS_SECONDS = 30.0
"""A worker that lived so long begins the pauses anew."""
DRAIN_SECONDS = 35.0
"""So long workers have to part with what they hold."""


@dataclass(frozen=True)
class Watch:
    """stopping: whether all is to end.  gone: told of a worker that died, by its name."""

    stopping: Callable[[], bool]
    say: Callable[[str], None]
    gone: Callable[[str], None]


class Pool:
    """Ends with the block: each worker is asked to end, and what it held goes to whoever claims it."""

    def __init__(self, config: str, workers: int, watch: Watch) -> None:
        self._config, self._watch = config, watch
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._keep, name=f"worker {n}") for n in range(workers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _keep(self) -> None:
        deaths = 0
        while not self._ending.is_set() and not self._watch.stopping():
            began = time.monotonic()
            name = new_id(Kind.WORKER, time.time())
            with Child(python_of("pipeline.cli.wiring.service_pool", self._config, name)) as child:
                ended: list[str] = []
                waiting = threading.Thread(target=lambda ended=ended, child=child: ended.append(child.wait().story))
                waiting.start()
                while waiting.is_alive() and not self._ending.wait(0.2) and not self._watch.stopping():
                    continue
                child.end()
                waiting.join(DRAIN_SECONDS)
            if self._ending.is_set() or self._watch.stopping():
                return
            deaths = 0 if time.monotonic() - began > LASTS_SECONDS else deaths + 1
            pause = PAUSES[min(deaths, len(PAUSES)) - 1] if deaths else PAUSES[0]
            try:
                self._watch.gone(name)
            except PipelineError as error:  # its leases end by themselves, a little later
                self._watch.say(str(error))
            self._watch.say(f"a worker {''.join(ended)}; another one begins in {pause:g} s")
            self._ending.wait(pause)


if __name__ == "__main__":
    from pipeline.cli.main import main

    life.die_with(int(sys.argv[3]))
    sys.exit(main(["service", "worker", "--config", sys.argv[1], "--name", sys.argv[2]]))
