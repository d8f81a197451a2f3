"""What the fetcher's tests share: a clock that a test turns, names that a test invents, one URL's result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.clock import Clock
from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.dns import Answer
from pipeline.fetch.reactor import Reactor
from pipeline.records import Failure
from pipeline.settings import Fetch


class Hand:
    """A clock that runs with the machine's and can be turned forward."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.start = time.monotonic()
        self.clock = Clock(now=lambda: 1_700_000_000 + self.passed(), monotonic=self.monotonic)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def passed(self) -> float:
        return self.monotonic() - self.start

    def turn(self, seconds: float) -> None:
        self.ahead += seconds


class Names:
    """A resolver that answers from a table; an answer may be a list that is used up from call to call."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        self.asked: list[str] = []

    def __call__(self, _reactor: Reactor) -> Names:
        return self

    def lookup(self, name: str, done: Callable[[Answer], None]) -> None:
        self.asked.append(name)
        answer = self.table.get(name, Answer((), 0.0, "no such name"))
        done(answer.pop(0) if isinstance(answer, list) else answer)

    def close(self) -> None:
        pass


def limits(**changes: Any) -> Fetch:
    """Settings for loopback, quick to try again."""
    values: dict[str, Any] = {
        "allow_private": True,
        "requests_per_second": 10_000.0,
        "burst": 10_000,
        "retry_seconds": 0.01,
        "attempts": 1,
    }
    return Fetch(**{**values, **changes})


def outcomes(
    fetcher: Fetcher, urls: Iterable[str], on_quiet: Callable[[], None] | None = None
) -> dict[str, Fetched | Failure]:
    """The result of each URL; on_quiet: called whenever nothing has ended for a tick."""
    found = {}
    for result in fetcher.stream((url, url) for url in urls):
        if result is not None:
            found[result[0]] = result[1]
        elif on_quiet is not None:
            on_quiet()
    return found


def fetch_one(
    url: str, *, hand: Hand | None = None, turn: float = 0.0, when: Callable[[], bool] = lambda: True, **changes: Any
) -> Fetched | Failure:
    """One URL's result; turn: seconds that the clock is put forward whenever nothing happens and `when` holds."""
    keywords = {key: changes.pop(key) for key in ("resolver", "refuse", "trace") if key in changes}
    fetcher = Fetcher(limits(**changes), clock=hand.clock if hand else None, seed=1, **keywords)
    return outcomes(fetcher, [url], (lambda: hand.turn(turn if when() else 0.0)) if hand else None)[url]
