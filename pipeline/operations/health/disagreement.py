"""Boxes that leave shipments alone, since the gateway expects other features of a set than they would compute.

Each says so by a hint (`stages.agreement`), so both sides see the same.  A hint of a host that has been mended since is
out of date as soon as its shipment is at work there, and one that is not repeated is of a host that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from pipeline.amounts import counted
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.bodies import read_body
from pipeline.ledger.expectation import Refused
from pipeline.ledger.protocol import Context
from pipeline.ledger.state import ShipmentState
from pipeline.stages.agreement import AGAIN_SECONDS, told
from pipeline.times import HOUR

HINTS = 100
"""Of one lake, that one look reads."""
REPEATED_SECONDS = 1.5 * AGAIN_SECONDS
"""A host that still leaves shipments alone has said so within this time, unless it is busy with others."""
SILENT_SECONDS = 2 * HOUR
"""A hint so old of a process that does not beat any more tells nothing."""


def refusals(
    context: Context, states: Mapping[str, ShipmentState], alive: frozenset[str], now: float
) -> tuple[Refused, ...]:
    """What boxes leave alone now.  states: of what is open, by name.  now: the store's time."""
    found = []
    prefix = context.keys.refused_hints
    for entry in islice(context.bucket.list(prefix), HINTS):
        try:
            refused = read_body(context.bucket, Refused, entry.key)
        except NotFound:
            continue
        except FormatError as error:
            context.once(entry.key, str(error))
            continue
        state = states.get(refused.shipment)
        lives = refused.process in alive or entry.modified > now - SILENT_SECONDS
        repeated = entry.modified > now - REPEATED_SECONDS
        if lives and state is not None and not _at_work(state, refused.host, repeated=repeated):
            found.append(refused)
    return tuple(found)


def _at_work(state: ShipmentState, host: str, *, repeated: bool) -> bool:
    """Whether a shipment is aggregated, or the host has begun with it after all; results may be another host's."""
    tries = (one for task, made in state.tries.items() if task.number is not None for one in made)
    begun = any(one.process.partition(".")[0] == host for one in tries)
    return state.out is not None or begun or (bool(state.results) and not repeated)


def findings(lake: str, refused: tuple[Refused, ...]) -> Iterator[tuple[str, str, str]]:
    """(key, text, hint) for each host and set."""
    for one in refused:
        verb = "waits" if one.shipments == 1 else "wait"
        text = (
            f"lake {lake}: {counted(one.shipments, 'shipment')} of set {one.set} {verb}, since host {one.host} would "
            f"compute other features than the gateway expects: {told(one.differs)}"
        )
        hint = (
            f"give [sets.{one.set}] the same values on both (hathi config diff GATEWAY.toml BOX.toml shows what "
            "differs); what waits then goes on by itself"
        )
        yield f"disagrees {lake} {one.set} {one.host}", text, hint
