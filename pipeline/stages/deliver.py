"""deliver: folders that appear whole on the lake, then the index, then `done` (docs/protocol.md 7).

Each partner of an `out` gets one folder, `<root>/<shipment>/<partner>`.  Its files are copied to a temporary place and
checked against their SHA-256; `_manifest.json` and `_SUCCESS` are written last; then the folder is renamed, so that it
appears whole or not at all, even to a reader who globs.  A folder that stands already is this shipment's (then its
part is done) or another's (then an Alert).

All folders of a turn are entered into the index at once (stages.index), whose cost is that of the turn.  Then each
shipment's `done` is committed.  A kill between any two of these steps is repaired by doing them again: what stands is
found, and not made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.codec.delivered.forms import rows_of_failures, rows_of_features
from pipeline.errors import FormatError, NotFound, PermanentError, TemporaryError
from pipeline.ledger.bodies import read_body
from pipeline.ledger.data import download, load_data
from pipeline.ledger.deliveries import Delivery, IndexFile, PartnerManifest
from pipeline.ledger.layout import DELIVER, MANIFEST, Root, ShipmentName, version_of
from pipeline.ledger.manifest import DataFile, Done, Out, OutFile, OutPartner, Plan
from pipeline.ledger.protocol import Context, Seen, claim, commit, ended, law, scratch
from pipeline.ledger.state import ShipmentState, count, resting
from pipeline.settings import FeatureSet
from pipeline.stages import index
from pipeline.stages.whole_folder import move_whole
from pipeline.stores.store import Lake

IN_MEMORY = 50 * 2**20
"""A file of so many bytes goes by the memory; a larger one by the local disk."""


@dataclass(frozen=True)
class DeliverTask:
    """One shipment that is aggregated and not delivered."""

    state: ShipmentState
    number: int
    now: float
    """When it was looked, by the bucket's clock."""


@dataclass(frozen=True)
class Placed:
    """A shipment whose folders stand on the lake; index and `done` are still to be written."""

    task: DeliverTask
    root: Root
    deliveries: tuple[Delivery, ...]
    bytes: int

    @property
    def name(self) -> ShipmentName:
        return self.task.state.name


def plan(seen: Seen, sets: Mapping[str, FeatureSet]) -> list[DeliverTask]:
    """Shipments to deliver, oldest name first."""
    tasks = []
    for state in sorted(seen.states, key=lambda s: s.name):
        if state.unreadable or state.plan is None or state.out is None or state.done is not None or state.void:
            continue
        tries = state.tries.get(DELIVER, ())
        counted = count(tries, seen.alive)
        if state.plan.set in sets and not counted.live and not resting(tries, seen.now):
            tasks.append(DeliverTask(state, counted.next_number, seen.now))
    return tasks


def place(context: Context, feature_set: FeatureSet, task: DeliverTask) -> Placed | None:
    """Put one shipment's folders on the lake; None when somebody else is at it."""
    if not claim(context, task.state.name, DELIVER, task.number):
        return None
    try:
        return _place(context, Root(feature_set.folder), task)
    except BaseException as error:
        abandon(context, task, error)
        raise


def abandon(context: Context, task: DeliverTask, error: BaseException) -> None:
    """Say that an attempt ended without a result, and by what."""
    ended(context, task.state.name, DELIVER, task.number, error)


def enter(context: Context, root: Root, placed: Sequence[Placed], seen: index.Read | None = None) -> str:
    """The index of a root for all that was placed there, at once; the time of entry.  seen: the index, just read."""
    now = version_of(context.bucket.list(context.keys.alive_hints).now)
    entries = {context.keys.done(one.name): one.deliveries for one in placed if one.deliveries}
    if entries:
        index.enter(context, root, entries, now, seen)
    return now


def finish(context: Context, one: Placed, now: str) -> None:
    """One shipment's `done`, once the index has it.  now: the time of entry."""
    folders = tuple(one.root.partner(one.name, delivery.partner_id) for delivery in one.deliveries)
    commit(context, context.keys.done(one.name), Done(folders=folders, at=now))


def _place(context: Context, root: Root, task: DeliverTask) -> Placed:
    name, plan, out, lake = task.state.name, task.state.plan, task.state.out, context.lake
    assert plan is not None
    assert out is not None
    assert lake is not None
    temporary = root.temporary(name, context.process.nonce())
    size = 0
    deliveries = []
    try:
        for partner in sorted(out.partners, key=int):
            context.safe_point()
            body = _partner_manifest(context, task, int(partner), plan, out)
            _law_of(name, out.partners[partner], body)
            size += _partner(context, lake, root, temporary, body, out.partners[partner])
            deliveries.append(delivery_of(name, body))
    finally:
        lake.delete_folder(temporary)
    return Placed(task, root, tuple(deliveries), size)


def _law_of(name: ShipmentName, partner: OutPartner, body: PartnerManifest) -> None:
    """Each form holds every feature."""
    failures = rows_of_failures(body.files)
    for rows in rows_of_features(body.files).values():
        law(f"{name} delivery", rows + failures, features=partner.features, failures=partner.failures)


def _partner(
    context: Context, lake: Lake, root: Root, temporary: str, body: PartnerManifest, partner: OutPartner
) -> int:
    """One partner's folder: written under a temporary name, checked, moved; bytes written, 0 when it was there."""
    name = ShipmentName.parse(body.shipment)
    target = root.partner(name, body.partner_id)
    if _stands(lake, target, body.shipment):
        return 0
    source = f"{temporary}/{body.partner_id}"
    size = 0
    for file in partner.files:
        context.safe_point()
        _copy(context, lake, file, f"{source}/{file.name}")
        size += file.size
        context.progress("deliver", file.size, 0)
    move_whole(lake, source, target, body)
    if not _stands(lake, target, body.shipment):
        raise TemporaryError(f"the lake did not say whether {target} was moved", "", "the next run looks again")
    return size


def _copy(context: Context, lake: Lake, file: OutFile, target: str) -> None:
    """One file from the bucket to the lake, verified before a byte of it is written there."""
    data = DataFile(key=file.key, size=file.size, sha256=file.sha256, rows=file.rows)
    if file.size <= IN_MEMORY:
        lake.put(target, load_data(context, data))
        return
    with scratch(context) as folder:
        path = folder / "file"
        download(context, data, path)
        lake.put(target, path)


def _stands(lake: Lake, target: str, shipment: str) -> bool:
    """Whether a partner's folder is delivered.  Raises PermanentError when something else stands there."""
    try:
        body = read_body(lake, PartnerManifest, f"{target}/{MANIFEST}")
    except NotFound:
        if lake.stat(target) is None:
            return False
        raise PermanentError(
            f"Alert: the folder {target} has no manifest",
            "Hathi did not write it, or it is damaged",
            "move the folder away",
        ) from None
    except FormatError as error:
        raise PermanentError(
            f"Alert: {target} holds other files than this delivery",
            error.detail,
            "move the folder away",
        ) from error
    if body.shipment != shipment:
        raise PermanentError(
            f"Alert: {target} belongs to another shipment",
            body.shipment,
            "move the folder away",
        )
    return True


def _partner_manifest(context: Context, task: DeliverTask, partner: int, plan: Plan, out: Out) -> PartnerManifest:
    name, end, mine = task.state.name, task.state.end, out.partners[str(partner)]
    return PartnerManifest(
        shipment=str(name),
        partner_id=partner,
        set=plan.set,
        fingerprint=out.fingerprint,
        engine=out.engine,
        preprocessing=out.preprocessing,
        source=plan.snapshot.source,
        last=end is not None and end.next is None,
        delivered=version_of(task.now),
        dim=out.dim,
        numbers=out.numbers,
        version=name.version,
        round=name.round,
        generation=name.generation,
        files=tuple(IndexFile(name=f.name, size=f.size, sha256=f.sha256, rows=f.rows) for f in mine.files),
        features=mine.features,
        failures=mine.failures,
        not_modified=mine.not_modified,
        equal_bytes=mine.equal_bytes,
        parents=(context.keys.out(name),),
    )


def delivery_of(name: ShipmentName, body: PartnerManifest, delivered: str = "") -> Delivery:
    """A delivered folder as the index lists it; `delivered` is said as it enters."""
    return Delivery(
        folder=f"{name}/{body.partner_id}",
        partner_id=body.partner_id,
        files=body.files,
        features=body.features,
        failures=body.failures,
        fingerprint=body.fingerprint,
        jobTimeStamp=name.version,
        round=name.round,
        generation=name.generation,
        delivered=delivered,
    )
