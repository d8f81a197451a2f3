"""What need not stand any longer once it is compacted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.errors import PermanentError
from pipeline.ledger.deliveries import Index
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.stages.compact.standing import Current, delta, newest, partners, tables
from pipeline.stores.store import Lake
from pipeline.times import DAY


def passed_tables(lake: Lake, root: Root, index: Index, now: float) -> Iterator[str]:
    """Folders of tables that the index has named a later one for, a day ago: whoever holds an index has a day to read.

    now: the store's time.
    """
    for partner, known in tables(lake, root).items():
        named = index.current.get(str(partner))
        if named is None or not any(number < named.number for number in known):
            continue
        stands = lake.stat(root.current(partner, named.number))
        if stands is None or stands.modified / 1000 > now - DAY:
            continue
        for number in known:
            if number < named.number:
                yield root.current(partner, number)


def _newest(lake: Lake, root: Root, partner: int) -> Current | None:
    """None as well where it cannot be read: then it covers nothing."""
    try:
        return newest(lake, root, partner)
    except PermanentError:
        return None


def _net_of(lake: Lake, root: Root, name: ShipmentName, partner: int) -> str | None:
    """None where nobody can read it."""
    try:
        return delta(lake, root, name, partner).fingerprint
    except PermanentError:
        return None


def covering(lake: Lake, root: Root, index: Index) -> Callable[[ShipmentName], bool]:
    """Whether all partners of a shipment have it in a table that the index names, and the table is of the same net:
    features of another one stand in the folder alone.
    """
    covers: dict[int, frozenset[str]] = {}
    nets: dict[int, str] = {}

    def is_covered(name: ShipmentName) -> bool:
        for partner in partners(lake, root, name):
            if partner not in covers:
                current = _newest(lake, root, partner) if str(partner) in index.current else None
                named = current is not None and index.current[str(partner)].number == current.body.number
                covers[partner] = frozenset(current.body.covers) if current is not None and named else frozenset()
                prints = current.body.fingerprints if current is not None else {}
                nets[partner] = max(prints, key=lambda one: (prints[one], one), default="")
            if str(name) not in covers[partner] or _net_of(lake, root, name, partner) != nets[partner]:
                return False
        return True

    return is_covered
