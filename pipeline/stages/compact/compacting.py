"""What is to be compacted, and doing it for one partner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from pipeline.amounts import counted
from pipeline.codec.delivered.forms import tables as delivered_tables
from pipeline.errors import FormatError, NotFound, PermanentError, PipelineError, TemporaryError
from pipeline.ledger.deliveries import CurrentManifest, IndexCurrent, IndexFile, PartnerManifest
from pipeline.ledger.forgetting import done_requests
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.ledger.protocol import Context, law, scratch
from pipeline.settings import FeatureSet
from pipeline.stages import index
from pipeline.stages.compact.merging import CANNOT, Target, Unmergeable
from pipeline.stages.compact.nets import InUse, Stand, net_in_use, stand_of, stands_of, to_keep
from pipeline.stages.compact.standing import Current, by_partner, delta, inputs_of, newest, table, tables
from pipeline.stages.compact.writing import Table, write
from pipeline.stages.snapshots import takes
from pipeline.stages.whole_folder import move_whole


@dataclass(frozen=True)
class Task:
    """A partner with deliveries that its current table does not cover."""

    set: str
    root: Root
    partner: int
    current: Current | None
    fresh: tuple[ShipmentName, ...]
    number: int
    """Of the table to be written."""
    net: Callable[[], InUse]
    """That of the root; looked up once for all partners, and only where nets meet."""


@dataclass(frozen=True)
class Trouble:
    """What could not be compacted: a root, a partner, or some of a partner's shipments; the rest goes on."""

    what: str
    error: PipelineError


@dataclass(frozen=True)
class Compacted:
    """A table that this process wrote, or one that another wrote first."""

    current: Current
    won: bool
    rows_read: int


def plan(context: Context, only_partner: int | None = None) -> Iterator[Task | Trouble]:
    """Partners of each set of a lake, in the order of their ids.  Costs a listing for each delivered shipment."""
    lake = context.lake
    assert lake is not None
    for name, one in sorted(context.settings.sets.items()):
        if not takes(one, context.lake_name):
            continue
        root = Root(one.folder)
        try:
            named = index.read_index(lake, root).current
        except FormatError as error:  # which number a table may have is not known
            yield Trouble(f"index of {name}", error)
            continue
        net = cache(partial(net_in_use, lake, root, context.safe_point))
        for partner, names in sorted(by_partner(lake, root, only_partner, context.safe_point).items()):
            context.safe_point()
            try:
                current = newest(lake, root, partner)
            except PermanentError as error:
                yield Trouble(f"partner {partner} of {name}", error)
                continue
            covered = set(current.body.covers) if current else set()
            fresh = tuple(shipment for shipment in names if str(shipment) not in covered)
            if fresh:
                # Behind the index's, too: were all tables lost, it would never name one of a lesser number.
                last = [current.body.number] if current else []
                last += [named[str(partner)].number] if str(partner) in named else []
                yield Task(name, root, partner, current, fresh, max(last, default=0) + 1, net)


def perform(context: Context, task: Task, troubles: list[Trouble] | None = None) -> Compacted | None:
    """Merge one partner's table and put it on the lake; None where nothing new holds a feature that can be merged.

    A shipment that cannot be merged is left out, and is fresh again in the next run; the others are merged.  troubles:
    gets one for all that are left out for the same reason.  Raises PermanentError where the table itself cannot be
    read, TemporaryError where it is to be tried again.
    """
    lake = context.lake
    assert lake is not None
    forgotten = done_requests(context)
    bodies, left_out = _usable(context, task)
    done: Compacted | None = None
    while bodies:
        names = sorted({*(task.current.body.covers if task.current else ()), *map(str, bodies)})
        inputs = list(inputs_of(lake, task.root, task.partner, task.current, bodies))
        target = Target(task.partner, names, _dim(task, bodies))
        with scratch(context) as folder:
            formats = context.settings.sets[task.set].formats
            try:
                merged = write(folder / "table", inputs, target, formats, _noted(context))
            except Unmergeable as error:
                if error.shipment is None:
                    raise
                name = ShipmentName.parse(error.shipment)
                left_out[name] = error
                del bodies[name]
                continue
            body = _body(context, task, merged, target, bodies)
            rows = sum(one.rows for one in inputs)
            done = _put(context, task, folder / "table", body, lambda: _still(context, task, forgotten), rows)
        break
    if troubles is not None:
        troubles.extend(_told(task, left_out))
    return done


def _usable(
    context: Context, task: Task
) -> tuple[dict[ShipmentName, PartnerManifest], dict[ShipmentName, PipelineError]]:
    """What the fresh folders that hold features say of themselves; and those that cannot be merged, with the reason."""
    lake = context.lake
    assert lake is not None
    bodies: dict[ShipmentName, PartnerManifest] = {}
    left_out: dict[ShipmentName, PipelineError] = {}
    for name in task.fresh:
        context.safe_point()
        folder = task.root.partner(name, task.partner)
        try:
            body = delta(lake, task.root, name, task.partner)
            if (body.shipment, body.partner_id) != (str(name), task.partner):
                raise FormatError(f"{folder} has the manifest of {body.shipment}/{body.partner_id}", "", "hathi verify")
            files = delivered_tables(body.files)
            if body.features and not files:
                what, hint = f"{folder} has no Parquet files", "it stays as it is: only Parquet can be merged"
                raise PermanentError(what, "it was delivered as text alone", hint)
            law(folder, body.features, rows=sum(file.rows for file in files))
        except NotFound as error:
            if lake.stat(folder) is not None:
                left_out[name] = error  # else it was pruned meanwhile
        except PermanentError as error:
            left_out[name] = error
        else:
            if body.features:
                bodies[name] = body
    for name in _ahead(task, bodies):
        del bodies[name]
    dim = _dim(task, bodies)
    for name, body in list(bodies.items()):
        if body.dim != dim:
            folder = task.root.partner(name, task.partner)
            what = f"the vectors of {folder} have {body.dim} values, and those of the table have {dim}"
            hint = "two nets share this root: give the new set a root of its own, or move the old table away"
            left_out[name] = FormatError(CANNOT, what, hint)
            del bodies[name]
    return bodies, left_out


def _ahead(task: Task, bodies: Mapping[ShipmentName, PartnerManifest]) -> list[ShipmentName]:
    """Shipments of a net that readers do not take yet: they stay folders until they do, and the table has one net's
    features until then.  So do those of a net before that came since.
    """
    known = task.current.body.fingerprints.keys() if task.current is not None else set()
    if len({*known, *(body.fingerprint for body in bodies.values())}) < 2:
        return []
    net = task.net()
    return [
        name
        for name, body in bodies.items()
        if body.fingerprint != net.fingerprint
        and (body.fingerprint not in net.before or stand_of(name, body).turn > net.before[body.fingerprint])
    ]


def _dim(task: Task, bodies: Mapping[ShipmentName, PartnerManifest]) -> int:
    """The table's, once there is one: nothing that it holds is lost; else that of the newest shipment."""
    if task.current is not None:
        return task.current.body.dim
    return bodies[max(bodies)].dim if bodies else 0


def _told(task: Task, left_out: Mapping[ShipmentName, PipelineError]) -> Iterator[Trouble]:
    """The newest shipment of each kind of trouble tells of all of them."""
    kinds: dict[tuple[type[PipelineError], str, str], list[ShipmentName]] = {}
    for name in sorted(left_out):
        error = left_out[name]
        kinds.setdefault((type(error), error.message if error.message == CANNOT else "", error.hint), []).append(name)
    for names in kinds.values():
        what = f"the merged table of partner {task.partner} of {task.set} lacks {counted(len(names), 'shipment')}"
        yield Trouble(what, left_out[names[-1]])


def point(context: Context, root: Root) -> None:
    """The index names each partner's current table; after a kill this makes good what was missed."""
    lake = context.lake
    assert lake is not None
    named = index.read_index(lake, root).current
    entries: dict[str, IndexCurrent] = {}
    troubles: list[PipelineError] = []
    for partner, known in tables(lake, root).items():
        if known and (str(partner) not in named or named[str(partner)].number < known[-1]):
            try:
                current = table(lake, root, partner, known[-1])
            except PermanentError as error:
                troubles.append(error)
                continue
            entries |= {} if current is None else {str(partner): current.entry()}
    if entries:
        index.point(context, root, entries)
    if troubles:  # the others are named by now
        raise troubles[0]


def roots_of(context: Context) -> Mapping[str, Root]:
    """The roots of a lake's sets, by set."""
    sets: dict[str, FeatureSet] = dict(sorted(context.settings.sets.items()))
    return {name: Root(one.folder) for name, one in sets.items() if takes(one, context.lake_name)}


def _noted(context: Context):  # type: ignore[no-untyped-def]
    def note(rows: int) -> None:
        context.safe_point()
        context.progress("compact", rows, 0)

    return note


def _still(context: Context, task: Task, forgotten: frozenset[int]) -> None:
    """Raises TemporaryError where somebody was forgotten since: the table may have the rows."""
    if done_requests(context) != forgotten:
        what = f"the table of partner {task.partner} of {task.set} was not written"
        raise TemporaryError(what, "an item was forgotten while it was merged", "the next run merges it anew")


def _body(
    context: Context, task: Task, merged: Table, target: Target, bodies: Mapping[ShipmentName, PartnerManifest]
) -> CurrentManifest:
    """What the table says of itself.  Raises LawBroken where it has fewer rows than the one before."""
    before = task.current.body.features if task.current else 0
    if merged.rows < before:
        law(f"the table of partner {task.partner}", before, rows=merged.rows)
    return CurrentManifest(
        nonce=context.process.nonce(),
        partner_id=task.partner,
        set=task.set,
        number=task.number,
        dim=target.dim,
        numbers=merged.numbers,
        features=merged.rows,
        fingerprints=merged.fingerprints,
        files=tuple(IndexFile(name=n, size=w.size, sha256=w.sha256, rows=w.rows) for n, w in merged.files),
        covers=tuple(target.names),
        sources=to_keep([*_covered(context, task), *(stand_of(name, body) for name, body in bodies.items())]),
    )


def _covered(context: Context, task: Task) -> Iterator[Stand]:
    """What the table before covers."""
    if (current := task.current) is None:
        return
    lake, covers = context.lake, frozenset(current.body.covers)
    assert lake is not None
    old = not current.body.sources  # of an older Hathi: the folders that stand say more
    folders = by_partner(lake, task.root, task.partner, context.safe_point) if old else {}
    names = [name for name in folders.get(task.partner, ()) if str(name) in covers]
    yield from stands_of(lake, task.root, {task.partner: names}, {task.partner: current})


def _put(
    context: Context, task: Task, folder: Path, body: CurrentManifest, still: Callable[[], None], rows_read: int
) -> Compacted:
    """still: raises where the table is not to be put in its place; asked once all of it is on the lake."""
    lake = context.lake
    assert lake is not None
    temporary = task.root.temporary_current(task.partner, context.process.nonce())
    try:
        for file in body.files:
            context.safe_point()
            lake.put(f"{temporary}/{file.name}", folder / file.name)
        context.safe_point()
        still()
        move_whole(lake, temporary, task.root.current(task.partner, task.number), body)
    finally:
        lake.delete_folder(temporary)
    stands = table(lake, task.root, task.partner, task.number)
    if stands is None:
        where = task.root.current(task.partner, task.number)
        raise TemporaryError(f"the lake did not say whether {where} was moved", "", "the next run looks again")
    return Compacted(stands, stands.body.nonce == body.nonce, rows_read)
