"""One shipment's record against itself: each hop has the one before it, and the law holds (docs/protocol.md 11)."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.amounts import counted
from pipeline.codec.delivered.forms import FAILURES, rows_of_failures, rows_of_features
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import Batch, DataFile, Out, OutPartner, Plan, Result
from pipeline.ledger.state import last_try
from pipeline.operations.verify.finding import Finding, Say
from pipeline.operations.verify.record import Record


def hops(say: Say, keys: Keys, record: Record) -> Iterator[Finding]:
    """What is wrong between plan, batches, end, results, out and done; data is not looked at."""
    if record.plan is None:
        return
    yield from _name(say, keys, record.name, record.plan)
    if not record.given_up:
        yield from _batches(say, keys, record)
    if record.void or record.given_up:
        return
    for fingerprint, results in record.results.items():
        for number, result in results.items():
            where = keys.result(record.name, fingerprint, number)
            yield from _result(say, where, fingerprint, record.batches.get(number), result)
    yield from _end(say, keys, record)
    yield from _out(say, keys, record)
    if record.done is not None:
        yield from _done(say, keys, record)


def _law(say: Say, where: str, what: str, left: int, **right: int) -> Iterator[Finding]:
    if left != sum(right.values()):
        terms = " + ".join(f"{count} {word}" for word, count in right.items())
        yield say("law", where, f"row counts do not add up: {left} {what}, but {terms}")


def _missing(say: Say, record: Record, rest: str, where: str, why: str) -> Iterator[Finding]:
    """A hop that has to be there.  One that is there and cannot be read was named already."""
    if rest not in record.unread:
        yield say("hop_missing", where, why)


def _name(say: Say, keys: Keys, name: ShipmentName, plan: Plan) -> Iterator[Finding]:
    """A name follows from the source alone."""
    snapshot = plan.snapshot
    follows = ShipmentName.of(
        plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, name.part, name.generation, plan.salt
    )
    if follows != name or snapshot.version != name.version or snapshot.digest() != plan.snapshot_digest:
        yield say("misnamed", keys.plan(name), f"its content belongs to another name: {follows}")
    if plan.lake != keys.lake:
        yield say("misnamed", keys.plan(name), f"it belongs to the lake {plan.lake}")


def _batches(say: Say, keys: Keys, record: Record) -> Iterator[Finding]:
    assert record.plan is not None
    last = max(record.batches, default=-1)
    before = (record.plan.cursor.file, record.plan.cursor.position)
    for number in range(last + 1):
        batch = record.batches.get(number)
        if batch is None:
            why = f"batch {number} does not exist, although batch {last} does"
            yield from _missing(say, record, f"b/{number:05d}", keys.batch(record.name, number), why)
            continue
        where = keys.batch(record.name, number)
        yield from _law(say, where, "rows", batch.rows, refs=batch.refs, rejected=batch.rejected)
        yield from _law(say, where, "refs", batch.refs, rows_of_its_data=batch.data.rows)
        cursor = (batch.cursor.file, batch.cursor.position)
        if cursor < before:
            yield say("law", where, f"the batch ends at {cursor}; the batch before it ends later, at {before}")
        before = cursor


def _end(say: Say, keys: Keys, record: Record) -> Iterator[Finding]:
    end, where = record.end, keys.end(record.name)
    if end is None:
        if record.out is not None:
            yield from _missing(say, record, "end", where, "the shipment has an `out`, but no `end`")
        return
    for number in range(end.batches):
        if number not in record.batches and number > max(record.batches, default=-1):
            why = f"`end` counts {counted(end.batches, 'batch', 'batches')}, and this one does not exist"
            yield from _missing(say, record, f"b/{number:05d}", keys.batch(record.name, number), why)
    if len(record.batches) > end.batches:
        yield say(
            "law", where, f"`end` counts {counted(end.batches, 'batch', 'batches')}, but {len(record.batches)} exist"
        )
    if set(range(end.batches)) == set(record.batches):
        yield from _law(say, where, "refs", end.refs, in_batches=sum(b.refs for b in record.batches.values()))
    yield from _law(say, where, "rows", end.rows, refs=end.refs, rejected=end.rejected)


def _result(say: Say, where: str, fingerprint: str, batch: Batch | None, result: Result) -> Iterator[Finding]:
    if batch is not None:
        yield from _law(say, where, "refs of the batch", batch.refs, in_result=result.refs)
    if not result.fingerprint.startswith(fingerprint):
        yield say("law", where, f"the result belongs to the fingerprint {result.fingerprint}")
    if result.kind == "shard":
        yield from _law(say, where, "refs", result.refs, features=result.features, failures=result.failures)
        yield from _law(say, where, "features", result.features, rows=_rows(result.features_file))
        yield from _law(say, where, "failures", result.failures, rows=_rows(result.failures_file))


def _rows(file: DataFile | None) -> int:
    return file.rows if file is not None else 0


def _out(say: Say, keys: Keys, record: Record) -> Iterator[Finding]:
    out, end = record.out, record.end
    if out is None:
        if record.done is not None:
            yield from _missing(
                say, record, "out", keys.out(record.name), "the shipment is delivered, but has no `out`"
            )
        return
    where = keys.out(record.name)
    if end is not None:
        yield from _law(say, where, "refs of the end", end.refs, in_out=out.refs)
        results = record.results.get(out.fingerprint[:12], {})
        for number in range(end.batches):
            if number not in results:
                rest = f"{out.fingerprint[:12]}/r/{number:05d}"
                why = f"`out` has the fingerprint {out.fingerprint[:12]}, under which batch {number} has no result"
                yield from _missing(say, record, rest, keys.shipment(record.name) + rest, why)
    sums = {"features": out.features, "failures": out.failures, "duplicates": out.duplicates}
    yield from _law(say, where, "refs", out.refs, **sums)
    features, failures = _sums(out)
    yield from _law(say, where, "features", out.features, of_its_partners=features)
    yield from _law(say, where, "failures", out.failures, of_its_partners=failures)
    yield from _law(say, where, "failures", out.failures, of_its_reasons=sum(out.reasons.values()))
    if out.carried is not None and (out.carried.rows > out.failures or last_try(record.name)):
        yield say(
            "law",
            where,
            f"`out` of generation {record.name.generation} carries {counted(out.carried.rows, 'ref')} over, but has "
            f"{counted(out.failures, 'failure')}",
        )
    for partner, one in out.partners.items():
        yield from partner_rows(say, where, partner, one)


def _sums(out: Out) -> tuple[int, int]:
    return sum(p.features for p in out.partners.values()), sum(p.failures for p in out.partners.values())


def partner_rows(say: Say, where: str, partner: str, one: OutPartner | PartnerManifest) -> Iterator[Finding]:
    """Each form of a partner's rows holds what is counted."""
    what = f"rows counted for partner {partner}"
    yield from _law(say, where, what, one.failures, **{f"in_{FAILURES}": rows_of_failures(one.files)})
    for form, rows in rows_of_features(one.files).items():
        yield from _law(say, where, what, one.features, **{f"in_{form}": rows})


def _done(say: Say, keys: Keys, record: Record) -> Iterator[Finding]:
    done, out = record.done, record.out
    assert done is not None
    if out is None:
        return
    ends = {f"{record.name}/{partner}" for partner in out.partners}
    named = {"/".join(folder.split("/")[-2:]) for folder in done.folders}
    if ends != named:
        wrong = ", ".join(sorted(ends ^ named)[:5])
        yield say("law", keys.done(record.name), f"its folders are not those of the partners in `out`: {wrong}")
