"""PREFIX_predictions.parquet: a row for each example of the last test, in the order of its batches."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.errors import FormatError
from pipeline.nets.caffe.writing import replacing

FORMAT = 1
TOP = 5
"""Classes that stand in a row, the likeliest first."""
_ABOUT = b"hathi"
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("predicted", pa.list_(pa.int32())),
        ("probability", pa.list_(pa.float32())),
        ("loss", pa.float32()),
        ("picture", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class About:
    """net: the name of the test net.  kind: what `probability` holds: "logit" or "probability": one; "score": none.

    left_out: examples of the test that have no row: those of an ignored label, and those beyond a million.
    why: why there are no rows; "" where there are.
    """

    iteration: int
    net: str
    classes: int = 0
    kind: str = ""
    left_out: int = 0
    why: str = ""


@dataclass(frozen=True)
class Predictions:
    """keys: of examples, "" where there is none.  labels: int32.  predicted: (rows, top) int32, the likeliest first.

    probability: float32 of those, their scores where there are none.  loss: float32, -ln of the label's probability,
    else how far its score is below the best.  pictures: PNGs of the most wrong ones, by row.
    """

    about: About
    keys: list[str]
    labels: NDArray[np.int32]
    predicted: NDArray[np.int32]
    probability: NDArray[np.float32]
    loss: NDArray[np.float32]
    pictures: dict[int, bytes]


def name_of(test: int) -> str:
    """What the file of a test net is called, by the number of the net."""
    return f"predictions{test or ''}.parquet"


def write(path: Path, found: Predictions) -> None:
    """Puts the file at `path`, whole or not at all.  Raises OSError."""
    rows, top = found.predicted.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * top)
    table = pa.table(
        [
            pa.array([key.encode("utf-8", "backslashreplace").decode() for key in found.keys], pa.string()),
            pa.array(found.labels),
            pa.ListArray.from_arrays(offsets, pa.array(found.predicted.ravel())),
            pa.ListArray.from_arrays(offsets, pa.array(found.probability.ravel())),
            pa.array(found.loss),
            pa.array([found.pictures.get(row) for row in range(rows)], pa.binary()),
        ],
        schema=_SCHEMA,
    )
    about = {"format": FORMAT, **{name: getattr(found.about, name) for name in About.__slots__}}
    with replacing(path) as file:
        pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), file, compression="zstd")


def read(content: bytes, where: str) -> Predictions:
    """The predictions that a file holds.  Raises FormatError, which names `where`, for what is none of ours."""
    try:
        table = pq.read_table(io.BytesIO(content), use_threads=False)
        about = _about(table.schema.metadata or {})
        if table.schema.remove_metadata() != _SCHEMA:
            raise ValueError("it has other columns")
        rows = table.num_rows
        top = min(TOP, about.classes)
        predicted = _matrix(table.column("predicted"), rows, top)
        labels = table.column("label").to_numpy().astype(np.int32)
        for classes in (labels, predicted):
            if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) < about.classes:
                raise ValueError(f"it has a class that is not one of {about.classes}")
        pictures = {row: one for row, one in enumerate(table.column("picture").to_pylist()) if one is not None}
        return Predictions(
            about, table.column("key").to_pylist(), labels, predicted.astype(np.int32),
            _matrix(table.column("probability"), rows, top).astype(np.float32),
            table.column("loss").to_numpy().astype(np.float32), pictures,
        )  # fmt: skip
    except ARROW_ERRORS as error:
        raise _damaged(where, damage_of(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, str(error)) from error


def _damaged(where: str, says: str) -> FormatError:
    return FormatError(f"{where} holds no predictions", says, "the next test of the training writes it anew")


def _about(metadata: dict[bytes, bytes]) -> About:
    body = json.loads(metadata[_ABOUT])
    if body.pop("format") != FORMAT:
        raise ValueError("another Hathi wrote it")
    about = About(**body)
    if not all(isinstance(one, int) for one in (about.iteration, about.classes, about.left_out)):
        raise ValueError("a number of it is none")
    return about


def _matrix(column: pa.ChunkedArray, rows: int, top: int) -> NDArray[np.generic]:
    values: NDArray[np.generic] = column.combine_chunks().flatten().to_numpy()
    if values.size != rows * top:
        raise ValueError("it has another number of classes than of rows")
    return values.reshape(rows, top)
