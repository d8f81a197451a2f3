"""One shipment's chapter of an item's story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.amounts import counted
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.bodies import read_body
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.ledger.layout import MANIFEST, Root, ShipmentName, version_of
from pipeline.ledger.manifest import Out, OutPartner, Plan
from pipeline.ledger.protocol import Context, alive, readable, state_of
from pipeline.ledger.state import ShipmentState
from pipeline.operations.why.delivered import rows_of
from pipeline.operations.why.next_steps import ahead
from pipeline.operations.why.refs import Refs, winners
from pipeline.operations.why.story import Chapter, Outcome, Question
from pipeline.stores.store import Lake

KINDS = {
    "source": "first try",
    "retry": "retry",
    "release": "release",
    "again": "shipped again",
    "backfill": "back-fill",
}


@dataclass(frozen=True)
class Place:
    """Where a shipment may be looked at."""

    context: Context
    lake: Lake | None
    name: ShipmentName
    root: Root | None
    """The root under which its folder was seen; None where only the ledger names it."""


def chapter(place: Place, question: Question) -> Chapter | None:
    """None when the shipment has nothing of the item.  Most shipments are told by their out alone."""
    context, keys = place.context, place.context.keys
    if readable(context, keys.plan(place.name), Plan) is None:
        return _without_ledger(place, question)
    notes: list[str] = []
    out = readable(context, keys.out(place.name), Out)
    delivered = _delivered(place, out, question, notes) if out is not None else None
    if delivered == ():
        return None  # out was read, and each item of a shipment has a row there
    state = state_of(context, place.name)
    if state.plan is None:  # it cannot be read as what it is
        return _without_ledger(place, question)
    listing = context.bucket.list(keys.alive_hints)
    reader = Refs(context, state, alive(context, listing.now))
    refs = reader.of(question)
    if not refs and not delivered:
        return None
    if reader.pruned:
        batches = counted(reader.pruned, "batch", "batches")
        notes.append(f"prune deleted the refs of {batches}: Hathi no longer knows where the item stood in them")
    if len(refs) > 1:
        refs = winners(refs)
    folder = _folder(context, state, question.partner)
    return Chapter(
        shipment=str(place.name),
        set=state.plan.set,
        kind=state.plan.kind,
        generation=place.name.generation,
        source=state.plan.snapshot.source,
        version=place.name.version,
        parent=state.plan.parent or "",
        refs=refs,
        delivered=delivered or (),
        folder=folder,
        delivered_at=state.done.at if state.done is not None and not state.given_up else "",
        next=ahead(context, state, refs, delivered or (), version_of(listing.now)),
        notes=tuple(dict.fromkeys([*notes, *reader.notes, *_gone(place, state, folder)])),
    )


def _folder(context: Context, state: ShipmentState, partner: int) -> str:
    """Where the partner's rows stand, or will."""
    assert state.plan is not None
    if state.done is not None:
        return next((f for f in state.done.folders if f.endswith(f"/{state.name}/{partner}")), "")
    feature_set = context.settings.sets.get(state.plan.set)
    return Root(feature_set.folder).partner(state.name, partner) if feature_set else ""


def _gone(place: Place, state: ShipmentState, folder: str) -> list[str]:
    if place.lake is None or state.done is None or not folder or place.lake.stat(folder) is not None:
        return []
    return ["its delivered folder no longer exists: run `hathi verify`"]


def _delivered(place: Place, out: Out, question: Question, notes: list[str]) -> tuple[Outcome, ...] | None:
    """The item's rows in out, read from the bucket or else from the lake; None where neither can be read."""
    partner = out.partners.get(str(question.partner))
    if partner is None:
        return ()
    for open_file, where in _ways(place, partner, question.partner):
        try:
            return tuple(rows_of([file.name for file in partner.files], open_file, question.items))
        except NotFound:
            continue
        except FormatError as error:
            notes.append(f"{error.message} ({where}): {error.detail}")
    notes.append("Hathi can read its delivered rows neither in the bucket nor on the lake")
    return None


def _ways(place: Place, partner: OutPartner, partner_id: int) -> list[tuple[Callable[[str], BinaryIO], str]]:
    keys = {file.name: file.key for file in partner.files}
    bucket, lake, root = place.context.bucket, place.lake, place.root
    ways: list[tuple[Callable[[str], BinaryIO], str]] = [(lambda name: bucket.open(keys[name]), "in the bucket")]
    if lake is not None and root is not None:
        folder = root.partner(place.name, partner_id)
        ways.append((lambda name: lake.open(f"{folder}/{name}"), "on the lake"))
    return ways


def _without_ledger(place: Place, question: Question) -> Chapter | None:
    """Of a shipment whose ledger is pruned: what its delivered folder says."""
    lake, root = place.lake, place.root
    if lake is None or root is None:
        return None
    folder = root.partner(place.name, question.partner)
    path = f"{folder}/{MANIFEST}"
    try:
        body = read_body(lake, PartnerManifest, path)
        rows = rows_of([f.name for f in body.files], lambda name: lake.open(f"{folder}/{name}"), question.items)
    except NotFound:
        return None
    except FormatError as error:
        return _bare(place, folder, (), "", "", f"{error.message}: {error.detail}")
    if not rows:
        return None
    found = lake.stat(path)
    at = version_of(found.modified / 1000) if found else ""
    return _bare(place, folder, tuple(rows), body.set, at, "")


def _bare(place: Place, folder: str, rows: tuple[Outcome, ...], set_name: str, at: str, trouble: str) -> Chapter:
    gone = "prune deleted its ledger: Hathi no longer knows batch, attempts and source"
    return Chapter(
        shipment=str(place.name),
        set=set_name,
        kind="",
        generation=place.name.generation,
        source="",
        version=place.name.version,
        parent="",
        refs=(),
        delivered=rows,
        folder=folder,
        delivered_at=at,
        next="",
        notes=(gone, trouble) if trouble else (gone,),
    )
