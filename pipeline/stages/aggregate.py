"""aggregate: from shards to what is delivered, and the retries that follow from it (docs/protocol.md 6).

Once each batch of a shipment has its result under one fingerprint, its shards are merged with one row group of each in
memory: sorted by partner and item, one row for each item, duplicates counted.  The files are uploaded, then `out` is
committed; it names them all, and its counts must add up to the refs of `end`.

Failures that may go away are tried again: retries.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.amounts import counted
from pipeline.codec.delivered.merge import Merged, MergeInput, Output
from pipeline.codec.refs.rows import sample_of
from pipeline.ledger.data import download, load_data
from pipeline.ledger.layout import AGGREGATE, ShipmentName, version_of
from pipeline.ledger.manifest import Batch, DataFile, Out, OutFile, OutPartner, Result
from pipeline.ledger.protocol import (
    Context,
    Seen,
    body_at,
    claim,
    commit,
    ended,
    law,
    readable,
    scratch,
)
from pipeline.ledger.state import ShipmentState, count, last_try, resting
from pipeline.records import ImageRef
from pipeline.settings import FeatureSet
from pipeline.stages.following import Computable
from pipeline.stages.opening import ORDINALS_PER_BATCH


@dataclass(frozen=True)
class AggregateTask:
    """One shipment whose every batch has its result under one fingerprint."""

    state: ShipmentState
    fingerprint: str
    """The first 12 hex."""
    number: int


@dataclass(frozen=True)
class Aggregated:
    """What one task did."""

    name: ShipmentName
    won: bool
    out: Out


def plan(seen: Seen, computable: Mapping[ShipmentName, Computable]) -> list[AggregateTask]:
    """Shipments to aggregate under our fingerprints, oldest name first."""
    tasks = []
    for state in sorted(seen.states, key=lambda s: s.name):
        if state.unreadable or state.plan is None or state.out is not None or state.given_up or state.end is None:
            continue
        if state.name not in computable:
            continue
        ours = computable[state.name].fingerprint[:12]
        if not {ours, ""} & state.complete:
            continue
        tries = state.tries.get(AGGREGATE, ())
        counted = count(tries, seen.alive)
        if not counted.live and not resting(tries, seen.now):
            tasks.append(AggregateTask(state, ours, counted.next_number))
    return tasks


@dataclass(frozen=True)
class Origin:
    """Where features come from.  engine, preprocessing: what ran the net and what it was fed, for people."""

    fingerprint: str
    """All 64 hex digits."""
    engine: str
    preprocessing: str


def perform(context: Context, feature_set: FeatureSet, origin: Origin, task: AggregateTask) -> Aggregated | None:
    """Merge one shipment's shards and commit `out`; None when somebody else is at it."""
    name = task.state.name
    if not _readable(context, task) or not claim(context, name, AGGREGATE, task.number):
        return None
    try:
        return _merge(context, feature_set, origin, task)
    except BaseException as error:
        ended(context, name, AGGREGATE, task.number, error)
        raise


def _readable(context: Context, task: AggregateTask) -> bool:
    """Whether each result can be read here; what cannot is said once, and nothing is merged until it can."""
    state, keys = task.state, context.keys
    assert state.end is not None
    for number in range(state.end.batches):
        context.safe_point()
        result = readable(context, keys.result(state.name, task.fingerprint, number), Result)
        if result is None:
            return False
        if result.kind == "held" and readable(context, keys.batch(state.name, number), Batch) is None:
            return False
    return True


def _merge(context: Context, feature_set: FeatureSet, origin: Origin, task: AggregateTask) -> Aggregated:
    state = task.state
    assert state.plan is not None
    assert state.end is not None
    name = state.name
    with scratch(context) as folder:
        inputs, dim, held = _inputs(context, state, task.fingerprint, folder)
        output = Output(
            folder / "out",
            dim=dim,
            version=name.version,
            fingerprint=origin.fingerprint,
            formats=feature_set.formats,
            numbers=feature_set.parquet_numbers,
            redact_queries=context.settings.logs.redact_queries,
            last_try=last_try(name),
        )
        merged = context.forms.merge(inputs, output)
        law(f"{name} end", state.end.refs, merged=merged.refs)
        law(
            f"{name} out",
            merged.refs,
            features=merged.features,
            failures=merged.failures,
            duplicates=merged.duplicates,
        )
        context.safe_point()
        body = _upload(context, name, output, merged, held, origin)
    won, stands = commit(context, context.keys.out(name), body)
    if not won:
        kept = {file.key for partner in stands.partners.values() for file in partner.files}
        ours = [file.key for partner in body.partners.values() for file in partner.files]
        for key in [*ours, *([body.carried.key] if body.carried else [])]:
            if key not in kept and (stands.carried is None or stands.carried.key != key):
                context.bucket.delete(key)
    if won and body.alike:
        context.say(_alike(name, body))
    return Aggregated(name, won, stands)


def _alike(name: ShipmentName, out: Out) -> str:
    ids = ", ".join(
        f"{sample_of(one)} and {sample_of(other)} of partner {partner}" for partner, one, other in out.alike_ids
    )
    return (
        f"Hathi makes no feature of its own for {counted(out.alike, 'ref')} of {name}: ids that differ only in letter "
        f"case or percent-coding are one item ({ids}). "
        'To keep such ids apart, set ids = "as_written" in the source; with --refs: --ids as_written'
    )


def _inputs(
    context: Context, state: ShipmentState, fingerprint: str, folder: Path
) -> tuple[list[MergeInput], int, int]:
    """The shards on the local disk, verified; refs of held batches in memory; the feature's length; held refs."""
    assert state.end is not None
    inputs: list[MergeInput] = []
    dim = held = 0
    (folder / "in").mkdir()
    for number in range(state.end.batches):
        context.safe_point()
        result = body_at(context, context.keys.result(state.name, fingerprint, number), Result)
        if result.kind == "held":
            refs = _refs(context, state.name, number)
            held += len(refs)
            inputs.append(MergeInput(batch=number, features=None, failures=None, held=tuple(refs)))
            continue
        dim = max(dim, result.dim)
        inputs.append(
            MergeInput(
                batch=number,
                features=_fetched(context, result.features_file, folder / "in" / f"{number}.features"),
                failures=_fetched(context, result.failures_file, folder / "in" / f"{number}.failures"),
            )
        )
    return inputs, dim, held


def _fetched(context: Context, file: DataFile | None, path: Path) -> Path | None:
    if file is None:
        return None
    download(context, file, path)
    return path


def _refs(context: Context, name: ShipmentName, number: int) -> list[ImageRef]:
    batch = body_at(context, context.keys.batch(name, number), Batch)
    return context.forms.decode(load_data(context, batch.data), number * ORDINALS_PER_BATCH)


def _upload(context: Context, name: ShipmentName, output: Output, merged: Merged, held: int, origin: Origin) -> Out:
    """The files, and the body that names them.  held: refs of held batches.  origin: of the features."""
    nonce = context.process.nonce()
    partners: dict[str, OutPartner] = {}
    for partner in merged.partners:
        files = []
        for file in partner.files:
            key = context.keys.shipment_data(name, nonce, f"{partner.partner_id}/{file.name}")
            context.bucket.put(key, file.path)
            files.append(OutFile(name=file.name, key=key, size=file.size, sha256=file.sha256, rows=file.rows))
        partners[str(partner.partner_id)] = OutPartner(
            files=tuple(files),
            features=partner.features,
            failures=partner.failures,
            not_modified=partner.not_modified,
            equal_bytes=partner.equal_bytes,
        )
    carried = None
    if merged.carried is not None and merged.carried_refs:
        key = context.keys.shipment_data(name, nonce, "carried.pb")
        context.bucket.put(key, merged.carried)
        with merged.carried.open("rb") as refs:
            sha256 = hashlib.file_digest(refs, "sha256").hexdigest()
        carried = DataFile(key=key, size=merged.carried.stat().st_size, sha256=sha256, rows=merged.carried_refs)
    now = context.bucket.list(context.keys.out(name)).now
    return Out(
        fingerprint=output.fingerprint,
        engine=origin.engine,
        preprocessing=origin.preprocessing,
        dim=output.dim,
        numbers=merged.numbers,
        at=version_of(now),
        partners=partners,
        refs=merged.refs,
        features=merged.features,
        failures=merged.failures,
        duplicates=merged.duplicates,
        alike=merged.alike,
        alike_ids=merged.alike_ids,
        held=held,
        damaged=merged.damaged,
        not_modified=merged.not_modified,
        equal_bytes=merged.equal_bytes,
        reasons=dict(sorted(merged.reasons.items())),
        carried=carried,
    )
