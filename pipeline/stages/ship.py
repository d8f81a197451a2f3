"""ship: from what a lake's sources name to batches in the bucket (PROTOCOL 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import get_args

from pipeline.codec.ref_tables import Cursor, Format, RefReader, Rejected, Taken, detect
from pipeline.errors import ConfigError, FormatError
from pipeline.layout import FIRST_DUE, MAX_ROUND, ShipmentName, seconds_of
from pipeline.manifest import Batch, End, Place, Plan, Rejection
from pipeline.records import ImageRef
from pipeline.runner import Context, announce, body_at, close_if_done, commit, exists, law, readable, store_data
from pipeline.settings import Columns, FeatureSet, Ship
from pipeline.stages.sources import Found
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
class New:
    """A snapshot that no shipment covers yet, for one set."""

    name: ShipmentName
    plan: Plan
    group: str


@dataclass(frozen=True)
class Refused:
    """A snapshot that is not shipped, and why."""

    source: str
    why: str
    for_good: tuple[str, str] | None = None
    """The snapshot's digest and the set, where time changes nothing about it."""


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


def part_zero(found: Found, feature_set: str, lake: str, round_: int) -> ShipmentName:
    """The name of a snapshot's first shipment in a round."""
    snapshot = found.snapshot
    return ShipmentName.of(lake, snapshot.digest(), feature_set, snapshot.version, round_, 0, 0)


def rounds(names: Iterable[ShipmentName], version: str) -> int:
    """1 + the greatest round that a version has; 0 where it has none."""
    return max((1 + name.round for name in names if name.version == version), default=0)


@dataclass(frozen=True)
class Known:
    """Part-0 first tries of some versions."""

    names: frozenset[ShipmentName]
    gone: frozenset[ShipmentName] = frozenset()
    """Those that are void because their file was gone: should it come back as it was, it is shipped again."""
    plans: Mapping[ShipmentName, Plan] = field(default_factory=dict)


def covered(found: Found, feature_set: str, lake: str, known: Known) -> bool:
    """Whether a part-0 plan of this snapshot is there, in any round of its version."""
    last = rounds(known.names, found.snapshot.version)
    return any(part_zero(found, feature_set, lake, r) in known.names - known.gone for r in range(last))


def plan(
    found: Sequence[Found],
    sets: Mapping[str, FeatureSet],
    lake: str,
    known: Known,
    settings: Ship,
    now: float,
    due_open: int,
) -> tuple[list[New], list[Refused]]:
    """What to ship anew: most lagging group first, one of each group in turn.

    known: of the versions in question and later ones.  now: the store's time.  due_open: open shipments.
    """
    new: list[New] = []
    refused: list[Refused] = []
    for one in found:
        version = one.snapshot.version
        if seconds_of(version) > now + DAY:
            refused.append(Refused(one.snapshot.source, f"its version {version} lies more than a day in the future"))
            continue
        for set_name in sorted(sets):
            if not takes(sets[set_name], lake) or covered(one, set_name, lake, known):
                continue
            newest = _newest(one.snapshot.source, set_name, known.plans)
            if newest > version:
                why = f"its version went back from {newest} to {version}; touch its files to ship it again"
                refused.append(Refused(one.snapshot.source, why, (one.snapshot.digest(), set_name)))
                continue
            round_ = rounds(known.names, version) if newest == version else 0
            if round_ > MAX_ROUND:
                refused.append(Refused(one.snapshot.source, f"version {version} has no rounds left"))
                continue
            new.append(_new(one, set_name, lake, round_, settings))
    room = max(0, settings.open_shipments - due_open)
    return _in_turn(new)[:room], refused


def takes(feature_set: FeatureSet, lake: str) -> bool:
    """Whether a set serves a lake."""
    return feature_set.lakes is None or lake in feature_set.lakes


def _newest(source: str, set_name: str, plans: Mapping[ShipmentName, Plan]) -> str:
    versions = (n.version for n, p in plans.items() if p.snapshot.source == source and p.set == set_name)
    return max(versions, default="")


def _new(found: Found, set_name: str, lake: str, round_: int, settings: Ship) -> New:
    name = part_zero(found, set_name, lake, round_)
    first, second, third = settings.retry_delays
    body = Plan(
        lake=lake,
        set=set_name,
        snapshot=found.snapshot,
        snapshot_digest=found.snapshot.digest(),
        reading=found.reading,
        batch_refs=settings.batch_refs,
        batch_bytes=settings.batch_bytes,
        batches=settings.batches_per_shipment,
        due=FIRST_DUE,
        retry_delays=(first, second, third),
    )
    return New(name, body, found.group)


def _in_turn(new: Sequence[New]) -> list[New]:
    """Groups by the age of what they wait with, one shipment of each in turn."""
    groups: dict[str, list[New]] = {}
    for one in sorted(new, key=lambda n: (n.name.version, n.group, str(n.name))):
        groups.setdefault(one.group, []).append(one)
    return [one for turn in zip_longest(*groups.values()) for one in turn if one is not None]


def begin(context: Context, new: New) -> None:
    """The hint and the plan; whoever wrote the plan first, its files, N and cursor count."""
    announce(context, new.name, new.plan)


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
        first = end.rejections[0] if end.rejections else None
        what = f", first: {first.file} row {first.row}: {first.why}" if first else ""
        context.say(f"{end.rejected} of {end.rows} rows rejected in {state.name}{what}")
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
            why = f"{error.message}: {error.detail}" if error.detail else error.message
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


class Shipper:
    """One lake's ship stage over many runs: remembers which snapshots it has seen to be covered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._covered: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], Refused] = {}
        self._after = ""

    def known(self, version: str) -> Known:
        """Part-0 first tries from a version on, without their plans."""
        context = self._context
        prefix = context.keys.commits
        found = set()
        for entry in context.bucket.list(prefix, after=prefix + version, folders=True):
            try:
                name = ShipmentName.parse(entry.key.removeprefix(prefix).rstrip("/"))
            except ValueError:
                context.once(entry.key, f"not ours, left alone: {entry.key}")
                continue
            if name.part == 0 and name.generation == 0:
                found.add(name)
        gone = set()
        for entry in context.bucket.list(context.keys.gone_hints):
            try:
                name = ShipmentName.parse(entry.key.removeprefix(context.keys.gone_hints))
            except ValueError:
                continue
            end = readable(context, context.keys.end(name), End) if name in found else None
            if end is not None and end.void is not None:
                gone.add(name)
        return Known(frozenset(found), frozenset(gone))

    def fresh(self, found: Sequence[Found], now: float, due_open: int) -> tuple[list[New], list[Refused]]:
        """What the sources name and no shipment covers; what is refused for good is not looked into again."""
        pairs = [(one.snapshot.digest(), set_name) for one in found for set_name in self._context.settings.sets]
        before = [self._refused[pair] for pair in pairs if pair in self._refused]
        new, refused = self._fresh(found, now, due_open)
        for one in refused:
            if one.for_good is not None:
                self._refused[one.for_good] = one
                self._covered.add(one.for_good)
        return new, before + [one for one in refused if one not in before]

    def _fresh(self, found: Sequence[Found], now: float, due_open: int) -> tuple[list[New], list[Refused]]:
        context = self._context
        sets = context.settings.sets
        lake = context.lake_name
        wanted = [
            one
            for one in found
            if any((one.snapshot.digest(), s) not in self._covered for s in sets if takes(sets[s], lake))
        ]
        if not wanted:
            return [], []
        known = self.known(min(one.snapshot.version for one in wanted))
        left = []
        for one in wanted:
            missing = False
            for set_name in sets:
                if covered(one, set_name, lake, known):
                    self._covered.add((one.snapshot.digest(), set_name))
                elif takes(sets[set_name], lake):
                    missing = True
            if missing:
                left.append(one)
        if not left:
            return [], []
        oldest = min(one.snapshot.version for one in left)
        plans = {}
        for name in known.names:
            if name.version >= oldest:
                body = readable(context, context.keys.plan(name), Plan)
                if body is not None:
                    plans[name] = body
        return plan(left, sets, lake, replace(known, plans=plans), context.settings.ship, now, due_open)
