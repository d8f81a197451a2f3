"""Current tables: the next number without the item's rows, then the index, then the older numbers go."""

from __future__ import annotations

from collections import Counter

from pipeline.codec.delivered.forms import is_table
from pipeline.codec.delivered.without import Gone
from pipeline.errors import FormatError, NotFound, PermanentError
from pipeline.ledger.deliveries import CurrentManifest
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.ledger.protocol import scratch
from pipeline.operations.forget.folders import any_holds, delete_whole, files_without, holds, named
from pipeline.operations.forget.whose import Pass
from pipeline.stages import index
from pipeline.stages.compact.standing import Current, newest, numbers
from pipeline.stages.whole_folder import move_whole
from pipeline.stores.store import Lake


def table(one: Pass, lake: Lake, root: Root, *, late: bool = False) -> None:
    """The partner's table under one root.  late: one that is being written goes as well; whoever writes it begins
    again.
    """
    try:
        if late:
            _unfinished(one, lake, root)
        while (current := newest(lake, root, one.partner)) is not None and _anew(one, lake, root, current):
            one.context.safe_point()  # where compact was first with the number, its table has the rows again
    except (FormatError, PermanentError) as error:
        where = root.currents_of(one.partner)
        one.waiting[where] = f"{where} cannot be read: {error.message}: {error.detail}"
        return
    if current is None:
        return
    known = numbers(lake, root, one.partner)
    if known[0] < current.body.number:
        index.point(one.context, root, {str(one.partner): current.entry()})
    for number in known:
        if number < current.body.number and _has_rows(one, lake, root, number):
            folder = root.current(one.partner, number)
            delete_whole(one.context, lake, root, folder)
            if lake.stat(folder) is not None:
                one.waiting[folder] = f"{folder} could not be deleted; the next pass does it"


def _unfinished(one: Pass, lake: Lake, root: Root) -> None:
    prefix = root.temporary_current(one.partner, "")
    for entry in list(lake.list(prefix, folders=True)):
        folder = entry.key.rstrip("/")
        if any_holds(one, lake, folder):
            delete_whole(one.context, lake, root, folder)


def _gone(one: Pass, body: CurrentManifest) -> Gone:
    """Rows of shipments that were planned after the request stay."""
    return one.gone(name for name in body.covers if one.is_new(ShipmentName.parse(name)))


def _has_rows(one: Pass, lake: Lake, root: Root, number: int) -> bool:
    """Whether an older table has rows of the item; one that cannot be read goes as well."""
    folder = root.current(one.partner, number)
    try:
        for entry in lake.list(f"{folder}/"):
            if is_table(entry.key.removeprefix(f"{folder}/")) and holds(one, lake, entry.key, one.gone()):
                return True
    except (FormatError, NotFound):
        return True
    return False


def _anew(one: Pass, lake: Lake, root: Root, current: Current) -> bool:
    """Whether the table had rows of the item: then one without them was written under the next number."""
    body, gone = current.body, _gone(one, current.body)
    if not any(holds(one, lake, f"{current.folder}/{file.name}", gone) for file in body.files if is_table(file.name)):
        return False
    source = root.temporary_current(one.partner, one.context.process.nonce())
    with scratch(one.context) as local:
        files = dict(files_without(one, lake, (current.folder, source), body.files, gone, local))
    prints = sum((left.fingerprints for left in files.values()), Counter[str]())
    made = body.model_copy(
        update={
            "number": body.number + 1,
            "files": named(files),
            "features": prints.total(),
            "fingerprints": dict(sorted(prints.items())),
        }
    )
    move_whole(lake, source, root.current(one.partner, made.number), made)
    lake.delete_folder(source)
    one.removed["row"] += body.features - made.features
    return True
