"""What is known of an installation at one moment, as one host sees it: what health judges and metrics show.

Times are seconds since 1970; those of a lake are by its bucket's clock, the others by this host's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.ledger.expectation import Refused
from pipeline.ledger.state import Unreadable
from pipeline.operations.health.stuck import Stuck
from pipeline.process.troubles import Trouble
from pipeline.sources.found import NONE_LEFT, Left


@dataclass(frozen=True, slots=True)
class ServiceTrouble:
    """What stands in the way of the service's work.  key: what it is about."""

    key: str
    text: str
    hint: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one stage."""

    stage: str
    shipments: int = 0
    batches: int = 0
    refs: int = 0
    """About: what is not read from its source yet is not counted."""
    oldest: float | None = None
    """Since when the first of them waits."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """One partner of one set: what its source has and what is delivered, by version."""

    partner: str
    set: str
    source: str = ""
    """The newest version at the source; "" where the source does not say whose it is, or cannot be seen."""
    delivered: str = ""
    """The newest version in the index; "" while nothing is delivered."""
    lag: float = 0.0
    """Seconds from the one to the other; without a delivery, the age of the source's version."""


@dataclass(frozen=True, slots=True)
class FailingPartner:
    """A partner of one set: more of its images than `[health]` allows failed in the last day."""

    partner: str
    set: str
    refs: int
    failed: int
    reason: str = ""
    """The reason that rules; "" where it was not looked at."""
    reason_percent: float = 0.0
    """Its share of the failures that were looked at, with what was not asked for after it."""
    host: str = ""
    """The host that most failures of this reason have; "" where none has most of them."""
    unasked_percent: float = 0.0
    """Of the failures of this reason, the share that the host was not asked for any more after the others."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The beats of a daemon that serves one stage of a gateway.  Seconds since 1970, by the store's clock."""

    last: float
    """The last one."""
    missed: float | None = None
    """The first look that found it silent, where none has found it alive since."""


@dataclass(frozen=True)
class LakeFacts:
    """One lake as its bucket tells it and, where it can be seen, the lake itself."""

    lake: str
    now: float
    sees_lake: bool = False
    backlog: tuple[Backlog, ...] = ()
    not_looked_at: int = 0
    """Open shipments beyond those that one look reads."""
    waiting_since: float | None = None
    """Since when the first refs wait, those of sets that are unknown here left out."""
    waiting_for: str = ""
    """The stage that has to do something for those."""
    sent: float | None = None
    """When something was last entered into an index; None: never, or not seen."""
    moved: float | None = None
    """When something last changed in what is open."""
    retries: int = 0
    """Shipments whose day has not come."""
    next_due: float | None = None
    held: tuple[str, ...] = ()
    """Held batches that nobody has answered, as `hathi quarantine list` names them."""
    forgets: Mapping[int, float] = field(default_factory=dict)
    """Requests to forget that are not done, by number: since when, seconds since 1970 by the store's clock."""
    unreadable: tuple[Unreadable, ...] = ()
    """What stands of open shipments and cannot be read from here."""
    stuck: tuple[Stuck, ...] = ()
    """Open shipments that cannot go on."""
    unknown_sets: tuple[str, ...] = ()
    refused_by: tuple[Refused, ...] = ()
    """Hosts that leave shipments alone, since the gateway expects other features than they would compute."""
    missing: tuple[str, ...] = ()
    """Files that the index names and that are not there, or not whole."""
    folders_checked: int = 0
    troubles: Mapping[str, str] = field(default_factory=dict)
    """By source or index: why it cannot be read, or not as it could be before."""
    remedies: Mapping[str, str] = field(default_factory=dict)
    """By source or index: what to do about its trouble, where that is known."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By source: why what it has is not shipped."""
    left: Left = NONE_LEFT
    """What lies at the sources and is not read."""
    later: Left = NONE_LEFT
    """What lies there and is read once it is complete."""
    freshness: tuple[Freshness, ...] = ()
    """Most lagging partner first."""
    renewals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By partner: the times of the versions that its source is known to have had, in order."""
    failing: tuple[FailingPartner, ...] = ()
    """The most failures first."""
    unplanned: tuple[str, ...] = ()
    """Snapshots at the sources that no shipment covers yet, by the names that their shipments would have."""
    alive: tuple[str, ...] = ()
    """Processes that beat, on any host."""
    gateway: Mapping[str, Heard] = field(default_factory=dict)
    """By stage: the daemons that a gateway has, or had."""
    estop: float | None = None
    """Since when ESTOP stands in the bucket for this lake, by the store's clock."""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """One store, as it answers this host."""

    name: str
    """`bucket`, or `lake NAME`."""
    trouble: str = ""
    hint: str = ""
    skew: float = 0.0
    """Its clock less this host's, seconds."""
    credentials_end: float | None = None
    forgets: Mapping[str, str] = field(default_factory=dict)
    """By lake: the server's own rule that would delete its keys."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A local file system, by the first of our folders on it."""

    folder: str
    percent: float
    """As df shows it: what is used, of what this user could use."""
    free_bytes: int


@dataclass(frozen=True)
class Facts:
    """Everything at once."""

    at: float
    host: str
    lakes: tuple[LakeFacts, ...] = ()
    stores: tuple[StoreFacts, ...] = ()
    disks: tuple[Disk, ...] = ()
    estop: float | None = None
    """Since when ESTOP is engaged."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """Those that run on this host: who holds the lock."""
    died: Mapping[str, str] = field(default_factory=dict)
    """Those that ended without being stopped and were not started again: how."""
    troubles: tuple[Trouble, ...] = ()
    """What the programs of this host tried in vain."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """What cannot be seen from this host, and why; nothing is judged of it."""
    service: tuple[ServiceTrouble, ...] = ()
