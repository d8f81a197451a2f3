"""What ends a program of the service: a signal, ESTOP on this host, ESTOP of the service in the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.clock import Clock
from pipeline.errors import TemporaryError
from pipeline.process.lock import EstopEngaged, refuse_estop
from pipeline.process.stop import Stop, signals
from pipeline.service.halting import heeded, standing
from pipeline.service.keys import ESTOP
from pipeline.settings import Settings
from pipeline.stores.opening import hasty, open_bucket
from pipeline.stores.store import Store


def refuse(settings: Settings, say: Callable[[str], None]) -> Store:
    """A bucket that is asked once; ESTOP stands neither there nor on this host.

    Raises EstopEngaged.  A bucket that does not answer holds none.
    """
    refuse_estop(Path(settings.state))
    bucket = open_bucket(hasty(settings))
    try:
        stands = standing(bucket)
    except TemporaryError as error:
        say(f"it cannot be seen whether ESTOP stands in the bucket: {error}")
        stands = False
    if stands:
        text = "ESTOP engaged in the bucket: nothing was started; `hathi start --remote` deletes"
        raise EstopEngaged(f"{text} {settings.bucket.url}/{ESTOP}, then start again")
    return bucket


@contextlib.contextmanager
def stoppable(settings: Settings, say: Callable[[str], None]) -> Iterator[Stop]:
    """What says when to end.  Raises EstopEngaged before the block where ESTOP stands already."""
    bucket = refuse(settings, say)
    stop = Stop(Path(settings.state), Clock(), say)
    with signals(stop, lambda: None), heeded(bucket, stop, say):
        yield stop
