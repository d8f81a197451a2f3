"""What a page tells, as values: gather.py makes them, page.py shows them.  Times are seconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.operations.backfills import Backfill


@dataclass(frozen=True, slots=True)
class Example:
    """An item without a feature; every text in it comes from outside."""

    lake: str
    shipment: str
    partner: int
    item: int
    """Unsigned."""
    external_id: str
    url: str
    reason: str
    retriable: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ReasonCount:
    reason: str
    first: int
    """Of first tries."""
    again: int
    """Of retries and releases."""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class HostCount:
    host: str
    """"" for items without a host: inline images, URLs that are none."""
    failures: int
    reasons: tuple[tuple[str, int], ...]
    """The most frequent first."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What was done in an hour, and how late what was delivered in it was."""

    at: float
    shipped: int = 0
    computed: int = 0
    aggregated: int = 0
    delivered: int = 0
    lags: tuple[float, ...] = ()
    """From a version to its delivery, of first tries; seconds."""


@dataclass(frozen=True, slots=True)
class PartnerCount:
    lake: str
    partner: str
    features: int
    failures: int
    reason: str = ""
    """The reason that rules its failures; "" where none were looked at."""


@dataclass(frozen=True, slots=True)
class ShipmentRow:
    lake: str
    name: str
    kind: str
    set: str
    source: str
    refs: int
    features: int
    failures: int
    state: str
    """What it waits for; delivered, or void and why."""
    lag: float | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    file: str
    row: int
    why: str
    sample: str


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Of the features of one set and width, over a sample."""

    set: str
    fingerprint: str
    engine: str
    dim: int
    features: int
    """All of them."""
    sampled: int
    norms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Least, median, greatest."""
    zeros: float = 0.0
    """Share of values."""
    not_finite: int = 0
    """Rows with NaN or infinity."""
    dead: int = 0
    """Dimensions that are zero in each sampled row."""
    equal: int = 0
    """Rows that equal an earlier one."""
    histogram: tuple[int, ...] = ()
    edges: tuple[float, float] = (0.0, 0.0)
    preprocessing: str = ""
    """What was done to images before the net."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An image that could not be decoded: as much of it as there is to see."""

    example: Example
    size: int
    """Bytes."""
    begins: str
    """Its first bytes, in hex."""
    png: bytes = b""
    """A small picture made here; none where nothing can be seen."""
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A day, or a shipment."""

    title: str
    made: float
    begin: float
    end: float
    first: RowCounts = NO_ROWS
    again: RowCounts = NO_ROWS
    """Of retries and releases: refs that were counted before, tried once more."""
    reasons: tuple[ReasonCount, ...] = ()
    hosts: tuple[HostCount, ...] = ()
    hours: tuple[Hour, ...] = ()
    partners: tuple[PartnerCount, ...] = ()
    """Those with the most failures first."""
    shipments: tuple[ShipmentRow, ...] = ()
    """The newest first."""
    rejected: tuple[RejectedRow, ...] = ()
    statistics: tuple[SetStatistics, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = ()
    undecoded: int = 0
    """Failures whose bytes were no image that could be decoded."""
    backfills: tuple[Backfill, ...] = ()
    """Those that are under way as the page is made."""
    forgets: int = 0
    """Requests to forget that are open as the page is made."""
    forgets_for: float = 0.0
    """Seconds since the oldest of them was put."""
    notes: tuple[str, ...] = ()
    """What is not in here, and why."""
    more: dict[str, int] = field(default_factory=dict)
    """By table: rows that are counted and not shown."""
