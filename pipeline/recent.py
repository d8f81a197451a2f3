"""A set that remembers the last few things only, so that a daemon does not grow with what it has seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Recent(Generic[T]):
    """At most `most` things; what was neither added nor asked for the longest goes first.

    For answers that may be forgotten: whoever finds one missing asks, or says it, again.  Threads may share it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: OrderedDict[T, None] = OrderedDict()

    def __contains__(self, thing: T) -> bool:
        try:
            self._things.move_to_end(thing)
        except KeyError:
            return False
        return True

    def __len__(self) -> int:
        return len(self._things)

    def add(self, thing: T) -> None:
        """Remember it."""
        self._things[thing] = None
        self._things.move_to_end(thing)
        while len(self._things) > self._most:
            self._things.popitem(last=False)

    def discard(self, thing: T) -> None:
        """Forget it."""
        self._things.pop(thing, None)
