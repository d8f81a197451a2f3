"""Mistakes that look harmless, planted one at a time: the simulation has to find each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.errors import Exists, FormatError, NotFound, Unknown
from pipeline.ledger import protocol
from pipeline.ledger import state as states
from pipeline.ledger.bodies import Body, body_of
from pipeline.ledger.deliveries import Proposal
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import Batch, Plan
from pipeline.operations import prune
from pipeline.operations.prune import shipments
from pipeline.stages import aggregate, compute, index, operator_requests, ship
from pipeline.stages.following import Computable
from pipeline.stages.opening import BatchTask
from pipeline.stages.publishing import Published

Plant = Callable[[pytest.MonkeyPatch], None]


def a_second_result_key_for_held_batches(patch: pytest.MonkeyPatch) -> None:
    """Held batches get a key of their own, and either key counts as the result."""
    import re

    def hold(context: protocol.Context, task: BatchTask) -> Published:
        real = Keys.result
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Keys, "result", lambda *a: real(*a).replace("/r/", "/q/"))
            return real_hold(context, task)

    real_hold = compute._hold
    real_body = protocol.body_at

    def body_at(context: protocol.Context, key: str, kind: type) -> object:
        try:
            return real_body(context, key, kind)
        except NotFound:
            return real_body(context, key.replace("/r/", "/q/"), kind)

    patch.setattr(compute, "_hold", hold)
    patch.setattr(aggregate, "body_at", body_at)
    patch.setattr(states, "RESULT", re.compile(r"(?P<fingerprint>[0-9a-f]{12})/[rq]/(?P<batch>\d{5})"))


def closing_without_looking_at_child_or_next_part(patch: pytest.MonkeyPatch) -> None:
    for module in (protocol, shipments):
        patch.setattr(module, "is_closed", lambda context, state: state.void or state.done is not None)


def overwriting_the_index(patch: pytest.MonkeyPatch) -> None:
    def propose(context: protocol.Context, lake: object, root: object, body: object) -> None:
        lake.put(root.index, body.encode())  # type: ignore[attr-defined]

    patch.setattr(index, "_propose", propose)


def deleting_an_index_token_on_an_unknown_answer(patch: pytest.MonkeyPatch) -> None:
    def propose(context: protocol.Context, lake: object, root: object, body: object) -> None:
        token = context.process.nonce()
        lake.put(root.token(token), body.model_copy(update={"nonce": token}).encode())  # type: ignore[attr-defined]
        small = f"{root.token(token)}.proposal"  # type: ignore[attr-defined]
        lake.put(small, Proposal(token=token, nonce=token).encode())  # type: ignore[attr-defined]
        try:
            lake.rename_new(small, root.proposal(body.version))  # type: ignore[attr-defined]
        except (Exists, NotFound, Unknown):
            lake.delete(root.token(token))  # type: ignore[attr-defined]

    patch.setattr(index, "_propose", propose)


def pruning_an_open_shipment(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shipments, "is_closed", lambda context, state: True)


def mixing_two_fingerprints(patch: pytest.MonkeyPatch) -> None:
    """A batch counts as computed whatever the fingerprint of its result."""
    real_plan = aggregate.plan

    def plan(seen: protocol.Seen, computable: dict[ShipmentName, Computable]) -> list[aggregate.AggregateTask]:
        merged = []
        for state in seen.states:
            union = frozenset().union(*state.results.values()) if state.results else frozenset()
            merged.append(replace(state, results=dict.fromkeys(state.results, union)))
        return real_plan(replace(seen, states=tuple(merged)), computable)

    real_body = protocol.body_at

    def body_at(context: protocol.Context, key: str, kind: type) -> object:
        try:
            return real_body(context, key, kind)
        except NotFound:
            parts = key.split("/")
            for entry in context.bucket.list("/".join(parts[:3]) + "/"):
                if entry.key.endswith("/".join(parts[4:])) and "/r/" in entry.key:
                    return real_body(context, entry.key, kind)
            raise

    patch.setattr(aggregate, "plan", plan)
    patch.setattr(aggregate, "body_at", body_at)
    patch.setattr(aggregate, "_readable", lambda context, task: True)


def not_reading_back_after_unknown(patch: pytest.MonkeyPatch) -> None:
    """No answer is taken for a yes."""

    def put_first(store: object, key: str, body: bytes, sleep: object) -> bytes:
        try:
            store.put_new(key, body)  # type: ignore[attr-defined]
        except Unknown:
            return body
        except Exists:
            return store.get(key)  # type: ignore[attr-defined, no-any-return]
        return body

    patch.setattr(protocol, "put_first", put_first)


def retrying_with_a_fresh_nonce(patch: pytest.MonkeyPatch) -> None:
    """The second try carries another nonce, and by its nonce alone a writer knows its own work."""
    real = protocol.commit

    def commit(context: protocol.Context, key: str, body: Body) -> tuple[bool, Body]:
        tried = body.model_copy(update={"nonce": context.process.nonce()})
        try:
            context.bucket.put_new(key, tried.encode())
            return True, tried
        except Exists:
            return False, body_of(type(body), context.bucket.get(key), key)
        except Unknown:
            context.process.clock.sleep(0.05)
            won, stands = real(context, key, body)
            if not won and isinstance(stands, Batch):
                stands = stands.model_copy(update={"data": stands.data.model_copy(update={"key": "another's"})})
            return won, stands

    for module in (protocol, ship, aggregate):
        patch.setattr(module, "commit", commit)


def pruning_children_before_parents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shipments, "_before", lambda name, plan: [])
    real = shipments.walk
    patch.setattr(prune, "walk", lambda context, after: reversed(list(real(context, after))))


def counting_next_parts_against_the_cap(patch: pytest.MonkeyPatch) -> None:
    real = ship.follow

    def follow(context: protocol.Context, state: object) -> object:
        due = sum(1 for entry in context.bucket.list(context.keys.open_hints) if "/00000000T" in entry.key)
        return None if due >= context.settings.ship.open_shipments else real(context, state)  # type: ignore[arg-type]

    patch.setattr(ship, "follow", follow)


def judging_beats_by_the_local_clock(patch: pytest.MonkeyPatch) -> None:
    """This host's clock is a month behind, so every beat looks young for ever."""
    real = protocol.beats
    patch.setattr(protocol, "beats", lambda context, now: real(context, now - 30 * 86400.0))


def an_error_of_one_done_stops_the_others(patch: pytest.MonkeyPatch) -> None:
    """What cannot be read of one shipment ends the turn before the others have their `done`."""
    real = states.derive

    def derive(keys: Keys, name: object, listed: object, bodies: object, troubles: dict[str, Exception]) -> object:
        if troubles:
            raise next(iter(troubles.values()))
        return real(keys, name, listed, bodies, troubles)  # type: ignore[arg-type]

    patch.setattr(protocol, "derive", derive)


def deleting_the_data_of_what_cannot_be_read(patch: pytest.MonkeyPatch) -> None:
    """A plan that this host cannot read is taken for one that is not there."""
    real = shipments.plan_shipment

    def plan_shipment(context: object, one: shipments.Standing, *rest: object) -> object:
        plan = next((entry.key for entry in one.records if entry.key.endswith("/plan")), "")
        try:
            body_of(Plan, context.bucket.get(plan), plan) if plan else None  # type: ignore[attr-defined]
        except FormatError:
            one = replace(one, records=())
        yield from real(context, one, *rest)  # type: ignore[arg-type]

    patch.setattr(prune, "plan_shipment", plan_shipment)


def closing_without_shipping_again(patch: pytest.MonkeyPatch) -> None:
    """A shipment that cannot go on is ended, and the person is trusted to ship its snapshot again."""
    patch.setattr(operator_requests, "shipped_again", lambda context, name, plan: None)


MISTAKES: list[Plant] = [
    a_second_result_key_for_held_batches,
    closing_without_looking_at_child_or_next_part,
    overwriting_the_index,
    deleting_an_index_token_on_an_unknown_answer,
    pruning_an_open_shipment,
    mixing_two_fingerprints,
    not_reading_back_after_unknown,
    retrying_with_a_fresh_nonce,
    pruning_children_before_parents,
    counting_next_parts_against_the_cap,
    judging_beats_by_the_local_clock,
    an_error_of_one_done_stops_the_others,
    deleting_the_data_of_what_cannot_be_read,
    closing_without_shipping_again,
]
