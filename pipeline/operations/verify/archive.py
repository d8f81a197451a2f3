"""The archive: each of its keys can be read, and the packs and indexes that they name are there, whole."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.amounts import counted
from pipeline.codec.packs import read_index
from pipeline.errors import FormatError
from pipeline.ledger.archive import Archived, archived
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.finding import Finding, Say, body_at
from pipeline.operations.verify.hashing import wrong_hash
from pipeline.operations.verify.shipments import unnamed_data


def archive(say: Say, context: Context, *, deep: bool) -> Iterator[Finding]:
    """One finding for each file that is lost, and one for all that no key names."""
    keys = context.keys
    listing = context.bucket.list(keys.archive_data)
    there = {entry.key: (entry.size, entry.modified) for entry in listing}
    for _, entry in archived(context, keys.archive):
        context.safe_point()
        body = yield from body_at(say, context.bucket.get, entry.key, Archived, "archive_lost")
        if body is None:
            continue
        wrong = {file.key: _wrong(context, file, there.pop(file.key, None), deep=deep) for file in body.files}
        for key, what in wrong.items():
            if what:
                yield say("archive_lost", key, f"{entry.key} names it: {what}")
        if deep and not any(wrong.values()) and body.pack is not None and body.index is not None:
            yield from _rows(say, context, body.pack, body.index)
    if there:
        yield unnamed_data(say, sorted(there), there, listing.now, context.settings.prune.orphan_days)


def _wrong(context: Context, file: DataFile, found: tuple[int, float] | None, *, deep: bool) -> str:
    """What is wrong with a file; "" where nothing is.  found: its size and time."""
    if found is None:
        return "it is gone"
    if found[0] != file.size:
        return f"it has {found[0]:,} bytes, and should have {file.size:,}"
    return wrong_hash(context.bucket, file.key, file.sha256) if deep else ""


def _rows(say: Say, context: Context, pack: DataFile, index: DataFile) -> Iterator[Finding]:
    """Each row of an index lies within its pack, and the counts are those of the key."""
    try:
        rows = read_index(context.bucket.get(index.key), index.key)
    except FormatError as error:
        yield say("archive_lost", index.key, f"{error.message}: {error.detail}")
        return
    images = len({row.sha256 for row in rows})
    beyond = sum(row.offset + row.length > pack.size for row in rows)
    if beyond or (len(rows), images) != (index.rows, pack.rows):
        counts = f"{counted(len(rows), 'ref')} with {counted(images, 'image')}, {beyond} of them behind the pack's end"
        told = f"{counted(index.rows, 'ref')} and {counted(pack.rows, 'image')}"
        yield say("archive_lost", index.key, f"it has {counts}; its key says {told}")
