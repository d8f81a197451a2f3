"""What `hathi why` tells: an item's story, one chapter for each shipment that had it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.ledger.layout import seconds_of
from pipeline.records import MAX_ITEM_ID, REASONS, item_id_as_written, item_id_of, unsigned
from pipeline.times import to_the_second


@dataclass(frozen=True)
class Question:
    """Whose story is asked for."""

    partner: int
    items: dict[int, str]
    """Item ids (unsigned), and how each was read from the text."""
    text: str
    """As the person wrote it: looked for in rejected rows."""


def question_of(partner: int, text: str, *, as_written: bool = False) -> Question:
    """Digits can be an item id, or an external id that looks like one: both are tried.

    as_written: a source hashes its ids as they are written, so that is tried as well.
    """
    items: dict[int, str] = {}
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal():
        number = unsigned(int(text)) if text.startswith("-") else int(text)
        if 0 <= number <= MAX_ITEM_ID:
            items[number] = "item id"
    items.setdefault(item_id_of(text), "external id")
    if as_written:
        items.setdefault(item_id_as_written(text), "external id as it is written")
    return Question(partner, items, text)


@dataclass(frozen=True)
class Outcome:
    """What became of a ref: a feature, a failure, or nothing yet."""

    kind: str
    """feature, failure, held, or "" while it waits."""
    url: str = ""
    external_id: str = ""
    item_id: int = 0
    reason: str = ""
    retriable: bool = False
    detail: str = ""
    fetched_at: str = ""
    content_sha256: str = ""
    reused: str = ""
    """How a feature that was computed before is known to hold: not_modified or equal_bytes."""

    @property
    def meaning(self) -> str:
        known = REASONS.get(self.reason)
        return known.meaning if known else ""


@dataclass(frozen=True)
class Try:
    """One attempt at the batch."""

    number: int
    process: str
    alone: bool
    ended: str
    """How; "" of the one whose result stands, or that still runs."""


@dataclass(frozen=True)
class Ref:
    """One ref of the item in a batch."""

    batch: int
    ordinal: int
    file: str
    first_row: int
    last_row: int
    """Rows of the file that the batch covers, both inclusive, -1 for its end.  A carried ref has no file."""
    shipped: str
    url: str
    inline_bytes: int
    external_id: str
    item_id: int
    tries: tuple[Try, ...]
    outcome: Outcome
    wins: bool = False
    """Among several refs of the item in one shipment."""


@dataclass(frozen=True)
class Chapter:
    """One shipment that had the item."""

    shipment: str
    set: str
    kind: str
    """source, again, backfill, retry or release; "" where the ledger is pruned."""
    generation: int
    source: str
    version: str
    parent: str
    refs: tuple[Ref, ...]
    delivered: tuple[Outcome, ...]
    """The rows of the item that the shipment delivers: one, or several that collided."""
    folder: str
    delivered_at: str
    next: str
    notes: tuple[str, ...] = ()
    """What is no longer known, and what cannot be read."""


@dataclass(frozen=True)
class RejectedRow:
    """A row of a source that is no ref, and holds the text that was asked for."""

    shipment: str
    file: str
    row: int
    why: str
    sample: str


@dataclass(frozen=True)
class Seen:
    """Which delivered row consumers see now, of one set."""

    set: str
    shipment: str
    outcome: Outcome


@dataclass
class Story:
    """All that is known."""

    lake: str
    partner: int
    items: dict[int, str]
    chapters: list[Chapter] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    unsampled: int = 0
    """Rejected rows of the partner's sources of which no sample is kept."""
    lake_seen: bool = True
    looked_at: int = 0
    """Shipments."""
    not_read: dict[str, str] = field(default_factory=dict)
    """What lies at the sources and is not read, where nothing is known of the item: it may stand there."""
    not_read_number: int = 0

    def consumers_see(self) -> list[Seen]:
        """The feature in the greatest name wins, else the newest failure; for each set and item."""
        found: dict[tuple[str, int], Seen] = {}
        for chapter in self.chapters:
            for outcome in chapter.delivered if chapter.delivered_at else ():
                key = (chapter.set, outcome.item_id)
                before = found.get(key)
                if before is None or outcome.kind == "feature" or before.outcome.kind != "feature":
                    found[key] = Seen(chapter.set, chapter.shipment, outcome)
        return [found[key] for key in sorted(found)]


def shown_time(version: str) -> str:
    """A version's time as people read it; the text itself where it is none."""
    try:
        return to_the_second(seconds_of(version))
    except ValueError:
        return version
