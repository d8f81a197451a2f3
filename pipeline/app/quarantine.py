"""Held batches: which there are, what is known of one, and their release or drop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.ledger.data import load_data
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Batch
from pipeline.ledger.protocol import Context, body_at, state_of
from pipeline.ledger.state import Try
from pipeline.records import ImageRef
from pipeline.stages import operator_requests
from pipeline.stages.operator_requests import HeldBatch

FIRST_REFS = 10


@dataclass(frozen=True)
class Held:
    """A held batch and where it is."""

    context: Context
    batch: HeldBatch

    @property
    def name(self) -> str:
        """SHIPMENT.BATCH, as people name it."""
        return f"{self.batch.name}.{self.batch.batch}"


@dataclass(frozen=True)
class Detail:
    """What is known of a held batch.  refs: the first FIRST_REFS of `number`."""

    tries: tuple[Try, ...]
    refs: tuple[ImageRef, ...]
    number: int


def held(contexts: Iterable[Context]) -> list[Held]:
    """Every held batch, by lake and name."""
    return [Held(context, one) for context in contexts for one in operator_requests.held(context)]


def choose(found: Sequence[Held], names: Sequence[str], *, unanswered: bool) -> list[Held]:
    """Those that are named, or those that nobody has answered yet.  Raises ConfigError for a name that is not held."""
    chosen = [one for one in found if one.name in names or (unanswered and not one.batch.answered)]
    missing = set(names) - {one.name for one in chosen}
    look = "`hathi quarantine list` names the batches that are held"
    if missing:
        raise ConfigError(f"not held: {', '.join(sorted(missing))}", "", look)
    if not chosen:
        said = "no batch waits for an answer" if unanswered else "no batch was named"
        raise ConfigError(said, "", look if unanswered else f"{look}; --all takes each of them")
    return chosen


def answer(one: Held, kind: str) -> ShipmentName:
    """Announce its `release` or `drop`; the shipment that does it.  Raises PermanentError where it has the other."""
    return operator_requests.answer(one.context, one.batch.name, one.batch.batch, kind)


def detail(one: Held) -> Detail:
    """Its attempts and its first refs."""
    context, batch = one.context, one.batch
    tries = [
        made
        for task, all_tries in sorted(state_of(context, batch.name).tries.items(), key=lambda pair: pair[0].path)
        if task.path.endswith(f"t/{batch.batch:05d}")
        for made in all_tries
    ]
    body = body_at(context, context.keys.batch(batch.name, batch.batch), Batch)
    refs = context.forms.decode(load_data(context, body.data), 0)[:FIRST_REFS]
    return Detail(tuple(tries), tuple(refs), body.refs)
