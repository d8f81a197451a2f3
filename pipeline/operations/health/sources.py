"""What the sources of a lake have, as health asks it: nothing is begun, and trouble is a fact, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from pipeline.amounts import counted
from pipeline.codec.refs.rows import UNREADABLE
from pipeline.ledger.layout import version_of
from pipeline.ledger.listing import named
from pipeline.ledger.manifest import End, Plan
from pipeline.ledger.protocol import Context, readable
from pipeline.sources.conventions import Sources
from pipeline.sources.found import NONE_LEFT, Left
from pipeline.stages.snapshots import Shipper
from pipeline.stores.store import Lake
from pipeline.times import DAY

ENDS = 500
"""Of the shipments of the last day, so many ends are read at the most."""


@dataclass(frozen=True)
class AtSources:
    """One look at all sources of a lake."""

    newest: Mapping[str, str] = field(default_factory=dict)
    """The newest version by partner, where the source says whose it is."""
    unplanned: Mapping[str, str] = field(default_factory=dict)
    """Snapshots that no shipment covers yet: a key of their own -> version."""
    troubles: Mapping[str, str] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    """Of those whose remedy is known."""
    refused: Mapping[str, str] = field(default_factory=dict)
    left: Left = NONE_LEFT
    """What lies there and is not read."""
    later: Left = NONE_LEFT
    """What is read once it is complete."""


class Onlooker:
    """Looks at the sources as ship does, and remembers what it may; begins nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._shipper = Shipper(context)
        self._sources: Sources | None = None

    def look(self, lake: Lake, now: float, *, forms: bool = True) -> AtSources:
        """now: the store's time.  forms: also whether a source's form has changed.

        Raises TemporaryError or PermanentError where the bucket does not answer.
        """
        context = self._context
        if self._sources is None:
            mine = context.settings.lakes[context.lake_name]
            ours = context.settings.delivered(context.lake_name)
            self._sources = Sources(lake, mine.sources, ours, context.settings.url_of(context.lake_name))
        named = self._sources.look(now)
        new, refused = self._shipper.fresh(named.found, now, 0)
        newest: dict[str, str] = {}
        for one in named.found:
            if one.reading.partner_id is not None:
                partner = str(one.reading.partner_id)
                newest[partner] = max(newest.get(partner, ""), one.snapshot.version)
        damaged = not_read_whole(context, now) if forms else {}
        troubles, remedies = _told(named.troubles)
        return AtSources(
            newest,
            {str(one.name): one.name.version for one in new},
            {**{source: one.why for source, one in damaged.items()}, **troubles},
            {**{source: one.do for source, one in damaged.items() if one.do}, **remedies},
            {one.source: one.why for one in refused},
            named.left,
            named.later,
        )


def _told(troubles: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What is wrong with each source, and what to do: an error with cause, facts and remedy is told in these parts."""
    found: dict[str, str] = {}
    remedies: dict[str, str] = {}
    for source, text in troubles.items():
        parts = text.split(" | ")
        if len(parts) == 3:
            found[source], remedies[source] = f"{parts[0]} ({parts[1]})", parts[2]
        else:
            found[source] = text
    return found, remedies


@dataclass(frozen=True)
class NotRead:
    """Why rows of a source are missing, and what to do; "" where only a look at it tells."""

    why: str
    do: str = ""


def not_read_whole(context: Context, now: float) -> dict[str, NotRead]:
    """Sources whose newest snapshot of the last day is damaged, or gave no ref at all though it has rows.

    The form of the latter has changed.
    """
    listed = named(context.bucket, context.keys.commits, after=version_of(now - DAY))
    names = [name for _, name in islice(listed, ENDS) if name is not None]
    verdicts: dict[str, tuple[str, NotRead | None]] = {}
    for name in sorted(names):
        if name.generation:
            continue
        end = readable(context, context.keys.end(name), End)
        found = _verdict(end) if end is not None and end.void is None else None
        if end is None or end.void is not None or (name.part and found is None):
            continue
        plan = readable(context, context.keys.plan(name), Plan)
        if plan is None:
            continue
        newest, before = verdicts.get(plan.snapshot.source, ("", None))
        verdicts[plan.snapshot.source] = (name.version, found or (before if newest == name.version else None))
    return {source: one for source, (_, one) in verdicts.items() if one is not None}


def _verdict(end: End) -> NotRead | None:
    for one in end.rejections:
        if one.why.endswith(UNREADABLE):
            return NotRead(
                f"rows of {one.file} are missing: {one.why}",
                "have that file written again: Hathi then ships it anew; what could be read is delivered",
            )
    if end.refs or not end.rows or end.next is not None:
        return None
    first = f"; the first row: {end.rejections[0].why}" if end.rejections else ""
    return NotRead(
        f"Hathi could read none of {counted(end.rows, 'row')} as a ref: columns or format may have changed{first}"
    )
