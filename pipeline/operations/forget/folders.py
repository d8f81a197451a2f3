"""Delivered folders: written anew beside their place without the item's rows, then put there; then the index follows.

A folder of its name is there before and after, and for one instant between two renames none is.  Whoever is cut in that
instant has left the new one complete under `_tmp/`, and the next pass puts it in its place.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from pipeline.codec.delivered.forms import is_failures, is_table, is_text
from pipeline.codec.delivered.without import Gone, Left
from pipeline.codec.shards import Reused
from pipeline.errors import FormatError, LawBroken, NotFound, TemporaryError, Unknown
from pipeline.ledger.bodies import read_body
from pipeline.ledger.commit import rename_first
from pipeline.ledger.deliveries import Delivery, Index, IndexFile, IndexPartner, PartnerManifest
from pipeline.ledger.layout import MANIFEST, SUCCESS, Root, ShipmentName
from pipeline.ledger.manifest import Done
from pipeline.ledger.protocol import Context, law, readable, scratch
from pipeline.operations.forget.whose import Pass
from pipeline.stages import index
from pipeline.stages.compact.standing import delta, shipments
from pipeline.stages.deliver import delivery_of
from pipeline.stages.whole_folder import complete
from pipeline.stores.store import Lake
from pipeline.times import DAY

_ANEW = "forget"
"""How the name of a folder under `_tmp/` goes on that waits to be put in its place."""
_GONE = "_gone-"
"""How the name of a folder there begins that was renamed away to be deleted."""


def folders(one: Pass, lake: Lake, root: Root) -> None:
    """Each shipment's folder of the partner, under one root.  Costs a manifest and the ids of each."""
    take_up(lake, root)
    bodies: dict[str, PartnerManifest] = {}
    for name in shipments(lake, root):
        one.context.safe_point()
        try:
            body = delta(lake, root, name, one.partner)
            bodies[f"{name}/{one.partner}"] = _folder(one, lake, root, name, body)
        except NotFound:
            if lake.stat(root.partner(name, one.partner)) is not None:
                one.waiting[str(name)] = f"{root.partner(name, one.partner)} changes just now"
        except (FormatError, LawBroken, TemporaryError) as error:
            folder = root.partner(name, one.partner)
            one.waiting[folder] = f"{folder} cannot be read: {error.message}: {error.detail}"
        one.context.progress("forget", 1, 0)
    changed = [folder for folder, body in bodies.items() if body.forgotten]
    if changed:
        index.change(one.context, root, lambda body: _index(lake, root, body, changed))


def take_up(lake: Lake, root: Root) -> None:
    """Put folders in their place that are in none: of somebody who was cut between two renames.

    What was written anew comes before what was renamed away: it is the same without the rows.
    """
    under = [entry.key.rstrip("/") for entry in lake.list(f"{root.root}/_tmp/", folders=True)]
    anew = [folder for folder in under if f".{_ANEW}-" in folder.rpartition("/")[2]]
    partners = [entry.key.rstrip("/") for folder in anew for entry in lake.list(f"{folder}/", folders=True)]
    for folder in (*partners, *(folder for folder in under if folder.rpartition("/")[2].startswith(_GONE))):
        target = _place_of(lake, root, folder)
        if target is not None and lake.stat(target) is None:
            rename_first(lake, folder, target)


def _place_of(lake: Lake, root: Root, folder: str) -> str | None:
    """Where a whole folder of a partner belongs; None for what is not whole, or none."""
    if lake.stat(f"{folder}/{SUCCESS}") is None:
        return None
    body = _read(lake, folder)
    return None if body is None else root.partner(ShipmentName.parse(body.shipment), body.partner_id)


def _read(lake: Lake, folder: str) -> PartnerManifest | None:
    """The manifest of a partner's folder, wherever it lies; None where there is none."""
    try:
        return read_body(lake, PartnerManifest, f"{folder}/{MANIFEST}")
    except (NotFound, FormatError):
        return None


def leftovers(one: Pass, lake: Lake, root: Root) -> None:
    """What was renamed away to be deleted, and deliveries and tables that were not finished: rows lie there, too."""
    now = one.context.bucket.list(one.context.keys.forget).now
    for entry in list(lake.list(f"{root.root}/_tmp/", folders=True)):
        folder = entry.key.rstrip("/")
        text = folder.rpartition("/")[2]
        if text.startswith(_GONE):
            target = _place_of(lake, root, folder)
            if target is None or lake.stat(target) is not None:
                lake.delete_folder(folder)
        elif _is_done(one.context, text):
            lake.delete_folder(folder)
        elif text.startswith(f"current-{one.partner}.") or f".{_ANEW}-" in text:
            if max((below.modified for below in lake.list(f"{folder}/")), default=0.0) < now - DAY:
                lake.delete_folder(folder)
            elif any_holds(one, lake, folder):
                one.waiting[folder] = f"{folder} is being written, or its writer was killed: a day later it goes"


def any_holds(one: Pass, lake: Lake, folder: str) -> bool:
    """Whether a folder that is not finished has rows that go; of a half file nobody can say that it has not."""
    try:
        paths = [entry.key for entry in lake.list(f"{folder}/") if not entry.key.endswith((MANIFEST, SUCCESS))]
        return any(holds(one, lake, path, one.gone()) for path in paths)
    except FormatError:
        return True
    except NotFound:
        return False


def _is_done(context: Context, text: str) -> bool:
    """Whether a temporary folder is of a delivery that is done, by this process or another."""
    try:
        name = ShipmentName.parse(text.rpartition(".")[0])
    except ValueError:
        return False
    return f".{_ANEW}-" not in text and readable(context, context.keys.done(name), Done) is not None


def _folder(one: Pass, lake: Lake, root: Root, name: ShipmentName, body: PartnerManifest) -> PartnerManifest:
    """One partner's folder without the rows; the manifest that stands there then."""
    folder = root.partner(name, one.partner)
    gone = one.gone()
    if not any(holds(one, lake, f"{folder}/{file.name}", gone) for file in body.files) or one.is_new(name):
        return body
    if readable(one.context, one.context.keys.done(name), Done) is None and _has_ledger(one.context, name):
        one.waiting[folder] = f"{name} is being delivered"
        return body
    source = f"{root.temporary(name, f'{_ANEW}-{one.context.process.nonce()}')}/{one.partner}"
    with scratch(one.context) as local:
        files = dict(files_without(one, lake, (folder, source), body.files, gone, local))
    made = _manifest(folder, body, files)
    complete(lake, source, made)
    _exchange(one.context, lake, (source, folder), root, body)
    stands = delta(lake, root, name, one.partner)
    if stands.files != made.files:
        one.waiting[folder] = f"{folder} could not be put in its place; the next pass does it"
        return stands
    lake.delete_folder(source.rpartition("/")[0])
    one.removed["row"] += made.forgotten - body.forgotten
    return stands


def _has_ledger(context: Context, name: ShipmentName) -> bool:
    return any(True for _ in context.bucket.list(context.keys.shipment(name)))


def holds(one: Pass, lake: Lake, path: str, gone: Gone) -> bool:
    """Whether a file on the lake has rows that go."""
    with lake.open(path) as stream:
        return one.context.forms.holds(path, stream, gone)


def files_without(
    one: Pass, lake: Lake, places: tuple[str, str], files: tuple[IndexFile, ...], gone: Gone, local: Path
) -> Iterator[tuple[IndexFile, Left]]:
    """Write a folder's files under another name without the rows; each as it was, and what is left of it.

    places: the folder, and the other one.  Parquet comes first: where some shipments' rows stay, it says
    which lines of a text do.  Raises TemporaryError where the folder is written anew meanwhile.
    """
    items: set[int] = set()
    for file in sorted(files, key=lambda file: is_text(file.name)):
        which = Gone(frozenset(items)) if is_text(file.name) and gone.spared else gone
        path = local / file.name.replace("/", "-")
        with lake.open(f"{places[0]}/{file.name}") as stream:
            left = one.context.forms.without(file.name, stream, path, which)
        if left.gone + (left.written.rows if left.written is not None else 0) != file.rows:
            raise TemporaryError(f"{places[0]} was written anew by another gateway", file.name, "the next pass goes on")
        if is_table(file.name):
            items |= left.items
        if left.written is not None:
            lake.put(f"{places[1]}/{file.name}", path)
            path.unlink()
        yield file, left


def named(files: Mapping[IndexFile, Left]) -> tuple[IndexFile, ...]:
    """The files that are left, as a manifest names them."""
    return tuple(
        IndexFile(name=file.name, size=left.written.size, sha256=left.written.sha256, rows=left.written.rows)
        for file, left in sorted(files.items(), key=lambda pair: pair[0].name)
        if left.written is not None
    )


def _manifest(folder: str, body: PartnerManifest, files: Mapping[IndexFile, Left]) -> PartnerManifest:
    """What stands there then.  Raises LawBroken where a form loses other rows than another."""
    failures = sum(left.gone for file, left in files.items() if is_failures(file.name))
    by_form: dict[str, int] = {}
    for file, left in files.items():
        if not is_failures(file.name):
            form = file.name.partition("/")[0]
            by_form[form] = by_form.get(form, 0) + left.gone
    features = max(by_form.values(), default=0)
    for form, rows in by_form.items():
        law(f"{folder} {form}", features, **{"gone": rows})
    reused = sum((left.reused for file, left in files.items() if is_table(file.name)), Counter[str]())
    return body.model_copy(
        update={
            "files": named(files),
            "features": body.features - features,
            "failures": body.failures - failures,
            "forgotten": body.forgotten + features + failures,
            **{how: _fewer(getattr(body, how), reused[how], body.features - features) for how in get_args(Reused)},
        }
    )


def _fewer(count: int, gone: int, features: int) -> int:
    """Features that were used again, without those that went; folders of an older Hathi do not tell which were."""
    return min(count - gone, features)


def _exchange(context: Context, lake: Lake, places: tuple[str, str], root: Root, body: PartnerManifest) -> None:
    """Put a complete folder in the place of another one, which goes.

    places: the new one, and the old one.  body: of the old one, as it was read.  Where another gateway has put a third
    one there meanwhile, that stands: the next pass looks at it.
    """
    source, target = places
    gone = _renamed(context, lake, root, target)
    found = _read(lake, gone)
    if found == body:
        rename_first(lake, source, target)
        lake.delete_folder(gone)
    elif found is not None:
        lake.delete_folder(source)
        rename_first(lake, gone, target)


def delete_whole(context: Context, lake: Lake, root: Root, folder: str) -> None:
    """Rename a folder away, then delete it: a reader finds it whole, or not at all."""
    lake.delete_folder(_renamed(context, lake, root, folder))


def _renamed(context: Context, lake: Lake, root: Root, folder: str) -> str:
    """Where a folder was renamed to.  Another gateway may be first, and an answer may be lost: what stands tells."""
    gone = f"{root.root}/_tmp/{_GONE}{context.process.nonce()}"
    with contextlib.suppress(NotFound, Unknown):
        lake.rename_new(folder, gone)
    return gone


def _index(lake: Lake, root: Root, body: Index, folders: Sequence[str]) -> Index | None:
    """The next version, where the index still has the files as they were.

    Manifests are read each time: another gateway may have written a folder anew since, and entered it.
    """
    found = {folder: _read(lake, f"{root.root}/{folder}") for folder in folders}
    changed = {folder: stands for folder, stands in found.items() if stands is not None}
    deliveries = tuple(_entry(one, changed.get(one.folder)) for one in body.deliveries)
    partners = {key: _partner(lake, root, one, key, changed) for key, one in body.partners.items()}
    if deliveries == body.deliveries and partners == body.partners:
        return None
    return body.model_copy(update={"version": body.version + 1, "deliveries": deliveries, "partners": partners})


def _entry(one: Delivery, body: PartnerManifest | None) -> Delivery:
    return one if body is None else delivery_of(ShipmentName.parse(body.shipment), body, one.delivered)


def _partner(
    lake: Lake, root: Root, one: IndexPartner, partner: str, changed: Mapping[str, PartnerManifest]
) -> IndexPartner:
    mine = {folder: body for folder, body in changed.items() if str(body.partner_id) == partner}
    stands = [file for file in one.files if "/".join(file.split("/")[:2]) not in mine]
    listed = {"/".join(file.split("/")[:2]) for file in one.files}
    anew = [f"{folder}/{file.name}" for folder, body in mine.items() if folder in listed for file in body.files]
    files = tuple(sorted([*stands, *anew]))
    if not listed & mine.keys():
        return one
    found = (lake.stat(f"{root.root}/{file}") for file in files)
    return one.model_copy(update={"files": files, "outputSize": sum(stat.length for stat in found if stat is not None)})
