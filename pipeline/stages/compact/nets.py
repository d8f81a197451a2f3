"""Features of several nets under one root: which of them a reader takes, so that two never meet in one table by chance.

After a promotion features of two nets stand side by side, until the newest snapshot of each source was computed anew.
Which net is in use follows from the folders and tables that stand: nobody has to say it, and nothing has to be written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from pipeline.amounts import counted
from pipeline.errors import ConfigError, NotFound
from pipeline.ledger.deliveries import Covered, PartnerManifest
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.stages.compact.standing import Current, by_partner, delta, newest, tables
from pipeline.stores.store import Lake

CURRENT, ALL = "current", "all"
"""What a reader may say in place of a fingerprint."""


@dataclass(frozen=True)
class Stand:
    """A delivered folder, or one that a table covers: whose, and which net made its features.

    source, last, delivered: as in its manifest.  holds: whether features are left of it.
    """

    partner: int
    name: ShipmentName
    fingerprint: str
    source: str = ""
    last: bool = False
    delivered: str = ""
    holds: bool = True

    @property
    def turn(self) -> tuple[str, int]:
        """When it came.  Older manifests do not say: theirs came first, the rounds one after the other."""
        return self.delivered, 0 if self.delivered else self.name.round

    def covered(self) -> Covered:
        """How a table keeps it."""
        return Covered(
            shipment=str(self.name),
            fingerprint=self.fingerprint,
            source=self.source,
            last=self.last,
            delivered=self.delivered,
        )


def stand_of(name: ShipmentName, body: PartnerManifest) -> Stand:
    """What a folder's manifest says."""
    return Stand(
        body.partner_id, name, body.fingerprint, body.source, body.last, body.delivered, holds=body.features > 0
    )


def stands_of(
    lake: Lake, root: Root, folders: Mapping[int, Iterable[ShipmentName]], currents: Mapping[int, Current]
) -> Iterator[Stand]:
    """What stands of each partner, in folders and tables.

    folders: by partner, as they stand; currents: tables.  Costs the manifests of folders that no table covers; of a
    table that an older Hathi wrote those that it covers as well.
    """
    for partner in sorted({*folders, *currents}):
        current = currents.get(partner)
        told = set(current.body.covers) if current is not None and current.body.sources else set()
        read = set()
        for name in folders.get(partner, ()):
            if str(name) not in told:
                try:
                    yield stand_of(name, delta(lake, root, name, partner))
                except NotFound:
                    continue  # pruned meanwhile, or incomplete: who reads it says so
                read.add(str(name))
        if current is not None:
            yield from _in_table(partner, current, read)


def _in_table(partner: int, current: Current, read: set[str]) -> Iterator[Stand]:
    """What a table covers.  read: shipments whose folders were read."""
    body = current.body
    prints = body.fingerprints
    most = max(prints, key=lambda one: (prints[one], one), default="")
    if body.sources:
        for one in body.sources:
            name = ShipmentName.parse(one.shipment)
            yield Stand(partner, name, one.fingerprint, one.source, one.last, one.delivered, holds=bool(prints))
    elif most:  # of what an older Hathi merged nobody knows more than the net of most rows
        for covered in body.covers:
            if covered not in read:
                yield Stand(partner, ShipmentName.parse(covered), most)


def to_keep(stands: Iterable[Stand]) -> tuple[Covered, ...]:
    """What a table has to say of the shipments that it covers: of each source and net the first, and those of its
    newest version.
    """
    kept: dict[tuple[str, str], list[Stand]] = defaultdict(list)
    for one in stands:
        kept[one.source, one.fingerprint].append(one)
    found = set()
    for mine in kept.values():
        last = max(one.name.version for one in mine)
        first = min(mine, key=lambda one: (one.turn, str(one.name)))
        found |= {first, *(one for one in mine if one.name.version == last)}
    return tuple(one.covered() for one in sorted(found, key=lambda one: str(one.name)))


class _Holding:
    """What one net has of each partner and source, by version and part."""

    def __init__(self) -> None:
        self.parts: dict[int, dict[str, dict[str, set[int]]]] = {}
        """By partner, source and version."""
        self.features: dict[tuple[int, str], dict[str, set[int]]] = {}
        """By partner and source, and version: the parts of which features are left."""
        self.all: dict[tuple[str, str], set[int]] = {}
        """By source and version: the parts, whichever partner they are of."""
        self.last: dict[tuple[str, str], int | None] = {}
        """By source and version: the last part; None where a manifest of an older Hathi does not say."""

    def add(self, one: Stand, alone: bool) -> None:
        name, key = one.name, (one.source, one.name.version)
        of_partner = self.parts.setdefault(one.partner, {}).setdefault(one.source, {})
        of_partner.setdefault(name.version, set()).add(name.part)
        self.all.setdefault(key, set()).add(name.part)
        if one.last:
            self.last[key] = name.part
        elif alone or not one.delivered:
            self.last.setdefault(key, None)
        if one.holds:
            self.features.setdefault((one.partner, one.source), {}).setdefault(name.version, set()).add(name.part)

    def lacks(self, other: _Holding) -> Iterator[tuple[int, str]]:
        """Partners and sources of which this net has nothing whole that is as new as what the other one has."""
        for (partner, source), versions in other.features.items():
            version = max(versions)
            if not self._has(partner, source, version, versions[version]):
                yield partner, source

    def _has(self, partner: int, source: str, version: str, parts: set[int]) -> bool:
        for mine, versions in self.parts.get(partner, {}).items():
            if parts <= versions.get(version, set()) and (mine == source or "" in (mine, source)):
                return True
            if source in (mine, "") and any(  # of an older manifest a newer version of any source counts
                self._whole(mine, of, len(known) >= len(parts)) for of, known in versions.items() if of > version
            ):
                return True
        return False

    def _whole(self, source: str, version: str, as_many: bool) -> bool:
        """Whether all parts of a version are there.  as_many: as many as of the version before, where none says it."""
        key = (source, version)
        if key not in self.last:
            return False
        last = self.last[key]
        return as_many if last is None else self.all[key] >= set(range(last + 1))


@dataclass(frozen=True)
class InUse:
    """Which net readers take.

    fingerprint: "" where nothing stands.  before: nets whose place was taken, and in which turn.  lacks: by each net
    that came since, the partners and sources that stand against its taking the place.
    """

    fingerprint: str
    before: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    lacks: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)


def in_use(stands: Iterable[Stand], alone: bool = False) -> InUse:
    """The net that all readers take, by one rule: another net takes the place of the one in use when it holds all that
    this one holds.

    That is, of each partner and source whose features stand under the net in use it has the newest version, or a newer
    one, with all parts.  Once a net was replaced, only what comes later counts for it: so the way back is the same.
    alone: these are one partner's of several, who may have nothing in a list's last part.
    """
    holding: dict[str, _Holding] = defaultdict(_Holding)
    owners: dict[tuple[int, str, str, int, int], str] = {}
    used = ""
    before: dict[str, tuple[str, int]] = {}
    ordered = sorted(stands, key=lambda one: (one.turn, str(one.name), one.partner))
    for now, turn in groupby(ordered, key=lambda one: one.turn):
        for one in turn:
            name = one.name
            place = (name.version, name.round, name.part)
            owner = owners.setdefault((one.partner, one.source, *place), one.fingerprint)
            if {owner, owners.get((one.partner, "", *place), owner)} != {one.fingerprint}:
                continue  # a retry that another net computed: the part is the first net's
            used = used or one.fingerprint
            holding[one.fingerprint].add(one, alone)
        while used and (after := _next(holding, used)) is not None:
            del holding[used]
            before[used] = now
            used = after
    if not used:
        return InUse("")
    here = holding.pop(used)
    return InUse(used, before, {net: tuple(sorted(mine.lacks(here))) for net, mine in holding.items() if mine.features})


def _next(holding: Mapping[str, _Holding], used: str) -> str | None:
    """The net that takes the place of the one in use."""
    others = (net for net, mine in holding.items() if net != used and mine.features)
    return next((net for net in others if next(holding[net].lacks(holding[used]), None) is None), None)


def net_in_use(lake: Lake, root: Root, safe_point: Callable[[], None] = lambda: None) -> InUse:
    """As `in_use`, of what stands under a root.  Costs a listing for each shipment, and what `stands_of` costs."""
    known = {one: newest(lake, root, one) for one in tables(lake, root)}
    currents = {partner: current for partner, current in known.items() if current is not None}
    return in_use(stands_of(lake, root, by_partner(lake, root, safe_point=safe_point), currents))


def chosen(wanted: str, stands: Iterable[Stand], known: Iterable[str], alone: bool = False) -> str | None:
    """The fingerprint that a reader's word means; None for all, and where nothing stands.

    wanted: `current`, `all`, or the first digits of a fingerprint.  known: those of tables.
    alone: as of `in_use`.  Raises ConfigError.
    """
    if wanted == ALL:
        return None
    if wanted == CURRENT:
        return in_use(stands, alone).fingerprint or None
    prints = sorted({*(one.fingerprint for one in stands), *known})
    found = [one for one in prints if one.startswith(wanted)] if wanted else []
    if len(found) != 1:
        what = (
            f"no features of fingerprint {wanted!r}"
            if not found
            else f"{wanted!r} begins {counted(len(found), 'fingerprint')}"
        )
        raise ConfigError(what, f"there are: {', '.join(one[:12] for one in prints)}", 'or say "current" or "all"')
    return found[0]
