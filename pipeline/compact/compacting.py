"""What is to be compacted, and doing it for one partner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.compact.standing import Current, by_partner, delta, inputs_of, newest, table, tables
from pipeline.compact.writing import Table, write
from pipeline.errors import NotFound, TemporaryError
from pipeline.layout import MANIFEST, SUCCESS, Root, ShipmentName
from pipeline.manifest import CurrentManifest, IndexCurrent, IndexFile
from pipeline.runner import Context, law, scratch
from pipeline.settings import FeatureSet
from pipeline.stages import index
from pipeline.stages.snapshots import takes
from pipeline.stores.commit import rename_first


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


@dataclass(frozen=True)
class Compacted:
    """A table that this process wrote, or one that another wrote first."""

    current: Current
    won: bool
    rows_read: int


def plan(context: Context, only_partner: int | None = None) -> Iterator[Task]:
    """Partners of each set of a lake, in the order of their ids.  Costs a listing for each delivered shipment."""
    lake = context.lake
    assert lake is not None
    for name, one in sorted(context.settings.sets.items()):
        if not takes(one, context.lake_name):
            continue
        root = Root(one.root.strip("/"))
        named = index.read_index(lake, root).current
        for partner, names in sorted(by_partner(lake, root, only_partner, context.safe_point).items()):
            context.safe_point()
            current = newest(lake, root, partner)
            covered = set(current.body.covers) if current else set()
            fresh = tuple(shipment for shipment in names if str(shipment) not in covered)
            if fresh:
                # Behind the index's, too: were all tables lost, it would never name one of a lesser number.
                last = [current.body.number] if current else []
                last += [named[str(partner)].number] if str(partner) in named else []
                yield Task(name, root, partner, current, fresh, max(last, default=0) + 1)


def perform(context: Context, task: Task) -> Compacted | None:
    """Merge one partner's table and put it on the lake; None where nothing new holds a feature.

    Raises PermanentError or FormatError where it cannot be merged, TemporaryError where it is to be tried again.
    """
    lake = context.lake
    assert lake is not None
    try:
        bodies = {name: delta(lake, task.root, name, task.partner) for name in task.fresh}
        bodies = {name: body for name, body in bodies.items() if body.features}
        if not bodies:
            return None
        inputs = list(inputs_of(lake, task.root, task.partner, task.current, bodies))
        before = set(task.current.body.covers) if task.current else set()
        names = sorted(before | {str(name) for name in bodies})
        dim = bodies[max(bodies)].dim
        with scratch(context) as folder:
            feature_set = context.settings.sets[task.set]
            merged = write(folder / "table", inputs, names, task.partner, dim, feature_set.formats, _noted(context))
            return _put(context, task, folder / "table", merged, names, dim, sum(one.rows for one in inputs))
    except NotFound as error:
        raise TemporaryError(
            f"a folder of partner {task.partner} went away while it was merged", str(error), "looked at in the next run"
        ) from error


def point(context: Context, root: Root) -> None:
    """The index names each partner's current table; after a kill this makes good what was missed."""
    lake = context.lake
    assert lake is not None
    named = index.read_index(lake, root).current
    entries: dict[str, IndexCurrent] = {}
    for partner, known in tables(lake, root).items():
        if known and (str(partner) not in named or named[str(partner)].number < known[-1]):
            current = table(lake, root, partner, known[-1])
            entries |= {} if current is None else {str(partner): current.entry()}
    if entries:
        index.point(context, root, entries)


def roots_of(context: Context) -> Mapping[str, Root]:
    """The roots of a lake's sets, by set."""
    sets: dict[str, FeatureSet] = dict(sorted(context.settings.sets.items()))
    return {name: Root(one.root.strip("/")) for name, one in sets.items() if takes(one, context.lake_name)}


def _noted(context: Context):  # type: ignore[no-untyped-def]
    def note(rows: int) -> None:
        context.safe_point()
        context.progress("compact", rows, 0)

    return note


def _put(
    context: Context, task: Task, folder: Path, merged: Table, names: list[str], dim: int, rows_read: int
) -> Compacted:
    lake = context.lake
    assert lake is not None
    body = CurrentManifest(
        nonce=context.process.nonce(),
        partner_id=task.partner,
        set=task.set,
        number=task.number,
        dim=dim,
        features=merged.rows,
        fingerprints=merged.fingerprints,
        files=tuple(IndexFile(name=n, size=w.size, sha256=w.sha256, rows=w.rows) for n, w in merged.files),
        covers=tuple(names),
    )
    before = task.current.body.features if task.current else 0
    if merged.rows < before:
        law(f"the table of partner {task.partner}", before, rows=merged.rows)
    temporary = task.root.temporary_current(task.partner, context.process.nonce())
    try:
        for file in body.files:
            context.safe_point()
            lake.put(f"{temporary}/{file.name}", folder / file.name)
        lake.put(f"{temporary}/{MANIFEST}", body.encode())
        lake.put(f"{temporary}/{SUCCESS}", b"")
        for file in body.files:
            found = lake.stat(f"{temporary}/{file.name}")
            if found is None or found.length != file.size:
                raise TemporaryError(f"{temporary}/{file.name} is not whole", "its length differs", "it is put again")
        lake.make_folder(task.root.currents_of(task.partner))
        context.safe_point()
        rename_first(lake, temporary, task.root.current(task.partner, task.number))
    finally:
        lake.delete_folder(temporary)
    stands = table(lake, task.root, task.partner, task.number)
    if stands is None:
        where = task.root.current(task.partner, task.number)
        raise TemporaryError(f"no answer whether {where} was moved", "", "it is looked at again in the next run")
    return Compacted(stands, stands.body.nonce == body.nonce, rows_read)
