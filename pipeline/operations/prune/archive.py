"""Images of the archive that are older than archive.days, or too much for archive.max_bytes: the oldest first.

What belongs to a version of which a shipment is open stays: a back-fill reads it just now, or it is just being brought.
The key goes before its files, so that what is named is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.errors import IGNORED
from pipeline.ledger.archive import Archived, numbered
from pipeline.ledger.layout import ArchivedBatch, archive_file_number
from pipeline.ledger.protocol import Context, readable
from pipeline.operations.prune.deletion import Deletion
from pipeline.operations.prune.hints import hinted
from pipeline.stores.store import Entry
from pipeline.times import DAY

_FILE = re.compile(r"(?P<shipment>[^/]+)/(?P<nonce>[^/]+)/(?P<number>[0-9]{5}\.[0-9]{3})\.[a-z.]+")


@dataclass
class _Batch:
    """What stands of the images of one batch."""

    keys: list[tuple[ArchivedBatch, Entry]] = field(default_factory=list)
    """The oldest number first."""
    files: list[Entry] = field(default_factory=list)

    @property
    def brought(self) -> float:
        """When its images were fetched, about, by the store's clock: rewriting makes nothing younger."""
        return self.keys[0][1].modified

    @property
    def written_anew(self) -> float:
        """When somebody wrote of it without what is to be forgotten; whoever does can still put a key."""
        files = (entry.modified for entry in self.files if (archive_file_number(entry.key) or (0, 0))[1])
        return max((*files, *(entry.modified for batch, entry in self.keys if batch.number)), default=0.0)

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)


def plan_archive(context: Context, now: float) -> Iterator[Deletion]:
    """What is to be forgotten of the archive.  Two listings; memory: a few lines for each of its batches."""
    batches = _batches(context)
    if not batches:
        return
    orphaned = now - context.settings.prune.orphan_days * DAY
    at_work = {name.version for name in hinted(context)}
    standing = [one for one in batches.values() if one.keys]
    yield from _outlived(context, standing, (now, orphaned), at_work)
    for one in batches.values():
        context.safe_point()
        yield from _unnamed(context, one, orphaned)


def _batches(context: Context) -> dict[tuple[str, int], _Batch]:
    """By shipment and batch.  Files are listed first: what is put meanwhile has its key later."""
    keys = context.keys
    found: dict[tuple[str, int], _Batch] = {}
    for entry in context.bucket.list(keys.archive_data):
        match = _FILE.fullmatch(entry.key.removeprefix(keys.archive_data))
        if match is None:
            context.once(entry.key, f"{entry.key} is not a file of the archive; {IGNORED}")
            continue
        found.setdefault((match["shipment"], int(match["number"][:5])), _Batch()).files.append(entry)
    for batch, entry in numbered(context, context.bucket.list(keys.archive)):
        found.setdefault((str(batch.name), batch.batch), _Batch()).keys.append((batch, entry))
    return found


def _outlived(
    context: Context, standing: list[_Batch], times: tuple[float, float], at_work: set[str]
) -> Iterator[Deletion]:
    """times: now, and before when what nobody names is nobody's."""
    now, orphaned = times
    limits = context.settings.archive
    total = sum(one.size for one in standing)
    for one in sorted(standing, key=lambda one: one.brought):
        if limits.days is not None and one.brought < now - limits.days * DAY:
            why = f"images older than {limits.days:g} days"
        elif limits.max_bytes is not None and total > limits.max_bytes:
            why = f"the oldest images: the archive has more than {limits.max_bytes:,} bytes"
        else:
            return
        if one.keys[0][0].name.version in at_work or one.written_anew >= orphaned:
            continue
        total -= one.size
        # A newer number goes before an older one: what is left names nothing that is gone.
        for _, entry in reversed(one.keys):
            yield Deletion("bucket", "delete", entry.key, why)
        for entry in one.files:
            yield Deletion("bucket", "delete", entry.key, why)
        one.keys, one.files = [], []


def _unnamed(context: Context, one: _Batch, orphaned: float) -> Iterator[Deletion]:
    """Files of an attempt that was cut, or that came second."""
    old = [entry for entry in one.files if entry.modified < orphaned]
    if not old or len(one.files) == 2 * len(one.keys) == 2:
        return  # a pack and an index of one key: nobody else wrote
    named: set[str] = set()
    for batch, entry in one.keys:
        body = readable(context, entry.key, Archived)
        if body is None:
            return  # which files it names is not known here
        if batch == one.keys[-1][0]:
            named = {file.key for file in body.files}
    for entry in old:
        if entry.key not in named:
            yield Deletion("bucket", "delete", entry.key, "no key of the archive names it")
