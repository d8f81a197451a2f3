"""ship: from what a lake's sources name to batches in the bucket (PROTOCOL 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from pipeline.codec.ref_tables import Cursor, Format, RefReader, Rejected, Taken, detect
from pipeline.errors import ConfigError, FormatError
from pipeline.layout import FIRST_DUE, ShipmentName
from pipeline.manifest import Batch, End, Place, Plan, Rejection
from pipeline.records import ImageRef
from pipeline.runner import Context, announce, body_at, close_if_done, commit, exists, law, store_data
from pipeline.settings import Columns, Ship
from pipeline.state import ShipmentState, next_of
from pipeline.stores.store import Lake

DAY = 86400.0
SAMPLES = 10
FORMATS: dict[str, Format] = {name: name for name in get_args(Format)}


@dataclass
class Caps:
    """What one run may still ship."""

    refs: int
    bytes: int
    files: int

    @staticmethod
    def of(settings: Ship) -> Caps:
        return Caps(settings.refs_per_run, settings.bytes_per_run, settings.files_per_run)

    @property
    def reached(self) -> bool:
        return self.refs <= 0 or self.bytes <= 0 or self.files <= 0


@dataclass(frozen=True)
class Shipped:
    """What one task did."""

    refs: int = 0
    rows: int = 0
    rejected: int = 0
    bytes: int = 0
    files: int = 0
    partners: frozenset[int] = field(default_factory=frozenset)
    ended: bool = False
    void: str = ""
    next: ShipmentName | None = None
    """The part that follows, planned."""


def unfinished(states: Iterable[ShipmentState]) -> list[ShipmentState]:
    """Shipments that ship has still to read from the source, oldest name first."""
    ours = [s for s in states if s.plan is not None and s.plan.kind in ("source", "again")]
    return sorted((s for s in ours if s.end is None), key=lambda s: s.name)


def follow(context: Context, state: ShipmentState) -> ShipmentName | None:
    """Plan the part after an ended one; its name when that was still to do."""
    if state.plan is None or state.end is None or state.end.next is None or state.end.void is not None:
        return None
    name = next_of(state.name, state.plan)
    if state.plan.kind == "backfill" or exists(context, context.keys.plan(name)):
        return None  # the box goes on with what it copies; what is planned is planned
    announce(context, name, state.plan.model_copy(update={"cursor": state.end.next, "due": FIRST_DUE}))
    return name


def perform(context: Context, state: ShipmentState, caps: Caps) -> Shipped:
    """Read one shipment's files on from its last committed batch, as far as the caps allow."""
    assert state.plan is not None
    lake = context.lake
    assert lake is not None
    why = _changed(lake, state.plan)
    if why == "gone":
        return _gone(context, state)
    if why:
        return _void(context, state, why)
    if exists(context, context.keys.gone_hint(state.name)):
        context.bucket.delete(context.keys.gone_hint(state.name))
    done = _resume(context, state)
    files = _Files(context, state.plan, done.place)
    shipped = Shipped()
    number = len(state.batches)
    try:
        while number < state.plan.batches and not caps.reached:
            context.safe_point()
            taken = files.take()
            if taken is None:
                break
            refs, rows, rejected, rejections, place = taken
            law(f"{state.name} batch {number}", rows, refs=len(refs), rejected=rejected)
            committed, ours = _commit_batch(context, state.name, number, refs, rows, rejected, rejections, place)
            if not ours:
                files.go_to(committed.cursor)
            done = done.plus(committed)
            number += 1
            caps.refs -= committed.refs
            caps.bytes -= committed.data.size
            shipped = replace(
                shipped,
                refs=shipped.refs + committed.refs,
                rows=shipped.rows + committed.rows,
                rejected=shipped.rejected + committed.rejected,
                bytes=shipped.bytes + committed.data.size,
                partners=shipped.partners | frozenset(ref.partner_id for ref in refs),
            )
            context.progress("ship", committed.refs, 0)
        if number < state.plan.batches and not files.ended:
            return shipped  # a cap; the next run goes on
        why = _changed(lake, state.plan)
        if why == "gone":
            return _gone(context, state)
        if why:
            return _void(context, state, why)
        end = done.end(number, files)
        law(f"{state.name} end", end.rows, refs=end.refs, rejected=end.rejected)
        _, end = commit(context, context.keys.end(state.name), end)
    finally:
        files.close()
    if end.rejected:
        context.say(f"{end.rejected} of {end.rows} rows rejected in {state.name}; the first of them:")
        for one in end.rejections:
            context.say(f"  {one.file} row {one.row + 1}: {one.why} {one.sample}".rstrip())
    caps.files -= len(state.plan.snapshot.files) if end.next is None else 0
    extra_rows = end.rows - done.rows
    return replace(
        shipped,
        rows=shipped.rows + extra_rows,
        rejected=shipped.rejected + extra_rows,
        files=len(state.plan.snapshot.files) if end.next is None else 0,
        ended=True,
        next=follow(context, replace(state, end=end)),
    )


@dataclass(frozen=True)
class _Sums:
    """What the committed batches of a shipment come to."""

    place: Place
    refs: int = 0
    rows: int = 0
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()

    def plus(self, batch: Batch) -> _Sums:
        return _Sums(
            batch.cursor,
            self.refs + batch.refs,
            self.rows + batch.rows,
            self.rejected + batch.rejected,
            (self.rejections + batch.rejections)[:SAMPLES],
        )

    def end(self, batches: int, files: _Files) -> End:
        """The rows behind the last batch were all rejected: they are counted here."""
        extra = files.waiting_rows
        return End(
            batches=batches,
            refs=self.refs,
            rows=self.rows + extra,
            rejected=self.rejected + extra,
            rejections=(self.rejections + files.waiting_rejections)[:SAMPLES],
            next=None if files.ended else files.place,
        )


def _resume(context: Context, state: ShipmentState) -> _Sums:
    assert state.plan is not None
    sums = _Sums(state.plan.cursor)
    for number in range(len(state.batches)):
        sums = sums.plus(body_at(context, context.keys.batch(state.name, number), Batch))
    return sums


def _commit_batch(
    context: Context,
    name: ShipmentName,
    number: int,
    refs: Sequence[ImageRef],
    rows: int,
    rejected: int,
    rejections: tuple[Rejection, ...],
    place: Place,
) -> tuple[Batch, bool]:
    """The data, then the batch that names it; the winner's batch, and whether it is ours."""
    key = context.keys.shipment_data(name, context.process.nonce(), f"{number:05d}.pb")
    data = store_data(context, key, context.forms.encode(refs), len(refs))
    body = Batch(data=data, refs=len(refs), rows=rows, rejected=rejected, rejections=rejections, cursor=place)
    won, stands = commit(context, context.keys.batch(name, number), body)
    if stands.data.key != key:
        context.bucket.delete(key)
    return stands, won


class _Files:
    """The frozen files of a plan, read on from a place."""

    def __init__(self, context: Context, plan: Plan, place: Place) -> None:
        assert context.lake is not None
        self._lake = context.lake
        self._open_refs = context.forms.open_refs
        self._plan = plan
        self._columns = Columns.model_validate(plan.reading.columns) if plan.reading.columns else Columns()
        self._reader: RefReader | None = None
        self.go_to(place)

    def go_to(self, place: Place) -> None:
        """Read on from here; what waited is forgotten."""
        self.close()
        self.place = place
        self.waiting_rows = 0
        self.waiting_rejections: tuple[Rejection, ...] = ()

    @property
    def ended(self) -> bool:
        return self.place.file >= len(self._plan.snapshot.files)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def take(self) -> tuple[list[ImageRef], int, int, tuple[Rejection, ...], Place] | None:
        """The refs of the next batch, with the rows and rejected rows since the last one; None at the end.

        A batch lies within one file.
        """
        while not self.ended:
            taken = self._from_this_file()
            self.waiting_rows += taken.rows
            self.waiting_rejections = (self.waiting_rejections + self._rejections(taken))[:SAMPLES]
            file = self.place.file
            self.place = Place(file=file, position=taken.cursor.position, row=taken.cursor.row)
            if taken.ended:
                self.close()
                self.place = Place(file=file + 1)
            if taken.refs:
                rows, rejections = self.waiting_rows, self.waiting_rejections
                self.waiting_rows, self.waiting_rejections = 0, ()
                return taken.refs, rows, rows - len(taken.refs), rejections, self.place
        return None

    def _from_this_file(self) -> Taken:
        at = Cursor(position=self.place.position, row=self.place.row)
        try:
            if self._reader is None:
                self._reader = self._open(at)
            return self._reader.take(self._plan.batch_refs, self._plan.batch_bytes)
        except FormatError as error:
            # The file cannot be read on: what is left of it counts as one rejected row, loudly.
            why = "; ".join(part for part in (error.message, error.detail, error.hint) if part)
            rest = Rejected(row=at.row, offset=at.position, why=why, sample="")
            return Taken(refs=[], rows=1, rejected=1, samples=(rest,), cursor=at, ended=True)

    def _open(self, at: Cursor) -> RefReader:
        path, reading = self._path, self._plan.reading
        try:
            form = detect(path) if reading.format == "auto" else FORMATS[reading.format]
        except (ConfigError, KeyError) as error:
            raise FormatError(f"no known format: {path}", str(error), "set the source's format") from error
        return self._open_refs(self._lake.open(path), path, form, self._columns, reading.partner_id, at)

    @property
    def _path(self) -> str:
        return self._plan.snapshot.files[self.place.file].path

    def _rejections(self, taken: Taken) -> tuple[Rejection, ...]:
        return tuple(
            Rejection(file=self._path, row=one.row, offset=one.offset, why=one.why, sample=one.sample)
            for one in taken.samples
        )


def _changed(lake: Lake, plan: Plan) -> str:
    """ "" while each frozen file is what the plan saw, "gone" when one is missing, else what changed."""
    for file in plan.snapshot.files:
        found = lake.stat(file.path)
        if found is None:
            return "gone"
        if (found.length, found.modified) != (file.length, file.modified) or (file.id and found.id != file.id):
            return f"{file.path} changed while it was shipped"
    return ""


def _gone(context: Context, state: ShipmentState) -> Shipped:
    """A frozen file is missing: wait for it, and after a day give up."""
    hint = context.keys.gone_hint(state.name)
    listing = context.bucket.list(hint, until=hint)
    since = next((entry.modified for entry in listing), None)
    if since is None:
        context.bucket.put(hint, b"")
        context.once(hint, f"a file of {state.name} is missing; waiting for it: {_missing(context, state)}")
        return Shipped()
    if listing.now - since < context.settings.ship.gone_seconds:
        return Shipped()
    return _void(context, state, f"a file has been missing too long: {_missing(context, state)}")


def _missing(context: Context, state: ShipmentState) -> str:
    assert state.plan is not None
    assert context.lake is not None
    return next((f.path for f in state.plan.snapshot.files if context.lake.stat(f.path) is None), "")


def _void(context: Context, state: ShipmentState, why: str) -> Shipped:
    body = End(batches=len(state.batches), refs=0, rows=0, rejected=0, void=why)
    _, stands = commit(context, context.keys.end(state.name), body)
    if stands.void is None:
        return Shipped(ended=True)
    context.say(f"{state.name} is void: {why}; what is there now is shipped as a new snapshot")
    assert state.plan is not None
    close_if_done(context, replace(state, end=stands), state.plan.due)
    return Shipped(void=why, ended=True)
