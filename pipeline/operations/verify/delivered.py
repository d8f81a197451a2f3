"""What stands under a set's root on the lake, against its own manifests, the ledger and the index."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.amounts import counted
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.ledger.layout import INDEX, MANIFEST, Root, ShipmentName, number_of
from pipeline.ledger.manifest import Done, Out, OutPartner
from pipeline.ledger.protocol import Context, readable
from pipeline.operations.verify.current import current
from pipeline.operations.verify.finding import Finding, Looking, Say, body_at
from pipeline.operations.verify.folder import whole
from pipeline.operations.verify.hops import partner_rows
from pipeline.operations.verify.listing import IndexView
from pipeline.operations.verify.replaced import REPLACED, replaced
from pipeline.stores.store import Lake
from pipeline.times import DAY


def delivered(say: Say, context: Context, lake: Lake, root: Root, view: IndexView, *, deep: bool) -> Iterator[Finding]:
    """Every delivered folder of one root, in the order of names; one of them in memory at a time."""
    prefix = f"{root.root}/"
    for entry in lake.list(prefix, folders=True):
        context.safe_point()
        text = entry.key.removeprefix(prefix)
        if text in (INDEX, "_index/", "_tmp/", "_current/", "_made/") or text.startswith("."):
            continue
        try:
            name = ShipmentName.parse(text.removesuffix("/") if text.endswith("/") else "")
        except ValueError:
            yield say("not_ours", entry.key, "this is neither the folder of a shipment nor the index")
            continue
        yield from _shipment(say, context, lake, root, name, view, deep)
        context.progress("verify", 1, 0)
    yield from current(say, context, lake, root, deep=deep)
    yield from view.findings(say)


def _shipment(
    say: Say, context: Context, lake: Lake, root: Root, name: ShipmentName, view: IndexView, deep: bool
) -> Iterator[Finding]:
    keys = context.keys
    done, out = readable(context, keys.done(name), Done), readable(context, keys.out(name), Out)
    if done is None and out is None:
        yield from _without_ledger(say, context, lake, root, name)
    prefix = f"{root.shipment(name)}/"
    for entry in lake.list(prefix, folders=True):
        text = entry.key.removeprefix(prefix)
        partner = number_of(text[:-1])
        if partner is None or text != f"{partner}/":
            yield say("not_ours", entry.key, "this is not the folder of a partner")
            continue
        found, body = _kept(_folder(say, lake, root, name, partner, deep))
        if any(one.level == "damage" for one in found) and replaced(context, name):
            yield say("replaced", entry.key.rstrip("/"), REPLACED)
            continue
        yield from found
        if body is None:
            continue
        if out is not None:
            yield from _against_out(say, f"{entry.key}{MANIFEST}", body, out)
        if done is not None and done.void is None:
            view.note(body, done)


def _kept(looking: Looking[PartnerManifest | None]) -> tuple[list[Finding], PartnerManifest | None]:
    """What is found of one folder, and its manifest."""
    found: list[Finding] = []
    while True:
        try:
            found.append(next(looking))
        except StopIteration as end:
            return found, end.value


def _without_ledger(say: Say, context: Context, lake: Lake, root: Root, name: ShipmentName) -> Iterator[Finding]:
    """A pruned ledger is no damage; one that is too young for that was deleted by somebody."""
    listing = context.bucket.list(context.keys.shipment(name))
    if any(True for _ in listing):
        return  # it is named there, or on its way
    found = lake.stat(root.shipment(name))
    limits = context.settings.prune
    if found is not None and found.modified / 1000 > listing.now - limits.ledger_days * DAY:
        what = f"{context.keys.shipment(name)} is gone, although prune still keeps it"
        yield say("ledger_missing", root.shipment(name), what)


def _folder(
    say: Say, lake: Lake, root: Root, name: ShipmentName, partner: int, deep: bool
) -> Looking[PartnerManifest | None]:
    """One partner's folder against its own manifest, which is the value where it is one."""
    folder = root.partner(name, partner)
    there = {entry.key.removeprefix(f"{folder}/"): entry.size for entry in lake.list(f"{folder}/")}
    where = f"{folder}/{MANIFEST}"
    if MANIFEST not in there:
        yield say("folder_strange", folder, f"the folder has no {MANIFEST}")
        return None
    body = yield from body_at(say, lake.get, where, PartnerManifest, "folder_strange")
    if body is None:
        return None
    if (body.shipment, body.partner_id) != (str(name), partner):
        yield say("folder_strange", folder, f"its manifest belongs to {body.shipment}/{body.partner_id}")
        return None
    yield from whole(say, lake, folder, there, body.files, deep=deep)
    yield from partner_rows(say, where, str(partner), body)
    return body


def _against_out(say: Say, where: str, body: PartnerManifest, out: Out) -> Iterator[Finding]:
    """A folder's manifest says what the ledger says."""
    mine = out.partners.get(str(body.partner_id))
    if mine is None:
        yield say("manifest_differs", where, "the `out` of its shipment has nothing for this partner")
        return
    if body.forgotten:  # rows went since; its own manifest says what is left, and here they add up
        rows, were = body.features + body.failures + body.forgotten, mine.features + mine.failures
        if rows != were or body.fingerprint != out.fingerprint:
            what = f"it has {counted(rows, 'row')} with those that were forgotten; the `out` of its shipment has {were}"
            yield say("manifest_differs", where, what)
        return
    for what, here, there in (
        ("list of files", _files(body), {(f.name, f.size, f.sha256, f.rows) for f in mine.files}),
        ("number of features or failures", (body.features, body.failures), (mine.features, mine.failures)),
        ("fingerprint", body.fingerprint, out.fingerprint),
    ):
        if here != there:
            yield say("manifest_differs", where, f"its {what} differs from what the `out` of its shipment says")


def _files(body: PartnerManifest | OutPartner) -> set[tuple[str, int, str, int]]:
    return {(f.name, f.size, f.sha256, f.rows) for f in body.files}
