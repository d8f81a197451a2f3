"""How long a limit of ours alone held back requests to each host: work was there, and a connection was free."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.fetch.host import Host

_HOSTS = 2_000


@dataclass(frozen=True, slots=True)
class Held:
    """One host's.  per_second: the limit that held longest now; setting: the one that lifts it."""

    seconds: float
    per_second: float
    setting: str


class HeldBack:
    """By host.  One thread notes; any other may look."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def note(self, host: Host, now: float) -> None:
        """A request to this host could begin, but for its time: it waits until that has come.

        A pause that the host itself asked for (429, 503) is no limit of ours.
        """
        mine, shared = host.bucket.wait(now), host.domain.bucket.wait(now)
        seconds = max(mine, shared)
        if seconds <= max(0.0, host.paused_until - now):
            return
        before = self._held.get(host.key)
        total = seconds + (before.seconds if before is not None else 0.0)
        if shared > mine:
            self._held[host.key] = Held(total, host.domain.bucket.rate, "fetch.rates_per_domain")
        else:
            self._held[host.key] = Held(total, host.bucket.rate, host.rate_setting)
        if len(self._held) > _HOSTS:
            del self._held[next(iter(self._held))]

    def by_host(self) -> dict[str, Held]:
        """What was noted so far."""
        return self._held.copy()
