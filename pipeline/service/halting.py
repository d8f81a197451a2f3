"""ESTOP of the service in the bucket: one object stops its servers and workers on every host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pipeline.process.stop import Stop, looking
from pipeline.service.keys import ESTOP
from pipeline.stores.store import Store

LOOK_SECONDS = 5.0
"""Between two looks of a program that runs: as often as workers beat."""


def standing(store: Store) -> bool:
    """Whether it stands in the bucket.  One request; raises what the bucket raises."""
    return any(entry.key == ESTOP for entry in store.list(ESTOP, until=ESTOP))


@contextlib.contextmanager
def heeded(store: Store, stop: Stop, say: Callable[[str], None], seconds: float = LOOK_SECONDS) -> Iterator[None]:
    """While the block lasts `stop` is told once it stands there.  store: one that answers soon or fails."""

    def look() -> None:
        if standing(store):
            stop.engage(ESTOP)

    with looking(look, seconds, say):
        yield
