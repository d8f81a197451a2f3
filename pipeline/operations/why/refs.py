"""The refs of an item in one shipment's batches, what was tried, and what became of each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.codec.shards import FailureRow, FeatureRow, Shard
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.data import Damaged, download, load_data
from pipeline.ledger.layout import Task, version_of
from pipeline.ledger.manifest import Batch, DataFile, Place, Plan, Result
from pipeline.ledger.protocol import Context, readable, scratch
from pipeline.ledger.state import ShipmentState
from pipeline.ledger.state import Try as Made
from pipeline.operations.why.story import Outcome, Question, Ref, Try
from pipeline.records import ImageRef
from pipeline.stages.opening import ORDINALS_PER_BATCH


class Refs:
    """Looks through one shipment; what it could not read is in `notes`."""

    def __init__(self, context: Context, state: ShipmentState, alive: frozenset[str]) -> None:
        self._context = context
        self._state = state
        self._alive = alive
        self.pruned = 0
        """Batches whose refs are not in the bucket any more."""
        self.notes: list[str] = []

    def of(self, question: Question) -> tuple[Ref, ...]:
        """Every ref of the item, in the order of the source.  Memory: one batch."""
        context, name = self._context, self._state.name
        assert self._state.plan is not None
        found: list[Ref] = []
        before = self._state.plan.cursor
        for number in sorted(self._state.batches):
            context.safe_point()
            batch = readable(context, context.keys.batch(name, number), Batch)
            if batch is None:
                self.notes.append(f"batch {number} cannot be read: run `hathi verify`")
                continue
            refs = [ref for ref in self._content(number, batch) if _is(ref, question)]
            found += [self._ref(self._state.plan, number, batch, before, ref) for ref in refs]
            before = batch.cursor
        return tuple(found)

    def all(self) -> Iterator[ImageRef]:
        """Every ref of the shipment, batch by batch."""
        for number in sorted(self._state.batches):
            batch = readable(self._context, self._context.keys.batch(self._state.name, number), Batch)
            if batch is not None:
                yield from self._content(number, batch)

    def _content(self, number: int, batch: Batch) -> list[ImageRef]:
        try:
            return self._context.forms.decode(load_data(self._context, batch.data), number * ORDINALS_PER_BATCH)
        except NotFound:
            self.pruned += 1
        except (Damaged, FormatError) as error:
            self.notes.append(f"the refs of batch {number} are damaged: {error.message}")
        return []

    def _ref(self, plan: Plan, number: int, batch: Batch, before: Place, ref: ImageRef) -> Ref:
        key = self._context.keys.batch(self._state.name, number)
        shipped = next((one.modified for one in self._context.bucket.list(key, until=key)), 0.0)
        file, first, last = "", -1, -1
        if plan.kind in ("source", "again", "backfill"):
            file, first, last = _rows(plan, before, batch)
        tries, outcome = self._work(number, ref)
        return Ref(
            batch=number,
            ordinal=ref.ordinal,
            file=file,
            first_row=first,
            last_row=last,
            shipped=version_of(shipped),
            url=ref.url,
            inline_bytes=len(ref.content),
            external_id=ref.external_id,
            item_id=ref.item_id,
            tries=tries,
            outcome=outcome,
        )

    def _work(self, number: int, ref: ImageRef) -> tuple[tuple[Try, ...], Outcome]:
        """The attempts, and the result: that of the fingerprint that serves the shipment, else of any."""
        state = self._state
        tried = sorted({task.path[:12] for task in state.tries if task.path.endswith(f"/t/{number:05d}")})
        have = [f for f, numbers in state.results.items() if number in numbers]
        chosen = state.out.fingerprint[:12] if state.out is not None else ""
        fingerprint = chosen if chosen in have else next(iter(have), "")
        result = None
        if fingerprint:
            result = readable(self._context, self._context.keys.result(state.name, fingerprint, number), Result)
        tries = [
            _try(made, result, self._alive) for one in tried for made in state.tries[Task(f"{one}/t/{number:05d}")]
        ]
        return tuple(tries), self._outcome(result, ref)

    def _outcome(self, result: Result | None, ref: ImageRef) -> Outcome:
        if result is None:
            return Outcome("", item_id=ref.item_id)
        if result.kind == "held":
            return Outcome("held", item_id=ref.item_id, reason="held", detail=result.reason)
        for kind, file in (("feature", result.features_file), ("failure", result.failures_file)):
            row = self._row(file, ref.ordinal, result.dim) if file is not None else None
            if isinstance(row, FeatureRow):
                return Outcome(
                    kind,
                    row.url,
                    row.external_id,
                    row.item_id,
                    detail=row.damage or "",
                    fetched_at=row.fetched_at.strftime("%Y-%m-%d %H:%M:%S"),
                    content_sha256=row.content_sha256.hex(),
                    reused=row.reused or "",
                )
            if isinstance(row, FailureRow):
                return Outcome(
                    kind, row.url, row.external_id, row.item_id, row.reason, row.retriable, row.detail
                )  # fmt: skip
        return Outcome("", item_id=ref.item_id)

    def _row(self, file: DataFile, ordinal: int, dim: int) -> FeatureRow | FailureRow | None:
        """The row of a shard; one row group of it in memory."""
        try:
            with scratch(self._context) as folder:
                path = folder / "shard"
                download(self._context, file, path)
                return _row_in(path, ordinal, dim)
        except NotFound:
            self.notes.append("prune deleted its shard: the outcome comes from the delivered files")
        except (Damaged, FormatError) as error:
            self.notes.append(f"its shard is damaged: {error.message}")
        return None


def _row_in(path: Path, ordinal: int, dim: int) -> FeatureRow | FailureRow | None:
    shard = Shard(path)
    places: list[int] = (shard.keys().ordinal == ordinal).nonzero()[0].tolist()
    if not places:
        return None
    group = bisect_right(shard.starts, places[0]) - 1
    at = places[0] - int(shard.starts[group])
    return shard.features(group, dim)[0][at] if shard.holds_features else shard.failures(group)[at]


def _is(ref: ImageRef, question: Question) -> bool:
    return ref.partner_id == question.partner and ref.item_id in question.items


def _rows(plan: Plan, before: Place, batch: Batch) -> tuple[str, int, int]:
    """The file of a batch and its rows there: a batch lies within one file, and ends where its cursor is."""
    at = batch.cursor
    within = at.row > 0 or at.position > 0
    number = at.file if within else at.file - 1
    files = plan.snapshot.files
    path = files[number].path if 0 <= number < len(files) else ""
    return path, before.row if before.file == number else 0, at.row - 1 if within else -1


def _try(made: Made, result: Result | None, alive: frozenset[str]) -> Try:
    ended = ""
    if made.end is not None:
        ended = f"{made.end.kind}: {made.end.cause}" if made.end.cause else made.end.kind
    elif result is None or result.kind == "held" or (result.attempt, result.process) != (made.number, made.process):
        ended = "runs" if made.process in alive and result is None else "ended without a result (killed or crashed)"
    return Try(made.number, made.process, made.alone, ended)


def winners(refs: tuple[Ref, ...]) -> tuple[Ref, ...]:
    """The refs, with the one that wins: docs/protocol.md 6, as the merge decides it."""

    def rank(ref: Ref) -> tuple[bool, bool, int]:
        return ref.outcome.kind == "feature", ref.outcome.retriable, ref.ordinal

    best = {ref.item_id: ref for ref in sorted(refs, key=rank)}
    return tuple(replace(ref, wins=best[ref.item_id] is ref) for ref in refs)
