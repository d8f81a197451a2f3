"""Whether a polite limit sets the pace, and neither the net nor the machine: measured, over the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from pipeline.clock import Clock
from pipeline.fetch.held_back import Held

SPAN = 5.0
"""Seconds that are judged together."""
HELD = 0.5
"""The share of them in which a limit alone held a host's refs back: it sets the pace."""
BUSY = 0.8
"""The share of them in which net or decoders worked: from there on it is the machine that sets it."""
_LOOK_SECONDS = 0.5


class Pace:
    """What limits a process's fetching.  say: told once, when a limit sets the pace first."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._said = False
        self._seen: deque[tuple[float, Mapping[str, Held], float]] = deque()
        self._judged = 0.0
        self._paced: dict[str, float] = {}
        self._limits: dict[str, Held] = {}

    def begin(self) -> None:
        """Another fetcher's figures follow."""
        self._seen.clear()

    def look(self, held: Callable[[], Mapping[str, Held]], busy: float) -> None:
        """held: by host, so far.  busy: seconds of work so far, of the net or of all decoders, whichever is more."""
        now = self._clock.monotonic()
        if self._seen and now - self._seen[-1][0] < _LOOK_SECONDS:
            return
        self._seen.append((now, held(), busy))
        since, before, busy_before = self._seen[0]
        if now - since < SPAN:
            return
        step = now - self._seen[-2][0]
        self._seen.popleft()
        self._judged += step
        if busy - busy_before > BUSY * (now - since):
            return
        for host, one in self._seen[-1][1].items():
            earlier = before[host].seconds if host in before else 0.0
            if one.seconds - earlier >= HELD * (now - since):
                self._paced[host] = self._paced.get(host, 0.0) + step
                self._limits[host] = one
                if not self._said:
                    self._said = True
                    self._say(f"{limit_of(host, one)} sets the pace, not this machine; {remedy_of(one)}")

    @property
    def set_by(self) -> dict[str, str]:
        """By host: the limit that set the pace for most of the time, and how it is lifted."""
        hosts = sorted(self._paced, key=lambda host: -self._paced[host])
        return {
            host: f"{limit_of(host, self._limits[host])} set the pace; {remedy_of(self._limits[host])}"
            for host in hosts
            if self._paced[host] >= HELD * self._judged
        }


def limit_of(host: str, held: Held) -> str:
    """A limit in words."""
    return f"{host}'s limit of {held.per_second:g}/s"


def remedy_of(held: Held) -> str:
    """What lifts it."""
    more = "N" if held.setting == "fetch.rates_per_domain" else f"{10 * held.per_second:g}"
    return f"if the host is yours, raise it: --set '{held.setting}={more}'"
