"""What a look at sources gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.manifest import Reading, Snapshot


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


@dataclass(frozen=True)
class Named:
    """What sources name now, and what is wrong with them."""

    found: tuple[Found, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Cause and remedy, by the snapshot's source; a whole source that cannot be seen stands under its path."""
    blind: bool = False
    """A whole source cannot be seen just now: it may still name what it named."""
