"""What a look at sources gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pipeline.ledger.manifest import Reading, Snapshot


@dataclass(frozen=True)
class Found:
    """A snapshot as it is seen, and how its files are read."""

    snapshot: Snapshot
    reading: Reading

    @cached_property
    def digest(self) -> str:
        """The snapshot's, worked out once: what did not change is found anew in each poll."""
        return self.snapshot.digest()

    @property
    def group(self) -> str:
        return group_of(self.snapshot, self.reading)


def group_of(snapshot: Snapshot, reading: Reading) -> str:
    """Whose turn it is in the round: the partner where the source has one, else what it belongs to, else itself."""
    return str(reading.partner_id) if reading.partner_id is not None else snapshot.group or snapshot.source


NAMED = 100
"""Paths of what is left out that are told one by one; more are counted."""


@dataclass(frozen=True)
class Left:
    """What lies at the sources and is not read: how many, and the first of them with the reason in words."""

    number: int = 0
    first: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(left: Mapping[str, str]) -> Left:
        return Left(len(left), dict(list(left.items())[:NAMED]))

    def plus(self, other: Left) -> Left:
        if not other.number:
            return self
        return Left(self.number + other.number, dict(list({**self.first, **other.first}.items())[:NAMED]))


NONE_LEFT: Final = Left()


@dataclass(frozen=True)
class Named:
    """What sources name now, and what is wrong with them."""

    found: tuple[Found, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Cause and remedy, by the snapshot's source; a whole source that cannot be seen stands under its path."""
    blind: bool = False
    """A whole source cannot be seen just now: it may still name what it named."""
    left: Left = NONE_LEFT
    """Files and folders that are not read: of unknown formats, pipes, links that lead out, what may not be read."""
    later: Left = NONE_LEFT
    """What is read once it is complete: files that have just changed, folders without `_SUCCESS`."""

    def may_name(self, source: str) -> bool:
        """Whether it may name a source that it does not name now, since something is wrong with it or above it."""
        within = (source == path or source.startswith(f"{path}/") for path in (*self.troubles, *self.left.first))
        return self.left.number > len(self.left.first) or any(within)
