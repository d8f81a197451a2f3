"""What a person asks for by name: release and drop of held batches, ship again, back-fill (docs/protocol.md 6).

Each is a shipment of its own, announced by hint and plan alone; ship or the box finishes it, so that a person's
interrupted command leaves nothing half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from pipeline.amounts import counted
from pipeline.errors import IGNORED, TO_REPAIR, PermanentError
from pipeline.ledger.layout import FIRST_DUE, MAX_ROUND, RELEASE, ShipmentName, held_of, version_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Batch, Done, End, Out, Place, Plan, Result
from pipeline.ledger.protocol import Context, announce, beats, body_at, commit, exists, is_closed, readable, state_of
from pipeline.ledger.state import READ_FROM_SOURCES, ShipmentState, child_of, last_try, next_of
from pipeline.records import REASONS
from pipeline.stages.expectations import Expectations
from pipeline.stages.following import Following
from pipeline.stages.retries import retry_plan
from pipeline.stages.snapshots import rounds

CLOSED = "closed by an operator"
"""How the reason of what a person closed begins."""


@dataclass(frozen=True)
class HeldBatch:
    """A batch that was given up, and what became of it since."""

    name: ShipmentName
    batch: int
    refs: int
    reason: str
    release: ShipmentName
    answered: str
    """"" while nobody asked, else the kind of the plan: release or drop."""


def release_of(name: ShipmentName, plan: Plan, batch: int) -> ShipmentName:
    """The one shipment that a held batch can become; two people agree on it by name."""
    salt = f"{name}.{batch}"
    return ShipmentName.of(
        plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, name.part, RELEASE, salt
    )


def held(context: Context) -> Iterator[HeldBatch]:
    """Held batches, by their hints."""
    prefix = context.keys.held_hints
    for entry in context.bucket.list(prefix):
        try:
            name, batch = held_of(entry.key.removeprefix(prefix))
        except ValueError:
            context.once(entry.key, f"{entry.key} is not the key of a held batch; {IGNORED}")
            continue
        plan = readable(context, context.keys.plan(name), Plan)
        result = _held_result(context, name, batch)
        if plan is not None and result is not None:
            release = release_of(name, plan, batch)
            asked = readable(context, context.keys.plan(release), Plan)
            yield HeldBatch(name, batch, result.refs, result.reason, release, asked.kind if asked else "")


def _held_result(context: Context, name: ShipmentName, batch: int) -> Result | None:
    for fingerprint, batches in state_of(context, name).results.items():
        if batch in batches:
            result = readable(context, context.keys.result(name, fingerprint, batch), Result)
            if result is not None and result.kind == "held":
                return result
    return None


def answer(context: Context, name: ShipmentName, batch: int, kind: str) -> ShipmentName:
    """Announce the release or the drop of a held batch.  Raises PermanentError when it is not held, or answered."""
    plan = body_at(context, context.keys.plan(name), Plan)
    if _held_result(context, name, batch) is None:
        raise PermanentError(
            f"batch {batch} of {name} is not held", "", "`hathi quarantine list` names the held batches"
        )
    child = release_of(name, plan, batch)
    body = Plan(
        kind="release" if kind == "release" else "drop",
        lake=plan.lake,
        set=plan.set,
        snapshot=plan.snapshot,
        snapshot_digest=plan.snapshot_digest,
        batch_refs=plan.batch_refs,
        batch_bytes=plan.batch_bytes,
        batches=plan.batches,
        parent=str(name),
        parent_batch=batch,
        salt=f"{name}.{batch}",
        due=FIRST_DUE,
        retry_delays=plan.retry_delays,
        expects=plan.expects,
        from_archive=plan.from_archive,
    )
    _, stands = announce(context, child, body)
    if stands.kind != body.kind:
        raise PermanentError(f"batch {batch} of {name} was answered before: {stands.kind}", str(child), "")
    return child


def newest(context: Context, wanted: str, sets: Iterable[str]) -> list[tuple[ShipmentName, Plan]]:
    """The newest part-0 first try of each source and set that `wanted` names: a partner, a source or a shipment."""
    wanted = _first_of(context, wanted)
    found: dict[tuple[str, str], tuple[ShipmentName, Plan]] = {}
    for name in names_under(context.bucket, context.keys.commits):
        if name.part or name.generation:
            continue
        plan = readable(context, context.keys.plan(name), Plan)
        if plan is None or plan.set not in sets or not _names(context, wanted, name, plan):
            continue
        key = (plan.snapshot.source, plan.set)
        if key not in found or found[key][0] < name:
            found[key] = (name, plan)
    return [found[key] for key in sorted(found)]


def _first_of(context: Context, wanted: str) -> str:
    """Of a retry, a release or a later part the first try of its first part; else what is wanted, as it is."""
    try:
        name = ShipmentName.parse(wanted)
    except ValueError:
        return wanted
    plan = readable(context, context.keys.plan(name), Plan)
    if plan is None:
        return wanted
    return str(ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, 0, 0))


def _names(context: Context, wanted: str, name: ShipmentName, plan: Plan) -> bool:
    if wanted in ("", str(name), plan.snapshot.source) or wanted == str(plan.reading.partner_id):
        return True
    part: ShipmentName | None = name
    while part is not None and wanted.isdigit():
        out = readable(context, context.keys.out(part), Out)
        if out is not None and wanted in out.partners:
            return True
        end = readable(context, context.keys.end(part), End)
        part = next_of(part, plan) if end is not None and end.next is not None else None
    return False


class Tried(Enum):
    """What a person who wants to try failures again has to know of a snapshot."""

    NOTHING = "nothing of it failed finally for that reason"
    OPEN = "its newest round is not over, and tries again what failed before, or has failures that are tried again"
    FAILED = "something of it failed finally for that reason"


def failed_finally(context: Context, name: ShipmentName, plan: Plan, reason: str, partner: str) -> Tried:
    """Whether images of a snapshot failed finally for a reason: no retry of them is to come.

    name, plan: its newest first shipment.  partner: of this one; "" for any.
    """
    part: ShipmentName | None = name
    failed, met = False, bool(name.round)
    while part is not None:
        end = readable(context, context.keys.end(part), End)
        if end is None:
            return Tried.OPEN if met else Tried.NOTHING
        if end.void is not None:
            break
        shipment: ShipmentName | None = part
        while shipment is not None:
            out = readable(context, context.keys.out(shipment), Out)
            if out is None or not exists(context, context.keys.done(shipment)):
                return Tried.OPEN if met else Tried.NOTHING
            final = not REASONS[reason].retriable or last_try(shipment)
            mine = [one for whose, one in out.partners.items() if partner in ("", whose)]
            here = bool(out.reasons.get(reason)) and any(one.failures for one in mine)
            failed, met = failed or (final and here), met or here
            shipment = child_of(shipment, plan) if out.carried is not None else None
        part = next_of(part, plan) if end.next is not None else None
    return Tried.FAILED if failed else Tried.NOTHING


def again(
    context: Context, name: ShipmentName, plan: Plan, *, backfill: bool = False, as_planned: bool = False
) -> ShipmentName:
    """Announce a snapshot once more, in a new round: behind all that its version has, before any newer version.

    backfill: copy the refs from the bucket while it has them, so that the source is not read again.
    What is expected of its features is what this host expects of the set now; as_planned: what the plan says.  Raises
    PermanentError where the set follows a model whose files are lost.
    """
    round_ = rounds(list(names_under(context.bucket, context.keys.commits, begin=name.version)), name.version)
    if round_ > MAX_ROUND:
        raise PermanentError(
            f"version {name.version} was shipped {MAX_ROUND + 1} times, and more are not possible",
            str(name),
            "touch the files of the source, which makes a new version",
        )
    copies = backfill and has_refs(context, name, plan)
    child = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, round_, 0, 0)
    sets = context.settings.sets
    expects = plan.expects
    if not as_planned:
        expects = Expectations(Following(context))[plan.set] if plan.set in sets else None
    body = plan.model_copy(
        update={
            "kind": "backfill" if copies else "again",
            "parent": str(name) if copies else None,
            "salt": "",
            "due": FIRST_DUE,
            "expects": expects,
            "from_archive": backfill,
        }
    )
    announce(context, child, body)
    return child


@dataclass(frozen=True)
class Closed:
    """A shipment that ends without features.

    refs: those that it had read.  again: the shipment in which its snapshot is shipped once more; None where no plan
    tells what that was.
    """

    name: ShipmentName
    refs: int
    again: ShipmentName | None


def close(context: Context, name: ShipmentName, why: str) -> Closed:
    """End a shipment that cannot go on without features, and ship its snapshot again (docs/protocol.md 6).

    First the new round is announced: whoever is interrupted has lost nothing, and closes again.  What other processes
    commit meanwhile stands.  Raises PermanentError: nothing stands there, it is closed or delivered, somebody works on
    it, or it cannot be read here.
    """
    listing = context.bucket.list(context.keys.shipment(name))
    if not any(True for _ in listing):
        raise PermanentError(f"there is no shipment {name}", "", "`hathi status` names the open ones")
    state = state_of(context, name)
    if state.unreadable:
        one = state.unreadable[0]
        raise PermanentError(f"{one.key} cannot be read here", one.why, TO_REPAIR)
    if is_closed(context, state):
        raise PermanentError(f"{name} is closed already", "", "")
    alive = beats(context, listing.now).alive
    if at_it := sorted(_running(state, alive)):
        raise PermanentError(f"{name} is being worked on", ", ".join(at_it), "wait until it ends, or stop that process")
    again_ = shipped_again(context, name, state.plan)
    refs = _refs_of(context, state)
    text = f"{CLOSED}: {why}; without features: {counted(refs, 'ref')}"
    if state.end is None:
        void = End(batches=len(state.batches), refs=0, rows=0, rejected=0, void=text)
        _, ended = commit(context, context.keys.end(name), void)
        if ended.void is None:
            raise PermanentError(f"{name} was ended by another process meanwhile", "", "look at it again")
    elif state.done is None:
        _, done = commit(context, context.keys.done(name), Done(folders=(), at=version_of(listing.now), void=text))
        if done.void is None:
            raise PermanentError(f"{name} was delivered meanwhile", "", "nothing has to be closed")
    elif (child := retry_plan(state)) is not None:
        announce(context, *child)
        commit(context, context.keys.end(child[0]), End(batches=0, refs=0, rows=0, rejected=0, void=text))
    context.bucket.delete(context.keys.open_hint(state.plan.due if state.plan else FIRST_DUE, name))
    return Closed(name, refs, again_)


def _running(state: ShipmentState, alive: frozenset[str]) -> set[str]:
    """Processes whose attempts have not ended."""
    return {made.process for tries in state.tries.values() for made in tries if made.end is None} & alive


def shipped_again(
    context: Context, name: ShipmentName, plan: Plan | None, *, backfill: bool = False
) -> ShipmentName | None:
    """The later round of the snapshot: one that there is, or a new one; None where no plan tells what it was.

    backfill: it is computed as it was planned, from the archive where that has the images.
    """
    if plan is None:
        return None
    first = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, 0, 0)
    whole = readable(context, context.keys.plan(first), Plan)
    if whole is None and plan.kind in READ_FROM_SOURCES:
        whole = plan.model_copy(update={"cursor": Place()})
    if whole is None:
        return None
    last = rounds(list(names_under(context.bucket, context.keys.commits, begin=name.version)), name.version) - 1
    for round_ in range(last, name.round, -1):
        later = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, round_, 0, 0)
        if exists(context, context.keys.plan(later)):
            end = readable(context, context.keys.end(later), End)
            if end is None or end.void is None:
                return later
    return again(context, first, whole, backfill=backfill, as_planned=backfill)


def _refs_of(context: Context, state: ShipmentState) -> int:
    """What it had read: as its end says, else its batches."""
    if state.end is not None:
        return state.end.refs
    bodies = (readable(context, context.keys.batch(state.name, number), Batch) for number in sorted(state.batches))
    return sum(body.refs for body in bodies if body is not None)


def has_refs(context: Context, name: ShipmentName, plan: Plan) -> bool:
    """Whether the bucket still holds the refs of all parts of a snapshot."""
    part: ShipmentName | None = name
    while part is not None:
        end = readable(context, context.keys.end(part), End)
        if end is None or end.void is not None:
            return False
        for number in range(end.batches):
            batch = readable(context, context.keys.batch(part, number), Batch)
            if batch is None or not exists(context, batch.data.key):
                return False
        part = next_of(part, plan) if end.next is not None else None
    return True
