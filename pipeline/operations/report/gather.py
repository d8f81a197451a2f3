"""From the ledger, the outs and the delivered failures to the facts of a page.  It only reads.

A shipment belongs to the day on which it was aggregated; while it is not, to each day on which something of it was
written.  So no row is counted on two days once the work is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.amounts import counted
from pipeline.codec.delivered.forms import is_failures, is_table
from pipeline.errors import FormatError, NotFound, PipelineError
from pipeline.ledger.data import Damaged, load_data
from pipeline.ledger.forgetting import waiting_requests
from pipeline.ledger.layout import Root, ShipmentName, seconds_of, version_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Batch, Out, OutFile, Plan
from pipeline.ledger.protocol import Context, readable
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.ledger.state import waits_for
from pipeline.operations.backfills import Backfill, backfills
from pipeline.operations.open_shipments import Entered, entered, open_shipments
from pipeline.operations.report.facts import (
    Example,
    Hour,
    PartnerCount,
    ReasonCount,
    RejectedRow,
    Report,
    ShipmentRow,
    Thumbnail,
)
from pipeline.operations.report.failing import BROKEN, Failing
from pipeline.operations.report.ledger import hinted, steps
from pipeline.operations.report.scope import Scope
from pipeline.operations.report.statistics import Sample
from pipeline.operations.report.thumbnails import thumbnail
from pipeline.process.logs import redact
from pipeline.sources.conventions import named_by
from pipeline.stores.store import Lake
from pipeline.times import DAY, HOUR, readable_time

SHIPMENTS = 5_000
"""Of a day, at the most."""
LOOK_BACK = 8 * DAY
"""Versions that are older than a day by more are found only while they are open, or the bucket has their data."""
HOSTS, PARTNERS, SHOWN, REJECTED, SETS = 25, 20, 50, 20, 20
"""Rows of the tables."""
BATCHES, BATCH_BYTES = 64, 64 * 2**20
"""What is read at the most to find the bytes of images that could not be decoded."""
ANEW = ("retry", "release", "drop")
"""Kinds of shipments whose refs were counted before."""


@dataclass
class _Sums:
    """What grows while shipments are looked at."""

    failing: Failing
    redact_queries: bool
    now: str
    """By the bucket's clock, as a version."""
    first: RowCounts = NO_ROWS
    again: RowCounts = NO_ROWS
    reasons: dict[bool, Counter[str]] = field(default_factory=lambda: {False: Counter(), True: Counter()})
    hours: dict[float, Hour] = field(default_factory=dict)
    partners: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    partner_reasons: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    shipments: list[ShipmentRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    samples: dict[tuple[str, str], Sample] = field(default_factory=dict)
    images: dict[tuple[str, int, int], tuple[Example, bytes]] = field(default_factory=dict)
    batches: int = 0
    batch_bytes: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    at_sources: list[str] = field(default_factory=list)

    def shown(self, text: str) -> str:
        return redact(text) if self.redact_queries else text


def gather(contexts: Sequence[Context], scope: Scope, redact_queries: bool) -> Report:
    """Everything of a day or a shipment.

    Raises PipelineError where the bucket does not answer; what is pruned, or cannot be read, is a note.
    """
    now = contexts[0].bucket.list(contexts[0].keys.alive_hints).now
    sums = _Sums(Failing(redact_queries), redact_queries, version_of(now))
    looked = 0
    for context in contexts:
        for one in _entered(context, scope):
            context.safe_point()
            if looked == SHIPMENTS:
                sums.unread[f"shipments beyond the first {SHIPMENTS:,}"] += 1
                continue
            if one.state.plan is not None and (scope.shipment is not None or _belongs(one, scope)):
                looked += 1
                _add(context, sums, one, one.state.plan)
            _timed(context, sums, one, scope)
    for context in contexts:
        _left_out(context, sums)
    going = tuple(one for context in contexts for one in _going(context, scope, now))
    asked = [since for context in contexts for since in waiting_requests(context).values()]
    oldest = now - min(asked) if asked else 0.0
    return replace(_report(sums, scope, now), backfills=going, forgets=len(asked), forgets_for=oldest)


def _going(context: Context, scope: Scope, now: float) -> tuple[Backfill, ...]:
    """The back-fills that are under way, for the day that it is."""
    if scope.shipment is not None or not scope.begin <= now < scope.end:
        return ()
    return backfills(context, open_shipments(context).planned, now)


def _left_out(context: Context, sums: _Sums) -> None:
    """What lies at the sources now and is not read, where they can be seen from here."""
    try:
        named = named_by(context)
    except PipelineError as error:
        sums.at_sources.append(f"the sources of lake {context.lake_name} cannot be seen: {error}")
        return
    sums.at_sources += [f"{path}: {why}" for path, why in named.troubles.items()]
    for left, what in ((named.left, "not read"), (named.later, "not read yet")):
        sums.at_sources += [f"{what}: {path}: {why}" for path, why in list(left.first.items())[:SHOWN]]
        if left.number > SHOWN:
            sums.at_sources.append(f"{what}: {left.number - SHOWN:,} more files or folders at the sources")


def _entered(context: Context, scope: Scope) -> Iterator[Entered]:
    if scope.shipment is not None:
        one = entered(context, scope.shipment)
        if one is not None:
            yield one
        return
    keys = context.keys
    after = scope.version_before(LOOK_BACK)
    names = {one for one in names_under(context.bucket, keys.commits, after=after) if one.version < scope.version_after}
    names |= {*names_under(context.bucket, keys.data), *hinted(context)}
    for name in sorted(names, reverse=True):
        one = entered(context, name, begin=scope.begin, end=scope.end)
        if one is not None:
            yield one


def _belongs(one: Entered, scope: Scope) -> bool:
    if one.state.out is not None:
        return scope.begin <= seconds_of(one.state.out.at) < scope.end
    return True


def _add(context: Context, sums: _Sums, one: Entered, plan: Plan) -> None:
    state, out = one.state, one.state.out
    anew = plan.kind in ANEW
    counts = RowCounts.of(state)
    if anew:
        sums.again += replace(counts, rows=counts.refs, rejected=0)
    else:
        sums.first += counts
    if state.end is not None:
        sums.rejected += [
            RejectedRow(r.file, r.row, sums.shown(r.why), sums.shown(r.sample))
            for r in state.end.rejections[: max(0, REJECTED - len(sums.rejected))]
        ]
    lag = _lag(one, plan)
    shown = ShipmentRow(
        context.lake_name,
        str(state.name),
        plan.kind,
        plan.set,
        plan.snapshot.source,
        counts.refs,
        counts.features,
        counts.failures,
        _word(one, plan, sums.now),
        lag,
    )
    sums.shipments.append(shown)
    if out is None:
        return
    sums.reasons[anew].update(out.reasons)
    _of_out(context, sums, one, plan, out)


def _lag(one: Entered, plan: Plan) -> float | None:
    if one.state.done is None or one.state.given_up or plan.kind != "source":
        return None
    return max(0.0, seconds_of(one.state.done.at) - seconds_of(one.state.name.version))


def _word(one: Entered, plan: Plan, now: str) -> str:
    if one.state.end is not None and one.state.end.void is not None:
        return f"void: {one.state.end.void}"
    if one.state.done is not None:
        return "delivered" if one.state.done.void is None else f"void: {one.state.done.void}"
    return f"due {readable_time(seconds_of(plan.due))}" if plan.due > now else f"waits for {waits_for(one.state)}"


def _timed(context: Context, sums: _Sums, one: Entered, scope: Scope) -> None:
    """What was done of it, by the hour, whichever day it belongs to."""
    for step in steps(context.keys, one):
        if scope.shipment is None and not scope.begin <= step.at < scope.end:
            continue
        at = step.at // HOUR * HOUR
        hour = sums.hours.get(at, Hour(at))
        if step.stage == "ship":
            hour = replace(hour, shipped=hour.shipped + step.refs)
        elif step.stage == "compute":
            hour = replace(hour, computed=hour.computed + step.refs)
        elif step.stage == "aggregate":
            hour = replace(hour, aggregated=hour.aggregated + step.refs)
        else:
            lag = _lag(one, one.state.plan) if one.state.plan is not None else None
            lags = hour.lags if lag is None else (*hour.lags, lag)
            hour = replace(hour, delivered=hour.delivered + step.refs, lags=lags)
        sums.hours[at] = hour


def _of_out(context: Context, sums: _Sums, one: Entered, plan: Plan, out: Out) -> None:
    """Its files, in the bucket or on the lake."""
    key = (plan.set, out.fingerprint)
    sample = sums.samples.setdefault(
        key, Sample(plan.set, out.fingerprint, out.engine, out.dim, preprocessing=out.preprocessing)
    )
    sample.features += out.features
    known = len(sums.failing.broken)
    for partner, what in sorted(out.partners.items(), key=lambda pair: int(pair[0])):
        features, failures = sums.partners.get((context.lake_name, partner), (0, 0))
        sums.partners[context.lake_name, partner] = (features + what.features, failures + what.failures)
        for file in what.files:
            if is_failures(file.name):
                _failures(context, sums, one.state.name, plan, partner, file)
            elif is_table(file.name) and sample.wants and out.dim == sample.dim:
                _features(context, sums, sample, one.state.name, plan, partner, file)
    _find_images(context, sums, one, sums.failing.broken[known:])


def _failures(
    context: Context, sums: _Sums, name: ShipmentName, plan: Plan, partner: str, file: OutFile
) -> None:  # fmt: skip
    try:
        with _opened(context, name, plan, partner, file) as stream:
            counts = sums.failing.add(stream, context.lake_name, str(name))
        sums.partner_reasons.setdefault((context.lake_name, partner), Counter()).update(counts)
    except NotFound:
        sums.unread["files of failures that are pruned: their reasons are counted, without examples and hosts"] += 1
    except FormatError as error:
        sums.unread[f"{error.message}: {error.detail}"[:300]] += 1


def _features(
    context: Context, sums: _Sums, sample: Sample, name: ShipmentName, plan: Plan, partner: str, file: OutFile
) -> None:
    try:
        with _opened(context, name, plan, partner, file) as stream:
            sample.add(stream, str(name))
    except NotFound:
        sums.unread["files of features that are pruned"] += 1
    except FormatError as error:
        sums.unread[f"{error.message}: {error.detail}"[:300]] += 1


def _opened(context: Context, name: ShipmentName, plan: Plan, partner: str, file: OutFile):  # type: ignore[no-untyped-def]
    """The file in the bucket; once it is pruned there, on the lake where that can be seen.  Raises NotFound."""
    try:
        return context.bucket.open(file.key)
    except NotFound:
        lake: Lake | None = context.lake
        one = context.settings.sets.get(plan.set)
        if lake is None or one is None:
            raise
        return lake.open(f"{Root(one.folder).partner(name, int(partner))}/{file.name}")


def _find_images(context: Context, sums: _Sums, one: Entered, wanted: Sequence[Example]) -> None:
    """The bytes of broken images that travelled inline; nothing is fetched again."""
    missing = {(example.partner, example.item): example for example in wanted}
    for number in sorted(one.state.batches):
        if not missing or sums.batches >= BATCHES or sums.batch_bytes >= BATCH_BYTES:
            return
        batch = readable(context, context.keys.batch(one.state.name, number), Batch)
        if batch is None:
            continue
        sums.batches += 1
        sums.batch_bytes += batch.data.size
        try:
            refs = context.forms.decode(load_data(context, batch.data), 0)
        except (NotFound, Damaged, FormatError):
            sums.unread["batches whose refs are pruned or damaged"] += 1
            continue
        for ref in refs:
            example = missing.get((ref.partner_id, ref.item_id))
            if example is not None and ref.content:
                sums.images[context.lake_name, ref.partner_id, ref.item_id] = (example, ref.content)
                del missing[ref.partner_id, ref.item_id]


def _ruling(sums: _Sums, key: tuple[str, str]) -> str:
    """The most frequent reason of a partner's failures."""
    counts = sums.partner_reasons.get(key, Counter())
    return min(counts, key=lambda reason: (-counts[reason], reason), default="")


def _report(sums: _Sums, scope: Scope, now: float) -> Report:
    hosts, more_hosts = sums.failing.hosts(HOSTS)
    partners = sorted(sums.partners.items(), key=lambda pair: (-pair[1][1], -pair[1][0], pair[0]))
    hours = _hours(sums, scope, now)
    notes = [f"{number:,} {what}" for what, number in sorted(sums.unread.items())[:20]]
    notes += [sums.shown(note) for note in sums.at_sources]
    if sums.failing.left_out:
        notes.append(f"the page counts {counted(sums.failing.left_out, 'failure')} by reason, but not by host")
    return Report(
        title=scope.title,
        made=now,
        begin=scope.begin if scope.shipment is None else hours[0].at if hours else now,
        end=scope.end if scope.shipment is None else now,
        first=sums.first,
        again=sums.again,
        reasons=_reasons(sums),
        hosts=hosts,
        hours=hours,
        partners=tuple(PartnerCount(*key, *counts, _ruling(sums, key)) for key, counts in partners[:PARTNERS]),
        shipments=tuple(sums.shipments[:SHOWN]),
        rejected=tuple(sums.rejected),
        statistics=tuple(sums.samples[key].told() for key in sorted(sums.samples) if sums.samples[key].features)[:SETS],
        thumbnails=_thumbnails(sums),
        undecoded=sum(sums.reasons[anew][reason] for anew in (False, True) for reason in BROKEN),
        notes=tuple(notes),
        more={
            "hosts": more_hosts,
            "partners": max(0, len(partners) - PARTNERS),
            "shipments": max(0, len(sums.shipments) - SHOWN),
        },
    )


def _reasons(sums: _Sums) -> tuple[ReasonCount, ...]:
    first, again = sums.reasons[False], sums.reasons[True]
    names = sorted({*first, *again}, key=lambda name: (-first[name] - again[name], name))
    return tuple(ReasonCount(name, first[name], again[name], sums.failing.examples(name)) for name in names)


def _thumbnails(sums: _Sums) -> tuple[Thumbnail, ...]:
    return tuple(thumbnail(example, content) for example, content in sums.images.values())


def _hours(sums: _Sums, scope: Scope, now: float) -> tuple[Hour, ...]:
    """Each hour of a day up to now; of a shipment, those in which something was done, 48 at the most."""
    if scope.shipment is not None:
        return tuple(sums.hours[at] for at in sorted(sums.hours)[-48:])
    last = min(scope.end, now)
    ats = [scope.begin + HOUR * number for number in range(24)]
    return tuple(sums.hours.get(at, Hour(at)) for at in ats if at < last or at in sums.hours)
