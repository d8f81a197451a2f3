"""What a fetcher did, for each host and in all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from pipeline.amounts import counted, size
from pipeline.fetch.job import Fetched
from pipeline.fetch.sink import Stored
from pipeline.records import Failure, NotModified

_HOSTS = 2_000
OTHERS = "(others)"


@dataclass(slots=True)
class Count:
    """Of one host.  requests: sent, redirects and tries included.  images: items served.  unchanged: items of which the
    host said that nothing changed.  failures: by reason."""

    requests: int = 0
    images: int = 0
    bytes: int = 0
    unchanged: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, other: Count) -> None:
        self.requests += other.requests
        self.images += other.images
        self.bytes += other.bytes
        self.unchanged += other.unchanged
        self.failures.update(other.failures)


class Counts:
    """Counts by host; the hosts that were first seen longest ago are merged beyond 10,000."""

    def __init__(self) -> None:
        self.by_host: dict[str, Count] = {}
        self._others = Count()

    def note(self, host: str, outcome: Fetched | NotModified | Stored | Failure, requests: int) -> None:
        count = self.by_host.get(host)
        if count is None:
            count = self.by_host[host] = Count()
            if len(self.by_host) > _HOSTS:
                self._others.add(self.by_host.pop(next(iter(self.by_host))))
        count.requests += requests
        if isinstance(outcome, Fetched):
            count.images += 1
            count.bytes += len(outcome.content)
        elif isinstance(outcome, Stored):
            count.bytes += outcome.size
        elif isinstance(outcome, NotModified):
            count.unchanged += 1
        else:
            count.failures[outcome.reason] += 1

    def total(self) -> Count:
        whole = Count()
        whole.add(self._others)
        for count in self.by_host.values():
            whole.add(count)
        return whole

    def summary(self) -> str:
        """e.g. `fetched 1,200 images (54 MB) with 1,290 requests to 3 hosts, 12 failures (dns 2, http_4xx 10)`."""
        whole = self.total()
        hosts = sum(host != "" for host in self.by_host)
        text = (
            f"fetched {counted(whole.images, 'image')} ({size(whole.bytes)}) "
            f"with {counted(whole.requests, 'request')} to {counted(hosts, 'host')}"
        )
        if not whole.failures:
            return text
        failures = counted(sum(whole.failures.values()), "failure")
        parts = ", ".join(f"{reason} {count}" for reason, count in sorted(whole.failures.items()))
        return f"{text}, {failures} ({parts})"
