"""Everything that the ledger holds of one shipment, read for verify: bodies of batches and results, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import ATTEMPT, BATCH, RESULT, Keys, ShipmentName
from pipeline.ledger.manifest import Attempt, AttemptEnd, Batch, DataFile, Done, End, Out, Plan, Result
from pipeline.ledger.state import ShipmentState
from pipeline.operations.verify.finding import Looking, Say, body_at
from pipeline.stores.store import Store

_ONE: dict[str, type[Body]] = {"plan": Plan, "end": End, "out": Out, "done": Done}


@dataclass
class Record:
    """What `c/S/` says.  A body that cannot be read is absent, and its key is in `unread`."""

    name: ShipmentName
    now: float
    """The store's time when it was listed."""
    plan: Plan | None = None
    end: End | None = None
    out: Out | None = None
    done: Done | None = None
    batches: dict[int, Batch] = field(default_factory=dict)
    results: dict[str, dict[int, Result]] = field(default_factory=dict)
    """By the first 12 hex of the fingerprint, then by batch."""
    unread: set[str] = field(default_factory=set)
    newest: float = 0.0
    planned: float = 0.0
    """When the plan was written, by the store's clock."""
    objects: int = 0

    @property
    def void(self) -> bool:
        return self.end is not None and self.end.void is not None

    @property
    def given_up(self) -> bool:
        """A person closed it, as it could not go on: what it lacks is missed by nobody."""
        return self.done is not None and self.done.void is not None

    def closed(self, *, child_has_end: bool, next_has_plan: bool) -> bool:
        """docs/protocol.md 9, by the one function that says so."""
        state = ShipmentState(self.name, self.plan, end=self.end, out=self.out, done=self.done)
        return state.closed(child_has_end=child_has_end, next_has_plan=next_has_plan)

    def data(self) -> Iterator[tuple[str, DataFile, int | None]]:
        """(the key that names it, the file, the batch if it holds a batch's refs) of all data that is named."""
        for number, batch in self.batches.items():
            yield f"b/{number:05d}", batch.data, number
        for fingerprint, results in self.results.items():
            for number, result in results.items():
                for file in (result.features_file, result.failures_file):
                    if file is not None:
                        yield f"{fingerprint}/r/{number:05d}", file, None
        if self.out is not None:
            for partner in self.out.partners.values():
                for one in partner.files:
                    yield "out", DataFile(key=one.key, size=one.size, sha256=one.sha256, rows=one.rows), None
            if self.out.carried is not None:
                yield "out", self.out.carried, None


def read_record(say: Say, bucket: Store, keys: Keys, name: ShipmentName, *, deep: bool) -> Looking[Record]:
    """One listing of `c/S/` and its bodies.  Attempts are read while they count (no out yet), or when deep."""
    top = keys.shipment(name)
    listing = bucket.list(top)
    record = Record(name, listing.now)
    attempts: list[tuple[str, type[Body]]] = []
    for entry in listing:
        record.objects += 1
        record.newest = max(record.newest, entry.modified)
        rest = entry.key.removeprefix(top)
        kind = _kind(rest)
        if kind is None:
            yield say("not_ours", entry.key, "Hathi writes no such key")
            continue
        if kind in (Attempt, AttemptEnd):
            attempts.append((entry.key, kind))
            continue
        body = yield from body_at(say, bucket.get, entry.key, kind)
        if body is None:
            record.unread.add(rest)
        else:
            _note(record, rest, body, entry.modified)
    if deep or (record.out is None and "out" not in record.unread):
        for key, kind in attempts:
            yield from body_at(say, bucket.get, key, kind)
    return record


def _kind(rest: str) -> type[Body] | None:
    if rest in _ONE:
        return _ONE[rest]
    if BATCH.fullmatch(rest):
        return Batch
    if RESULT.fullmatch(rest):
        return Result
    match = ATTEMPT.fullmatch(rest)
    return None if match is None else (AttemptEnd if match["ended"] else Attempt)


def _note(record: Record, rest: str, body: Body, modified: float) -> None:
    if isinstance(body, Plan):
        record.plan, record.planned = body, modified
    elif isinstance(body, End):
        record.end = body
    elif isinstance(body, Out):
        record.out = body
    elif isinstance(body, Done):
        record.done = body
    elif isinstance(body, Batch):
        record.batches[int(rest.removeprefix("b/"))] = body
    elif isinstance(body, Result) and (match := RESULT.fullmatch(rest)):
        record.results.setdefault(match["fingerprint"], {})[int(match["batch"])] = body
