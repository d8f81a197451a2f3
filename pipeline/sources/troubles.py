"""What is wrong now: said when it comes, when it changes and when it has ended, and not once a minute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType


class Troubles:
    """Troubles by what they are with, from one turn to the next."""

    def __init__(self, say: Callable[[str], None], over: str = "well again") -> None:
        """over: how the end of one is told."""
        self._say = say
        self._over = over
        self._now: dict[str, str] = {}

    @property
    def now(self) -> Mapping[str, str]:
        """Those of the last turn: cause and remedy, by what they are with."""
        return MappingProxyType(self._now)

    def see(self, now: Mapping[str, str]) -> None:
        """These are all that there are now."""
        for name, text in now.items():
            if self._now.get(name) != text:
                self._say(text)
        for name in self._now:
            if name not in now:
                self._say(f"{self._over}: {name}")
        self._now = dict(now)
