"""All features of a folder as one plain file, for programs that read nothing else: .parquet, or .npy and ids beside.

x.parquet: the columns of `hathi.read_features`, one row for each item.  x.npy: float32 (items, values); x.ids.parquet
holds the other columns, row for row.  Each file appears whole, and never an x.npy beside the ids of another one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.stores.local import typed

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".npy", ".parquet")
FEATURES = "features"
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
    with _on_its_way(path) as temporary:
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
        matrix, others = held.enter_context(_on_its_way(path)), held.enter_context(_on_its_way(ids))
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
        path.unlink(missing_ok=True)  # a kill between the two leaves ids alone, and not ids of other features
        os.replace(others, ids)
        os.replace(matrix, path)
    return rows


def _begin(file: IO[bytes], shape: tuple[int, int]) -> None:
    import numpy as np

    np.lib.format.write_array_header_1_0(file, {**_HEADER, "shape": shape})


def _values(column: Any) -> bytes:
    import numpy as np

    values: bytes = column.flatten().to_numpy(zero_copy_only=False).astype(np.dtype("<f4"), copy=False).tobytes()
    return values


@contextmanager
def _on_its_way(path: Path) -> Iterator[Path]:
    """A name beside it that nobody else uses; nothing is left there, whatever ends the writing but a kill."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
