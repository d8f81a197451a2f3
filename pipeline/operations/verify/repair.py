"""`hathi verify --repair`: what is derived is made anew; data and manifests stay as they are (docs/protocol.md 8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.errors import FormatError, NotFound, PipelineError
from pipeline.ledger.bodies import NewerFormat, read_body
from pipeline.ledger.commit import rename_first
from pipeline.ledger.deliveries import Delivery, Index, IndexCurrent, PartnerManifest, Proposal
from pipeline.ledger.layout import MANIFEST, Root, ShipmentName, seconds_of, version_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Done
from pipeline.ledger.protocol import Context, exists, is_closed, readable, state_of
from pipeline.operations.verify.listing import chain_of, read_if_good
from pipeline.operations.verify.plans import replanned
from pipeline.operations.verify.replaced import replaced
from pipeline.stages.compact.standing import newest, tables
from pipeline.stages.deliver import delivery_of
from pipeline.stages.index import next_index
from pipeline.stores.sight import seen
from pipeline.stores.store import Lake
from pipeline.times import DAY


class SomebodyWrites(PipelineError):
    """Another process proposed the same version of the index meanwhile."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """One thing that was put right."""

    lake: str
    where: str
    what: str


def repair(context: Context, roots: list[Root]) -> Iterator[Repaired]:
    """Rebuild the index of each root that is not as its folders say, write lost plans again, and put back lost hints.

    No daemon may run meanwhile: the caller holds the locks.  Raises SomebodyWrites when another host's does.
    """
    lake = seen(context.lake)
    if lake is not None:
        for root in roots:
            done = _index(context, lake, root)
            if done is not None:
                yield done
    for name in replanned(context, lake):
        yield Repaired(context.lake_name, context.keys.plan(name), "written again: the shipment goes on")
    yield from _hints(context)


def _index(context: Context, lake: Lake, root: Root) -> Repaired | None:
    old = read_if_good(lake, root)
    greatest = chain_of(lake, root)
    rebuilt = _rebuilt(context, lake, root, old)
    if old is not None and old.version >= greatest and _same(old, rebuilt):
        return None
    if old is None and lake.stat(root.index) is not None and _is_newer(lake, root):
        return None
    version = max(old.version if old else 0, greatest) + 1
    _put(context, lake, root, rebuilt.model_copy(update={"version": version}))
    counts = (
        f"{counted(len(rebuilt.partners), 'partner')}, {counted(len(rebuilt.deliveries), 'delivery', 'deliveries')}"
    )
    what = f"rebuilt from the manifests as version {version}: {counts}"
    return Repaired(context.lake_name, root.index, what)


def _is_newer(lake: Lake, root: Root) -> bool:
    """Written by a newer Hathi: not this host's to rebuild."""
    try:
        read_body(lake, Index, root.index)
    except NewerFormat:
        return True
    except FormatError:
        return False
    return False


def _same(one: Index, other: Index) -> bool:
    deliveries = [{d.folder: d for d in index.deliveries} for index in (one, other)]
    same = one.partners == other.partners and one.current == other.current
    return same and deliveries[0] == deliveries[1]


def _current(lake: Lake, root: Root) -> dict[str, IndexCurrent]:
    """Each partner's current table."""
    found = {partner: newest(lake, root, partner) for partner in tables(lake, root)}
    return {str(partner): one.entry() for partner, one in found.items() if one is not None}


def _rebuilt(context: Context, lake: Lake, root: Root, old: Index | None) -> Index:
    """What the index would be had each delivered shipment been entered once.  Folders are read one after another."""
    now = context.bucket.list(context.keys.alive_hints).now
    oldest = now - context.settings.deliver.index_days * DAY
    listed = {one.folder: one for one in old.deliveries} if old else {}
    stamp = version_of(now)
    grown = Index()
    deliveries: list[Delivery] = []
    names = list(names_under(lake, f"{root.root}/"))
    rounds: dict[str, int] = {}
    for name in names:
        rounds[name.version] = max(rounds.get(name.version, 0), name.round)
    for name in names:
        context.safe_point()
        gone = _not_whole(lake, root, name) if name.round < rounds[name.version] and replaced(context, name) else set()
        done = readable(context, context.keys.done(name), Done)
        mine = []
        for body in _folders(lake, root, name):
            folder = f"{name}/{body.partner_id}"
            if body.partner_id in gone:
                continue  # a later round is delivered in its place
            known = listed.get(folder)
            if known is None and done is None and exists(context, context.keys.plan(name)):
                continue  # deliver has still to enter it, with the shipment's other partners
            entered = known.delivered if known else _entered(lake, root, body, done)
            one = delivery_of(name, body, entered)
            mine.append(one)
            if known is not None or seconds_of(entered) >= oldest:
                deliveries.append(one)
        # The rule for partners is that of each delivery; what is listed for some days is told apart here.
        grown = next_index(Index(partners=grown.partners), mine, root.root, stamp, 1.0)
        context.progress("verify", 1, 0)
    deliveries.sort(key=lambda one: (one.delivered, one.folder))
    return Index(partners=grown.partners, deliveries=tuple(deliveries), current=_current(lake, root))


def _not_whole(lake: Lake, root: Root, name: ShipmentName) -> set[int]:
    """Partners of whose folders something is missing or of another length."""
    found = set()
    for body in _folders(lake, root, name):
        folder = f"{root.partner(name, body.partner_id)}/"
        there = {entry.key.removeprefix(folder): entry.size for entry in lake.list(folder)}
        if any(there.get(file.name) != file.size for file in body.files):
            found.add(body.partner_id)
    return found


def _folders(lake: Lake, root: Root, name: ShipmentName) -> Iterator[PartnerManifest]:
    """The partners' manifests; a folder without a good one of its own is not delivered."""
    for entry in lake.list(f"{root.shipment(name)}/", folders=True):
        path = f"{entry.key}{MANIFEST}"
        try:
            body = read_body(lake, PartnerManifest, path)
        except (FormatError, NotFound):
            continue  # not a delivered folder of ours: `verify` names it
        if root.partner(name, body.partner_id) == entry.key.rstrip("/") and body.shipment == str(name):
            yield body


def _entered(lake: Lake, root: Root, body: PartnerManifest, done: Done | None) -> str:
    """When it was delivered: by the ledger, or where that was pruned by the folder's own time."""
    if done is not None:
        return done.at
    found = lake.stat(f"{root.root}/{body.shipment}/{body.partner_id}/{MANIFEST}")
    return version_of(found.modified / 1000 if found else 0.0)


def _put(context: Context, lake: Lake, root: Root, index: Index) -> None:
    """By a proposal like any other version, so that a writer who wakes late finds it taken."""
    token = context.process.nonce()
    lake.put(root.token(token), index.model_copy(update={"nonce": token}).encode())
    small = f"{root.token(token)}.proposal"
    lake.put(small, Proposal(token=token, nonce=token).encode())
    path = root.proposal(index.version)
    rename_first(lake, small, path)
    stands = read_body(lake, Proposal, path)
    if stands.token != token:
        lake.delete(root.token(token))
        raise SomebodyWrites(f"another process writes {root.index}", path, "stop the daemons on every host")
    lake.rename_over(root.token(token), root.index)


def _hints(context: Context) -> Iterator[Repaired]:
    for name in names_under(context.bucket, context.keys.commits):
        context.safe_point()
        state = state_of(context, name)
        if state.plan is None or is_closed(context, state):
            continue
        hint = context.keys.open_hint(state.plan.due, name)
        if not exists(context, hint):
            context.bucket.put(hint, b"")
            yield Repaired(context.lake_name, hint, "put back: the shipment is open")
