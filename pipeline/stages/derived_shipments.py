"""Releases, drops and back-fills: their refs come from the bucket, and the box finishes them (docs/protocol.md 6)."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.codec.delivered.forms import is_failures
from pipeline.errors import NotFound, PermanentError
from pipeline.ledger.data import Damaged, download, load_data, store_data
from pipeline.ledger.layout import FIRST_DUE, ShipmentName
from pipeline.ledger.manifest import Batch, DataFile, End, Out, Plan
from pipeline.ledger.protocol import Context, announce, body_at, commit, exists, law, readable, scratch
from pipeline.ledger.state import ShipmentState, next_of
from pipeline.records import ImageRef
from pipeline.stages.opening import ORDINALS_PER_BATCH
from pipeline.stages.operator_requests import shipped_again
from pipeline.stages.retries import write_batches

KINDS = ("release", "drop", "backfill")


def plan(states: Iterable[ShipmentState]) -> list[ShipmentState]:
    """Shipments that the box has to fill, or whose next part it has perhaps still to plan, oldest name first."""
    mine = [s for s in states if not s.unreadable and s.plan is not None and s.plan.kind in KINDS]
    follows = [s for s in mine if s.end is not None and s.plan is not None and s.plan.kind == "backfill" and s.end.next]
    open_ = [s for s in mine if s.end is None] + [s for s in follows if not s.given_up]
    return sorted(open_, key=lambda state: state.name)


def perform(context: Context, state: ShipmentState) -> bool:
    """Fill one; False while it waits for its parent."""
    assert state.plan is not None
    assert state.plan.parent is not None
    parent = ShipmentName.parse(state.plan.parent)
    if state.plan.kind == "backfill":
        if state.end is not None:
            return _follow(context, state.name, state.plan, state.end, parent)
        return _backfill(context, state, parent)
    assert state.plan.parent_batch is not None
    # The hint goes first: nobody comes back to it once `end` closes a drop, and whatever is cut is done again.
    held_hint = context.keys.held_hint(parent, state.plan.parent_batch)
    if state.plan.kind == "drop":
        context.bucket.delete(held_hint)
        void = End(batches=0, refs=0, rows=0, rejected=0, void="dropped by an operator")
        commit(context, context.keys.end(state.name), void)
        return True
    return _release(context, state.name, state.plan, parent, state.plan.parent_batch, held_hint)


def _release(
    context: Context, name: ShipmentName, plan: Plan, parent: ShipmentName, batch: int, held_hint: str
) -> bool:
    """The refs of the batch that are `held` rows of the parent's `out`, for which it waits."""
    out = readable(context, context.keys.out(parent), Out)
    if out is None:
        end = readable(context, context.keys.end(parent), End)
        if end is None or end.void is None:
            return False
        # The batch was held, and then its source changed under it: what is there now is a shipment of its own.
        context.bucket.delete(held_hint)
        void = End(batches=0, refs=0, rows=0, rejected=0, void="the shipment that it comes from is void")
        commit(context, context.keys.end(name), void)
        return True
    wanted = _held_items(context, out, batch)
    refs = [ref for ref in _refs(context, parent, batch) if (ref.partner_id, ref.item_id) in wanted]
    size = plan.batch_refs
    context.bucket.delete(held_hint)
    write_batches(context, name, (refs[start : start + size] for start in range(0, len(refs), size)))
    return True


def _held_items(context: Context, out: Out, batch: int) -> frozenset[tuple[int, int]]:
    """The items whose row in `out` is this batch's: where an item stands in several held batches, `out` has the row of
    the greatest ordinal, and one release alone carries it.  So it does not matter which of two siblings sorts last."""
    found: set[tuple[int, int]] = set()
    for partner in out.partners.values():
        for file in partner.files:
            if is_failures(file.name):
                with scratch(context) as folder:
                    path = folder / "failures"
                    data = DataFile(key=file.key, size=file.size, sha256=file.sha256, rows=file.rows)
                    download(context, data, path)
                    found |= context.forms.held_items(path, batch)
    return frozenset(found)


def _refs(context: Context, name: ShipmentName, number: int) -> list[ImageRef]:
    batch = body_at(context, context.keys.batch(name, number), Batch)
    return context.forms.decode(load_data(context, batch.data), number * ORDINALS_PER_BATCH)


def _backfill(context: Context, state: ShipmentState, parent: ShipmentName) -> bool:
    """The parent's batches one by one, then its end, then the next part."""
    assert state.plan is not None
    name = state.name
    end = body_at(context, context.keys.end(parent), End)
    for number in range(end.batches):
        context.safe_point()
        if number in state.batches:
            continue
        original = body_at(context, context.keys.batch(parent, number), Batch)
        try:
            content = load_data(context, original.data)
        except (NotFound, Damaged) as error:
            why = f"the refs to copy are gone ({error.message}); {_from_source(context, name, state.plan)}"
            commit(context, context.keys.end(name), End(batches=number, refs=0, rows=0, rejected=0, void=why))
            context.say(f"{name} ends without features (it is void): {why}")
            return True
        key = context.keys.shipment_data(name, context.process.nonce(), f"{number:05d}.pb")
        data = store_data(context, key, content, original.data.rows)
        law(f"{name} batch {number}", original.rows, refs=original.refs, rejected=original.rejected)
        body = original.model_copy(update={"data": data})
        _, stands = commit(context, context.keys.batch(name, number), body)
        if stands.data.key != key:
            context.bucket.delete(key)
    _, stands_end = commit(context, context.keys.end(name), end)
    _follow(context, name, state.plan, stands_end, parent)
    return True


def _from_source(context: Context, name: ShipmentName, plan: Plan) -> str:
    """Have a gateway read the snapshot of a back-fill once more, as planned; what to say of it.

    The new round comes before the end of this one: whoever is cut in between does it again, and finds it.
    """
    try:
        later = shipped_again(context, name, plan, backfill=True)
    except PermanentError as error:
        return f"{error.message}: `hathi backfill {plan.set}` once more"
    return f"its source is read again: {later}" if later else f"`hathi backfill {plan.set}` once more"


def _follow(context: Context, name: ShipmentName, plan: Plan, end: End, parent: ShipmentName) -> bool:
    """Plan the next part of a back-fill; whether that was still to do."""
    follows = next_of(name, plan)
    if end.next is None or end.void is not None or exists(context, context.keys.plan(follows)):
        return False
    original = next_of(parent, body_at(context, context.keys.plan(parent), Plan))
    body = plan.model_copy(update={"cursor": end.next, "parent": str(original), "due": FIRST_DUE})
    announce(context, follows, body)
    return True
