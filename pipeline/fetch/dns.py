"""Names -> checked addresses, each name asked once and remembered as long as its answer says.

The addresses that leave this module are the ones that were checked, and transfers connect to nothing else: a name
that answers differently a moment later (rebinding) gains nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol

from pipeline.clock import Clock
from pipeline.fetch.address import Address
from pipeline.fetch.reactor import READ, WRITE, Reactor
from pipeline.records import Failure
from pipeline.times import HOUR

SHORTEST, LONGEST = 10.0, HOUR
"""Bounds in seconds of how long an answer is kept; /etc/hosts and some hosts' DNS say 0."""
_REMEMBERED = 2_000
_TEMPORARY_SECONDS = 5.0


class Answer(NamedTuple):
    """What a resolver says: addresses and how long they hold, or why there are none.

    why: "" | no such name | no address | bad name | server failure | no answer.
    """

    addresses: Sequence[str]
    seconds: float
    why: str = ""


class Resolver(Protocol):
    """`done` is called once, in the reactor's thread, at once or later."""

    def lookup(self, name: str, done: Callable[[Answer], None]) -> None: ...

    def close(self) -> None: ...


class Places(NamedTuple):
    """Where a name may be connected to; or a failure (dns, blocked).  final: asking again soon is of no use."""

    addresses: tuple[str, ...]
    failure: Failure | None
    final: bool
    until: float


class Directory:
    """The cache of checked answers; used in the reactor's thread only."""

    def __init__(
        self, resolver: Resolver, clock: Clock, refuse: Callable[[Address], str | None], negative_seconds: float
    ) -> None:
        self._resolver = resolver
        self._clock = clock
        self._refuse = refuse
        self._negative_seconds = negative_seconds
        self._known: OrderedDict[str, Places] = OrderedDict()
        self._literal: dict[Address, Places] = {}
        self._waiting: dict[str, list[Callable[[Places], None]]] = {}

    def known(self, name: str) -> Places | None:
        """The remembered answer while it holds."""
        places = self._known.get(name)
        if places is None or places.until <= self._clock.monotonic():
            return None
        return places

    def ask(self, name: str, done: Callable[[Places], None]) -> None:
        """Look `name` up; equal questions are asked once."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(done)
            return
        self._waiting[name] = [done]
        self._resolver.lookup(name, lambda answer: self._answered(name, answer))

    def of_address(self, address: Address) -> Places:
        """The same for a URL that names an address."""
        places = self._literal.get(address)
        if places is None:
            if len(self._literal) >= _REMEMBERED:
                self._literal.clear()
            addresses, failure = self._check([address])
            places = self._literal[address] = Places(addresses, failure, True, 0.0)
        return places

    def _check(self, addresses: Sequence[Address]) -> tuple[tuple[str, ...], Failure | None]:
        """The addresses that may be connected to (IPv4 first), or `blocked` naming the range of the first."""
        allowed = [address for address in addresses if self._refuse(address) is None]
        if not allowed:
            return (), Failure.of("blocked", f"address: {self._refuse(addresses[0])}")
        return tuple(
            _in_turn(
                [str(one) for one in allowed if one.version == 4], [str(one) for one in allowed if one.version == 6]
            )
        ), None

    def _answered(self, name: str, answer: Answer) -> None:
        places = self._places(answer)
        self._known[name] = places
        self._known.move_to_end(name)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        for done in self._waiting.pop(name, ()):
            done(places)

    def _places(self, answer: Answer) -> Places:
        now = self._clock.monotonic()
        if answer.addresses:
            until = now + min(max(answer.seconds, SHORTEST), LONGEST)
            addresses, failure = self._check([ip_address(text) for text in answer.addresses])
            return Places(addresses, failure, True, until)
        final = answer.why in ("no such name", "no address", "bad name")
        seconds = max(1.0, self._negative_seconds if final else min(_TEMPORARY_SECONDS, self._negative_seconds))
        return Places((), Failure.of("dns", answer.why or "no address"), final, now + seconds)

    def close(self) -> None:
        self._waiting.clear()
        self._resolver.close()


class CaresResolver:
    """The machine's own resolver configuration (/etc/hosts, resolv.conf), asked by c-ares in the reactor."""

    def __init__(self, reactor: Reactor, clock: Clock, servers: Sequence[str], seconds: float) -> None:
        self._reactor = reactor
        self._clock = clock
        self._servers = list(servers)
        self._seconds = seconds
        self._channel: Any = None
        self._open: set[int] = set()
        self._timer = False

    def lookup(self, name: str, done: Callable[[Answer], None]) -> None:
        import pycares

        if self._channel is None:
            # no search domains: "shop" must not become "shop.inner.example"
            self._channel = pycares.Channel(
                flags=pycares.ARES_FLAG_NOSEARCH,
                timeout=self._seconds / 4,
                tries=2,
                servers=self._servers or None,
                sock_state_cb=self._socket,
            )
        self._channel.getaddrinfo(name, None, family=0, callback=lambda found, error: done(_answer(found, error)))
        self._arm()

    def _socket(self, fd: int, readable: bool, writable: bool) -> None:
        if readable or writable:
            self._open.add(fd)
            self._reactor.watch(fd, (READ if readable else 0) | (WRITE if writable else 0), self._ready)
        else:
            self._open.discard(fd)
            self._reactor.unwatch(fd)

    def _ready(self, fd: int, events: int) -> None:
        import pycares

        bad = pycares.ARES_SOCKET_BAD
        self._channel.process_fd(fd if events & ~WRITE else bad, fd if events & WRITE else bad)

    def _arm(self) -> None:
        if self._open and not self._timer:
            self._timer = True
            self._reactor.call_at(self._clock.monotonic() + 0.1, self._tick)

    def _tick(self) -> None:
        import pycares

        self._timer = False
        if self._channel is not None:
            self._channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
            self._arm()

    def close(self) -> None:
        for fd in self._open:
            self._reactor.unwatch(fd)
        self._open.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _in_turn(first: list[str], second: list[str]) -> Iterator[str]:
    """One of each kind after the other: a second try is made by the other version of IP."""
    for one, other in zip_longest(first, second):
        yield from (address for address in (one, other) if address is not None)


def _answer(found: Any, error: int | None) -> Answer:
    from pycares import errno

    if not error and found is not None and found.nodes:
        texts = [node.addr[0].decode("ascii") for node in found.nodes]
        return Answer(texts, float(min(node.ttl for node in found.nodes)))
    names = {
        None: "no address",
        0: "no address",
        errno.ARES_ENODATA: "no address",
        errno.ARES_ENOTFOUND: "no such name",
        errno.ARES_EBADNAME: "bad name",
        errno.ARES_ETIMEOUT: "no answer",
        errno.ARES_ECONNREFUSED: "no answer",
    }
    return Answer((), 0.0, names.get(error, "server failure"))
