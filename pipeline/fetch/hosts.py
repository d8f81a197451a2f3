"""All the hosts that are known just now, and which of them have something to do."""

from __future__ import annotations

from collections import OrderedDict, deque
from weakref import WeakValueDictionary

from pipeline import settings
from pipeline.clock import Clock
from pipeline.fetch.host import Domain, Host, registered_domain
from pipeline.fetch.target import Target

_REMEMBERED = 2_000
_LOOK_AT = 8


class Hosts:
    """Hosts by key, least lately used first; `ready`: those to be served, in turn."""

    def __init__(self, limits: settings.Fetch, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._hosts: OrderedDict[str, Host] = OrderedDict()
        self._domains: WeakValueDictionary[str, Domain] = WeakValueDictionary()
        self.ready: deque[Host] = deque()

    def of(self, target: Target) -> Host:
        host = self._hosts.get(target.key)
        if host is None:
            now = self._clock.monotonic()
            name = registered_domain(target.key, target.address is None)
            domain = self._domains.get(name)
            if domain is None:
                domain = self._domains[name] = Domain(self._limits, now)
            host = self._hosts[target.key] = Host(target.key, domain, self._limits, now)
            self._forget_some(now)
        else:
            self._hosts.move_to_end(target.key)
        return host

    def list(self, host: Host) -> None:
        """Serve it soon, unless it stands in a queue or waits for its time already."""
        if not host.listed and host.queue:
            host.listed = True
            self.ready.append(host)

    def _forget_some(self, now: float) -> None:
        for _ in range(min(_LOOK_AT, len(self._hosts) - _REMEMBERED)):
            key, host = next(iter(self._hosts.items()))
            if host.forgettable(now):
                del self._hosts[key]
            else:
                self._hosts.move_to_end(key)
