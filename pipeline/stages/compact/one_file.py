"""All features of a folder as one plain file, for programs that read nothing else: .parquet, or .npy and ids beside.

x.parquet: the columns of `hathi.read_features`, one row for each item.  x.npy: float32 (items, values); x.ids.parquet
holds the other columns, row for row.  Each file appears whole, and never an x.npy beside the ids of another one.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.errors import ConfigError, FormatError
from pipeline.process.host import start_of
from pipeline.stores.local import typed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ENDINGS = (".npy", ".parquet")
FEATURES = "features"
_ROWS = 4096
_HEADER = {"descr": "<f4", "fortran_order": False}


def checked(path: Path) -> Path:
    """A place for such a file.  Raises ConfigError for another ending, and where there is no folder for it."""
    if path.suffix not in ENDINGS:
        raise ConfigError(f"--out {path}: this form is not known", "", f"end the name with {' or '.join(ENDINGS)}")
    if path.is_dir() or not path.resolve().parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"there is no folder {path.resolve().parent}"
        raise ConfigError(f"--out {path}: no file can be written there", what, "name a file in a folder that exists")
    return path


def ids_beside(path: Path) -> Path:
    """Where the ids of an .npy are."""
    return path.with_suffix(".ids.parquet")


def write(features: pa.RecordBatchReader, path: Path) -> int:
    """Write them all, and say how many there are.  Memory: one batch.  Raises as a local store does (a full disk)."""
    try:
        return _write_npy(features, path) if path.suffix == ".npy" else _write_parquet(features, path)
    except OSError as error:
        raise typed(error, path) from error


def _write_parquet(features: pa.RecordBatchReader, path: Path) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with on_its_way(path) as temporary:
        with pq.ParquetWriter(temporary, features.schema) as writer:
            for batch in features:
                writer.write_batch(batch)
                rows += batch.num_rows
        os.replace(temporary, path)
    return rows


def _write_npy(features: pa.RecordBatchReader, path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = features.schema.get_field_index(FEATURES)
    if place < 0:
        from pipeline.codec.delivered.blocks import images_not_features

        raise images_not_features(f"what is to be written to {path}")
    dim = features.schema.field(place).type.list_size
    ids, rows = ids_beside(path), 0
    with ExitStack() as held:
        matrix, others = held.enter_context(on_its_way(path)), held.enter_context(on_its_way(ids))
        with open(matrix, "wb") as file, pq.ParquetWriter(others, features.schema.remove(place)) as writer:
            _begin(file, (0, dim))
            begins = file.tell()
            for batch in features:
                file.write(_values(batch.column(place)))
                writer.write_batch(pa.RecordBatch.from_arrays(
                    [batch.column(at) for at in range(batch.num_columns) if at != place],
                    schema=features.schema.remove(place),
                ))  # fmt: skip
                rows += batch.num_rows
            file.seek(0)
            _begin(file, (rows, dim))
            assert file.tell() == begins, "NumPy leaves room for any number of rows"
        _put_both(path, matrix, others)
    return rows


def _put_both(path: Path, matrix: Path, ids: Path) -> None:
    path.unlink(missing_ok=True)  # a kill between the two leaves ids alone, and not ids of other features
    os.replace(ids, ids_beside(path))
    os.replace(matrix, path)


def matrix_without(path: Path, ids: Path, gone: NDArray[np.bool_]) -> None:
    """Put an .npy without some rows, and its ids, in their places.  ids: those that stay, written already.

    gone: bool, a row each.  Raises FormatError where the file has another number of rows.
    """
    import numpy as np

    if not path.exists():  # whoever wrote it was killed between the two
        os.replace(ids, ids_beside(path))
        return
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2 or len(values) != len(gone):
        what = f"it has the shape {values.shape}, and its ids are {len(gone)}"
        raise FormatError(f"{path} does not fit its ids", what, "delete both: the next run with --out makes them anew")
    with on_its_way(path) as matrix:
        with open(matrix, "wb") as file:
            _begin(file, (int((~gone).sum()), values.shape[1]))
            for first in range(0, len(values), _ROWS):
                some = slice(first, first + _ROWS)
                file.write(np.ascontiguousarray(values[some][~gone[some]]).tobytes())
        _put_both(path, matrix, ids)


def at_work(path: Path) -> bool:
    """Whether a process of this host writes such a file; what a killed one left of it goes."""
    busy = False
    for one in (path, ids_beside(path)):
        for left in one.parent.glob(f".{glob.escape(one.name)}.*"):
            number = left.name.rpartition(".")[2]
            if number.isdecimal() and int(number) != os.getpid() and start_of(int(number)):
                busy = True
            elif number.isdecimal():
                left.unlink(missing_ok=True)
    return busy


def _begin(file: IO[bytes], shape: tuple[int, int]) -> None:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {**_HEADER, "shape": shape})


def _values(column: Any) -> bytes:
    import numpy as np

    values: bytes = column.flatten().to_numpy(zero_copy_only=False).astype(np.dtype("<f4"), copy=False).tobytes()
    return values


@contextmanager
def on_its_way(path: Path) -> Iterator[Path]:
    """A name beside it that nobody else uses; nothing is left there, whatever ends the writing but a kill."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
