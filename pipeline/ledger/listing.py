"""The shipments that keys name: under `c/` and `d/` of a bucket, among the hints, under a root on a lake.

A prefix may hold what is not ours, too.  Who only works skips it; who keeps order is told of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.ledger.layout import ShipmentName
from pipeline.stores.store import Entry, Store


def named(
    store: Store, prefix: str, *, after: str = "", begin: str = ""
) -> Iterator[tuple[Entry, ShipmentName | None]]:
    """What stands directly under a prefix and the shipment that it names, None for what is not ours; in order.

    prefix: ends with `/`.  after: names behind this text alone.  begin: names that begin with it alone.
    """
    for entry in store.list(prefix + begin, after=after and prefix + after, folders=True):
        try:
            name = ShipmentName.parse(entry.key.removeprefix(prefix).rstrip("/"))
        except ValueError:
            yield entry, None
        else:
            yield entry, name


def names_under(store: Store, prefix: str, *, after: str = "", begin: str = "") -> Iterator[ShipmentName]:
    """The shipments that stand directly under a prefix, in order; what is not ours is skipped: `verify` tells of it."""
    return (name for _, name in named(store, prefix, after=after, begin=begin) if name is not None)
