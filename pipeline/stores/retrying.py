"""The only retry loop: what a server may do better the next time is asked again, with jitter, until a deadline."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from pipeline.clock import Clock
from pipeline.errors import TemporaryError, Unknown

R = TypeVar("R")
LONGEST_PAUSE = 20.0


@dataclass(frozen=True)
class Retry:
    """How long a store goes on asking.

    seconds: of all tries of one request together; a try that is under way is not cut.  chance: 0 <= x < 1.
    """

    seconds: float
    clock: Clock = field(default_factory=Clock)
    chance: Callable[[], float] = random.random

    def __call__(self, request: Callable[[], R]) -> R:
        """What the request gives.

        TemporaryError is tried again after its own delay, doubled for each further try, of which half is left to
        chance, so that many clients do not come back together.  Unknown is for the caller, who reads back (commit.py);
        whatever is permanent fails at once.
        """
        ends = self.clock.monotonic() + self.seconds
        for attempt in count():
            try:
                return request()
            except Unknown:
                raise
            except TemporaryError as error:
                pause = min(error.delay * 2**attempt, LONGEST_PAUSE) * (0.5 + 0.5 * self.chance())
                if self.clock.monotonic() + pause > ends:
                    raise
                self.clock.sleep(pause)
        raise AssertionError("count() does not end")
