"""The result of a batch: images that are kept, the shard's files, THE result that names them (docs/protocol.md 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.codec.hashed_file import Written
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix
from pipeline.extraction.window import Computed
from pipeline.ledger.layout import ArchivedBatch
from pipeline.ledger.manifest import AttemptEnd, DataFile, Result
from pipeline.ledger.protocol import Context, commit, give_up, law, scratch
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.stages import archiving
from pipeline.stages.opening import BatchTask, Begun
from pipeline.stages.remembering import Reuse


@dataclass(frozen=True)
class Published:
    """What became of one batch."""

    task: BatchTask
    kind: str
    """shard, held, lost (somebody else's result stands), strike, or damaged."""
    counts: RowCounts = NO_ROWS
    reasons: Mapping[str, int] | None = None
    bytes: int = 0


def publish(context: Context, engine: str, computed: Computed[BatchTask], begun: Begun) -> Published:
    """The images that are kept, the shard's files, then THE result that names them."""
    task, refs = computed.task, begun.refs
    archived = ArchivedBatch(task.name, task.batch)
    if computed.trouble:
        end = AttemptEnd(kind="strike", cause=computed.trouble)
        archiving.keep(context, archived, begun.pack)  # whatever the net does, the images were fetched
        give_up(context, task.name, task.task, task.number, end)
        context.say(f"Batch {task.batch} of {task.name} failed (one strike): {computed.trouble}; Hathi tries it again")
        return Published(task, "strike", RowCounts(refs=refs))
    counts = RowCounts(
        refs=refs,
        features=len(computed.rows),
        failures=len(computed.failures),
        damaged=sum(bool(row.damage) for row in computed.rows),
        not_modified=sum(row.reused == "not_modified" for row in computed.rows),
        equal_bytes=sum(row.reused == "equal_bytes" for row in computed.rows),
        from_archive=begun.images.served if begun.images is not None else 0,
    )
    law(f"{task.name} batch {task.batch}", refs, features=counts.features, failures=counts.failures)
    counts = replace(counts, archived=archiving.keep(context, archived, begun.pack))
    nonce = context.process.nonce()
    features = _put_features(context, task, nonce, computed.rows, computed.matrix)
    failures = _put_failures(context, task, nonce, computed.failures)
    body = Result(
        kind="shard",
        refs=counts.refs,
        features=counts.features,
        failures=counts.failures,
        damaged=counts.damaged,
        not_modified=counts.not_modified,
        equal_bytes=counts.equal_bytes,
        archived=counts.archived,
        from_archive=counts.from_archive,
        features_file=features,
        failures_file=failures,
        dim=int(computed.matrix.shape[1]),
        fingerprint=task.fingerprint,
        engine=engine,
        process=context.process.name,
        attempt=task.number,
        fetched_bytes=computed.fetched_bytes,
        seconds=round(computed.seconds, 3),
    )
    won, stands = commit(context, context.keys.result(task.name, task.fingerprint, task.batch), body)
    named = {file.key for file in (stands.features_file, stands.failures_file) if file is not None}
    for file in (features, failures):
        if file is not None and file.key not in named:
            context.bucket.delete(file.key)
    reasons: dict[str, int] = {}
    for row in computed.failures:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    kind = "shard" if won else "lost"
    return Published(task, kind, counts, reasons, computed.fetched_bytes)


def remember(context: Context, reuse: Reuse, computed: Computed[BatchTask]) -> None:
    """The features of a result that stands and is ours."""
    task = computed.task
    key = context.keys.result(task.name, task.fingerprint, task.batch)
    reuse.committed(key, task.name, task.batch, computed.rows, computed.matrix)


def _put_features(
    context: Context, task: BatchTask, nonce: str, rows: Sequence[FeatureRow], matrix: Matrix
) -> DataFile | None:
    if not rows:
        return None
    return _put(context, task, nonce, "features", lambda path: context.forms.write_features(path, rows, matrix))


def _put_failures(context: Context, task: BatchTask, nonce: str, rows: Sequence[FailureRow]) -> DataFile | None:
    if not rows:
        return None
    return _put(context, task, nonce, "failures", lambda path: context.forms.write_failures(path, rows))


def _put(context: Context, task: BatchTask, nonce: str, what: str, write: Callable[[Path], Written]) -> DataFile:
    key = context.keys.shipment_data(task.name, nonce, f"{task.batch:05d}.{what}.parquet")
    with scratch(context) as folder:
        path = folder / what
        written = write(path)
        context.bucket.put(key, path)
    return DataFile(key=key, size=written.size, sha256=written.sha256, rows=written.rows)
