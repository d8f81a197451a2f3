"""How one host, and the domain that it belongs to, may be met just now: rate, connections, backoff, breaker."""

from __future__ import annotations

from collections import deque
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from pipeline import settings
from pipeline.times import HOUR

if TYPE_CHECKING:
    from pipeline.fetch.job import Job

_LONGEST_BACKOFF = 30.0
_LONGEST_BREAK = HOUR
_HUNG = 4
"""Deadlines in a row that open the breaker, or one on each of the host's connections if it has more."""


class Bucket:
    """Tokens that come back at `rate` a second, `capacity` of them at the most."""

    __slots__ = ("_at", "_capacity", "_tokens", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self._capacity = max(1.0, capacity)
        self._tokens = self._capacity
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a token is there; 0: now."""
        if now > self._at:
            self._tokens = min(self._capacity, self._tokens + (now - self._at) * self.rate)
            self._at = now
        # a hair of slack: a timer that rings exactly on time must find its token
        return 0.0 if self._tokens >= 0.999 else (1.0 - self._tokens) / self.rate

    def take(self) -> None:
        self._tokens -= 1.0


class Domain:
    """What the hosts of one registered domain share."""

    __slots__ = ("__weakref__", "active", "bucket", "limit", "waiting")

    def __init__(self, limits: settings.Fetch, now: float) -> None:
        self.active = 0
        self.limit = max(1, int(limits.connections_per_domain * limits.share))
        hosts = limits.rates_per_domain * limits.share
        self.bucket = Bucket(limits.requests_per_second * hosts, limits.burst * hosts, now)
        self.waiting: deque[Host] = deque()


class Host:
    """A host's queue and manners.  `listed`: it stands in some queue of the engine, or has a timer.

    headers: lines that each request to it has beside the usual ones; secrets, so that nothing prints them.
    rate_setting: the setting that says how many requests a second it gets.
    """

    __slots__ = (
        "_limits",
        "_opened",
        "_pushed",
        "_row",
        "active",
        "bucket",
        "domain",
        "headers",
        "key",
        "limit",
        "listed",
        "open_until",
        "paused_until",
        "probing",
        "queue",
        "rate_setting",
        "resolving",
    )

    def __init__(
        self,
        key: str,
        domain: Domain,
        limits: settings.Fetch,
        now: float,
        headers: tuple[str, ...] = (),
        rate_setting: str = "fetch.requests_per_second",
    ) -> None:
        self.key = key
        self.headers = headers
        self.rate_setting = rate_setting
        self.domain = domain
        self.queue: deque[Job] = deque()
        self.active = 0
        self.limit = max(1, int(limits.connections_per_host * limits.share))
        self.bucket = Bucket(limits.requests_per_second * limits.share, limits.burst * limits.share, now)
        self.listed = False
        self.resolving = False
        self.paused_until = 0.0
        self.open_until = 0.0
        self.probing = False
        self._limits = limits
        self._row = 0
        self._opened = 0
        self._pushed = 0

    def is_open(self, now: float) -> bool:
        """The breaker lets nothing through."""
        return self.open_until > now

    def half_open(self) -> bool:
        """The breaker was open and no probe has come back well yet."""
        return self._opened > 0

    def wait(self, now: float) -> float:
        """Seconds until manners allow the next request; 0: now."""
        return max(self.paused_until - now, self.bucket.wait(now), self.domain.bucket.wait(now), 0.0)

    def begin(self) -> bool:
        """A request goes out; True: it is the probe of a half-open breaker."""
        self.bucket.take()
        self.domain.bucket.take()
        self.active += 1
        self.domain.active += 1
        self.probing = self.half_open()
        return self.probing

    def end(self, probe: bool) -> None:
        self.active -= 1
        self.domain.active -= 1
        if probe:
            self.probing = False

    def went_well(self) -> None:
        """It answered as a host that is well does, be it 404."""
        self._row = self._opened = self._pushed = 0

    def went_badly(self, now: float, hung: bool = False) -> None:
        """One more failure in a row; the breaker opens after so many, for longer each time.

        hung: it took a whole deadline.  A few of those weigh as much, or a dead host would hold its batches for long.
        """
        if self.is_open(now):
            return  # one that was under way when it opened
        self._row += -(-self._limits.breaker_failures // max(_HUNG, self.limit)) if hung else 1
        if self._opened or self._row >= self._limits.breaker_failures:
            self.break_for(self._limits.breaker_seconds * 2 ** min(self._opened, 6), now)

    def break_for(self, seconds: float, now: float) -> None:
        if not self.is_open(now):
            self._opened += 1
        self.open_until = max(self.open_until, now + min(seconds, _LONGEST_BREAK))

    def push_back(self, retry_after: float | None, now: float, random: Random) -> None:
        """It asked for fewer requests (429, 503): wait as it says, or longer each time."""
        if self.paused_until > now and retry_after is None:
            return  # the others that were on their way say the same
        self._pushed += 1
        longest = self._limits.retry_after_seconds
        if retry_after is None:
            backoff = self._limits.retry_seconds * 2 ** min(self._pushed - 1, 10)
            retry_after = min(backoff, _LONGEST_BACKOFF) * random.uniform(0.5, 1.5)
        elif retry_after > longest:
            self.break_for(retry_after, now)
        self.paused_until = max(self.paused_until, now + min(retry_after, _LONGEST_BREAK))

    def forgettable(self, now: float) -> bool:
        """It has no work and nothing keeps it from being asked: as good as new, but for failures in a row."""
        return not (
            self.queue
            or self.active
            or self.listed
            or self.resolving
            or self.is_open(now)
            or self.paused_until > now
            or self.bucket.wait(now) > 0
        )


def registered_domain(key: str, is_name: bool) -> str:
    """`shop.co.uk` of `img1.shop.co.uk`: what one owner registered; an address stands for itself."""
    if not is_name:
        return key
    name = key.partition(":")[0]
    return _public_suffixes().privatesuffix(name) or name


@cache
def _public_suffixes() -> Any:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
