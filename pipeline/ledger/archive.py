"""The documents of the archive: where the images of a batch lie (docs/protocol.md 17).

They stand by themselves: images are there whatever becomes of the shipment whose batch brought them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.errors import IGNORED
from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import ArchivedBatch
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context
from pipeline.ledger.values import Count
from pipeline.stores.store import Entry


class Archived(Body):
    """`a/S/<n>.<number>`: the images that one batch brought, but for those that were forgotten since."""

    pack: DataFile | None = None
    """Its rows are images, equal ones once.  None where all of them were forgotten."""
    index: DataFile | None = None
    """Its rows are refs."""
    forgotten: Count = 0
    """Rows that the index had and has no more, as a person asked for it."""

    def flaw(self) -> str:
        return "it names a pack without an index" if (self.pack is None) != (self.index is None) else ""

    @property
    def files(self) -> tuple[DataFile, ...]:
        return tuple(file for file in (self.pack, self.index) if file is not None)


def archived(context: Context, prefix: str) -> Iterator[tuple[ArchivedBatch, Entry]]:
    """What the archive has below a prefix, each batch once, in the order of names; what is not ours is said once."""
    last: tuple[ArchivedBatch, Entry] | None = None
    for one in numbered(context, context.bucket.list(prefix)):
        if last is not None and (last[0].name, last[0].batch) != (one[0].name, one[0].batch):
            yield last
        last = one
    if last is not None:
        yield last


def numbered(context: Context, entries: Iterable[Entry]) -> Iterator[tuple[ArchivedBatch, Entry]]:
    """The batches that keys tell of, with the older numbers of each."""
    for entry in entries:
        try:
            yield ArchivedBatch.parse(entry.key.removeprefix(context.keys.archive)), entry
        except ValueError:
            context.once(entry.key, f"{entry.key} is not a key of the archive; {IGNORED}")
