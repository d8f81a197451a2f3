"""What commands made of a root's deliveries: columns that are kept beside the features of an own list, data sets and
what was exported of them, files of `--out`, indexes of `hathi similar`.  Records on the lake say where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.parquet import SHIPMENT
from pipeline.errors import FormatError, NotFound, PermanentError, TemporaryError
from pipeline.ledger.layout import Root, ShipmentName
from pipeline.ledger.made import Record, made_of
from pipeline.ledger.protocol import scratch
from pipeline.operations.forget.whose import Pass
from pipeline.process.folder_lock import folder_lock
from pipeline.process.host import host_name
from pipeline.process.lock import Held, locked
from pipeline.stores.local import typed
from pipeline.stores.store import Lake

KEEPING = "keep"
"""The program whose lock whoever writes the kept columns of an own list has."""
INDEX = "index"
SIMILAR = "similar"
"""Where `hathi similar --approximate` keeps its indexes, in the state folder."""

Goes = Callable[[NDArray[np.int64], NDArray[np.uint64]], NDArray[np.bool_]]


def made(one: Pass, lake: Lake, root: Root) -> None:
    """All of one root.  Costs the ids of each data set and file of this host."""
    with _waits(one, root.kept):
        _kept(one, lake, root)
    with _waits(one, root.mades):
        for record in made_of(lake, root):
            one.context.safe_point()
            with _waits(one, record.key):
                _record(one, lake, record)


def indexes(one: Pass) -> None:
    """They hold vectors, and are made anew when somebody asks; those of other hosts go when they do the same."""
    folder = Path(one.context.settings.state) / SIMILAR
    if not folder.is_dir():
        return
    with folder_lock(folder) as mine:
        if not mine:
            one.waiting[str(folder)] = f"an index is being built in {folder}"
            return
        for path in sorted(folder.iterdir()):
            path.unlink(missing_ok=True)
            one.removed[INDEX] += 1


@contextmanager
def _waits(one: Pass, where: str) -> Iterator[None]:
    """What cannot be read keeps the request open, and nothing else."""
    try:
        yield
    except (PermanentError, TemporaryError) as error:
        one.waiting[where] = f"{error.message}: {error.detail}" + (f" ({error.hint})" if error.hint else "")


def _goes(one: Pass) -> Goes:
    wanted = None if one.items is None else np.array(sorted(one.items), np.uint64)

    def goes(partners: NDArray[np.int64], items: NDArray[np.uint64]) -> NDArray[np.bool_]:
        mine = partners == one.partner
        return np.asarray(mine if wanted is None else mine & np.isin(items, wanted), np.bool_)

    return goes


def _kept(one: Pass, lake: Lake, root: Root) -> None:
    """The columns beside the features of an own list, and what a killed run left of making them."""
    if lake.stat(root.own) is None:
        return
    try:
        with locked(Path(one.context.settings.state), KEEPING):
            for entry in list(lake.list(f"{root.own}/keep-", folders=True)):
                lake.delete_folder(entry.key.rstrip("/"))
            _kept_table(one, lake, root)
    except Held:
        one.waiting[root.kept] = f"{root.kept} is being written"


def _kept_table(one: Pass, lake: Lake, root: Root) -> None:
    goes, new = _goes(one), dict[str, bool]()

    def rows(table: pa.Table) -> NDArray[np.bool_]:
        gone = goes(*_ids(table))
        for at in np.flatnonzero(gone).tolist():
            name = table[SHIPMENT][at].as_py()
            if name not in new:
                new[name] = one.is_new(ShipmentName.parse(name))
            gone[at] = not new[name]
        return gone

    with scratch(one.context) as local:
        try:
            with lake.open(root.kept) as stream:
                number = _table_without(root.kept, stream, local / "kept", rows)
        except NotFound:
            return
        if number:
            lake.put(root.kept, local / "kept")
            one.removed["row"] += number


def _ids(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    return table["partner_id"].to_numpy(), table["item_id"].to_numpy().view(np.uint64)


def _table_without(name: str, source: object, target: Path, goes: Callable[[pa.Table], NDArray[np.bool_]]) -> int:
    """Write a table without the rows that go; how many did.  Where none does there is no target."""
    try:
        file = pq.ParquetFile(source)
        keys = [key for key in ("partner_id", "item_id", SHIPMENT) if key in file.schema_arrow.names]
        groups = range(file.num_row_groups)
        gone = [goes(file.read_row_group(group, columns=keys, use_threads=False)) for group in groups]
        number = sum(int(some.sum()) for some in gone)
        if number:
            with pq.ParquetWriter(target, file.schema_arrow) as writer:
                for group in groups:
                    rows = file.read_row_group(group, use_threads=False).filter(pa.array(~gone[group]))
                    if len(rows):
                        writer.write_table(rows)
        return number
    except (*ARROW_ERRORS, KeyError) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else damage_of(error)
        raise FormatError(f"{name} cannot be read", what, "delete it, or bring it back") from error


def _record(one: Pass, lake: Lake, record: Record) -> None:
    """What lies on this host is looked at; another host says that it has done so."""
    body, digest = record.body, one.request.digest
    if body.host != host_name():
        if digest not in body.without:
            what = "data set" if body.kind == "dataset" else "file"
            one.waiting[record.key] = (
                f"{body.host} has a {what} that may hold it, {body.path}: `hathi forget` there goes on with it; "
                f"where it is gone for good, delete {record.key}"
            )
        return
    before = len(one.waiting)
    stands = _dataset(one, Path(body.path)) if body.kind == "dataset" else _file(one, Path(body.path))
    if len(one.waiting) > before:
        return
    if not stands:
        lake.delete(record.key)
        what = "a data set" if body.kind == "dataset" else "a file"
        one.notes.append(
            f"{what} was made at {body.path}, and nothing is there any more: what was moved is yours to clear"
        )
    elif digest not in body.without:
        lake.put(record.key, body.model_copy(update={"without": (*body.without, digest)}).encode())


def _dataset(one: Pass, path: Path) -> bool:
    """Whether it is still there."""
    from pipeline.training.dataset.forgetting import without  # what reads datasets takes its time to import

    went = without(path, _goes(one))
    if went.examples:
        one.removed["example"] += went.examples
    if went.waiting:
        one.waiting[str(path)] = "; ".join(went.waiting)
    return path.is_dir() or bool(went.waiting)


def _file(one: Pass, path: Path) -> bool:
    """Whether it is still there: x.parquet, or x.npy with its ids."""
    from pipeline.stages.compact import one_file

    goes = _goes(one)
    try:
        if one_file.at_work(path):
            one.waiting[str(path)] = f"{path} is being written"
            return True
        ids = one_file.ids_beside(path) if path.suffix == ".npy" else path
        if not ids.is_file():
            return path.exists()
        masks: list[NDArray[np.bool_]] = []

        def rows(table: pa.Table) -> NDArray[np.bool_]:
            masks.append(goes(*_ids(table)))
            return masks[-1]

        with one_file.on_its_way(ids) as anew:
            number = _table_without(str(ids), str(ids), anew, rows)
            if number and ids is not path:
                one_file.matrix_without(path, anew, np.concatenate(masks))
            elif number:
                anew.replace(ids)
    except OSError as error:
        raise typed(error, path) from error
    if number:
        one.removed["row"] += number
    return True
