"""What is wrong now: said when it comes, when it changes and when it has ended, and not once a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType


class Troubles:
    """Troubles by the source that they are with, from one turn to the next.  scripts/troubles.awk reads the lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._now: dict[str, str] = {}

    @property
    def now(self) -> Mapping[str, str]:
        """Those of the last turn: cause and remedy, by what they are with."""
        return MappingProxyType(self._now)

    def see(self, now: Mapping[str, str]) -> None:
        """These are all that there are now."""
        for name, text in now.items():
            if self._now.get(name) != text:
                self._say(f"source {name}: {text}")
        for name, text in self._now.items():
            if now.get(name) != text:
                how = "has another problem" if name in now else "can be read again"
                self._say(f"source {name} {how}; this is over: source {name}: {text.partition(' | ')[0]}")
        self._now = dict(now)
