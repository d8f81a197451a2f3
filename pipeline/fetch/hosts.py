"""All the hosts that are known just now, which of them have something to do, and what the settings say of each."""

from __future__ import annotations

from collections import OrderedDict, deque
from weakref import WeakValueDictionary

from pipeline import settings
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.fetch.host import Domain, Host, registered_domain
from pipeline.fetch.target import Target, parse

_REMEMBERED = 2_000
_LOOK_AT = 8


class Hosts:
    """Hosts by key, least lately used first; `ready`: those to be served, in turn."""

    def __init__(self, limits: settings.Fetch, clock: Clock) -> None:
        self._limits = limits
        self._own = {_key(name, limits): own for name, own in limits.hosts.items()}
        self._clock = clock
        self._hosts: OrderedDict[str, Host] = OrderedDict()
        self._domains: WeakValueDictionary[str, Domain] = WeakValueDictionary()
        self.ready: deque[Host] = deque()

    def of(self, target: Target) -> Host:
        host = self._hosts.get(target.key)
        if host is None:
            now = self._clock.monotonic()
            host = self._hosts[target.key] = self._met(target, now)
            self._forget_some(now)
        else:
            self._hosts.move_to_end(target.key)
        return host

    def _met(self, target: Target, now: float) -> Host:
        """A host of which nothing is remembered."""
        shared = registered_domain(target.key, target.address is None)
        own = self._own.get(target.key)
        if own is None:
            return Host(target.key, self._domain(shared, self._limits, now), self._limits, now)
        limits = _limits(own, self._limits)
        alone = own.connections is not None or own.requests_per_second is not None
        domain = self._domain(f"host {target.key}", limits, now) if alone else self._domain(shared, self._limits, now)
        mine = own.requests_per_second is not None
        setting = f'fetch.hosts."{target.key}".requests_per_second' if mine else "fetch.requests_per_second"
        return Host(target.key, domain, limits, now, _headers(own, self._limits), setting)

    def _domain(self, name: str, limits: settings.Fetch, now: float) -> Domain:
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = Domain(limits, now)
        return domain

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


def _key(name: str, limits: settings.Fetch) -> str:
    """The key of a host that the settings name: that of its URLs."""
    target = parse(f"http://{name}/", limits.max_url_length)
    if not isinstance(target, Target):
        raise ConfigError(f'fetch.hosts."{name}" is not a host', target.detail, "write the host as it stands in URLs")
    return target.key


def _limits(own: settings.HostFetch, limits: settings.Fetch) -> settings.Fetch:
    """What holds for this host, and for it as a domain of its own."""
    chosen = {
        "connections_per_host": own.connections,
        "connections_per_domain": own.connections or limits.connections_per_host,
        "requests_per_second": own.requests_per_second,
        "burst": own.burst,
    }
    return limits.model_copy(update={name: value for name, value in chosen.items() if value is not None})


def _headers(own: settings.HostFetch, limits: settings.Fetch) -> tuple[str, ...]:
    """The lines that a request to this host has beside the usual ones, or in their place: secrets, in clear."""
    agent = () if own.user_agent is None else (f"User-Agent: {own.user_agent.replace('{contact}', limits.contact)}",)
    return *agent, *(f"{name}: {value.get_secret_value()}" for name, value in own.headers.items())
