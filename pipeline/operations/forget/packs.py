"""Images of the archive: a pack that has the item's is written anew without them, under the next number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from pipeline.codec.packs import PackRow, read_index
from pipeline.errors import FormatError, NotFound, TemporaryError
from pipeline.extraction.packing import Pack, Room
from pipeline.extraction.spill import Origin
from pipeline.ledger.archive import Archived, archived
from pipeline.ledger.data import Damaged, load_data
from pipeline.ledger.layout import ArchivedBatch, ShipmentName, archive_file_number
from pipeline.ledger.protocol import Context, commit, readable, scratch
from pipeline.operations.forget.whose import Pass
from pipeline.operations.prune.hints import hinted
from pipeline.records import ImageRef
from pipeline.stages.archiving import store


def archive(one: Pass) -> None:
    """Every shipment that has files in the archive.  Costs the indexes: about a thousandth of the images."""
    context = one.context
    prefix = context.keys.archive_data
    at_work = {str(name) for name in hinted(context)}
    listing = context.bucket.list(prefix)
    for text, entries in groupby(listing, key=lambda entry: entry.key.removeprefix(prefix).partition("/")[0]):
        context.safe_point()
        files = [entry.key for entry in entries]
        try:
            name = ShipmentName.parse(text)
        except ValueError:
            continue  # not ours
        tried = {} if text in at_work else _tried(files)
        named = _shipment(one, name, tried)
        if named is not None and text not in at_work:
            for key in files:
                if key not in named:  # of an attempt that was cut, of an older number: whose it is, nobody has to ask
                    context.bucket.delete(key)
        context.progress("forget", 1, 0)


def _tried(files: Sequence[str]) -> dict[int, int]:
    """By batch: the greatest number under which somebody wrote files."""
    tried: dict[int, int] = {}
    for key in files:
        found = archive_file_number(key)
        if found is not None:
            tried[found[0]] = max(found[1], tried.get(found[0], 0))
    return tried


def _shipment(one: Pass, name: ShipmentName, tried: Mapping[int, int]) -> set[str] | None:
    """Files that keys of a shipment name now; None where one of them cannot be read."""
    context = one.context
    prefix = f"{context.keys.archive}{name}/"
    named: set[str] = set()
    for batch, _ in archived(context, prefix):
        body = _batch(one, batch, tried.get(batch.batch, 0))
        if body is None:
            return None
        named |= {file.key for file in body.files}
    return named


def _batch(one: Pass, batch: ArchivedBatch, tried: int) -> Archived | None:
    """The images of a batch without the item's; what stands of it then.  None where it cannot be read.

    tried: the number under which another gateway wrote files, and perhaps puts its key only now.  Files that no key
    names are to go, so that number is taken here: whoever comes with it then has lost, and begins again.
    """
    context = one.context
    while True:
        key = context.keys.archived(batch)
        body = readable(context, key, Archived)
        if body is None:
            one.waiting[key] = f"{key} cannot be read: restore it, or delete it and what lies beside it"
            return None
        rows = _rows(context, body)
        stays = rows is not None and not any(one.has(row.partner_id, row.item_id) for row in rows)
        stays = stays or body.index is None or one.is_new(batch.name)
        if stays and batch.number >= tried:
            return body
        batch = ArchivedBatch(batch.name, batch.batch, batch.number + 1)
        if stays:
            commit(context, context.keys.archived(batch), body)
        else:
            one.removed["image"] += _anew(one, batch, body, rows or [])


def _rows(context: Context, body: Archived) -> list[PackRow] | None:
    """The rows of an index; None where nobody can tell what they are."""
    if body.index is None:
        return []
    try:
        return read_index(load_data(context, body.index), body.index.key)
    except (NotFound, Damaged, FormatError):
        return None


def _anew(one: Pass, batch: ArchivedBatch, body: Archived, rows: Sequence[PackRow]) -> int:
    """Put the next number, then delete the files of the one before; how many rows went.

    A pack that is lost or damaged leaves none: its images can be fetched again, and nobody can tell whose they are.
    """
    context = one.context
    stay = [row for row in rows if not one.has(row.partner_id, row.item_id)]
    assert body.index is not None
    with scratch(context) as folder:
        pack = _copied(context, body, stay, folder) if stay else None
        made = store(context, batch, pack) if pack is not None else Archived()
    gone = body.index.rows - (made.index.rows if made.index is not None else 0)
    _, stands = commit(
        context, context.keys.archived(batch), made.model_copy(update={"forgotten": body.forgotten + gone})
    )
    kept = {file.key for file in stands.files}
    for file in (*made.files, *body.files):
        if file.key not in kept:
            context.bucket.delete(file.key)
    return gone


def _copied(context: Context, body: Archived, rows: Sequence[PackRow], folder: Path) -> Pack | None:
    """A pack of these rows alone; None where the old one is lost or damaged."""
    assert body.pack is not None
    pack = Room(folder, body.pack.size, 0).pack()
    try:
        with context.bucket.open(body.pack.key) as source:
            for row in sorted(rows, key=lambda row: row.offset):
                source.seek(row.offset)
                content = source.read(row.length)
                known = (row.sha256, row.fetched_at, row.etag, row.last_modified)
                origin = Origin(*known, resource=row.resource or b"")
                ref = ImageRef(row.partner_id, row.item_id, "", row.url, b"", 0)
                pack.add(ref, content, origin)
    except NotFound:
        return None
    pack.close()
    if pack.left_out:
        raise TemporaryError(
            "there is no room on the local disk to write a pack anew", f"{body.pack.key}", "free some, then go on"
        )
    return pack
